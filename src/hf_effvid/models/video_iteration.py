"""All frames of a video one after the other, in constant memory, for windows over long files."""

import itertools

from .video_container import native_errors
from .video_decoding import VideoFile, allocate
from .video_pixels import RgbConverter, orientation_of_frame, output_size, resize
from .video_selection import check_selection
from .video_timeline import stream_fps


def iterate_frames(opened, limits, deadline, start=None, end=None, target_fps=None, size=None, duration=None):
    """Yield (seconds, (H, W, 3) uint8 array) one by one; the clock of `deadline` starts anew for each.

    Args:
        opened, limits, deadline, start, end, target_fps, size: As in `read_clip`.
        duration: Seconds until which the last frame is on display, where that is known; None: as that frame says.

    Raises:
        VideoError: also in the middle, if nothing could be read or a limit is reached.
    """
    check_selection(None, None, start, end, target_fps, None)
    video = VideoFile(opened, limits, deadline)
    try:
        with native_errors(opened.name):
            first = video.peek()
            orientation, base = orientation_of_frame(first), float(video.stream.time_base or 0)
            frames = _frames_before(video, first.pts, start, base)
            shape, to_rgb = None, RgbConverter()
            rate = stream_fps(video.stream) or 25.0
            timed = _timed(frames, first.pts, base, rate)
            for seconds, frame in on_the_clock(timed, start or 0.0, end, target_fps, 1 / rate, duration):
                pixels = orientation.apply(to_rgb(frame))
                shape = shape or output_size(pixels.shape[0], pixels.shape[1], size)
                allocate(0, *shape, 1, opened.name, limits)
                yield seconds, resize(pixels, *shape)
                deadline.renew()
    finally:
        video.close()


_SEEK_AFTER = 2.0  # seconds: below that decoding from the beginning is as quick


def _frames_before(video, origin, start, base):
    """Yield frames from a key frame before `start` on, or from the beginning where that is as good or needed."""
    if origin is not None and base and start and start > _SEEK_AFTER:
        target = origin + int(start / base)
        if video.seek(target):
            frames = video.frames()
            landed = next(frames, None)
            if landed is not None and landed.pts is not None and landed.pts <= target:
                return itertools.chain([landed], frames)
    return video.from_start()


def _timed(frames, origin, base, fps):
    """Yield (seconds from the first frame, frame); frames without a time stamp follow at the stream's rate."""
    seconds = -1 / fps
    for frame in frames:
        if frame.pts is not None and origin is not None and base:
            seconds = (frame.pts - origin) * base
        else:
            seconds += 1 / fps
        yield seconds, frame


def on_the_clock(timed, start, end, target_fps, lasting=0.0, duration=None):
    """Keep the frames with start <= seconds < end; with `target_fps`, the frame on display at every tick instead.

    Args:
        timed: (seconds, frame), in order.
        start, end: Seconds; None for no end.
        target_fps: Ticks per second from `start` on, or None.
        lasting: Seconds that a single frame is on display when it does not say itself.
        duration: Seconds until which the last frame is on display; None: as it says, or as long as the one before it.

    Yields:
        (seconds, frame).
    """
    stop = float("inf") if end is None else end
    if target_fps is None:
        for seconds, frame in timed:
            if seconds >= stop - 1e-6:
                return
            if seconds >= start - 1e-6:
                yield seconds, frame
        return
    tick, shown, begun, until = 0, None, 0.0, 0.0
    for seconds, frame in timed:
        while shown is not None and start + tick / target_fps < min(seconds, stop) - 1e-6:
            yield start + tick / target_fps, shown
            tick += 1
        if seconds >= stop - 1e-6:
            return
        # The last frame stays on display for its own duration, or as long as the one before it.
        own = float((getattr(frame, "duration", None) or 0) * (getattr(frame, "time_base", None) or 0))
        until = seconds + (own or (seconds - begun if shown is not None else lasting))
        shown, begun = frame, seconds
    until = until if duration is None else max(duration, begun + 1e-6)
    while shown is not None and start + tick / target_fps < min(until, stop) - 1e-6:
        yield start + tick / target_fps, shown
        tick += 1
