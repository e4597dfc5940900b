# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear layers and convolutions along time in oneDNN that gradients flow through.

PyTorch takes the gradients of a linear layer from its BLAS, and oneDNN's own kernel for the gradient of a (k, 1) kernel reaches
half of its usual speed. Both are plain matrix products, which the linear operator of oneDNN does at full speed; a tap of a kernel
only sees the steps that exist, so zero padding costs nothing here either.

Second derivatives work: where they are wanted, the backward pass is made of differentiable operations.
"""

import torch
from torch.nn import functional as F


# rows of a product over all sites at a time, for each thread: what is transposed stays in the caches
ROWS = 1024


def onednn_linear(tokens, weight, bias=None):
    """tokens (..., K) times weight (N, K), plus bias, without gradients."""
    return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "none", [], "none")


class OneDnnLinear(torch.autograd.Function):
    """`F.linear(tokens, weight, bias)` with gradients."""

    @staticmethod
    def forward(ctx, tokens, weight, bias):
        ctx.save_for_backward(tokens, weight)
        return onednn_linear(tokens, weight, bias)

    @staticmethod
    def backward(ctx, gradient):
        tokens, weight = ctx.saved_tensors
        for_tokens, for_weight, for_bias = ctx.needs_input_grad
        rows, token_rows = gradient.flatten(0, -2), tokens.flatten(0, -2)
        twice = torch.is_grad_enabled()
        d_tokens = d_weight = d_bias = None
        if for_tokens:
            d_tokens = gradient @ weight if twice else onednn_linear(gradient.contiguous(), weight.t())
        if for_weight:
            d_weight = rows.t() @ token_rows if twice else _product_over_rows([(rows, token_rows)])
        if for_bias:
            d_bias = rows.sum(0)
        return d_tokens, d_weight, d_bias


class OneDnnTemporalConvolution(torch.autograd.Function):
    """Convolution of tracks (B, T, N, C) with a dense kernel (C_out, C, k, 1) along T, k odd, zeros outside."""

    @staticmethod
    def forward(ctx, tracks, kernel):
        ctx.save_for_backward(tracks, kernel)
        return _along_time(tracks, kernel)

    @staticmethod
    def backward(ctx, gradient):
        tracks, kernel = ctx.saved_tensors
        for_tracks, for_kernel = ctx.needs_input_grad
        twice = torch.is_grad_enabled()
        d_tracks = d_kernel = None
        if for_tracks:
            # along time backwards, from outputs to inputs
            d_tracks = _along_time(gradient.contiguous(), kernel.flip(2).transpose(0, 1))
        if for_kernel:
            half = kernel.shape[2] // 2
            taps = [_tap(gradient, tracks, offset, twice) for offset in range(-half, half + 1)]
            d_kernel = torch.stack(taps, dim=-1)[..., None]
        return d_tracks, d_kernel


def _along_time(tracks, kernel):
    maps = F.conv2d(tracks.permute(0, 3, 1, 2), kernel, padding=(kernel.shape[2] // 2, 0))
    return maps.permute(0, 2, 3, 1)


def _tap(gradient, tracks, offset, twice):
    """Gradient (C_out, C) of the tap that reads `offset` steps later."""
    steps = tracks.shape[1]
    if abs(offset) >= steps:
        return gradient.new_zeros(gradient.shape[-1], tracks.shape[-1])
    written = gradient[:, max(0, -offset) : steps - max(0, offset)]
    read = tracks[:, max(0, offset) : steps + min(0, offset)]
    if twice:
        return written.flatten(0, 2).t() @ read.flatten(0, 2)
    return _product_over_rows([(w.flatten(0, 1), r.flatten(0, 1)) for w, r in zip(written, read, strict=True)])


def _product_over_rows(pairs):
    """Sum of left^T @ right over pairs of (rows, N) and (rows, K): (N, K)."""
    left_channels, right_channels = pairs[0][0].shape[1], pairs[0][1].shape[1]
    swapped = left_channels > right_channels  # the wide one as weight is several times faster
    num_rows = ROWS * torch.get_num_threads()
    total = None
    for left, right in pairs:
        narrow, wide = (right, left) if swapped else (left, right)
        for narrow_rows, wide_rows in zip(narrow.split(num_rows), wide.split(num_rows), strict=True):
            product = onednn_linear(narrow_rows.t(), wide_rows.t())
            total = product if total is None else total.add_(product)
    return total.t().contiguous() if swapped else total
