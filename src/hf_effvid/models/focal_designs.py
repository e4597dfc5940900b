# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""The other ways to bring time into focal modulation, for ablations of the published one.

Published (`focal_ops.focal_modulation`): both modulators read the same tokens y and the query is multiplied with their product,

    o = q(y) * m_s(y) * m_t(y),    m_s = h_s(sum_l g_l * d_l) in space,    m_t = h_t(sum_l a_l * c_l) in time.

The paper says that it compared this parallel encoding with other designs, and the released code has no other. What stands here is
therefore this package's reading of them. Everything that does not have to differ is the same: focal levels, windows, gates, projections.

- `"none"`: o = q * m_s. Image focal modulation, frame by frame.
- `"sequential"` (factorised): x = q * m_s(y), then o = x * m_t(LN(x)). The temporal branch reads what space has modulated. The
  LayerNorm is ours: the branch gets normalised tokens, as it does in the parallel design. Apart from it the weights are the same.
- `"joint"`: o = q * m(y), one modulator whose levels are depthwise 3-D convolutions k x k x k and whose global context is the mean over
  all steps and sites. Depthwise as in space, so channels are not mixed along time (the released temporal kernels do mix them).
- fusion `"sum"`: o = q * (m_s + m_t). An average would differ by a factor that the projections absorb.
- fusion `"learned"`: o = q * (W [m_s; m_t] + b) with W (C, 2 C), the same at every site.

Shapes as in `focal_ops`: B clips, T steps in time, H x W sites, C channels, L focal levels. Everything is channels-last.
"""

import torch
from torch.nn import functional as F

from .focal_ops import gather_spatial_context, gather_temporal_context


def spatial_modulator(context, gates, kernels, projection, normalize=False):
    """m_s = h_s(gathered spatial context), frame by frame: (B, T, H, W, C).

    Args:
        context: (B, T, H, W, C), before the first level.
        gates: (B, T, H, W, L + 1), the global context last.
        kernels: L depthwise kernels (C, 1, k, k), k odd.
        projection: Callable on (..., C).
        normalize: Divide the gathered context by L + 1.
    """
    return _modulator(gather_spatial_context(context, gates, kernels), kernels, projection, normalize)


def temporal_modulator(context, gates, kernels, projection, normalize=False):
    """m_t = h_t(gathered temporal context), site by site; arguments as in `spatial_modulator`, dense kernels (C, C, k)."""
    return _modulator(gather_temporal_context(context, gates, kernels), kernels, projection, normalize)


def joint_modulator(context, gates, kernels, projection, normalize=False):
    """m = h(gathered context of space and time at once); arguments as in `spatial_modulator`, kernels (C, 1, k, k, k)."""
    return _modulator(gather_joint_context(context, gates, kernels), kernels, projection, normalize)


def gather_joint_context(context, gates, kernels):
    """Gated sum over focal levels of what surrounds each site in space and time: (B, T, H, W, C) in and out.

    Level l is GELU(DWConv3d_l(level l - 1)), the last one GELU(mean over T, H and W). Outside of the clip there are zeros.
    """
    total = 0
    for level, kernel in enumerate(kernels):
        context = F.gelu(_depthwise_3d(context, kernel))
        total = total + context * gates[..., level : level + 1]
    return total + F.gelu(context.mean(dim=(1, 2, 3), keepdim=True)) * gates[..., -1:]


def fuse_modulators(spatial, temporal, projection=None):
    """What the query is multiplied with instead of the product m_s * m_t, (B, T, H, W, C).

    Args:
        spatial, temporal: (B, T, H, W, C).
        projection: Callable from (..., 2 C), the spatial modulator first, to (..., C). None adds the modulators.
    """
    return spatial + temporal if projection is None else projection(torch.cat([spatial, temporal], dim=-1))


def _modulator(gathered, kernels, projection, normalize):
    return projection(gathered / (len(kernels) + 1) if normalize else gathered)


def _depthwise_3d(context, kernel):
    """Depthwise convolution (C, 1, k, k, k) over (B, T, H, W, C), zeros outside, the same shape out."""
    half, channels = kernel.shape[-1] // 2, kernel.shape[0]
    moved = F.conv3d(context.permute(0, 4, 1, 2, 3), kernel, padding=half, groups=channels)
    return moved.permute(0, 2, 3, 4, 1)
