"""The non-local block (https://huggingface.co/papers/1711.07971) on feature maps of videos: every position sees every other."""

import torch
from torch import nn
from torch.nn import functional as F


KINDS = ("embedded_gaussian", "dot_product")


class NonLocal3d(nn.Module):
    """x + W(A g(x)), with A = softmax(theta(x)^T phi(x)), not scaled by the width, or theta(x)^T phi(x) / positions.

    Starts as the identity: the normalisation behind W, or W itself where there is none, starts at zero. Memory grows with the square of
    the number of positions: meant for last stages (392 positions at 8 x 7 x 7).

    Args:
        channels: of the input and the output.
        inner_channels: of theta, phi and g; None: half of `channels`, at least 1.
        sub_sample: what is looked at (phi, g) is max-pooled by 2 in height and width.
        batch_norm: BatchNorm behind W.
        kind: `"embedded_gaussian"` or `"dot_product"`.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, channels, inner_channels=None, sub_sample=False, batch_norm=True, kind="embedded_gaussian"):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        inner_channels = max(channels // 2, 1) if inner_channels is None else inner_channels
        self.sub_sample, self.kind = sub_sample, kind
        self.theta = nn.Conv3d(channels, inner_channels, 1)
        self.phi = nn.Conv3d(channels, inner_channels, 1)
        self.g = nn.Conv3d(channels, inner_channels, 1)
        self.project = nn.Conv3d(inner_channels, channels, 1)
        self.norm = nn.BatchNorm3d(channels) if batch_norm else nn.Identity()
        last = self.norm if batch_norm else self.project
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features):
        """(B, C, T, H, W) -> the same shape."""
        values = self._looked_at(self.g(features)).transpose(1, 2)
        seen = (self.attention(features) @ values).transpose(1, 2)
        return features + self.norm(self.project(seen.unflatten(2, features.shape[2:])))

    def attention(self, features):
        """A, (B, positions, positions looked at)."""
        affinity = self.theta(features).flatten(2).transpose(1, 2) @ self._looked_at(self.phi(features))
        if self.kind == "dot_product":
            return affinity / affinity.shape[-1]
        return torch.softmax(affinity, dim=-1)

    def _looked_at(self, features):
        return (F.max_pool3d(features, (1, 2, 2)) if self.sub_sample else features).flatten(2)
