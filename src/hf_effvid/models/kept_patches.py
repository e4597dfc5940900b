# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""From pixels to the embeddings of the kept tokens: all patches are embedded only where the scorer has to see them.

Shapes: B clips, T frames of C x H x W pixels, N tokens in the order (t, y, x) of a grid, k of them kept, D channels.
"""

from dataclasses import dataclass

import torch
from torch import nn

from .token_selection import TokenGrid, TokenSelectionError, gather_tokens, needs_embeddings


@dataclass
class ClipPatches:
    """A clip as a host's patch embedding reads it.

    Attributes:
        pixel_values: (B, T, C, H, W).
        projection: the host's `nn.Conv3d` over tubelets, or `nn.Conv2d` where a token is a patch of one frame.
        positions: (1, N, D), what the host adds to the patches; None for a host whose positions come later.
        embedded: (B, N, D), what `embed` gives, where somebody has computed it already.

    Raises:
        TokenSelectionError: there are not as many positions as tokens.
    """

    pixel_values: torch.Tensor
    projection: nn.Module
    positions: torch.Tensor | None = None
    embedded: torch.Tensor | None = None

    def __post_init__(self):
        if self.positions is not None and self.positions.shape[1] != self.grid.num_tokens:
            raise TokenSelectionError(
                f"The model has positions for {self.positions.shape[1]} tokens, clips {tuple(self.pixel_values.shape)} have "
                f"{self.grid.num_tokens}: pass clips of the size that it takes, or interpolate its positions first."
            )

    @property
    def patch(self):
        """(frames, height, width) of a token in pixels."""
        return (1, *self.projection.kernel_size)[-3:]

    @property
    def grid(self):
        """`TokenGrid` of a clip; pixels beyond the last whole token do not count."""
        _, frames, _, height, width = self.pixel_values.shape
        return TokenGrid(*(size // patch for size, patch in zip((frames, height, width), self.patch, strict=True)))

    def embed(self):
        """Embeddings (B, N, D) of all patches, without positions."""
        if self.embedded is not None:
            return self.embedded
        if self.patch[0] == 1 and isinstance(self.projection, nn.Conv2d):
            frames = self.projection(self.pixel_values.flatten(0, 1)).flatten(2).transpose(1, 2)
            return frames.unflatten(0, self.pixel_values.shape[:2]).flatten(1, 2)
        return self.projection(self.pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)

    def embed_kept(self, kept_indices):
        """Embeddings (B, k, D) of the patches at `kept_indices` (B, k) alone, without positions.

        A convolution whose stride is its kernel is one matrix product per patch: the two ways differ by rounding (6e-6).
        """
        if self.embedded is not None:
            return gather_tokens(self.embedded, kept_indices)
        patches = gather_tokens(cut_patches(self.pixel_values, self.grid, *self.patch), kept_indices)
        return nn.functional.linear(patches, self.projection.weight.flatten(1), self.projection.bias)

    def positions_at(self, kept_indices):
        """Positions (B, k, D) of the kept places, or 0 where the host adds none."""
        if self.positions is None:
            return 0
        return gather_tokens(self.positions.expand(kept_indices.shape[0], -1, -1), kept_indices)


@dataclass
class SelectedTokens:
    """What the blocks of a host get.

    Attributes:
        states: (B, k, D), with positions; a class token comes before them.
        kept_indices: (B, k), ascending places in the order (t, y, x).
        token_scores: (B, N), or None when nothing had to be chosen.
        num_tokens: N.
    """

    states: torch.Tensor
    kept_indices: torch.Tensor
    token_scores: torch.Tensor | None
    num_tokens: int


def cut_patches(pixel_values, grid, tubelet_size, height, width):
    """Pixels of every token, (B, N, C * tubelet_size * height * width), in the order of a convolution's weight."""
    pixels = pixel_values[:, : grid.frames * tubelet_size, :, : grid.height * height, : grid.width * width]
    cells = pixels.unflatten(1, (grid.frames, tubelet_size)).unflatten(4, (grid.height, height))
    cells = cells.unflatten(6, (grid.width, width))  # (B, t, tubelet, C, y, height, x, width)
    return cells.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)


def select_and_embed(patches, scorer, select):
    """Chooses tokens of a clip and embeds them.

    Args:
        patches: `ClipPatches`.
        scorer: name of a scorer.
        select: function of (patch_embeddings, embeddings), both None for a scorer that does not read them, that returns kept places
            (B, k) and scores (B, N).

    Returns:
        Embeddings with positions (B, k, D), kept places and scores.
    """
    if not needs_embeddings(scorer):
        kept_indices, token_scores = select(None, None)
        tokens = patches.embed_kept(kept_indices) + patches.positions_at(kept_indices)
        return tokens, kept_indices, token_scores
    patch_embeddings = patches.embed()
    embeddings = patch_embeddings if patches.positions is None else patch_embeddings + patches.positions
    kept_indices, token_scores = select(patch_embeddings, embeddings)
    return gather_tokens(embeddings, kept_indices), kept_indices, token_scores
