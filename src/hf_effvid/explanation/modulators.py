"""Modulators and gates of one clip: what a Video-FocalNet multiplies its queries with, and from how far away it gathers that.

The output of a block is q * m_s * m_t, channel by channel. The Euclidean norm of a modulator over its channels says how strongly a site
is modulated by what lies around it in space (m_s, within the frame) and in time (m_t, at the same place in other frames). A gate is
the weight of one focal level in the sum that becomes the modulator; the last gate is that of the global context.
"""

from dataclasses import dataclass

import torch


# What `output_modulators=True` works on. A new architecture with modulators adds its model_type.
MODEL_TYPES_WITH_MODULATORS = ("video_focalnet",)


class NoModulatorsError(ValueError):
    """The model has no modulators, so there is nothing to show."""


@dataclass(frozen=True)
class BlockGates:
    """Gates of one block: (T', h, w, L + 1) with the global context last; `temporal` is None without a temporal branch."""

    stage: int
    spatial: torch.Tensor
    temporal: torch.Tensor | None

    def means(self):
        """`{"stage", "spatial", "temporal"}` with, per level, the mean gate and the mean of its absolute value."""
        return {"stage": self.stage, "spatial": _level_means(self.spatial), "temporal": _level_means(self.temporal)}


@dataclass(frozen=True)
class ClipExplanation:
    """Where and when a model looked in one clip.

    Attributes:
        block: number of the block that the maps come from, counted over all stages from 0.
        spatial: (T', h, w), norm of the spatial modulator at each site of that block; T' is frames / tubelet size.
        temporal: the same of the temporal modulator; None for a model without temporal branch.
        gates: of every block, in order.
        logits: (K,), None for a model without head.
    """

    block: int
    spatial: torch.Tensor
    temporal: torch.Tensor | None
    gates: tuple[BlockGates, ...]
    logits: torch.Tensor | None

    @property
    def temporal_weight(self):
        """Share of each step in time in the temporal modulator, a list of T' numbers with the sum 1; None without temporal branch."""
        if self.temporal is None:
            return None
        steps = self.temporal.mean(dim=(1, 2))
        return (steps / steps.sum().clamp_min(1e-12)).tolist()

    def relative_maps(self):
        """Both maps divided by their own mean over the clip: 1 is average, and one scale fits both.

        Returns:
            `{"spatial modulator": (T', h, w), "temporal modulator": (T', h, w)}`, the second only with a temporal branch.
        """
        maps = {"spatial modulator": self.spatial, "temporal modulator": self.temporal}
        return {name: one / one.mean().clamp_min(1e-12) for name, one in maps.items() if one is not None}

    def to_dict(self):
        """What JSON can hold: the block, `temporal_weight`, and per block the mean gates of every level."""
        return {
            "block": self.block,
            "temporal_weight": self.temporal_weight,
            "gates": [{"block": index, **gates.means()} for index, gates in enumerate(self.gates)],
        }


def require_modulators(config):
    """Refuses a configuration whose model has no modulators.

    Raises:
        NoModulatorsError: it names the model types that have them.
    """
    if config.model_type not in MODEL_TYPES_WITH_MODULATORS:
        raise NoModulatorsError(
            f"A {config.model_type!r} model has no modulators that could be shown. Models that have them: "
            f"{', '.join(MODEL_TYPES_WITH_MODULATORS)}. Train one with `effvid train ... --model video_focalnet:tiny`, or convert the "
            "authors' checkpoint with `effvid convert`."
        )


@torch.no_grad()
def explain_clip(model, pixel_values, block=-1):
    """Modulators and gates of one clip, from one forward pass.

    Args:
        model: a Video-FocalNet model or classifier; it runs in evaluation mode and is left as it was.
        pixel_values: (1, T, C, H, W) or (T, C, H, W), what the processor gives for one clip.
        block: which block the maps come from, counted over all stages; the last one has seen the whole network, earlier ones have
            finer maps. Gates are given for all blocks.

    Returns:
        A `ClipExplanation`, on the CPU in float32.

    Raises:
        NoModulatorsError: the model has no modulators.
        ValueError: more than one clip, or a block that does not exist.
    """
    require_modulators(model.config)
    if pixel_values.ndim == 4:
        pixel_values = pixel_values[None]
    if pixel_values.ndim != 5 or len(pixel_values) != 1:
        raise ValueError(f"expected one clip (1, frames, channels, height, width), got {tuple(pixel_values.shape)}.")
    num_blocks = sum(model.config.depths)
    if not -num_blocks <= block < num_blocks:
        raise ValueError(f"block must be from {-num_blocks} to {num_blocks - 1} for this model, got {block}.")
    output = modulators_of(model, pixel_values)
    temporal = output.temporal_modulators
    logits = getattr(output, "logits", None)
    return ClipExplanation(
        block=block % num_blocks,
        spatial=_norms(output.spatial_modulators[block]),
        temporal=None if temporal is None else _norms(temporal[block]),
        gates=_gates(output, model.config.depths),
        logits=None if logits is None else logits[0].float().cpu(),
    )


@torch.no_grad()
def modulators_of(model, pixel_values):
    """The model's output with modulators and gates of every block, in evaluation mode; the model is left in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return model(pixel_values.to(next(model.parameters()).device), output_modulators=True)
    finally:
        for module, training in modes:  # one by one: parts that are frozen may be in another mode than the model
            module.training = training


def stage_of_blocks(depths):
    """The stage of every block, counted from 0: `[2, 2]` gives `[0, 0, 1, 1]`."""
    return [stage for stage, depth in enumerate(depths) for _ in range(depth)]


def _gates(output, depths):
    temporal = output.temporal_gates or (None,) * len(output.spatial_gates)
    return tuple(
        BlockGates(stage, spatial[0].float().cpu(), None if of_time is None else of_time[0].float().cpu())
        for stage, spatial, of_time in zip(stage_of_blocks(depths), output.spatial_gates, temporal, strict=True)
    )


def _norms(modulator):
    """(1, T', h, w, C) -> (T', h, w)."""
    return modulator[0].float().norm(dim=-1).cpu()


def _level_means(gates):
    if gates is None:
        return None
    levels = gates.flatten(0, -2)
    return {"mean": levels.mean(0).tolist(), "mean_abs": levels.abs().mean(0).tolist()}
