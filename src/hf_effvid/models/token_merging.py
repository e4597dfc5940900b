# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Token merging (ToMe): which tokens of a sequence become one, and what that one is.

Written from the paper (Bolya et al., "Token Merging: Your ViT But Faster", 2023). Tokens x_1 .. x_n with sizes s_1 .. s_n (how
many patches each stands for) are split alternately into A and B. Every token of A draws one edge to the token of B that it is most
alike; the r most alike edges are merged, and a token of B that receives some becomes

    x' = (s_B x_B + sum_i s_i x_i) / s',    s' = s_B + sum_i s_i

What is alike is the cosine of a metric, in ToMe the keys of the attention averaged over heads. At most half of the tokens can
go in one step. The sum of s x and the sum of s stay what they were, so that a mean over patches is not touched by merging.

vid-TLDR (Choi et al., 2024) merges the same way but weighs by how sharply a token attends, see `attention_sharpness`.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class MergePlan(NamedTuple):
    """Which tokens merge into which, as indices into A (the even positions) and B (the odd ones).

    Attributes:
        kept: (B, |A| - r) tokens of A that stay, ascending.
        sources: (B, r) tokens of A that disappear, most alike first.
        targets: (B, r) the tokens of B that they become part of.
    """

    kept: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor


def num_merged(num_tokens: int, r: int) -> int:
    """How many of `r` merges are possible: at most half of the tokens can go, and one token always stays."""
    return max(0, min(r, num_tokens // 2))


def match_tokens(metric: torch.Tensor, r: int) -> MergePlan:
    """Finds the r most alike pairs between the tokens at even and those at odd positions.

    Args:
        metric: (B, n, d) what likeness is measured on.
        r: tokens to merge away; what is more than half of n is cut down to that.

    Returns:
        The plan. Of two edges that are equally alike the one from the earlier token is merged first.
    """
    r = num_merged(metric.shape[1], r)
    if r == 0:
        everything = torch.arange((metric.shape[1] + 1) // 2, device=metric.device).expand(metric.shape[0], -1)
        return MergePlan(everything, everything[:, :0], everything[:, :0])
    metric = F.normalize(metric.float(), dim=-1)
    alike, target = (metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)).max(-1)
    order = alike.argsort(dim=-1, descending=True, stable=True)
    sources = order[:, :r]
    return MergePlan(order[:, r:].sort(-1).values, sources, target.gather(1, sources))


def merge_weighted(
    tokens: torch.Tensor, sizes: torch.Tensor, plan: MergePlan, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carries out a plan.

    Args:
        tokens: (B, n, d).
        sizes: (B, n) float32, how many patches each token stands for.
        plan: what `match_tokens` gave for these n tokens.
        weights: (B, n) what the mean is weighted with in place of the sizes, never negative; where all that merge weigh
            nothing, their sizes count.

    Returns:
        `(tokens, sizes)` with n - r tokens: what is left of A, then B. Means are taken in float32.
    """
    a, b = tokens[:, ::2], tokens[:, 1::2]
    size_a, size_b = sizes[:, ::2], sizes[:, 1::2]
    if weights is None:
        weight_a, weight_b = size_a, size_b
    else:
        weight_a, weight_b = weights[:, ::2], weights[:, 1::2]
    moved = take_tokens(size_a, plan.sources)
    merged_sizes = size_b.scatter_add(1, plan.targets, moved)
    if weights is not None:
        moved = take_tokens(weight_a, plan.sources)
        nothing = weight_b.scatter_add(1, plan.targets, moved) == 0
        weight_b = torch.where(nothing, size_b, weight_b)
        moved = torch.where(nothing.gather(1, plan.targets), take_tokens(size_a, plan.sources), moved)
    total = weight_b.scatter_add(1, plan.targets, moved)
    sums = add_rows(b * weight_b[..., None], plan.targets, take_tokens(a, plan.sources) * moved[..., None])
    merged = (sums / total[..., None]).to(tokens.dtype)
    tokens = torch.cat([take_tokens(a, plan.kept), merged], dim=1)
    return tokens, torch.cat([take_tokens(size_a, plan.kept), merged_sizes], dim=1)


def merged_positions(plan: MergePlan, num_tokens: int) -> torch.Tensor:
    """(B, n): where each token is found after `merge_weighted`; followed back, every patch gets the token it is part of."""
    num_kept = plan.kept.shape[1]
    in_a = torch.empty(plan.kept.shape[0], (num_tokens + 1) // 2, dtype=torch.long, device=plan.kept.device)
    in_a = in_a.scatter(1, plan.kept, torch.arange(num_kept, device=in_a.device).expand_as(plan.kept))
    in_a = in_a.scatter(1, plan.sources, num_kept + plan.targets)
    positions = in_a.new_empty(in_a.shape[0], num_tokens)
    positions[:, ::2] = in_a
    positions[:, 1::2] = num_kept + torch.arange(num_tokens // 2, device=in_a.device)
    return positions


def attention_sharpness(probabilities: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
    """What vid-TLDR takes for the saliency of a token: how sharply it attends.

    s_i = sum_j p_ij log p_ij, scaled to 0..1 over the tokens of a clip; what lies below the mean is background and
    becomes 0, the rest is scaled to 0..1 again.

    Args:
        probabilities: (B, heads, n, n) attention, rows sum to 1.
        eps: keeps log 0 out.

    Returns:
        (B, n) float32; all zeros where every token attends alike.
    """
    rows = probabilities.float().mean(1)
    sharpness = to_unit_range((rows * (rows + eps).log()).sum(-1))
    return to_unit_range((sharpness - sharpness.mean(-1, keepdim=True)).clamp_min(0))


def to_unit_range(scores: torch.Tensor) -> torch.Tensor:
    """(B, n) scaled so that every row reaches from 0 to 1; a row of equal values becomes 0."""
    low, high = scores.aminmax(dim=-1, keepdim=True)
    return (scores - low) / (high - low).clamp_min(torch.finfo(scores.dtype).tiny)


def take_tokens(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows `indices` (B, k) of `values` (B, n) or (B, n, d)."""
    if values.dim() == 2:
        return values.gather(1, indices)
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def add_rows(values: torch.Tensor, indices: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """`values` (B, n, d) with `rows` (B, k, d) added at `indices` (B, k); several rows may go to one place."""
    batch, length, width = values.shape
    flat = (indices + length * torch.arange(batch, device=indices.device)[:, None]).flatten()
    return values.reshape(-1, width).index_add(0, flat, rows.reshape(-1, width)).view(batch, length, width)
