# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear interpolation along time, to another number of steps per sequence and not per padded batch."""

import torch


def resized_places(num_steps, scale, lengths):
    """Where the steps of a resized sequence lie in the sequence it is made of, (B, num_steps).

    Half-pixel centres, p = (i + 1/2) scale - 1/2, kept inside [0, length - 1]: what torch's linear interpolation does with
    `align_corners=False`, but each sequence ends where its padding begins.

    Args:
        num_steps: steps of the result.
        scale: steps of the source per step of the result: a number, or (B, 1).
        lengths: (B, 1), steps of every source.
    """
    places = (torch.arange(num_steps, device=lengths.device)[None] + 0.5) * scale - 0.5
    return torch.minimum(places.clamp(min=0), lengths - 1)


def sample_between(values, places):
    """Values (B, T, D) at fractional places (B, S), by linear interpolation: (B, S, D). One table (1, T, D) serves all places."""
    below = places.floor().long()
    share = (places - below)[..., None].to(values.dtype)
    above = (below + 1).clamp(max=values.shape[1] - 1)
    rows = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[rows, below] * (1 - share) + values[rows, above] * share
