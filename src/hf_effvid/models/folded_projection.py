# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A linear layer and the convolution along time behind it as one convolution, without gradients.

The context of the temporal branch is a linear layer's output that nothing reads but the first level's convolution:

    sum over taps of K_j (W x_(t+j) + b) = sum of (K_j W) x_(t+j) + sum of K_j b, over the taps whose step exists.

The products K_j W are kept beside the kernel and made anew when one of the three tensors has changed. What has changed is told by
their contents, since a write to `parameter.data` leaves no other trace: by their products with fixed random numbers. A change too
small to show there is one of rounding.
"""

import functools
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary


class FoldedKernel(NamedTuple):
    """A convolution along time that takes a linear layer along.

    Args:
        kernel: (C, C, k), K_j W.
        tap_biases: (k, C), K_j b, or None without a bias.
    """

    kernel: torch.Tensor
    tap_biases: torch.Tensor | None


class PendingProjection(NamedTuple):
    """Output of a linear layer that has not been computed, because the convolution that reads it can do without.

    Args:
        tokens: (..., C), what the layer reads.
        weight, bias: Of the layer.
        folded: What to convolve the tokens with, instead of the layer's output with the kernel.
    """

    tokens: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    folded: FoldedKernel


class _Kept(NamedTuple):
    fingerprint: torch.Tensor
    folded: FoldedKernel


_kept = WeakIdKeyDictionary()


def settled(context):
    """A context as a tensor: computed now where it is pending, anything else as it is."""
    if isinstance(context, PendingProjection):
        return F.linear(context.tokens, context.weight, context.bias)
    return context


def pays(rows, channels, size):
    """Whether folding costs no more than one call saves, so that weights that change at every call do no harm.

    Args:
        rows: Steps times sites of all clips.
        channels: C.
        size: Taps of the kernel.
    """
    return rows >= size * channels


def fold(kernel, weight, bias, library):
    """The `FoldedKernel` of a kernel (C, C, k) and a layer (C, C), (C,), kept for as long as the kernel lives.

    `library`: one of `processor_libraries`.
    """
    fingerprint = _fingerprint(kernel, weight, bias)
    kept = _kept.get(kernel)
    if kept is None or not torch.equal(kept.fingerprint, fingerprint):
        taps = kernel.permute(2, 0, 1).contiguous()
        products = torch.stack([library.linear(tap, weight.t(), None, False) for tap in taps])
        tap_biases = None if bias is None else taps @ bias
        # taps come first in memory, where the convolution wants them
        kept = _kept[kernel] = _Kept(fingerprint, FoldedKernel(products.permute(1, 2, 0), tap_biases))
    return kept.folded


def _fingerprint(kernel, weight, bias):
    rows = [kernel.flatten(1), weight]
    products = [matrix @ _numbers(matrix.shape[1], matrix.dtype) for matrix in rows]
    return torch.cat(products if bias is None else [*products, bias])


@functools.lru_cache(maxsize=64)
def _numbers(length, dtype):
    with torch.inference_mode(False):
        return torch.randn(length, generator=torch.Generator().manual_seed(length), dtype=dtype, device="cpu")
