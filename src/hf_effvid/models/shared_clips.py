# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Clips that overlapping windows have in common go through the trunk once: with half of every window seen again, half the work.

A clip is recognised by its frames, the tensors themselves, which windows share. So nothing has to be known of videos, batches or how windows
overlap: where clips of one window are not clips of the next, nothing is shared, and the result is the same.
"""

import torch

from .clip_backbone import ClipPlaces


class SharedClips:
    """Features of windows, for one run: it remembers the clips of the last call.

    Args:
        backbone: a `ClipBackbone` without temporal adapters, through which clips of a window would see each other.
        processor: its recipe says how frames become model input.
    """

    def __init__(self, backbone, processor):
        self.backbone, self.processor = backbone, processor
        self.known = {}

    def features(self, windows, device):
        """Features (B, S, D) of windows of one length.

        Args:
            windows: `DetectorWindow`s with frames.
            device: where frames are normalised; that of the backbone.
        """
        clips = [cut_clips(window.frames, self.backbone.clip_frames) for window in windows]
        wanted = {identity(clip): clip for cut in clips for clip in cut}
        new = [key for key in wanted if key not in self.known]
        size = self.backbone.clips_per_pass or len(new) or 1
        for first in range(0, len(new), size):
            keys = new[first : first + size]
            pixels = [self.processor.transform_clip(torch.stack(wanted[key]).to(device)) for key in keys]
            # the frames stay with their features: as long as they live, no other tensor takes their identity
            found = self.backbone.encode_clips(torch.stack(pixels))
            self.known.update((key, (wanted[key], one)) for key, one in zip(keys, found, strict=True))
        self.known = {key: self.known[key] for key in wanted}
        per_clip = torch.stack([self.known[identity(clip)][1] for cut in clips for clip in cut])
        places = ClipPlaces(len(windows), len(clips[0]))
        return self.backbone.lay_out(per_clip, places, len(windows[0].frames))[0]


def identity(clip):
    """What tells a clip from all others that are alive."""
    return tuple(map(id, clip))


def cut_clips(frames, length):
    """Clips side by side; the last frame fills up the last one."""
    clips = [tuple(frames[first : first + length]) for first in range(0, len(frames), length)]
    clips[-1] += (frames[-1],) * (length - len(clips[-1]))
    return clips


__all__ = ["SharedClips"]
