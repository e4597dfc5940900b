# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A dense convolution along time with about half of the matrix products.

Computed directly, each of k taps is a product of matrices at each step. Minimal filtering (Toom and Cook, Winograd) makes m steps
at a time out of n = m + k - 1: with the signal and the kernel as polynomials in time it takes their values at n points, multiplies
those point by point, which is n products in place of m k, and goes back to coefficients:

    out = back @ [ (weights at the points) * (into @ steps) ].

Four steps at a time: 12 products for 8 steps and 3 taps, where 22 taps do not fall on zero padding, and 16 for 34 with 5 taps. The points
are 0, infinity and pairs of opposite numbers near 1, chosen for the least rounding. In exact numbers nothing changes; in float32 the root
mean square error is about 1.3 (3 taps) and 2.1 times (5 taps) that of the direct sum. What is added are passes over the steps and the
weights, so narrow layers and few sites do better without: `is_faster` weighs both.
"""

import functools
import math
from typing import NamedTuple

import torch


OUTPUTS = 4
# taps of the kernel -> the pairs of opposite points; 0 and infinity are the other two
PAIRS = {3: (11 / 16, 3 / 2), 5: (1 / 2, 1.0, 2.0)}
# What costs time beside products, in multiplications of a product that would take as long: a value of a pass into or back from
# the points, and more with many steps; a weight at a point. A product takes the time of some rows more, in which it arranges its weights.
PASS, PASS_PER_STEP, WEIGHT, ROWS = 100, 4, 40, 25
# values at the points that are worked on at a time, in bytes: what the caches of a processor hold
PIECE_BYTES = 16 << 20
# Weights at the points of kernels of more than 3 taps are one product as long as they are not larger than this, in bytes
WEIGHT_BYTES = 20 << 20
# what has to be gained at least
CLEARLY_LESS = 0.95


class TemporalPlan(NamedTuple):
    """How a number of steps is filtered with a kernel of some size.

    Args:
        into: (points * tiles, T), values of the tiles of steps at the points.
        back: (T, points * tiles), steps from products.
        forth: (points * tiles, T), the smallest products that give some steps: an inverse of `back`.
        weights: (points, k), values of a kernel at the points.
        pairs: Magnitudes of the opposite points.
    """

    into: torch.Tensor
    back: torch.Tensor
    forth: torch.Tensor
    weights: torch.Tensor
    pairs: tuple[float, ...]


def num_products(steps, size):
    """Matrix products for so many steps and taps."""
    return -(-steps // OUTPUTS) * (OUTPUTS + size - 1)


def is_faster(steps, sites, channels, size):
    """Whether it takes clearly less time than the direct sum.

    Args:
        steps: T.
        sites: Sites of all clips together.
        channels: Channels, as many in as out.
        size: Taps of the kernel.
    """
    if size not in PAIRS:
        return False
    products, points = num_products(steps, size), OUTPUTS + size - 1
    direct = sum(max(steps - abs(offset), 0) for offset in range(-(size // 2), size // 2 + 1))
    passes = (PASS + PASS_PER_STEP * steps) * (products + steps) * sites * channels
    weights = (ROWS * points + WEIGHT * (points - size)) * channels**2
    fast = products * sites * channels**2 + passes + weights
    return fast < CLEARLY_LESS * direct * sites * channels**2


def temporal_convolution_gelu(tracks, kernel, library, tap_biases=None):
    """GELU of a convolution along time with zeros outside, without gradients.

    Args:
        tracks: (B, T, N, C).
        kernel: (C, C, k), k of `PAIRS`.
        library: One of `processor_libraries`.
        tap_biases: (k, C) or None: what each tap adds where its step exists.

    Returns:
        (B, T, N, C), which may be a view of something laid out step by step.
    """
    batch, steps, sites, channels = tracks.shape
    plan = temporal_plan(steps, kernel.shape[2], tracks.dtype)
    frames = tracks.transpose(0, 1).reshape(steps, batch * sites, channels)
    weights = _weights_at_points(kernel, plan)
    pieces = math.ceil(len(plan.into) * frames[0].nbytes / PIECE_BYTES)
    if pieces > 1:
        weights = list(weights)
    biases = None
    if tap_biases is not None:
        by_step = _taps_that_exist(steps, kernel.shape[2], tracks.dtype) @ tap_biases
        biases = (plan.forth @ by_step).view(kernel.shape[2] + OUTPUTS - 1, -1, 1, channels)
    if pieces == 1:
        result = _piece(frames, plan, weights, biases, library)
    else:
        result = torch.cat([_piece(piece, plan, weights, biases, library) for piece in frames.chunk(pieces, 1)], dim=1)
    return result.view(steps, batch, sites, channels).transpose(0, 1)


def _piece(frames, plan, weights, biases, library):
    """The same for frames (T, N, C), the weights at the points and what is added there, (points, tiles, 1, C) or None."""
    steps = frames.contiguous().view(len(frames), -1)  # oneDNN is a hundred times slower where rows are not packed
    values, points = library.linear(plan.into, steps.t(), None, False), 2 * len(plan.pairs) + 2
    by_point = values.view(points, -1, frames.shape[-1]).unbind()
    # products take the place of what they were made of
    if biases is None:
        for here, weight in zip(by_point, weights, strict=True):
            here.copy_(library.linear(here, weight, None, False))
    else:
        by_tile = values.view(points, biases.shape[1], -1, frames.shape[-1]).unbind()
        for here, tiles, weight, bias in zip(by_point, by_tile, weights, biases.unbind(), strict=True):
            torch.add(library.linear(here, weight, None, False).view(tiles.shape), bias, out=tiles)
    return library.linear_gelu(plan.back, values.t(), None, False).view(frames.shape)


def _weights_at_points(kernel, plan):
    """The kernel as a polynomial in time, (C, C) at each point: 0, the pairs with the positive one first, infinity."""
    channels, size = kernel.shape[1:]
    if size > 3 and kernel.is_contiguous() and len(plan.weights) * kernel[..., 0].nbytes <= WEIGHT_BYTES:
        return (plan.weights @ kernel.view(-1, size).t()).view(-1, channels, channels).unbind()
    return _one_by_one(kernel, plan.pairs)


def _one_by_one(kernel, pairs):
    """The same with sums of even and of odd powers: fewer multiplications, but a pass for each, and taps that come first in memory."""
    taps = kernel.permute(2, 0, 1).contiguous()
    yield taps[0]
    for magnitude in pairs:
        even, odd = (_polynomial(taps[parity::2], magnitude**2) for parity in (0, 1))
        yield torch.add(even, odd, alpha=magnitude)
        yield torch.sub(even, odd, alpha=magnitude)
    yield taps[-1]


def _polynomial(coefficients, value):
    *lower, total = coefficients
    for coefficient in reversed(lower):
        total = torch.add(coefficient, total, alpha=value)
    return total


@functools.lru_cache(maxsize=64)
def temporal_plan(steps, size, dtype):
    """The `TemporalPlan` for so many steps, taps and a number type."""
    pairs, points, tiles = PAIRS[size], OUTPUTS + size - 1, -(-steps // OUTPUTS)
    with torch.inference_mode(False):
        # the transpose of multiplying two polynomials, of `OUTPUTS` and `size` coefficients, through their values
        back, into = _values_at_points(pairs, OUTPUTS).t(), torch.linalg.inv(_values_at_points(pairs, points)).t()
        all_into = torch.zeros(points, tiles, steps, dtype=torch.float64, device="cpu")
        all_back = torch.zeros(steps, points, tiles, dtype=torch.float64, device="cpu")
        for tile in range(tiles):
            first = tile * OUTPUTS
            written = min(OUTPUTS, steps - first)
            all_back[first : first + written, :, tile] = back[:written]
            for index in range(points):
                step = first + index - size // 2
                if 0 <= step < steps:
                    all_into[:, tile, step] = into[:, index]
        all_into, all_back = all_into.flatten(0, 1), all_back.flatten(1)
        forth = torch.linalg.pinv(all_back)
        weights = _values_at_points(pairs, size)
        return TemporalPlan(*(matrix.to(dtype) for matrix in (all_into, all_back, forth, weights)), pairs)


@functools.lru_cache(maxsize=64)
def _taps_that_exist(steps, size, dtype):
    """(T, k): 1 where a tap reads a step of the clip, 0 where it reads zeros outside."""
    with torch.inference_mode(False):
        reads = torch.arange(steps, device="cpu")[:, None] + torch.arange(size, device="cpu") - size // 2
        return ((reads >= 0) & (reads < steps)).to(dtype)


def _values_at_points(pairs, coefficients):
    """(points, coefficients): a polynomial's values at 0, the pairs and infinity, from its coefficients."""
    finite = [0.0, *(sign * magnitude for magnitude in pairs for sign in (1, -1))]
    powers = torch.arange(coefficients, dtype=torch.float64, device="cpu")
    rows = torch.tensor(finite, dtype=torch.float64, device="cpu")[:, None] ** powers
    at_infinity = (powers == coefficients - 1).to(rows.dtype)
    return torch.cat([rows, at_infinity[None]])
