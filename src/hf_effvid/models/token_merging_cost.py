# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of a VideoMAE whose tokens become fewer from block to block, by formula.

With n tokens in the attention of a block and n' in its MLP (d the width, d_ff that of the MLP, N all patches, p values per patch)

    N p d  +  sum over blocks of (4 n d^2 + 2 n^2 d + 2 n' d d_ff)  +  d classes

plus what finding the pairs takes, which published numbers leave out: a product of half of the tokens with the other half.
"""

import math
from collections.abc import Sequence

from .merging_videomae import BlockReduction, block_reductions, patch_grid, token_counts
from .token_selection import num_kept_tokens


TOLERANCE = 0.01  # a budget this close to the end of what a method reaches is met by that end


def merging_gmacs(config, method: str, r: int | Sequence[int], matching: bool = True) -> float:
    """Multiply-accumulates of one clip, in units of 1e9.

    Args:
        config: of a `VideoMAEForVideoClassification`.
        method: `"tome"`, `"sta"` or `"vid_tldr"`.
        r: see `block_reductions`; 0 gives the cost of the plain model.
        matching: count the search for pairs too.

    Raises:
        ValueError: method and r do not fit the model.
    """
    reductions = block_reductions(config, method, r)
    counts = token_counts(math.prod(patch_grid(config)), reductions)
    macs = _embedding_and_head(config) + sum(_block(config, attended, in_mlp) for attended, in_mlp, _ in counts)
    if matching:
        macs += sum(_matching(config, one, *counted[:2]) for one, counted in zip(reductions, counts, strict=True))
    return macs / 1e9


def selection_gmacs(config, keep_ratio: float) -> float:
    """Multiply-accumulates of one clip when all patches are embedded and a share of them reaches the blocks, in units of 1e9.

    What choosing them costs is not in it: no published number says whether it was counted.

    Args:
        config: of a `VideoMAEForVideoClassification`.
        keep_ratio: P, from 0 to 1.
    """
    kept = num_kept_tokens(math.prod(patch_grid(config)), keep_ratio)
    return (_embedding_and_head(config) + config.num_hidden_layers * _block(config, kept, kept)) / 1e9


def _embedding_and_head(config) -> int:
    patch = config.patch_size if isinstance(config.patch_size, (list, tuple)) else [config.patch_size] * 2
    values = config.num_channels * config.tubelet_size * math.prod(patch)
    return (math.prod(patch_grid(config)) * values + config.num_labels) * config.hidden_size


def _block(config, attended: int, in_mlp: int) -> int:
    width = config.hidden_size
    return 4 * attended * width**2 + 2 * attended**2 * width + 2 * in_mlp * width * config.intermediate_size


def _matching(config, reduction: BlockReduction, attended: int, in_mlp: int) -> int:
    if reduction.drop:
        size, width = in_mlp // reduction.num_groups, config.hidden_size
        kept, first, left = size - reduction.drop, 0, reduction.drop
        while left > 0:  # the first group: ToMe's ranking, as often as it takes
            gone = min(left, size // 2)
            first, size, left = first + size // 2 * (size - size // 2) * width, size - gone, left - gone
        size = in_mlp // reduction.num_groups
        return first + (reduction.num_groups - 1) * size * kept * (width + 1)
    if attended == in_mlp:
        return 0
    width = config.hidden_size if reduction.sharpness else config.hidden_size // config.num_attention_heads
    return attended // 2 * (attended - attended // 2) * width


def r_for_macs(config, method: str, gmacs: float, matching: bool = True) -> int:
    """The r whose cost comes closest to a budget; of two that are equally close the smaller.

    Args:
        config: of a `VideoMAEForVideoClassification`.
        method: `"tome"`, `"sta"` or `"vid_tldr"`.
        gmacs: multiply-accumulates per clip, in units of 1e9.
        matching: count the search for pairs too.

    Raises:
        ValueError: the budget lies outside of what the method can reach, by more than a hundredth.
    """
    costs = {}
    for r in range(math.prod(patch_grid(config))):
        try:
            costs[r] = merging_gmacs(config, method, r, matching)
        except ValueError:
            if r == 0 or 1 not in costs:
                raise
            break
    low, high = min(costs.values()), costs[0]
    if not low * (1 - TOLERANCE) <= gmacs <= high * (1 + TOLERANCE):
        raise ValueError(f"{method} reaches {low:.4g} to {high:.4g} GMACs on this model, not {gmacs:.4g}.")
    return min(costs, key=lambda r: (abs(costs[r] - gmacs), r))
