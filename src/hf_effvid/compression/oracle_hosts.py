"""Where the parts of a host are that an oracle reads: its blocks, the last layer of each MLP, its patch tokens, its head."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


class OracleError(ValueError):
    """The oracle cannot be computed on this host, or would mean nothing there."""


class UncheckableOracleError(OracleError):
    """Single tokens of this host cannot be left out, so that no oracle can be checked against their deletion."""


class ZeroGradientError(OracleError):
    """The class score does not depend on the tensor that the oracle reads, so that every token would score exactly 0."""


@dataclass(frozen=True)
class _Layout:
    """How one family of hosts names its parts; where transformers renamed one, the first name that exists counts."""

    blocks: tuple[str, ...]
    mlp_out: tuple[str, ...]
    pooling: str
    num_prefix_tokens: int = 0
    time_runs_fastest: bool = False


_LAYOUTS = {
    "videomae": _Layout(("videomae.encoder.layer",), ("output.dense",), "mean"),
    "vivit": _Layout(("vivit.layers", "vivit.encoder.layer"), ("mlp.fc2", "output.dense"), "cls", num_prefix_tokens=1),
    "timesformer": _Layout(
        ("timesformer.encoder.layer",), ("output.dense",), "cls", num_prefix_tokens=1, time_runs_fastest=True
    ),
    "vjepa2": _Layout(("vjepa2.encoder.layer",), ("mlp.fc2",), "attention"),
}


@dataclass(frozen=True)
class OracleHost:
    """A video classifier as an oracle sees it.

    Attributes:
        model: the classifier.
        blocks: its transformer blocks, in order.
        mlp_out: the last linear layer of each block's MLP: its input is the hidden activation, its output what is added to the
            residual stream.
        pooling: how the head reads the tokens: `"mean"` of all, `"first"` or `"cls"` one of them, `"attention"`.
        num_prefix_tokens: tokens before the patch tokens.
        time_runs_fastest: patch tokens are ordered (y, x, t) inside the host instead of (t, y, x).
    """

    model: nn.Module
    blocks: Sequence[nn.Module]
    mlp_out: Sequence[nn.Linear]
    pooling: str
    num_prefix_tokens: int
    time_runs_fastest: bool

    @property
    def has_mean_head(self) -> bool:
        """Whether the class score is linear in the layer norm of the tokens' mean, so that the closed form holds."""
        return self.pooling == "mean" and isinstance(self.model.classifier, nn.Linear)

    def block_index(self, block: int) -> int:
        """The index from 0 of a block that may be counted from the end.

        Raises:
            OracleError: there is no such block.
        """
        count = len(self.blocks)
        if not -count <= block < count:
            raise OracleError(
                f"oracle_block must be from {-count} to {count - 1}, the host has {count} blocks; got {block}."
            )
        return block % count

    def run(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits (B, K) of the whole host: all tokens, whatever the configuration of a Lite model says.

        Args:
            pixel_values: (B, T, C, H, W).
        """
        return self.model(**{self.model.main_input_name: pixel_values}, **self._all_tokens).logits

    @property
    def _all_tokens(self) -> dict:
        return {"keep_ratio": 1.0} if self.model.config.model_type.startswith("lite_") else {}

    def patch_tokens(self, tokens: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Tokens of a block without prefix and in the order (t, y, x).

        Args:
            tokens: (B, prefix + N, D).
            num_frames: frames of the clip, which is steps in time for the hosts whose order differs.

        Returns:
            (B, N, D).
        """
        patches = tokens[:, self.num_prefix_tokens :]
        if not self.time_runs_fastest:
            return patches
        return patches.unflatten(1, (-1, num_frames)).transpose(1, 2).flatten(1, 2)


def oracle_host(model: nn.Module) -> OracleHost:
    """Finds the parts of a classifier: stock VideoMAE, ViViT, TimeSformer, V-JEPA 2, or the Lite class of one of them.

    Raises:
        OracleError: another architecture, or a TimeSformer whose clips do not stay together (`space_only`).
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    layout = _LAYOUTS.get(str(model_type).removeprefix("lite_"))
    if layout is None:
        raise OracleError(
            f"oracles are known for {', '.join(_LAYOUTS)} and their Lite classes, got {model_type!r}: use a scorer that needs "
            "no oracle, such as embedding_norm."
        )
    if getattr(model.config, "attention_type", None) == "space_only":
        raise OracleError(
            "a TimeSformer with attention_type='space_only' treats frames as separate clips, which no token oracle covers: use "
            "joint_space_time or divided_space_time."
        )
    pooling = layout.pooling
    if pooling == "mean" and not model.config.use_mean_pooling:
        pooling = "first"
    blocks = list(_first_existing(model, layout.blocks))
    return OracleHost(
        model=model,
        blocks=blocks,
        mlp_out=[_first_existing(block, layout.mlp_out) for block in blocks],
        pooling=pooling,
        num_prefix_tokens=layout.num_prefix_tokens,
        time_runs_fastest=layout.time_runs_fastest,
    )


@contextmanager
def evaluation_mode(model: nn.Module):
    """Dropout and drop path would make an oracle a matter of chance: off inside, as they were afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _first_existing(module: nn.Module, names: Sequence[str]) -> nn.Module:
    for name in names:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise OracleError(
        f"{type(module).__name__} has none of {', '.join(names)}: this version of transformers names its parts differently."
    )
