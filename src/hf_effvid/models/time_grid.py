# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Seconds of a video <-> steps of its feature grid, and the windows that a long grid is cut into. Pure arithmetic.

Feature i is computed from the `num_frames` frames that begin at frame i * stride, and stands for the middle of them. So step g, whole
or not, lies at

    seconds(g) = (g * stride + num_frames / 2) / fps,        steps(s) = (s * fps - num_frames / 2) / stride
"""

import math
from typing import NamedTuple


class TimeGrid(NamedTuple):
    """Where the steps of one video, or of one window of it, lie in time.

    Attributes:
        start: second that step 0 stands for.
        step: seconds from one step to the next.
    """

    start: float
    step: float

    @classmethod
    def from_frames(cls, stride, num_frames, fps):
        """The grid of features that are `stride` frames apart and see `num_frames` frames each.

        Args:
            stride: frames from one feature to the next.
            num_frames: frames that a feature is computed from.
            fps: frames per second of the video that `stride` and `num_frames` count.

        Raises:
            ValueError: a number that is not positive and finite.
        """
        for name, value in (("stride", stride), ("num_frames", num_frames), ("fps", fps)):
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a number above 0, got {value!r}.")
        return cls(0.5 * num_frames / fps, stride / fps)

    def to_seconds(self, steps):
        """Seconds of a step, or of a tensor or array of them."""
        return steps * self.step + self.start

    def to_steps(self, seconds):
        """Steps, not rounded, of a second, or of a tensor or array of them."""
        return (seconds - self.start) / self.step

    def shifted(self, steps):
        """The grid whose step 0 is this one's step `steps`."""
        return TimeGrid(self.to_seconds(steps), self.step)

    def stretched(self, num_steps, new_num_steps):
        """The grid after features over the whole video were resampled from `num_steps` steps to `new_num_steps`.

        The first and the last feature reach half of what they see beyond their middles; that whole span is shared out evenly.
        """
        span = (num_steps - 1) * self.step + 2 * self.start
        return TimeGrid(0.5 * span / new_num_steps, span / new_num_steps)


class FeatureWindow(NamedTuple):
    """A run of features of one video that the detector sees at once.

    Attributes:
        video: which video of the batch.
        first: first feature.
        num_steps: number of features.
        video_steps: number of features of the whole video.
        grid: where its steps lie in the video.
    """

    video: int
    first: int
    num_steps: int
    video_steps: int
    grid: TimeGrid


def window_starts(num_steps, length, overlap=0.5):
    """First steps of windows that cover a sequence.

    Windows are `length` steps long and share `overlap` of that; the last one ends where the sequence does and shares more.

    Args:
        num_steps: steps of the sequence.
        length: steps per window; None, or no fewer than there are: one window.
        overlap: share of a window, 0 or more and below 1.

    Raises:
        ValueError: an argument out of range.
    """
    if num_steps < 1:
        raise ValueError(f"a sequence needs at least one step, got {num_steps}.")
    hop = window_hop(num_steps if length is None else length, overlap)
    if length is None or num_steps <= length:
        return [0]
    last = num_steps - length
    return [*range(0, last, hop), last]


def window_hop(length, overlap=0.5):
    """Steps from one window of `length` steps to the next, when they share `overlap` of that.

    Raises:
        ValueError: an argument out of range.
    """
    if length < 1 or not 0 <= overlap < 1:
        raise ValueError(f"expected a length of at least 1 and an overlap in [0, 1), got {length} and {overlap}.")
    return max(1, round(length * (1 - overlap)))
