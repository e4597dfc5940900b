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
        detector: an `ActionFormerForTemporalActionDetection` or `ActionFormerModel` with a VideoMAE trunk, in evaluation mode.
        inputs: its keyword arguments; on the meta device nothing is computed.

    Raises:
        MacsError: the detector has no VideoMAE trunk; for others there are no published numbers to compare with.
    """
    trunk = _videomae(detector)
    if trunk is None:
        raise MacsError(
            f"The paper counts detectors on VideoMAE, got {type(detector).__name__} without one. Use count_macs."
        )
    unseen = {trunk.embeddings.patch_embeddings.projection}
    for layer in trunk.encoder.layer:
        unseen |= {layer.intermediate.dense, layer.output.dense}
    total = 0

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
    """Whether `count_paper_macs` can count a detector: its trunk is a VideoMAE."""
    return _videomae(detector) is not None


def _videomae(detector):
    return next((module for module in detector.modules() if type(module).__name__ == "VideoMAEModel"), None)


def _is_counted(module):
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.LayerNorm))


def _macs_per_output(module):
    if isinstance(module, nn.LayerNorm):
        return _NORM_MACS_PER_ELEMENT
    return module.weight[0].numel()
