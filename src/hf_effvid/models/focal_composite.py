# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""The definition of spatio-temporal focal modulation, as a function of tensors: what every faster one is measured against.

A *context* is widened level by level with convolutions; at each site one *gate* per level says how much of that level
counts; the gated sum, projected, is the *modulator* that multiplies the query. Video-FocalNet does this twice on the
same input, once in space (frame by frame, depthwise convolutions) and once in time (site by site, dense convolutions).

Shapes: B clips, T steps in time, H x W sites, C channels, L focal levels. Everything is channels-last.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class FocalModulation(NamedTuple):
    """What focal modulation gives, each (B, T, H, W, C): the modulated query and the two modulators."""

    modulated: torch.Tensor
    spatial_modulator: torch.Tensor | None
    temporal_modulator: torch.Tensor | None


def composite_focal_modulation(
    query,
    spatial_context,
    spatial_gates,
    temporal_context,
    temporal_gates,
    spatial_kernels,
    temporal_kernels,
    spatial_projection,
    temporal_projection,
    normalize=False,
    keep_modulators=True,
):
    """Multiplies the query with what space and time around it hold. Every implementation has this signature.

    Args:
        query: (B, T, H, W, C).
        spatial_context, temporal_context: (B, T, H, W, C), the contexts before the first level.
        spatial_gates, temporal_gates: (B, T, H, W, L + 1), level by level, the global context last.
        spatial_kernels: L depthwise kernels (C, 1, k, k), k odd.
        temporal_kernels: L dense kernels (C, C, k), k odd.
        spatial_projection, temporal_projection: Callables on (..., C) that turn the gathered context into modulators.
            They are modules and not weights, so that adapters on them take part.
        normalize: Divide the gathered context by L + 1.
        keep_modulators: Whether the modulators are wanted; when not, an implementation may give None for them.

    Without a temporal branch (`temporal_context=None`) every frame is alone and there is no temporal modulator.
    """
    spatial = gather_spatial_context(spatial_context, spatial_gates, spatial_kernels)
    if normalize:
        spatial = spatial / (len(spatial_kernels) + 1)
    spatial_modulator = spatial_projection(spatial)
    if temporal_context is None:
        return FocalModulation(query * spatial_modulator, spatial_modulator, None)
    temporal = gather_temporal_context(temporal_context, temporal_gates, temporal_kernels)
    if normalize:
        temporal = temporal / (len(temporal_kernels) + 1)
    temporal_modulator = temporal_projection(temporal)
    return FocalModulation(query * spatial_modulator * temporal_modulator, spatial_modulator, temporal_modulator)


def gather_spatial_context(context, gates, kernels):
    """Gated sum over focal levels of what surrounds each site within its frame: (B, T, H, W, C) in and out."""
    batch, steps, height, width, channels = context.shape
    # channels-last goes in and comes out, so that nothing is rearranged between levels
    context = context.reshape(batch * steps, height, width, channels).permute(0, 3, 1, 2)
    levels = []
    for kernel in kernels:
        context = F.gelu(F.conv2d(context, kernel, padding=kernel.shape[-1] // 2, groups=channels))
        levels.append(context.permute(0, 2, 3, 1))
    levels.append(F.gelu(context.mean(dim=(2, 3)))[:, None, None, :])
    gathered = _gated_sum(levels, gates.reshape(batch * steps, height, width, -1))
    return gathered.reshape(batch, steps, height, width, channels)


def gather_temporal_context(context, gates, kernels):
    """Gated sum over focal levels of what precedes and follows each site: (B, T, H, W, C) in and out.

    Before the first and after the last step there are zeros, so any number of steps works, one included.
    """
    batch, steps, height, width, channels = context.shape
    # a convolution along time is one of shape (k, 1) over the (T, H * W) plane, again channels-last
    context = context.reshape(batch, steps, height * width, channels).permute(0, 3, 1, 2)
    levels = []
    for kernel in kernels:
        context = F.gelu(F.conv2d(context, kernel[..., None], padding=(kernel.shape[-1] // 2, 0)))
        levels.append(context.permute(0, 2, 3, 1))
    levels.append(F.gelu(context.mean(dim=2)).transpose(1, 2)[:, None])
    gathered = _gated_sum(levels, gates.reshape(batch, steps, height * width, -1))
    return gathered.reshape(batch, steps, height, width, channels)


def _gated_sum(levels, gates):
    """Sum of `levels` (..., C), each times its own gate of (..., L + 1), in order."""
    total = levels[0] * gates[..., :1]
    for index, level in enumerate(levels[1:], start=1):
        total = total + level * gates[..., index : index + 1]
    return total
