# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows that a detector sees at once, cut while a video is still being decoded, or out of its features.

The windows are those of `time_grid.window_starts`, which has to know how long a video is; here they come as soon as their last frame
is there, and no more frames are kept than the next window and the last one may need.
"""

from collections import deque
from typing import Any, NamedTuple

import torch

from .time_grid import FeatureWindow, TimeGrid, window_hop


class DetectorWindow(NamedTuple):
    """One window, ready for the detector.

    Attributes:
        first: first step.
        num_steps: number of steps.
        grid: where its steps lie in the video.
        frames: its frames, uint8 tensors (3, H, W), of detectors that read pixels; windows that overlap share them.
        features: (T, C) and their mask (T,) of detectors that take features, padded to the recipe's `pad_length`.
    """

    first: int
    num_steps: int
    grid: TimeGrid
    frames: tuple | None = None
    features: Any = None

    @property
    def shape(self):
        """What windows of one batch have in common."""
        if self.frames is None:
            return tuple(self.features[0].shape)
        return (len(self.frames), *self.frames[0].shape)

    @property
    def place(self):
        """The window as `ActionFormerProcessor.decode_windows` takes it; how long its video is need not be known."""
        return FeatureWindow(0, self.first, self.num_steps, None, self.grid)


class WindowCutter:
    """Frames in, one by one; windows out, as soon as they are complete.

    Args:
        grid: where the steps of the video lie.
        length: steps per window.
        overlap: share of a window that the next one sees again.
        frames_per_step: frames of one step; the last step of a video may have fewer.
    """

    def __init__(self, grid, length, overlap=0.5, frames_per_step=1):
        self.grid, self.length, self.frames_per_step = grid, length, frames_per_step
        self.hop = window_hop(length, overlap)
        self.kept = deque()
        self.num_frames = 0  # so far
        self.next = 0  # first step of the next window
        self.last = None  # first step of the last window that was given

    @property
    def num_steps(self):
        """Steps of the video so far."""
        return -(-self.num_frames // self.frames_per_step)

    def push(self, frame):
        """Take one frame; a list of the windows that it completes, one or none."""
        self.kept.append(frame)
        self.num_frames += 1
        windows = []
        if self.num_frames == (self.next + self.length) * self.frames_per_step:
            windows = [self._cut(self.next, self.length)]
            self.next += self.hop
        # the last window ends with the video, wherever that will be
        needed = min(self.next, max(self.num_steps - self.length, 0)) * self.frames_per_step
        while self.num_frames - len(self.kept) < needed:
            self.kept.popleft()
        return windows

    def finish(self):
        """The video has ended; a list of the window that its end still needs, one or none."""
        length = min(self.length, self.num_steps)
        first = self.num_steps - length
        return [] if first == self.last or not self.num_frames else [self._cut(first, length)]

    def _cut(self, first, length):
        self.last = first
        skipped = first * self.frames_per_step - (self.num_frames - len(self.kept))
        frames = tuple(self.kept)[skipped : skipped + length * self.frames_per_step]
        return DetectorWindow(first, length, self.grid.shifted(first), frames=frames)


def pixels_of(windows, processor, pad_frames=None, device="cpu"):
    """One batch of windows of one length.

    Args:
        windows: `DetectorWindow`s with frames.
        processor: its recipe says how frames become model input.
        pad_frames: fill shorter windows up to so many frames.
        device: where frames are normalised.

    Returns:
        `{"pixel_values": (B, frames, 3, H, W)}`, with `pixel_mask` (B, frames) if there is padding.
    """
    clips = [processor.transform_clip(torch.stack(window.frames).to(device)) for window in windows]
    pixel_values = torch.stack(clips)
    missing = (pad_frames or 0) - pixel_values.shape[1]
    if missing <= 0:
        return {"pixel_values": pixel_values}
    mask = torch.ones(pixel_values.shape[:2], dtype=torch.bool, device=pixel_values.device)
    padding = pixel_values.new_zeros(len(windows), missing, *pixel_values.shape[2:])
    return {
        "pixel_values": torch.cat([pixel_values, padding], dim=1),
        "pixel_mask": torch.nn.functional.pad(mask, (0, missing)),
    }


__all__ = ["DetectorWindow", "WindowCutter", "pixels_of"]
