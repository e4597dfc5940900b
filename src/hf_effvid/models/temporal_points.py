# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Points of a temporal pyramid: where they lie, which of them answer for which segment, and back from offsets to segments.

Everything is in steps of the feature grid. A point is a row (t, low, high, stride): its place, the distances that its level answers
for, and the step of its level. P points over all levels, finest level first.
"""

from typing import NamedTuple

import torch


class PointTargets(NamedTuple):
    """What every point of one video should say.

    Fields:
        classes: (P, K), 1 for every class that the point answers for; all 0 at background.
        offsets: (P, 2), distances to start and end in strides of the point's level; without meaning at background.
        positive: (P,) bool, whether the point answers for a segment.
    """

    classes: torch.Tensor
    offsets: torch.Tensor
    positive: torch.Tensor


def make_points(num_steps, regression_ranges, device=None, dtype=torch.float32):
    """Points (P, 4) of a sequence of `num_steps`: level l has ceil(num_steps / 2^l) of them, the first one at 0."""
    levels = []
    for level, (low, high) in enumerate(regression_ranges):
        stride = 2**level
        times = torch.arange(0, num_steps, stride, device=device, dtype=dtype)
        constants = torch.tensor([low, high, stride], device=device, dtype=dtype).expand(times.shape[0], 3)
        levels.append(torch.cat([times[:, None], constants], dim=1))
    return torch.cat(levels)


def decode_segments(points, offsets):
    """Segments (..., P, 2) of points (P, 4) with offsets (..., P, 2): (t - o_1 s, t + o_2 s)."""
    times, strides = points[:, 0], points[:, 3]
    return torch.stack([times - offsets[..., 0] * strides, times + offsets[..., 1] * strides], dim=-1)


def assign_targets(points, segments, labels, num_labels, center_sampling="radius", center_sampling_radius=1.5):
    """Which points answer for which segments of one video.

    A point t answers for (a, b) with centre c if it lies strictly inside [max(a, c - r s), min(b, c + r s)] (with
    `center_sampling="none"`: inside (a, b)) and low <= max(t - a, b - t) <= high. Of several segments it takes the shortest; the
    classes of all that are no more than 1e-3 longer are joined (a segment may have two names), the offsets are those of the first.

    Args:
        points: (P, 4).
        segments: (M, 2), M may be 0.
        labels: (M,) class indices.
        num_labels: K.
        center_sampling: `"radius"` or `"none"`.
        center_sampling_radius: r, in strides of the point's level.

    Returns:
        `PointTargets`.
    """
    num_points = len(points)
    if len(segments) == 0:
        zeros = points.new_zeros(num_points, num_labels)
        return PointTargets(zeros, points.new_zeros(num_points, 2), zeros.new_zeros(num_points, dtype=torch.bool))
    times, low, high, strides = (column[:, None] for column in points.unbind(1))  # (P, 1)
    starts, ends = segments.to(points.dtype).unbind(1)  # (M,)
    to_start, to_end = times - starts, ends - times  # (P, M)
    inside = torch.minimum(to_start, to_end)
    if center_sampling == "radius":
        centers, reach = 0.5 * (starts + ends), strides * center_sampling_radius
        inside = torch.minimum(
            times - torch.maximum(centers - reach, starts), torch.minimum(centers + reach, ends) - times
        )
    farther = torch.maximum(to_start, to_end)
    matches = (inside > 0) & (farther >= low) & (farther <= high)

    lengths = (ends - starts).expand_as(matches).masked_fill(~matches, torch.inf)
    shortest, first = lengths.min(dim=1)
    chosen = (matches & (lengths <= shortest[:, None] + 1e-3)).to(points.dtype)
    one_hot = torch.nn.functional.one_hot(labels.long(), num_labels).to(points.dtype)  # (M, K)
    classes = (chosen @ one_hot).clamp(max=1.0)
    offsets = torch.stack([to_start, to_end], dim=-1)[torch.arange(num_points, device=points.device), first]
    return PointTargets(classes, offsets / strides, matches.any(dim=1))
