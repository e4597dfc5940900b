"""The one video path: any source to upright RGB frames, bounded in time and memory, with typed errors.

Every processor, pipeline and dataset reads through `read_video`, `probe_video` or `iterate_video`.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .video_container import VideoInfo
from .video_decoding import iterate_frames, probe, read_clip
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
from .video_sources import Deadline, open_source


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


@dataclass
class DecodedVideo:
    """Frames of a video.

    Attributes:
        frames: uint8 tensor (T, 3, H, W), upright RGB.
        timestamps: float64 tensor (T,), seconds from the first frame of the video.
        indices: Frame number of each, in order of presentation.
        info: What the container holds.
        notes: What the caller may want to know: repeated frames, damage, a change of size.
        num_decoded: How many frames were decoded to get these.
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
        isolate: Decode in a worker process with bounded memory, so that a native crash is an error here.
        allow_remote: Whether http(s) URLs may be downloaded.
        sampler: Callable from the `VideoInfo` of the part to frame indices that count from the start of the part.
        backend: "pyav", "torchcodec", or "auto" (PyAV: the same frames on every machine).

    Returns:
        A `DecodedVideo`.

    Raises:
        VideoError: one of its subclasses, naming the source, what was found and what to do.
        ValueError, TypeError: for arguments that make no sense.
    """
    limits = limits or VideoLimits.default()
    size = _checked_size(size)
    opened = open_source(source, limits, allow_remote)
    try:
        clip = read_clip(
            opened,
            limits,
            Deadline(limits.timeout, opened.name),
            size=size,
            num_frames=num_frames,
            indices=indices,
            start=start,
            end=end,
            target_fps=target_fps,
            sampler=sampler,
        )
    finally:
        opened.close()
    return DecodedVideo(
        frames=_to_frames(clip.pixels),
        timestamps=torch.from_numpy(np.ascontiguousarray(clip.times)),
        indices=list(clip.indices),
        info=clip.info,
        notes=list(clip.notes),
        num_decoded=clip.num_decoded,
    )


def probe_video(source, limits=None, allow_remote=False):
    """Describe a video without reading its frames (one is decoded, for the orientation).

    Returns:
        A `VideoInfo`.

    Raises:
        VideoError: as `read_video`.
    """
    limits = limits or VideoLimits.default()
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
    limits = limits or VideoLimits.default()
    size = _checked_size(size)
    opened = open_source(source, limits, allow_remote)
    try:
        deadline = Deadline(limits.timeout, opened.name)
        for seconds, pixels in iterate_frames(opened, limits, deadline, start, end, target_fps, size):
            yield seconds, _to_frames(pixels)
    finally:
        opened.close()


def _to_frames(pixels):
    """Turn an (..., H, W, 3) array into a (..., 3, H, W) tensor in that memory order."""
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    return torch.from_numpy(pixels).movedim(-1, -3).contiguous()


def _checked_size(size):
    if size is None:
        return None
    values = (size,) if isinstance(size, int) else tuple(size)
    if len(values) > 2 or any(isinstance(v, bool) or math.floor(v) != v or v < 1 for v in values):
        raise ValueError(f"size must be None, a positive integer or (height, width), got {size!r}.")
    return int(size) if isinstance(size, int) else (int(values[0]), int(values[-1]))
