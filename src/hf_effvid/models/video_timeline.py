"""When each frame of a stream is shown: read from its packets, without decoding them."""

from dataclasses import dataclass

import numpy as np

from .video_errors import VideoEmpty, VideoError, VideoTooLarge


try:
    import av
except Exception:  # PyAV raises more than ImportError when a bundled library does not fit the system
    av = None

# What PyAV raises for damaged data: its own errors (most are also OSError or ValueError, "not implemented" is neither).
NATIVE_ERRORS = (OSError, EOFError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)
if av is not None:
    NATIVE_ERRORS += (av.error.FFmpegError,)

# Above this size the packets are not listed: counting a feature film would read gigabytes to answer one clip.
MAX_SCAN_BYTES = 256 * 2**20


@dataclass
class FrameTable:
    """When every frame is shown.

    Attributes:
        pts: Sorted time stamps in units of the stream's time base (int64).
        times: The same in seconds from the first frame (float64).
        keys: Sorted time stamps of the key frames.
        exact: Whether they were read from the packets; False: spaced evenly by the frame rate.
        unique: Whether each frame can be told by its time stamp; False: only by counting.
        end: Seconds at which the last frame ends.
    """

    pts: np.ndarray
    times: np.ndarray
    keys: np.ndarray
    exact: bool
    unique: bool
    end: float


def stream_duration(container, stream):
    """Return the duration in seconds that the container states, or None."""
    if stream.duration is not None and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and container.duration > 0:
        return container.duration / 1_000_000
    return None


def stream_fps(stream):
    """Return the average frame rate, or None where it is unknown or absurd."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 0 < float(rate) <= 1000:
            return float(rate)
    return None


def read_frame_table(container, stream, opened, limits, deadline):
    """List the time stamps of all frames by reading the packets, without decoding them.

    Afterwards the container stands at its end: open it anew, or seek.

    Raises:
        VideoEmpty: if the stream has no packet.
        VideoTooLarge: if it has more than `max_decoded_frames`.
    """
    if opened.num_bytes > MAX_SCAN_BYTES:
        estimate = _estimated_table(container, stream, limits)
        if estimate is not None:
            return estimate
    pts, keys, longest, missing = [], [], 0, False
    try:
        for packet in container.demux(stream):
            deadline.check()
            if packet.size == 0 or packet.is_discard:
                continue
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None:
                missing = True
                stamp = len(pts)
            pts.append(stamp)
            longest = packet.duration or longest
            if packet.is_keyframe:
                keys.append(stamp)
            if len(pts) > limits.max_decoded_frames:
                found = f"more than {limits.max_decoded_frames} frames"
                raise VideoTooLarge(opened.name, found, "Raise VideoLimits.max_decoded_frames")
    except VideoError:
        raise
    except NATIVE_ERRORS:
        pass  # a damaged tail: what was listed so far is what can be read
    if not pts:
        raise VideoEmpty(opened.name, "a video stream without frames", "Check that the file plays")
    table = np.sort(np.asarray(pts, dtype=np.int64))
    unique = not missing and not _guessed_time_stamps(container, stream) and bool(np.all(np.diff(table) > 0))
    base = float(stream.time_base or 0)
    times = (table - table[0]) * base
    if missing or not base:
        times = np.arange(len(table)) / (stream_fps(stream) or 25.0)
        longest, base = 1, times[1] if len(times) > 1 else 0.0
    longest = longest * base or (float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    return FrameTable(
        table, times, np.sort(np.asarray(keys, dtype=np.int64)), True, unique, float(times[-1]) + longest
    )


def _guessed_time_stamps(container, stream):
    """AVI stores no presentation times: for codecs that reorder frames freely, FFmpeg's guess has them out of order."""
    return container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc", "av1", "vvc")


def _estimated_table(container, stream, limits):
    """Space frames evenly by the stated rate; None where the container states too little."""
    duration, fps = stream_duration(container, stream), stream_fps(stream)
    if duration is None or fps is None or not stream.time_base:
        return None
    count = stream.frames if stream.frames > 0 else int(round(duration * fps))
    if not 0 < count <= limits.max_decoded_frames:
        return None
    first = stream.start_time or 0
    step = 1 / (fps * float(stream.time_base))
    pts = first + np.floor(np.arange(count) * step).astype(np.int64)
    return FrameTable(pts, np.arange(count) / fps, np.zeros(0, np.int64), False, True, count / fps)
