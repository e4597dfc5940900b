# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""The frames that a detector looks at: those of any source at even ticks, one at a time, so that no length fills the memory."""

from collections.abc import Mapping

import numpy as np

from .video_container import check_pixels, native_errors
from .video_decoding import probe
from .video_errors import VideoError, VideoLimits, VideoTooShort
from .video_iteration import iterate_frames, on_the_clock
from .video_memory import (
    decoder_frames,
    encoded_behind,
    is_decoder,
    is_frames,
    probe_decoder,
    probe_frames,
    read_frames,
)
from .video_pixels import output_size, resize
from .video_reader import read_video, to_frames
from .video_selection import check_selection, select_frames
from .video_sources import Deadline, open_source


# frames in memory that are converted at a time
_CHUNK = 16


class DetectorInputError(VideoError):
    """What was given is of the other kind than the detector takes (a video, features), or lacks what it needs."""


class TickedFrames:
    """The frame on display at every tick of a source: walk through it once; memory holds one frame.

    Args:
        source: What `read_video` takes, or `{"frames": ..., "fps": rate}`, where frames may also be an iterator, of frames or of
            (seconds, frame).
        fps: Ticks per second; None: the source's own rate.
        size: None, the shorter side, or (height, width).
        source_fps: Rate of frames that are in memory; None: `fps`.
        start, end: The part to look at, in seconds.
        limits, allow_remote: As in `read_video`; `limits.timeout` holds for each frame.

    Attributes:
        fps: Ticks per second, known from the first frame on.
        duration: Seconds that the part should last as far as its source says, else None; known from the first frame on.
        num_ticks: How many frames were given so far.

    Yields:
        uint8 tensors (3, H, W).

    Raises:
        VideoError: As `read_video`, possibly in the middle.
    """

    def __init__(
        self, source, fps=None, size=None, source_fps=None, start=None, end=None, limits=None, allow_remote=False
    ):
        check_selection(start=start, end=end, target_fps=fps)
        check_selection(target_fps=source_fps)
        self.source, self.fps, self.size, self.source_fps = source, fps, size, source_fps
        self.start, self.end = start or 0.0, end
        self.limits, self.allow_remote = limits or VideoLimits.default(), allow_remote
        self.duration, self.num_ticks = None, 0

    @property
    def seconds(self):
        """How long the part was: as its source said if the frames agree with that within a tick, else by the frames."""
        ticked = self.num_ticks / self.fps
        return self.duration if self.duration and abs(self.duration - ticked) <= 1 / self.fps else ticked

    def __iter__(self):
        self.num_ticks = 0
        source = encoded_behind(self.source)
        if isinstance(source, Mapping) and "frames" in source:
            self.source_fps = source.get("fps") or self.source_fps
            source = source["frames"]
        if is_decoder(source):
            frames = self._of_decoder(source)
        elif is_frames(source):
            frames = self._in_memory(source)
        elif hasattr(source, "__next__") and not hasattr(source, "read"):
            frames = self._of_iterator(source)
        else:
            frames = self._encoded(source)
        for frame in frames:
            self.num_ticks += 1
            yield frame
        if self.num_ticks == 0:
            raise VideoTooShort(self._name, f"no frame at or after start={self.start:g} s", "Choose an earlier start")

    def _known(self, name, rate, duration):
        self._name = name
        self.fps = self.fps or rate
        if self.fps is None:
            raise DetectorInputError(
                name, "frames without a frame rate", "Pass fps=..., or set feature_fps in the processor"
            )
        if duration is not None:
            end = duration if self.end is None else min(self.end, duration)
            self.duration = max(end - self.start, 0.0)

    def _encoded(self, source):
        opened = open_source(source, self.limits, self.allow_remote)
        try:
            deadline = Deadline(self.limits.timeout, opened.name)
            video, table, info, _ = probe(opened, self.limits, deadline)
            video.close()
            self._known(opened.name, info.fps, info.duration)
            deadline.renew()
            # a duration that was only claimed could be any number
            until = info.duration if table.exact else None
            part = (self.start, self.end, self.fps, self.size)
            ticks = iterate_frames(opened, self.limits, deadline, *part, duration=until)
            for _, pixels in ticks:
                yield to_frames(pixels)
        finally:
            opened.close()

    def _of_decoder(self, decoder):
        info = probe_decoder(decoder)
        check_pixels(info.width, info.height, info.source, self.limits)
        self._known(info.source, info.fps, info.duration)
        spaced = np.arange(info.num_frames) / (info.fps or 25.0)
        wanted, _ = select_frames(info, spaced, start=self.start, end=self.end, target_fps=self.fps)
        height, width = output_size(info.height, info.width, self.size)
        with native_errors(info.source):
            decoded = decoder_frames(decoder, sorted(set(wanted)), info)
            shown = None
            for index in wanted:  # they never go back
                if index != shown:
                    pixels, shown = resize(next(decoded)[0], height, width), index
                yield to_frames(pixels)

    def _in_memory(self, source):
        info = probe_frames(source)
        rate = self.source_fps or self.fps
        self._known(info.source, rate, info.num_frames / rate if rate else None)
        timed = on_the_clock(
            ((index / rate, index) for index in range(info.num_frames)), self.start, self.end, self.fps, 1 / rate
        )
        indices = [index for _, index in timed]
        for first in range(0, len(indices), _CHUNK):
            chunk = indices[first : first + _CHUNK]
            yield from to_frames(read_frames(source, self.limits, size=self.size, indices=chunk).pixels)

    def _of_iterator(self, source):
        rate = self.source_fps or self.fps
        self._known(f"<{type(source).__name__}>", rate, None)
        size = self.size
        for _, frame in on_the_clock(_timed(source, rate), self.start, self.end, self.fps, 1 / rate):
            pixels = read_frames([frame], self.limits, size=size).pixels
            size = pixels.shape[1:3]  # later frames become as large as the first
            yield to_frames(pixels[0])


def _timed(items, rate):
    """(seconds from the first, frame) of frames at a rate, or of frames that bring their seconds."""
    origin = None
    for index, item in enumerate(items):
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], (int, float)):
            origin = item[0] if origin is None else origin
            yield float(item[0] - origin), item[1]
        else:
            yield index / rate, item


def read_evenly(source, num_frames, size=None, source_fps=None, start=None, end=None, limits=None, allow_remote=False):
    """So many frames, spread evenly over a video, and its seconds; for detectors that see every video whole.

    Args:
        source: What `read_video` takes, or `{"frames": ..., "fps": rate}` with frames in memory.
        num_frames: How many.
        size, source_fps, start, end, limits, allow_remote: See `TickedFrames`.

    Returns:
        Frames (num_frames, 3, H, W) uint8 and the duration in seconds.

    Raises:
        VideoError: As `read_video`, or the duration is unknown.
    """
    if isinstance(source, Mapping) and "frames" in source:
        source_fps, source = source.get("fps") or source_fps, source["frames"]
    reading = dict(size=size, limits=limits, start=start, end=end)
    decoded = read_video(source, num_frames=num_frames, allow_remote=allow_remote, **reading)
    info = decoded.info
    duration = info.duration if info.duration is not None else source_fps and info.num_frames / source_fps
    if not duration:
        raise DetectorInputError(info.source, "frames without a frame rate", "Pass fps=...")
    return decoded.frames, min(duration, duration if end is None else end) - (start or 0.0)


__all__ = ["DetectorInputError", "TickedFrames", "read_evenly"]
