# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A long video through the trunk of a video classifier: features per time for a detector, from pixels, with gradients.

The video is cut into clips that the trunk was trained with; tokens are averaged over space, put one after the other and interpolated to
the steps of the detector. Clips do not see each other, unless temporal adapters (AdaTAD's TIA, https://huggingface.co/papers/2311.17241)
sit between the blocks. Padding is never computed.
"""

from typing import NamedTuple

import torch
from torch import nn

from .clip_trunks import embed_videomae, finish_videomae, make_trunk, run_trunk
from .temporal_resize import resized_places, sample_between


class ClipPlaces(NamedTuple):
    """Where N clips stand in B videos of n clips each.

    Fields:
        num_videos, num_clips: B and n.
        present: (B, n), the clips that hold frames of their video; None when all do, which also keeps shapes free of values.
    """

    num_videos: int
    num_clips: int
    present: torch.Tensor | None = None

    def line_up(self, per_clip):
        """(N, ...) per clip to (B, n, ...) per video, zeros where there is no clip."""
        if self.present is None:
            return per_clip.unflatten(0, (self.num_videos, self.num_clips))
        lined = per_clip.new_zeros(self.num_videos, self.num_clips, *per_clip.shape[1:])
        lined[self.present] = per_clip
        return lined

    def pick(self, lined):
        """The way back, (B, n, ...) to (N, ...)."""
        return lined.flatten(0, 1) if self.present is None else lined[self.present]


class TemporalAdapter(nn.Module):
    """x + g Up(a + W DWConv(a)) with a = GELU(Down(x)); the depth-wise convolution runs over all steps of a video, across its clips.

    `Up` starts at zero, so that a new adapter changes nothing.
    """

    def __init__(self, size, reduction):
        super().__init__()
        inner = size // reduction
        self.down = nn.Linear(size, inner)
        self.temporal = nn.Conv1d(inner, inner, kernel_size=3, padding=1, groups=inner)
        self.mix = nn.Linear(inner, inner)
        self.up = nn.Linear(inner, size)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, tokens, steps, places):
        """Tokens (N, t * s, D) of N clips at their `ClipPlaces`, `steps` = t; the same shape comes back."""
        reduced = nn.functional.gelu(self.down(tokens)).unflatten(1, (steps, -1))  # (N, t, s, d)
        lined = places.line_up(reduced).flatten(1, 2).permute(0, 2, 3, 1)  # (B, s, d, n t)
        mixed = self.temporal(lined.flatten(0, 1)).unflatten(0, lined.shape[:2])
        mixed = places.pick(mixed.permute(0, 3, 1, 2).unflatten(1, (-1, steps)))  # (N, t, s, d)
        return tokens + self.gamma * self.up(reduced + self.mix(mixed)).flatten(1, 2)


class ClipBackbone(nn.Module):
    """Frames (B, T, C, H, W) to features (B, S, D) and their mask (B, S), S = ceil(T / frames_per_step)."""

    def __init__(self, config):
        super().__init__()
        self.trunk = make_trunk(config.backbone_config)
        self.clip_frames = config.clip_frames
        self.frames_per_step = config.frames_per_step
        self.clips_per_pass = config.clips_per_pass
        self.frozen = config.freeze_backbone
        self.adapters = None
        if config.temporal_adapters:
            self.adapters = nn.ModuleList(
                TemporalAdapter(config.feature_sizes[0], config.adapter_reduction) for _ in self.trunk.encoder.layer
            )
        self.freeze()

    def freeze(self):
        """Takes the trunk out of training where `config.freeze_backbone` says so."""
        if self.frozen:
            self.trunk.requires_grad_(False)

    def train(self, mode=True):
        """A frozen trunk stays as it is at inference: no dropout, no stochastic depth."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, pixel_values, pixel_mask=None):
        """Features of videos.

        Args:
            pixel_values: (B, T, C, H, W), normalised floats.
            pixel_mask: (B, T), 1 at frames of the video, 0 at padding after them. None: no padding.

        Returns:
            Features (B, S, D) and their mask (B, S), or None for the mask when there is no padding.
        """
        lengths = None
        if pixel_mask is not None:
            lengths = pixel_mask.to(pixel_values.device).bool().sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
        clips, places = self._cut(pixel_values, lengths)
        if self.frozen and self.adapters is None:
            with torch.no_grad():
                per_clip = self._encode(clips, places)
        else:
            per_clip = self._encode(clips, places)
        return self.lay_out(per_clip, places, pixel_values.shape[1], lengths)

    def encode_clips(self, clips):
        """Features (N, t, D) of clips (N, F, C, H, W) that are whole; of a backbone without adapters.

        Raises:
            ValueError: adapters connect the clips of a video.
        """
        if self.adapters is not None:
            raise ValueError("with temporal adapters clips see each other: encode videos, not clips.")
        return self._encode(clips.to(next(self.trunk.parameters()).dtype), None)

    def lay_out(self, per_clip, places, num_frames, lengths=None):
        """Features of clips to features of steps.

        Args:
            per_clip: (N, t, D).
            places: `ClipPlaces` of the N clips.
            num_frames: T, of every video.
            lengths: (B, 1), frames that are no padding; None: all.

        Returns:
            As `forward`.
        """
        num_steps = -(-num_frames // self.frames_per_step)
        steps = per_clip.shape[1]
        # single precision: interpolation and everything after it is the cheap part
        features = places.line_up(per_clip).flatten(1, 2).float()
        if lengths is None:
            source_lengths = torch.full((1, 1), features.shape[1], device=features.device)
        else:
            source_lengths = places.present.sum(dim=1, keepdim=True) * steps
        scale = steps * self.frames_per_step / self.clip_frames
        features = sample_between(features, resized_places(num_steps, scale, source_lengths))
        if lengths is None:
            return features, None
        num_valid = (lengths + self.frames_per_step - 1) // self.frames_per_step
        return features, torch.arange(num_steps, device=features.device)[None] < num_valid

    def _cut(self, pixel_values, lengths):
        """Clips (N, F, C, H, W) that hold frames of their video, and their `ClipPlaces`. A last frame fills its clip up."""
        videos, frames = pixel_values.shape[:2]
        num_clips = -(-frames // self.clip_frames)
        pixel_values = pixel_values.to(next(self.trunk.parameters()).dtype)
        if lengths is None:
            missing = num_clips * self.clip_frames - frames
            if missing:
                last = pixel_values[:, -1:].expand(-1, missing, -1, -1, -1)
                pixel_values = torch.cat([pixel_values, last], dim=1)
            clips = pixel_values.unflatten(1, (num_clips, self.clip_frames)).flatten(0, 1)
            return clips, ClipPlaces(videos, num_clips)
        starts = torch.arange(num_clips, device=pixel_values.device)[None] * self.clip_frames
        present = starts < lengths
        chosen = torch.arange(num_clips * self.clip_frames, device=pixel_values.device)[None]
        chosen = torch.minimum(chosen, lengths - 1).unflatten(1, (num_clips, self.clip_frames))[present]  # (N, F)
        owners = torch.arange(videos, device=pixel_values.device)[:, None].expand(-1, num_clips)[present]
        return pixel_values[owners[:, None], chosen], ClipPlaces(videos, num_clips, present)

    def _encode(self, clips, places):
        """Features per clip and step, (N, t, D). At most `clips_per_pass` clips at a time."""
        size = self.clips_per_pass or len(clips)
        if self.adapters is None:
            return torch.cat([run_trunk(self.trunk, part).per_step() for part in clips.split(size)])
        embedded = [embed_videomae(self.trunk, part) for part in clips.split(size)]
        tokens = torch.cat([part.tokens for part in embedded])
        for layer, adapter in zip(self.trunk.encoder.layer, self.adapters, strict=True):
            tokens = torch.cat([layer(part) for part in tokens.split(size)])
            tokens = adapter(tokens, embedded[0].steps, places)
        return embedded[0]._replace(tokens=finish_videomae(self.trunk, tokens)).per_step()
