# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention along time: of everything to everything, or of every step to its neighbours only.

With a window of w = 2 r + 1 steps, step i attends to the steps j with |i - j| <= r that exist and are no padding. That is a softmax
under a mask in the shape of a band, so any length will do. Two ways give the same numbers: one masked matrix of all pairs, and
blocks of queries with the keys around them, whose memory grows with the length and not with its square.

Shapes: query, key, value (B, heads, T, d); valid (B, T) bool; bias (heads, w), added to the scores of the step i - r + k at place k.
"""

import torch
from torch import nn


# up to the second, one matrix of all pairs costs no more than blocks do
BLOCK_SIZE = 64
LONGEST_DENSE = 128


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Plain attention, which also returns the weights."""
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def attend_to_all(attend, query, key, value, valid=None):
    """Attention to every valid step.

    Args:
        attend: function of (query, key, value, additive mask or None) to (output (B, T, heads, d), weights or None).
        query, key, value: (B, heads, T, d).
        valid: (B, T), or None when there is no padding.

    Returns:
        Output (B, T, heads, d), and the weights (B, heads, T, T) or None.
    """
    mask = None if valid is None else _additive(valid[:, None, None, :], query.dtype)
    return attend(query, key, value, mask)


def attend_in_band(attend, query, key, value, valid, window, bias=None, dense=None):
    """Attention of every step to the `window` steps around it.

    Args:
        attend: see `attend_to_all`.
        query, key, value: (B, heads, T, d).
        valid: (B, T).
        window: w, odd.
        bias: (heads, w) or None.
        dense: whether to compute all pairs; None decides by the length.

    Returns:
        Output (B, T, heads, d), and the weights (B, heads, T, T) or None. Rows of padding are finite and without meaning.
    """
    steps, radius = query.shape[2], window // 2
    if dense is None:
        dense = steps <= LONGEST_DENSE
    if dense:
        places = torch.arange(steps, device=query.device)
        mask = _band_mask(places[None] - places[:, None], valid[:, None, :], radius, bias, query.dtype)
        return attend(query, key, value, mask)
    return _attend_in_blocks(attend, query, key, value, valid, radius, bias), None


def _attend_in_blocks(attend, query, key, value, valid, radius, bias):
    batch, heads, steps, width = query.shape
    size = max(BLOCK_SIZE, radius)
    num_blocks = -(-steps // size)
    missing = num_blocks * size - steps

    def around(states):  # (B, heads, T, d) -> (B * blocks, heads, size + 2 r, d)
        states = nn.functional.pad(states, (0, 0, radius, radius + missing))
        return states.unfold(2, size + 2 * radius, size).permute(0, 2, 1, 4, 3).flatten(0, 1)

    blocks = (
        nn.functional.pad(query, (0, 0, 0, missing)).unflatten(2, (num_blocks, size)).transpose(1, 2).flatten(0, 1)
    )
    seen = nn.functional.pad(valid, (radius, radius + missing)).unfold(1, size + 2 * radius, size).flatten(0, 1)
    places = torch.arange(size + 2 * radius, device=query.device)
    mask = _band_mask(places[None] - radius - places[:size, None], seen[:, None, :], radius, bias, query.dtype)
    output, _ = attend(blocks, around(key), around(value), mask)  # (B * blocks, size, heads, d)
    return output.reshape(batch, num_blocks * size, heads, width)[:, :steps]


def _band_mask(distances, valid, radius, bias, dtype):
    """Additive mask (B, 1 or heads, queries, keys) of distances key - query (queries, keys) and valid keys (B, 1, keys).

    A step always attends to itself, so that no row is empty, not even one of padding.
    """
    allowed = ((distances.abs() <= radius) & valid) | (distances == 0)
    if bias is None:
        return _additive(allowed[:, None], dtype)
    scores = bias[:, (distances + radius).clamp(0, 2 * radius)].to(dtype)  # (heads, queries, keys)
    return scores.masked_fill(~allowed[:, None], torch.finfo(dtype).min)


def _additive(allowed, dtype):
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)
