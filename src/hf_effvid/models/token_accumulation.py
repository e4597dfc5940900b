# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Semantic-aware temporal accumulation (STA): tokens that were seen before and mean little are dropped, frame after frame.

Written from the paper's description (Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", 2023); it is
not the authors' code, and where the description leaves a choice, what was chosen is said here. The tokens of a clip lie in
groups g = 1 .. G of one or more frames. r tokens of every group are dropped, groups one after the other:

* group 1: the r tokens that have the most alike partner in the same group (ToMe's ranking); those that stay have redundancy 1;
* group g > 1: redundancy flows from the tokens that stayed in group g - 1, each giving all it has to the tokens of g in
  proportion to how alike they are,

      q_i = sum_j softmax_i(cos(x_i, x_j) / temperature) S_j        S_i = q_i (1 - m_i)

  with m_i the L1 norm of x_i scaled to 0..1 over the group: strong tokens mean something. The r largest S_i are dropped.

A token that nothing before looks like receives little, and stays. The temperature is a choice of this package.
"""

import torch
from torch.nn import functional as F

from .token_merging import match_tokens, take_tokens, to_unit_range


TEMPERATURE = 0.1


def accumulate_and_drop(
    tokens: torch.Tensor, num_groups: int, r: int, backwards: bool = False, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """Which tokens STA keeps.

    Args:
        tokens: (B, G m, d), the groups one after the other, each of m tokens.
        num_groups: G.
        r: tokens to drop from every group; less than m.
        backwards: go from the last group to the first, as the middle stage of the paper does.
        temperature: how sharply redundancy flows to the most alike tokens.

    Returns:
        (B, G (m - r)) indices, ascending: groups stay one after the other.

    Raises:
        ValueError: the tokens cannot be split into so many equal groups, or nothing of a group would be left.
    """
    batch, length, _ = tokens.shape
    size = length // num_groups
    if size * num_groups != length:
        raise ValueError(f"{length} tokens do not make {num_groups} groups of equal length: STA needs whole frames.")
    if not 0 <= r < size:
        raise ValueError(f"r must lie in 0..{size - 1}, since every group has {size} tokens, got {r}.")
    if r == 0:
        return torch.arange(length, device=tokens.device).expand(batch, -1)
    groups = F.normalize(tokens.float(), dim=-1).view(batch, num_groups, size, -1)
    meaning = to_unit_range(tokens.float().abs().sum(-1).view(batch, num_groups, size))
    order = range(num_groups - 1, -1, -1) if backwards else range(num_groups)
    kept = [None] * num_groups
    before, scores = None, None
    for g in order:
        own = groups[:, g]
        if before is None:
            stay = _least_alike(own, r)
            scores = own.new_ones(batch, size - r)
        else:
            shares = (own @ before.transpose(1, 2) / temperature).softmax(dim=1)
            redundancy = (shares @ scores[..., None]).squeeze(-1) * (1 - meaning[:, g])
            stay = redundancy.argsort(dim=-1, stable=True)[:, : size - r].sort(-1).values
            scores = take_tokens(redundancy, stay)
        before, kept[g] = take_tokens(own, stay), stay + g * size
    return torch.cat(kept, dim=1)


def _least_alike(tokens: torch.Tensor, r: int) -> torch.Tensor:
    """Ascending indices of the tokens that ToMe's ranking leaves; it can only name half of them, so it may be asked again."""
    stay = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
    while r > 0:
        plan = match_tokens(take_tokens(tokens, stay), r)
        odd = torch.arange(1, stay.shape[1], 2, device=stay.device).expand(stay.shape[0], -1)
        stay = take_tokens(stay, torch.cat([2 * plan.kept, odd], dim=1).sort(-1).values)
        r -= plan.sources.shape[1]
    return stay
