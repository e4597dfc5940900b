# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""The gated sum of one branch of focal modulation, in space or in time, on the processor."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional as F


class FocalBranch(NamedTuple):
    """What is done in space, or in time.

    Args:
        kernels: 2-D kernels level by level, depthwise in space, (C, C, k, 1) in time.
        mean_over: Dimensions of the global mean of maps (N, H, W, C).
        divisor: What the sum is divided by.
        first: What takes the place of the first convolution, where what it reads has yet to be projected.
    """

    kernels: list[torch.Tensor]
    mean_over: tuple[int, ...]
    divisor: int = 1
    first: Callable | None = None


def in_space(kernels, divisor=1):
    """The branch over frames (B * T, H, W, C) with kernels (C, 1, k, k)."""
    return FocalBranch(kernels, (1, 2), divisor)


def in_time(kernels, divisor=1, first=None):
    """The branch over tracks (B, T, N, C) with kernels (C, C, k)."""
    return FocalBranch([kernel[..., None] for kernel in kernels], (1,), divisor, first)


def gated_sum(library, branch, context, gates, grad):
    """Levels of a context (N, H, W, C), each times its gate of (N, H, W, L + 1), summed in order, the mean of the last at the end.

    `library`: one of `processor_libraries`. Without gradients levels are written over, the context itself is not.
    """
    total = None
    for level, kernel in enumerate(branch.kernels):
        if level == 0 and branch.first is not None:
            wider = branch.first(context)
        else:
            wider = library.convolution_gelu(context, kernel, grad)
        if level > 0:  # what the convolution has read is not needed any more and holds the sum
            total = _add_gated(total, context, gates[..., level - 1 : level], grad)
        context = wider
    everywhere = F.gelu(context.mean(dim=branch.mean_over, keepdim=True))
    if branch.kernels:
        total = _add_gated(total, context, gates[..., -2:-1], grad)
    if total is None:
        total = (everywhere * gates[..., -1:]).expand(context.shape)
    else:
        total = _add(total, everywhere, gates[..., -1:], grad)
    if branch.divisor != 1:  # there are levels
        total = total / branch.divisor if grad else total.div_(branch.divisor)
    return total


def _add_gated(total, level, gate, grad):
    """total + level * gate; without gradients it takes the place of one of them."""
    if total is None:
        return level * gate if grad else level.mul_(gate)
    return _add(total, level, gate, grad)


def _add(total, level, gate, grad):
    return torch.addcmul(total, level, gate) if grad else total.addcmul_(level, gate)
