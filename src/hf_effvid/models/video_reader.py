"""The one video path: any source to upright RGB frames, bounded in time and memory, with typed errors.

Every processor, pipeline and dataset reads through `read_video`, `probe_video` or `iterate_video`.
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .video_container import VideoInfo
from .video_decoding import probe, read_clip
from .video_errors import (
    VideoEmpty,
    VideoError,
    VideoLimits,
    VideoNotFound,
    VideoNotReadable,
    VideoSourceNotAllowed,
    VideoTimeout,
    VideoTooLarge,
    VideoTooShort,
    set_default_limits,
)
from .video_isolation import read_isolated
from .video_iteration import iterate_frames
from .video_memory import encoded_behind, is_decoder, is_frames, probe_decoder, probe_frames, read_decoder, read_frames
from .video_selection import check_selection
from .video_sources import Deadline, open_source
from .video_torchcodec import read_with_torchcodec


__all__ = [
    "DecodedVideo",
    "VideoEmpty",
    "VideoError",
    "VideoInfo",
    "VideoLimits",
    "VideoNotFound",
    "VideoNotReadable",
    "VideoSourceNotAllowed",
    "VideoTimeout",
    "VideoTooLarge",
    "VideoTooShort",
    "iterate_video",
    "probe_video",
    "read_video",
    "set_default_limits",
]


BACKENDS = ("auto", "pyav", "torchcodec")


@dataclass
class DecodedVideo:
    """Frames of a video.

    Attributes:
        frames: uint8 tensor (T, 3, H, W), upright RGB.
        timestamps: float64 tensor (T,), seconds from the first frame of the video; nan for bare frames.
        indices: Frame number of each, in order of presentation.
        info: What the container holds.
        notes: What the caller may want to know: repeated frames, damage, a change of size.
        num_decoded: How many frames PyAV decoded to get these; 0 if it was not PyAV that decoded.
    """

    frames: torch.Tensor
    timestamps: torch.Tensor
    indices: list
    info: VideoInfo
    notes: list = field(default_factory=list)
    num_decoded: int = 0


def read_video(
    source: Any,
    num_frames=None,
    indices=None,
    start=None,
    end=None,
    target_fps=None,
    size=None,
    limits=None,
    isolate=False,
    allow_remote=False,
    sampler=None,
    backend="auto",
):
    """Read frames of a video.

    Args:
        source: str or Path of a local file, bytes, binary file object, `datasets` Video value (decoded or not),
            torchcodec VideoDecoder, list of PIL images or arrays, uint8 tensor or array of shape (T, C, H, W) or
            (T, H, W, C); an http(s) URL only with `allow_remote=True`.
        num_frames: Exactly so many frames, spread evenly over the part (centres of equal bins).
        indices: These frame numbers; what lies beyond the end becomes the last frame, with a note.
        start, end: Seconds from the first frame; frames with start <= time < end.
        target_fps: The frames on display at start, start + 1 / target_fps, ... (with `num_frames`: so many).
        size: None, the shorter side, or (height, width). Frames are resized one at a time while decoding.
        limits: A `VideoLimits`; None for `VideoLimits.default()`.
        isolate: Decode in a worker process with bounded memory, so that a native crash is an error here (for encoded
            sources; frames in memory and decoder objects are taken as they are).
        allow_remote: Whether http(s) URLs may be downloaded.
        sampler: Callable from the `VideoInfo` of the part to frame indices that count from the start of the part.
        backend: "pyav", "torchcodec" (optional; the same frames), or "auto" (PyAV, which is always there).

    Returns:
        A `DecodedVideo`.

    Raises:
        VideoError: one of its subclasses, naming the source, what was found and what to do.
        ValueError, TypeError: for arguments that make no sense.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}.")
    if isolate and backend == "torchcodec":
        raise ValueError("isolate=True decodes with PyAV: leave backend at 'auto' or 'pyav'.")
    limits = limits or VideoLimits.default()
    selection = dict(
        num_frames=num_frames, indices=indices, start=start, end=end, target_fps=target_fps, sampler=sampler
    )
    check_selection(**selection)
    size = _checked_size(size)
    source = encoded_behind(source)
    if is_decoder(source):
        clip = read_decoder(source, limits, size=size, **selection)
    elif is_frames(source):
        clip = read_frames(source, limits, size=size, **selection)
    else:
        clip = _read_encoded(source, limits, size, selection, isolate, allow_remote, backend)
    return DecodedVideo(
        frames=to_frames(clip.pixels),
        timestamps=torch.from_numpy(np.ascontiguousarray(clip.times)),
        indices=list(clip.indices),
        info=clip.info,
        notes=list(clip.notes),
        num_decoded=clip.num_decoded,
    )


def _read_encoded(source, limits, size, selection, isolate, allow_remote, backend):
    opened = open_source(source, limits, allow_remote)
    try:
        if isolate:
            return read_isolated(opened, limits, size=size, **selection)
        deadline = Deadline(limits.timeout, opened.name)
        if backend == "torchcodec":
            return read_with_torchcodec(opened, limits, deadline, size=size, **selection)
        return read_clip(opened, limits, deadline, size=size, **selection)
    finally:
        opened.close()


def probe_video(source, limits=None, allow_remote=False):
    """Describe a video without reading its frames (one is decoded, for the orientation).

    Returns:
        A `VideoInfo`.

    Raises:
        VideoError: as `read_video`.
    """
    limits = limits or VideoLimits.default()
    source = encoded_behind(source)
    if is_decoder(source):
        return probe_decoder(source)
    if is_frames(source):
        return probe_frames(source)
    opened = open_source(source, limits, allow_remote)
    try:
        video, _, info, _ = probe(opened, limits, Deadline(limits.timeout, opened.name))
        video.close()
        return info
    finally:
        opened.close()


def iterate_video(source, start=None, end=None, target_fps=None, size=None, limits=None, allow_remote=False):
    """Yield frames one by one, in constant memory however long the video is.

    Args:
        source, start, end, size, limits, allow_remote: As in `read_video`. `limits.timeout` holds for each frame.
        target_fps: Yield the frame on display at start, start + 1 / target_fps, ...; None: every frame.

    Yields:
        (seconds from the first frame, uint8 tensor (3, H, W)); with `target_fps` the seconds are those of the tick.

    Raises:
        VideoError: as `read_video`, possibly in the middle.
    """
    check_selection(None, None, start, end, target_fps, None)
    return _iterate(source, start, end, target_fps, _checked_size(size), limits or VideoLimits.default(), allow_remote)


def _iterate(source, start, end, target_fps, size, limits, allow_remote):
    source = encoded_behind(source)
    if is_decoder(source) or is_frames(source):
        selection = dict(start=start, end=end, target_fps=target_fps)
        clip = (read_decoder if is_decoder(source) else read_frames)(source, limits, size=size, **selection)
        yield from zip(clip.times.tolist(), to_frames(clip.pixels), strict=True)
        return
    opened = open_source(source, limits, allow_remote)
    try:
        deadline = Deadline(limits.timeout, opened.name)
        for seconds, pixels in iterate_frames(opened, limits, deadline, start, end, target_fps, size):
            yield seconds, to_frames(pixels)
    finally:
        opened.close()


def to_frames(pixels):
    """Turn an (..., H, W, 3) array into a (..., 3, H, W) tensor in that memory order."""
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels).movedim(-1, -3).contiguous()


def _checked_size(size):
    if size is None:
        return None
    values = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    try:
        numbers = tuple(operator.index(value) for value in values)
    except TypeError:
        numbers = ()
    if len(numbers) not in (1, 2) or min(numbers) < 1 or any(isinstance(value, bool) for value in values):
        raise ValueError(f"size must be None, a positive integer or (height, width), got {size!r}.")
    return numbers if len(numbers) == 2 else numbers[0]
