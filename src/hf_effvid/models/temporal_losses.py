# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses of temporal detectors, element by element: focal loss on classes, DIoU and GIoU on segments that share a point.

A segment is given by its distances (left, right) >= 0 from a point, so that two segments of the same point always overlap or
touch.
"""

import torch
from torch import nn


EPS = 1e-8


def smooth_labels(targets, amount):
    """y (1 - e) + e / (K + 1) for targets (..., K) of 0 and 1."""
    return targets if amount == 0 else targets * (1.0 - amount) + amount / (targets.shape[-1] + 1)


def sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0):
    """Focal loss of independent classes, per element (https://huggingface.co/papers/1708.02002).

    FL = -a_t (1 - p_t)^g log(p_t), with p_t = p y + (1 - p)(1 - y) and a_t = a y + (1 - a)(1 - y).

    Args:
        logits: of any shape, before the sigmoid.
        targets: the same shape, in [0, 1].
        alpha: weight of the positive side.
        gamma: how much less a sure answer counts.
    """
    probabilities = logits.sigmoid()
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    agreement = probabilities * targets + (1 - probabilities) * (1 - targets)
    weights = alpha * targets + (1 - alpha) * (1 - targets)
    return weights * cross_entropy * (1 - agreement) ** gamma


def _overlap_and_union(offsets, targets):
    shared = torch.minimum(offsets, targets).sum(-1)
    return shared, offsets.sum(-1) + targets.sum(-1) - shared


def giou_loss(offsets, targets):
    """1 - GIoU of segments around the same points, (N,) of offsets (N, 2) >= 0.

    Both contain their point, so that the smallest segment around both is their union, and GIoU = IoU.
    """
    shared, union = _overlap_and_union(offsets, targets)
    return 1.0 - shared / union.clamp(min=EPS)


def diou_loss(offsets, targets):
    """1 - IoU + (d / c)^2 of segments around the same points, (N,) of offsets (N, 2) >= 0.

    d is the distance of the two centres, c the length of the smallest segment around both
    (https://huggingface.co/papers/1911.08287).
    """
    around = torch.maximum(offsets, targets).sum(-1)
    difference = offsets - targets
    distance = 0.5 * (difference[..., 1] - difference[..., 0])
    return giou_loss(offsets, targets) + (distance / around.clamp(min=EPS)) ** 2


SEGMENT_LOSSES = {"diou": diou_loss, "giou": giou_loss}


class RunningCount(nn.Module):
    """Running mean of the number of positive points, N <- m N + (1 - m) max(n, 1), by which losses are divided.

    It is a buffer: training that goes on from a checkpoint goes on with it. It moves in training mode only, so that a loss on
    validation data leaves no trace.
    """

    def __init__(self, initial, momentum):
        super().__init__()
        self.initial = float(initial)
        self.momentum = momentum
        self.register_buffer("value", torch.tensor(self.initial))

    def _apply(self, fn, recurse=True):
        """Goes to another device with the model, but stays in single precision: in half, small steps would be rounded away."""
        before = self.value
        super()._apply(fn, recurse)
        on_meta = before.is_meta or self.value.is_meta
        self.value = self.value.float() if on_meta else before.to(self.value.device)
        return self

    def forward(self, count):
        """The mean after `count` (a scalar tensor) positive points; a tensor of its own, so that a later step does not change it."""
        if self.training:
            count = count.to(self.value.dtype).clamp(min=1.0)
            self.value.copy_(self.momentum * self.value + (1.0 - self.momentum) * count)
        return self.value.clone()
