# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention that tokens receive, for `scorer="attention"`: what a full pass would look at. To analyse, not to save."""

import torch


def received_attention(queries, keys, scaling):
    """Attention (B, n) that every token receives, mean over heads and queries, in single precision.

    Args:
        queries, keys: (B, n, heads, channels per head).
        scaling: of their products.
    """
    # head by head: the map of all heads of a large clip is the largest tensor of the whole pass
    by_head = zip(queries.float().unbind(2), keys.float().unbind(2), strict=True)
    received = [(query @ key.mT * scaling).softmax(dim=-1).mean(dim=1) for query, key in by_head]
    return torch.stack(received).mean(dim=0)
