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
from torch.utils.weak import WeakIdKeyDictionary


class FoldedKernel(NamedTuple):
    """A convolution along time that takes a linear layer along.

    Args:
        kernel: (C, C, k), K_j W.
        tap_biases: (k, C), K_j b, or None without a bias.
    """

    kernel: torch.Tensor
    tap_biases: torch.Tensor | None


class _Kept(NamedTuple):
    fingerprint: torch.Tensor
    folded: FoldedKernel


_kept = WeakIdKeyDictionary()


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
    fingerprint = _fingerprint(kernel, weight, bias, library)
    kept = _kept.get(kernel)
    if kept is None or not torch.equal(kept.fingerprint, fingerprint):
        taps = kernel.permute(2, 0, 1).contiguous()
        products = torch.stack([library.linear(tap, weight.t(), None, False) for tap in taps])
        tap_biases = None if bias is None else taps @ bias
        # taps come first in memory, where the convolution wants them
        kept = _kept[kernel] = _Kept(fingerprint, FoldedKernel(products.permute(1, 2, 0), tap_biases))
    return kept.folded


def _fingerprint(kernel, weight, bias, library):
    products = [
        library.linear(_numbers(matrix.shape[1], matrix.dtype), matrix, None, False)
        for matrix in (kernel.flatten(1), weight)
    ]
    return torch.cat([product[0] for product in products] + ([] if bias is None else [bias]))


@functools.lru_cache(maxsize=64)
def _numbers(length, dtype):
    with torch.inference_mode(False):
        return torch.randn(1, length, generator=torch.Generator().manual_seed(length), dtype=dtype, device="cpu")
