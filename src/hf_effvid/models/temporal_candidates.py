# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""From what a detector says at its points to scored segments, before any suppression of duplicates."""

from typing import NamedTuple

import torch

from .temporal_points import decode_segments


class Candidates(NamedTuple):
    """Segments of one video, unsuppressed.

    Fields:
        segments: (N, 2) in steps of the feature grid.
        scores: (N,) probabilities.
        labels: (N,) class indices.
    """

    segments: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


def select_candidates(
    logits, offsets, point_mask, points, score_threshold=0.001, top_k=2000, per_level=True, min_steps=0.05
):
    """The best (point, class) pairs of one video as segments, level by level and best first.

    Args:
        logits: (P, K).
        offsets: (P, 2) in strides.
        point_mask: (P,) bool, false at padding.
        points: (P, 4), see `temporal_points.py`.
        score_threshold: pairs must score above it.
        top_k: pairs to keep at most, of each level or, with `per_level=False`, of all levels together. Of equal scores the
            earlier point, then the lower class stays.
        per_level: see `top_k`.
        min_steps: segments must be longer than this many steps; they are dropped after `top_k`.

    Returns:
        `Candidates`.
    """
    scores = logits.sigmoid() * point_mask[:, None].to(logits.dtype)
    segments = decode_segments(points, offsets)
    if per_level:
        sizes = torch.unique_consecutive(points[:, 3], return_counts=True)[1].tolist()
    else:
        sizes = [len(points)]
    chosen = []
    first = 0
    for size in sizes:
        level = scores[first : first + size].flatten()
        above = (level > score_threshold).nonzero().squeeze(1)
        order = level[above].sort(descending=True, stable=True).indices[:top_k]
        chosen.append(above[order] + first * scores.shape[1])
        first += size
    pairs = torch.cat(chosen)
    places, labels = pairs // scores.shape[1], pairs % scores.shape[1]
    found = segments[places]
    long_enough = (found[:, 1] - found[:, 0]) > min_steps
    return Candidates(found[long_enough], scores.flatten()[pairs][long_enough], labels[long_enough])
