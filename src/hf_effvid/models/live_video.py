# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Frames of what never ends: cameras, pipes and live addresses, opened by FFmpeg itself. Only ever where the caller said so."""

import os
import stat

from .video_container import check_pixels, native_errors, video_streams
from .video_errors import VideoEmpty, VideoLimits, VideoNotReadable, VideoSourceNotAllowed
from .video_pixels import RgbConverter, orientation_of_frame
from .video_sources import URL_SCHEMES
from .video_timeline import stream_fps


try:
    import av
except Exception:  # PyAV raises more than ImportError when a bundled library does not fit the system
    av = None

_TIMEOUT = 10.0  # seconds to open a source, and to wait for its next data


def check_live_source(source):
    """Refuses devices, pipes and live addresses; whoever means one says so.

    Raises:
        VideoSourceNotAllowed: naming the option.
    """
    if not isinstance(source, (str, os.PathLike)):
        return
    text = os.fsdecode(source)
    if "://" in text and not text.lower().startswith(URL_SCHEMES):
        raise VideoSourceNotAllowed(text, "an address that FFmpeg would open itself", "Pass live=True if you trust it")
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError):
        return  # the video path says what is wrong with it
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise VideoSourceNotAllowed(
            text, "a device or a pipe, which may never end", "Pass live=True to read it as it comes"
        )


def live_frames(source, options=None, limits=None):
    """Yield (seconds from the first frame, (H, W, 3) uint8 upright RGB) as they come.

    Frames wait nowhere: what nobody takes in time is up to the source, which for cameras means that it is lost, and that the next frame is
    a later one. Seconds are those of the source and never go back: where its clock is set back, they go on.

    Args:
        source: a device (`/dev/video0`), a pipe, or an address.
        options: for FFmpeg; "format" names its input where the source does not tell ("v4l2" is taken for `/dev/video*`).
        limits: the `VideoLimits`; `max_pixels` counts here.

    Raises:
        VideoNotReadable, VideoEmpty, VideoTooLarge: as their names say.
    """
    name, options, limits = os.fsdecode(source), dict(options or {}), limits or VideoLimits.default()
    if av is None:
        raise VideoNotReadable(name, "PyAV is not installed", "Run: pip install av")
    format = options.pop("format", "v4l2" if name.startswith("/dev/video") else None)
    with native_errors(name):
        container = av.open(
            name, format=format, options={"max_pixels": str(limits.max_pixels), **options}, timeout=_TIMEOUT
        )
        try:
            streams = video_streams(container)
            if not streams:
                raise VideoEmpty(name, "no video stream", "Check the address or the device")
            to_rgb = RgbConverter()
            for seconds, frame in _timed(container.decode(streams[0]), stream_fps(streams[0]) or 25.0):
                check_pixels(frame.width, frame.height, name, limits)
                yield seconds, orientation_of_frame(frame).apply(to_rgb(frame))
        finally:
            container.close()


def _timed(frames, rate):
    """(seconds from the first frame, frame); a clock that is set back goes on a frame after the last one."""
    seconds, step, origin = None, 1 / rate, None
    for frame in frames:
        base = float(frame.time_base or 0)
        clock = frame.pts * base if frame.pts is not None and base else None
        if seconds is None:
            seconds = 0.0
        elif clock is None or origin is None or clock - origin < seconds:
            seconds += step
            origin = None
        else:
            step = clock - origin - seconds or step
            seconds = clock - origin
        if origin is None and clock is not None:
            origin = clock - seconds
        yield seconds, frame
