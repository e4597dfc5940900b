# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of Video-FocalNet (https://huggingface.co/papers/2307.06947)."""

import copy
from typing import Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from .layers import linear_drop_path_rates


# The three released sizes. All of them have 2 focal levels, windows of 3, one token per frame and none of the options.
PRESETS = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "drop_path_rate": 0.2},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "drop_path_rate": 0.3},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "drop_path_rate": 0.5},
}


def _at_least_one(value):
    if value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _rate(value):
    if not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _positive(value):
    if not value > 0:
        raise ValueError(f"expected a number above 0, got {value}")


def _depths(value):
    if len(value) == 0 or any(depth < 0 for depth in value):
        raise ValueError(f"expected at least one stage and no negative number of blocks, got {list(value)}")


def _block_numbers(value):
    if value is not None and (list(value) != sorted(set(value)) or any(number < 0 for number in value)):
        raise ValueError(f"expected different numbers of blocks from 0 on, ascending, got {list(value)}")


def _levels(value):
    if any(level < 0 for level in value):
        raise ValueError(f"expected 0 or more focal levels per stage, got {list(value)}")


def _windows(value):
    if any(window < 1 or window % 2 == 0 for window in value):
        raise ValueError(
            f"expected odd windows (an even one has no centre and would change the size), got {list(value)}"
        )


def _image_size(value):
    if any(size < 1 for size in (value if isinstance(value, (list, tuple)) else [value])):
        raise ValueError(f"expected a size in pixels or (height, width), got {value}")


@strict
class VideoFocalNetConfig(BackboneConfigMixin, PreTrainedConfig):
    """Architecture of a Video-FocalNet.

    The defaults are those of the released `tiny` model. `num_frames` and `image_size` only record what the model was
    trained with (processors and pipelines sample accordingly): the weights take any number of frames and any size.

    Args:
        num_frames: Frames per clip that the checkpoint was trained with.
        image_size: Height and width in pixels that it was trained with; one number for a square.
        tubelet_size: Frames merged into one step in time by the embedding. Left-over frames at the end are not used.
        patch_size: Side in pixels of the patches of the embedding.
        num_channels: Channels of a frame.
        embed_dim: Channels of the first stage; every further stage doubles them.
        depths: Blocks per stage.
        kept_blocks: Written when blocks are dropped: the numbers that the blocks had over all stages of the original model, whose
            rates of stochastic depth they keep. A stage that lost all of its blocks still downsamples.
        original_depths: Blocks per stage of the original model, together with `kept_blocks`.
        focal_levels: Focal levels per stage; 0 leaves the global context alone.
        focal_windows: Kernel size of the first focal level per stage (odd); each further level adds 2. The same in
            space and in time.
        temporal_encoding: `"parallel"` is the paper's: a temporal branch beside the spatial one, on the same tokens. The others
            are for ablations. `"none"` leaves time out: such a model sees every frame alone and cannot know their order.
            `"sequential"`: the temporal branch reads what the spatial modulation made of the tokens. `"joint"`: one branch
            with 3-D convolutions. Equations in `focal_designs.py`.
        modulator_fusion: How the two modulators of `"parallel"` meet the query: `"product"` is the paper's; `"sum"` adds them,
            `"learned"` mixes them with a linear layer.
        mlp_ratio: Width of the MLP over the channels of the block.
        hidden_dropout_prob: Dropout after the embedding, in the modulation and in the MLP.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first. Drawn per frame.
        use_conv_embed: Overlapping convolutions (7x7 stride 4, then 3x3 stride 2) instead of patches.
        patch_norm: A LayerNorm after the embedding. Those after the downsampling are always there.
        use_layerscale: Learned scale per channel on each residual branch.
        layerscale_value: What that scale starts from. 1e-4 is the published value, .1 suits small models from scratch.
        use_postln: LayerNorm after the modulation and the MLP instead of before.
        use_postln_in_modulation: LayerNorm on the modulated query, before the output projection.
        normalize_modulator: Divides the gathered context by the number of levels plus one.
        initialization: `"published"` draws linear layers from a truncated normal of `initializer_range` and leaves
            convolutions at PyTorch's default, as the paper's code does; the output is then almost blind to time until
            trained, which a small model from scratch does not recover from. `"fan_in"` draws every weight from a
            normal of variance 1 / fan-in.
        initializer_range: Standard deviation for `initialization="published"`.
        layer_norm_eps: Epsilon of every LayerNorm.
        output_modulators: Return modulators and gates of every block by default.
        out_features, out_indices: Stages that the backbone returns, among `stem`, `stage1`, ...

    Example:
        >>> from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
        >>> config = VideoFocalNetConfig.from_preset("tiny", num_labels=10)
        >>> model = VideoFocalNetForVideoClassification(config)
    """

    model_type = "video_focalnet"

    num_frames: int = validated_field(_at_least_one, default=8)
    image_size: int | list[int] | tuple[int, ...] = validated_field(_image_size, default=224)
    tubelet_size: int = validated_field(_at_least_one, default=1)
    patch_size: int = validated_field(_at_least_one, default=4)
    num_channels: int = validated_field(_at_least_one, default=3)
    embed_dim: int = validated_field(_at_least_one, default=96)
    depths: list[int] | tuple[int, ...] = validated_field(_depths, default=(2, 2, 6, 2))
    kept_blocks: list[int] | tuple[int, ...] | None = validated_field(_block_numbers, default=None)
    original_depths: list[int] | tuple[int, ...] | None = None
    focal_levels: list[int] | tuple[int, ...] = validated_field(_levels, default=(2, 2, 2, 2))
    focal_windows: list[int] | tuple[int, ...] = validated_field(_windows, default=(3, 3, 3, 3))
    temporal_encoding: Literal["parallel", "none", "sequential", "joint"] = "parallel"
    modulator_fusion: Literal["product", "sum", "learned"] = "product"
    mlp_ratio: float | int = validated_field(_positive, default=4.0)
    hidden_dropout_prob: float | int = validated_field(_rate, default=0.0)
    drop_path_rate: float | int = validated_field(_rate, default=0.2)
    use_conv_embed: bool = False
    patch_norm: bool = True
    use_layerscale: bool = False
    layerscale_value: float | int = 1e-4
    use_postln: bool = False
    use_postln_in_modulation: bool = False
    normalize_modulator: bool = False
    initialization: Literal["published", "fan_in"] = "published"
    initializer_range: float | int = validated_field(_positive, default=0.02)
    layer_norm_eps: float | int = validated_field(_positive, default=1e-5)
    output_modulators: bool = False
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, preset, **overrides):
        """Builds the configuration of a released size.

        Args:
            preset: `"tiny"`, `"small"` or `"base"`.
            **overrides: Fields to set on top, such as `num_labels` or `num_frames`.

        Raises:
            ValueError: The preset does not exist.
        """
        if preset not in PRESETS:
            raise ValueError(f"VideoFocalNetConfig.from_preset expects one of {', '.join(PRESETS)}, got {preset!r}.")
        return cls(**{**copy.deepcopy(PRESETS[preset]), **overrides})

    @property
    def hidden_sizes(self):
        """Channels of every stage."""
        return [self.embed_dim * 2**stage for stage in range(len(self.depths))]

    @property
    def hidden_size(self):
        """Channels of the last stage, which the classifier reads."""
        return self.hidden_sizes[-1]

    @property
    def num_hidden_layers(self):
        """Blocks over all stages."""
        return sum(self.depths)

    @property
    def drop_path_rates(self):
        """Rate of stochastic depth of every block; a dropped one takes its rate along."""
        depths = self.depths if self.original_depths is None else self.original_depths
        rates = linear_drop_path_rates(self.drop_path_rate, sum(depths))
        return rates if self.kept_blocks is None else [rates[number] for number in self.kept_blocks]

    def validate_architecture(self):
        """Checks what no field can know alone; the model calls it again, since fields may be set after construction.

        Raises:
            ValueError: The fields contradict each other.
        """
        self._validate_depths()
        for name in ("focal_levels", "focal_windows"):
            given = getattr(self, name)
            if len(given) != len(self.depths):
                raise ValueError(
                    f"VideoFocalNetConfig.{name} needs one number per stage: depths={list(self.depths)} has "
                    f"{len(self.depths)} stages, got {name}={list(given)}."
                )
        if len(self.stage_names) != len(self.depths) + 1:
            raise ValueError(
                f"VideoFocalNetConfig.depths={list(self.depths)} does not fit stage_names={self.stage_names}: depths was "
                "changed after construction. Make a new configuration with these depths."
            )
        if self.modulator_fusion != "product" and self.temporal_encoding != "parallel":
            raise ValueError(
                f"VideoFocalNetConfig.modulator_fusion={self.modulator_fusion!r} combines the two modulators of "
                f'temporal_encoding="parallel", got temporal_encoding={self.temporal_encoding!r}. Leave modulator_fusion="product".'
            )
        if self.use_conv_embed and self.tubelet_size > 1:
            raise ValueError(
                f"VideoFocalNetConfig.use_conv_embed works on single frames, got tubelet_size={self.tubelet_size}. "
                "Set tubelet_size=1 or use_conv_embed=False."
            )
        if self.use_conv_embed and self.patch_size != 4:
            raise ValueError(
                f"VideoFocalNetConfig.use_conv_embed has a fixed stride of 4, got patch_size={self.patch_size}. "
                "Leave patch_size=4 or set use_conv_embed=False."
            )

    def _validate_depths(self):
        if (self.kept_blocks is None) != (self.original_depths is None):
            raise ValueError(
                f"VideoFocalNetConfig.kept_blocks={self.kept_blocks} and original_depths={self.original_depths} are given together, when "
                "blocks were dropped."
            )
        if self.kept_blocks is None:
            if 0 in self.depths:
                raise ValueError(
                    f"VideoFocalNetConfig.depths={list(self.depths)} needs at least one block in each stage; only dropped blocks "
                    "(kept_blocks) leave a stage without."
                )
            return
        ends = [sum(self.original_depths[: stage + 1]) for stage in range(len(self.original_depths))]
        left = [
            sum(end - depth <= number < end for number in self.kept_blocks)
            for end, depth in zip(ends, self.original_depths, strict=True)
        ]
        if left != list(self.depths) or len(self.kept_blocks) != sum(left):
            raise ValueError(
                f"VideoFocalNetConfig.kept_blocks={list(self.kept_blocks)} of original_depths={list(self.original_depths)} leave depths "
                f"{left}, got depths={list(self.depths)}."
            )


__all__ = ["VideoFocalNetConfig"]
