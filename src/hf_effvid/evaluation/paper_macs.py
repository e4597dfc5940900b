"""Multiply-accumulates of a detector as the tables of Progressive Block Drop print them, beside what really runs.

The published totals (286.3 G for VideoMAE-S on THUMOS14) come from a counter that hangs on modules and does not see most of the trunk:
its patch embedding, its MLPs and the products inside attention. What is left, 4 D^2 + 8 D per token and block, plus the head's
convolutions and norms, gives every row of those tables. `count_macs` gives the whole (1135.6 G); relative savings hardly differ.
"""

from collections.abc import Mapping

import torch
from torch import nn

from .macs import MacsError


_NORM_MACS_PER_ELEMENT = 4


def count_paper_macs(detector, inputs: Mapping[str, torch.Tensor]) -> int:
    """Counts `detector(**inputs)` as the paper does.

    Args:
        detector: an `ActionFormerForTemporalActionDetection` or `ActionFormerModel` with a VideoMAE trunk, with temporal adapters or without,
            or on features; or a VideoMAE alone. In evaluation mode.
        inputs: its keyword arguments; on the meta device nothing is computed.

    Raises:
        MacsError: the detector has another trunk; for others there are no published numbers to compare with.
    """
    if not has_published_count(detector):
        raise MacsError(
            f"The paper counts detectors on VideoMAE or on features, got {type(detector).__name__} without one. Use count_macs."
        )
    unseen, total = _unseen(_videomae(detector)), 0

    def count(module, arguments, output):
        nonlocal total
        total += output.numel() * _macs_per_output(module)

    counted = [module for module in detector.modules() if _is_counted(module) and module not in unseen]
    handles = [module.register_forward_hook(count) for module in counted]
    try:
        with torch.no_grad():
            detector(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total


def has_published_count(detector) -> bool:
    """Whether `count_paper_macs` can count a detector: its trunk is a VideoMAE, or it takes features."""
    config = getattr(detector, "config", None)
    on_features = getattr(config, "model_type", None) == "actionformer" and config.backbone_config is None
    return on_features or _videomae(detector) is not None


def _unseen(trunk) -> set:
    """The layers that the counter passes over, all of them in VideoMAE."""
    if trunk is None:
        return set()
    layers = [layer for block in trunk.encoder.layer for layer in (block.intermediate.dense, block.output.dense)]
    return {trunk.embeddings.patch_embeddings.projection, *layers}


def _videomae(detector):
    return next((module for module in detector.modules() if type(module).__name__ == "VideoMAEModel"), None)


def _is_counted(module):
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.LayerNorm))


def _macs_per_output(module):
    if isinstance(module, nn.LayerNorm):
        return _NORM_MACS_PER_ELEMENT
    return module.weight[0].numel()
