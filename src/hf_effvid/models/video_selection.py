"""Which frames a call asks for: pure arithmetic on the time stamps of the frames."""

import math
from dataclasses import replace

import numpy as np

from .video_errors import VideoTooShort


_EPSILON = 1e-6  # seconds: time stamps are rationals that arrive as floats


def check_selection(num_frames=None, indices=None, start=None, end=None, target_fps=None, sampler=None):
    """Raise ValueError for arguments that contradict each other or make no sense."""
    if sum(value is not None for value in (num_frames, indices, sampler)) > 1:
        raise ValueError("Give one of num_frames, indices and sampler.")
    if indices is not None and any(value is not None for value in (start, end, target_fps)):
        raise ValueError(
            "indices count from the first frame of the video: give no start, end or target_fps with them."
        )
    if sampler is not None and target_fps is not None:
        raise ValueError("A sampler decides the frames itself: give no target_fps with it.")
    if num_frames is not None and (isinstance(num_frames, bool) or not _is_whole(num_frames) or num_frames < 1):
        raise ValueError(f"num_frames must be a positive integer, got {num_frames!r}.")
    if indices is not None and not (
        hasattr(indices, "__len__") and len(indices) and all(_is_whole(index) and index >= 0 for index in indices)
    ):
        raise ValueError(f"indices must be one or more integers >= 0, got {indices!r}.")
    if start is not None and not 0 <= _as_float(start) < math.inf:
        raise ValueError(f"start must be seconds >= 0, got {start!r}.")
    if end is not None and not _as_float(end) > (start or 0):
        raise ValueError(f"end must be seconds after start ({start or 0}), got {end!r}.")
    if target_fps is not None and not 0 < _as_float(target_fps) < math.inf:
        raise ValueError(f"target_fps must be a positive number, got {target_fps!r}.")


def _is_whole(value):
    number = _as_float(value)
    return number.is_integer() and number == value


def _as_float(value):
    """A number of any library as a float; nan for what is none, text that looks like one included."""
    try:
        return math.nan if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def select_frames(info, times, num_frames=None, indices=None, start=None, end=None, target_fps=None, sampler=None):
    """Choose frame indices.

    Args:
        info: The `VideoInfo`.
        times: Sorted seconds of all frames from the first one, float64 of shape (N,).
        num_frames: Exactly that many: centres of equal bins over the part, or ticks of `target_fps`.
        indices: These very frames; what lies beyond the last frame becomes the last frame.
        start, end: The part in seconds: frames with start <= time < end.
        target_fps: Frames shown at start, start + 1 / target_fps, ...
        sampler: Callable from the `VideoInfo` of the part to indices that count from the start of the part.

    Returns:
        (list of indices, list of notes).
    """
    total = len(times)
    if indices is not None:
        return _clamped([int(index) for index in indices], 0, total)
    first, stop = _part(info, times, start, end)
    if sampler is not None:
        chosen = [int(index) for index in sampler(_info_of_part(info, times, first, stop, start, end))]
        if not chosen or min(chosen) < 0:
            raise ValueError(f"The sampler must return one or more indices >= 0, got {chosen!r}.")
        return _clamped([first + index for index in chosen], first, stop)
    if target_fps is not None:
        return _ticks(info, times, first, stop, start, end, target_fps, num_frames)
    if num_frames is not None:
        count = stop - first
        return [first + (2 * i + 1) * count // (2 * num_frames) for i in range(num_frames)], []
    return list(range(first, stop)), []


def _part(info, times, start, end):
    """Return the half-open range of frames with start <= time < end, at least the frame on display at `start`."""
    start = start or 0.0
    last_end = max(info.duration or 0.0, times[-1] + _EPSILON)
    if start >= last_end and start > times[-1]:
        found = f"the video ends at {last_end:.3f} s, before start={start:g} s"
        raise VideoTooShort(info.source, found, "Choose an earlier start")
    first = int(np.searchsorted(times, start - _EPSILON, side="left"))
    stop = len(times) if end is None else int(np.searchsorted(times, end - _EPSILON, side="left"))
    if stop <= first:  # the part lies between two frames: the earlier one is on display
        first = max(int(np.searchsorted(times, start + _EPSILON, side="right")) - 1, 0)
        stop = first + 1
    return first, stop


def _info_of_part(info, times, first, stop, start, end):
    if start is None and end is None:
        return info
    last_end = info.duration if info.duration is not None else float(times[-1])
    duration = min(last_end, end if end is not None else last_end) - float(times[first])
    return replace(info, num_frames=stop - first, duration=max(duration, 0.0))


def _ticks(info, times, first, stop, start, end, target_fps, num_frames):
    """Return the frame on display at each tick."""
    begin = start or 0.0
    limit = min(end if end is not None else np.inf, max(info.duration or 0.0, times[-1] + _EPSILON))
    count = max(int(np.ceil((limit - begin - _EPSILON) * target_fps)), 1)
    if num_frames is not None:
        count = num_frames
    ticks = begin + np.arange(count) / target_fps
    shown = np.searchsorted(times, ticks + _EPSILON, side="right") - 1
    return np.clip(shown, first, stop - 1).tolist(), []


def _clamped(indices, first, stop):
    beyond = sum(index >= stop for index in indices)
    if not beyond:
        return indices, []
    note = f"{beyond} of {len(indices)} indices lie beyond the last frame ({stop - first} frames): it was repeated"
    return [min(index, stop - 1) for index in indices], [note]
