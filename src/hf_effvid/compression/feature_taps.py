"""The last feature map of a video model, whatever the model calls it: (B, C, T, H, W), with its gradient.

Networks answer with maps, sequences of tokens in one order or another, or batches of frames. A `FeatureSpec` says where in a model the
last of them is and how to read it; `feature_spec` knows it for the families below, and for any other network its user does.
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..host_loading import is_adapter


# axes of what a tap takes. L tokens run through the grid with the place running fastest ("BLC") or with time ("BLC_time_fastest")
LAYOUTS = ("BCTHW", "BTCHW", "BTHWC", "BLC", "BLC_time_fastest")


class FeatureError(ValueError):
    """There is no feature map where a specification looks for one; the message says what was there."""


@dataclass(frozen=True)
class FeatureSpec:
    """Where the last feature map of a model is, and how to read it.

    Attributes:
        path: Name of the module whose output is taken, as in `model.named_modules()`; of an output with fields
            `last_hidden_state`, of a tuple the first part.
        layout: Its axes, one of `LAYOUTS`.
        grid: (T, H, W) sites that its tokens run through; None: as many cells as fit into the clip.
        num_prefix_tokens: Tokens before those of the grid, such as a class token.
        cell: (frames, pixels, pixels) of the clip per token.
        channels: C of the map, where it is known beforehand.
    """

    path: str
    layout: str = "BCTHW"
    grid: tuple[int, int, int] | None = None
    num_prefix_tokens: int = 0
    cell: tuple[int, int, int] | None = None
    channels: int | None = None

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"FeatureSpec.layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")
        if self.layout.startswith("BLC") and self.grid is None and self.cell is None:
            raise ValueError(
                "FeatureSpec needs the grid of a sequence of tokens: grid=(T, H, W), or the cell of a token."
            )

    def to_map(self, features, clip_shape=None):
        """The tapped tensor as (B, C, T, H, W).

        Args:
            features: In `layout`.
            clip_shape: (T, H, W) of the clip, for a grid that follows it.

        Raises:
            FeatureError: Another rank, or another number of tokens than the grid has.
        """
        rank = 3 if self.layout.startswith("BLC") else 5
        if features.ndim != rank:
            raise FeatureError(f"{self.path} gives {tuple(features.shape)}, which is not of layout {self.layout}.")
        if self.layout == "BCTHW":
            return features
        if self.layout == "BTCHW":
            return features.transpose(1, 2)
        if self.layout == "BTHWC":
            return features.permute(0, 4, 1, 2, 3)
        tokens = features[:, self.num_prefix_tokens :]
        frames, height, width = self._grid_of(tokens.shape[1], clip_shape)
        if self.layout == "BLC":
            return tokens.transpose(1, 2).unflatten(2, (frames, height, width))
        return tokens.unflatten(1, (height, width, frames)).permute(0, 4, 3, 1, 2)

    def _grid_of(self, num_tokens, clip_shape):
        grids = [self.grid] if self.grid is not None else []
        if not grids and clip_shape is not None:
            shares = [side / step for side, step in zip(clip_shape, self.cell, strict=True)]
            # networks leave out what does not fill a cell, or pad it
            grids = [tuple(max(1, math.floor(share)) for share in shares), tuple(math.ceil(share) for share in shares)]
        fitting = [grid for grid in grids if math.prod(grid) == num_tokens]
        if not fitting:
            raise FeatureError(
                f"{self.path} gives {num_tokens} tokens, expected those of a grid {' or '.join(map(str, dict.fromkeys(grids))) or '?'}."
                " A model that drops tokens has no feature map (keep_ratio=1.0 gives one); for another grid pass "
                "FeatureSpec(grid=(T, H, W))."
            )
        return fitting[0]


class RecordedFeatures:
    """What `record_features` has seen of the last forward pass."""

    def __init__(self, spec):
        self.spec = spec
        self._map = self._clip_shape = None

    @property
    def map(self):
        """(B, C, T, H, W), not detached.

        Raises:
            FeatureError: The model has not run, or not through the tapped module.
        """
        if self._map is None:
            raise FeatureError(f"Nothing went through {self.spec.path}: run the model inside record_features first.")
        return self._map

    def _see_clip(self, module, arguments, options):
        clip = next((value for value in (*arguments, *options.values()) if _is_clip(value)), None)
        self._clip_shape = None if clip is None else (clip.shape[1], *clip.shape[3:])

    def _take(self, module, arguments, output):
        features = getattr(output, "last_hidden_state", output)
        if isinstance(features, (tuple, list)):
            features = features[0]
        if not torch.is_tensor(features):
            raise FeatureError(f"{self.spec.path} gives {type(features).__name__}, not a tensor.")
        self._map = self.spec.to_map(features, self._clip_shape)


def _is_clip(value):
    return torch.is_tensor(value) and value.ndim == 5


@contextmanager
def record_features(model, spec=None):
    """While this is open, every forward pass of a model leaves its last feature map behind.

    Args:
        model: A video classifier of transformers, or any module with a `spec`.
        spec: A `FeatureSpec`; None: `feature_spec(model)`.

    Yields:
        A `RecordedFeatures`: its `map` is that of the last forward pass.

    Raises:
        FeatureError: The model has no such module, or it is of no known family.

    Example:
        >>> with record_features(student) as recorded:
        ...     logits = student(pixel_values).logits
        >>> loss = loss_of(recorded.map)
    """
    spec = feature_spec(model) if spec is None else spec
    inner = _unwrapped(model)
    try:
        module = inner.get_submodule(spec.path)
    except AttributeError as error:
        raise FeatureError(f"{type(model).__name__} has no module {spec.path!r}.") from error
    recorded = RecordedFeatures(spec)
    handles = [
        inner.register_forward_pre_hook(recorded._see_clip, with_kwargs=True),
        module.register_forward_hook(recorded._take),
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def pooled(features):
    """Embedding (B, C) of a clip: the mean of its map (B, C, T, H, W)."""
    return features.mean(dim=(2, 3, 4))


# ---- families --------------------------------------------------------------------------------------------------------------


def feature_spec(model):
    """Where the last feature map of a video classifier is.

    Args:
        model: A classifier of ours, of torchvision through `torchvision_video`, or a VideoMAE, TimeSformer, ViViT or V-JEPA 2 of
            transformers, with LITE or without; also inside a PEFT adapter.

    Raises:
        FeatureError: Another family: write a `FeatureSpec`.
    """
    model = _unwrapped(model)
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if model_type not in _FAMILIES:
        raise FeatureError(
            f"Nothing is known about the feature maps of {model_type or type(model).__name__}; known are "
            f"{', '.join(_FAMILIES)}. Pass FeatureSpec(path=..., layout=...) with the module whose output is the map."
        )
    return _FAMILIES[model_type](model, config)


def feature_channels(model, spec=None):
    """C of the last feature map, without running the model.

    Args:
        model: See `feature_spec`.
        spec: A `FeatureSpec`; None: `feature_spec(model)`.

    Raises:
        FeatureError: The specification does not say.
    """
    spec = feature_spec(model) if spec is None else spec
    if spec.channels is None:
        raise FeatureError(
            f"FeatureSpec(path={spec.path!r}) does not say how many channels the map has: set channels."
        )
    return spec.channels


def _unwrapped(model):
    return model.get_base_model() if is_adapter(model) else model


def _own_map(model, config):
    return FeatureSpec(model.base_model_prefix, channels=config.hidden_size)


def _tsm(model, config):
    # config.hidden_size is what the classifier reads, which some networks make from the map by another layer
    return FeatureSpec("tsm", channels=model.tsm.timm_model.num_features)


def _video_focalnet(model, config):
    side = config.patch_size * 2 ** (len(config.depths) - 1)
    return FeatureSpec("video_focalnet", "BLC", cell=(config.tubelet_size, side, side), channels=config.hidden_size)


def _tubelet_tokens(path, layout="BLC", num_prefix_tokens=0):
    def spec(model, config):
        tubelet = getattr(config, "tubelet_size", 1)
        # ViViT has one list for time and place
        frames = tubelet[0] if isinstance(tubelet, (list, tuple)) else tubelet
        height, width = tubelet[1:] if isinstance(tubelet, (list, tuple)) else _pair(config.patch_size)
        return FeatureSpec(
            path,
            layout,
            num_prefix_tokens=num_prefix_tokens,
            cell=(frames, height, width),
            channels=config.hidden_size,
        )

    return spec


def _pair(size):
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


_HOSTS = {
    "videomae": _tubelet_tokens("videomae"),
    "timesformer": _tubelet_tokens("timesformer", "BLC_time_fastest", num_prefix_tokens=1),
    "vivit": _tubelet_tokens("vivit", num_prefix_tokens=1),
    "vjepa2": _tubelet_tokens("vjepa2"),
}
_FAMILIES = {
    "tsm": _tsm,
    "x3d": _own_map,
    "movinet": _own_map,
    "torchvision_video": _own_map,
    "video_focalnet": _video_focalnet,
    **_HOSTS,
    **{f"lite_{model_type}": spec for model_type, spec in _HOSTS.items()},
}
