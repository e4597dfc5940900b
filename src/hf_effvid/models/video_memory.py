"""Videos that are decoded already, or decode themselves: images, arrays, tensors and torchcodec decoders."""

import os

import numpy as np

from .video_container import VideoInfo, check_pixels, native_errors
from .video_decoding import Clip, allocate
from .video_errors import VideoEmpty, VideoNotReadable
from .video_pixels import output_size, resize
from .video_selection import check_selection, select_frames


_CHUNK_BYTES = 64 * 2**20  # of full-size frames that a decoder hands over at a time


def is_decoder(source):
    """Whether `source` is a torchcodec VideoDecoder, told by what it can do: torchcodec need not be installed."""
    return hasattr(source, "get_frames_at") and hasattr(source, "metadata")


def encoded_behind(source):
    """Return the file that `datasets` keeps beside a decoded Video value, or the source itself.

    The file says more than the decoder: exact times under a variable rate, mirroring, limits.
    """
    value = getattr(source, "_hf_encoded", None) if is_decoder(source) else None
    if isinstance(value, dict) and (value.get("bytes") is not None or os.path.isfile(value.get("path") or "")):
        return value
    return source


def is_frames(source):
    """Whether `source` is a list of images, an array or a tensor; the texts of NumPy are paths, although they have a shape."""
    if isinstance(source, (str, bytes)):
        return False
    return isinstance(source, (list, tuple)) or (hasattr(source, "dtype") and len(getattr(source, "shape", ())) > 0)


def read_frames(source, limits, size=None, **selection):
    """Select and resize frames that are in memory.

    Args:
        source: List of PIL images or (H, W, 3) arrays, or a uint8 array or tensor (T, C, H, W) or (T, H, W, C).
        limits: The `VideoLimits`.
        size: None, shorter side, or (height, width).
        selection: num_frames, indices or sampler.

    Returns:
        A `Clip`. Its times are nan and its info has no fps and no duration: bare frames carry no clock.

    Raises:
        VideoEmpty, VideoNotReadable, VideoTooLarge: as their names say.
        ValueError: if seconds are asked for.
    """
    check_selection(**selection)
    if any(selection.get(name) is not None for name in ("start", "end", "target_fps")):
        raise ValueError("Decoded frames carry no clock: select with num_frames, indices or sampler, not by seconds.")
    name = f"<{len(source)} frames>"
    if len(source) == 0:
        raise VideoEmpty(name, "no frames", "Give at least one frame")
    frames = _frame_getter(source, name)
    first = frames(0)
    info = _info_of_frames(name, len(source), first)
    indices, notes = select_frames(info, np.arange(len(source), dtype=np.float64), **selection)
    height, width = output_size(first.shape[0], first.shape[1], size)
    pixels = allocate(len(indices), height, width, len(indices), name, limits)
    for slot, index in enumerate(indices):
        frame = frames(index)
        check_pixels(frame.shape[1], frame.shape[0], name, limits)
        if size is None and frame.shape[:2] != (height, width):
            notes.append(f"frame {index} has {frame.shape[1]}x{frame.shape[0]} pixels: resized like the first one")
        pixels[slot] = resize(frame, height, width)
    return Clip(pixels, np.full(len(indices), np.nan), indices, info, notes)


def _frame_getter(source, name):
    """Return a function from an index to an (H, W, 3) uint8 array."""
    if isinstance(source, (list, tuple)):
        return lambda index: _as_rgb(source[index], name)
    shape = tuple(source.shape)
    if len(shape) != 4:
        found = f"an array of shape {shape}"
        raise VideoNotReadable(name, found, "Give (T, C, H, W) or (T, H, W, C)")
    # Channels come first, unless only the last axis can be them.
    first = shape[1] in (1, 3) or shape[3] not in (1, 3)
    return lambda index: _as_rgb(source[index], name, channels_first=first)


def _as_rgb(frame, name, channels_first=None):
    if hasattr(frame, "convert") and hasattr(frame, "getbands"):  # a PIL image
        return np.asarray(frame.convert("RGB"))
    if isinstance(frame, (str, bytes, os.PathLike)):
        raise VideoNotReadable(name, f"a list of paths, such as {str(frame)[:80]!r}", "Give one video, or its frames")
    pixels = np.asarray(frame.cpu() if hasattr(frame, "cpu") else frame)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif pixels.ndim == 3 and (
        channels_first or (channels_first is None and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3))
    ):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        found = f"a frame of type {pixels.dtype} and shape {tuple(pixels.shape)}"
        raise VideoNotReadable(name, found, "Give uint8 frames with 3 channels (or gray)")
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


def _info_of_frames(name, count, first, **known):
    values = dict(
        source=name,
        container="frames",
        codec="none",
        pixel_format="rgb24",
        width=first.shape[1],
        height=first.shape[0],
        rotation=0,
        mirrored=False,
        fps=None,
        duration=None,
        num_frames=count,
        num_frames_exact=True,
        start_time=0.0,
        num_video_streams=1,
        num_bytes=count * first.size,
    )
    return VideoInfo(**{**values, **known})


def probe_frames(source):
    """Describe frames that are in memory."""
    name = f"<{len(source)} frames>"
    if len(source) == 0:
        raise VideoEmpty(name, "no frames", "Give at least one frame")
    return _info_of_frames(name, len(source), _frame_getter(source, name)(0))


def probe_decoder(decoder):
    """Describe a torchcodec decoder by its metadata."""
    meta, name = decoder.metadata, "<torchcodec VideoDecoder>"
    count = len(decoder)
    if not count:
        raise VideoEmpty(name, "no frames", "Check that the file plays")
    fps = float(meta.average_fps) if meta.average_fps else None
    return VideoInfo(
        source=name,
        container="torchcodec",
        codec=str(meta.codec),
        pixel_format=getattr(meta, "pixel_format", None),
        width=int(meta.width),
        height=int(meta.height),
        rotation=0,
        mirrored=False,
        fps=fps,
        duration=count / fps if fps else None,
        num_frames=count,
        num_frames_exact=True,
        start_time=float(getattr(meta, "begin_stream_seconds", None) or 0.0),
        num_video_streams=1,
        num_bytes=0,
    )


def read_decoder(decoder, limits, size=None, **selection):
    """Read frames from a torchcodec VideoDecoder.

    Its public interface gives no list of time stamps, so that `start`, `end` and `target_fps` assume an even frame
    rate; the times that come back are the true ones. Arguments, result and errors as `read_frames`.
    """
    check_selection(**selection)
    info = probe_decoder(decoder)
    check_pixels(info.width, info.height, info.source, limits)
    spaced = np.arange(info.num_frames) / (info.fps or 25.0)
    indices, notes = select_frames(info, spaced, **selection)
    wanted = sorted(set(indices))
    height, width = output_size(info.height, info.width, size)
    pixels = allocate(len(wanted), height, width, len(indices), info.source, limits)
    times = np.empty(len(wanted))
    with native_errors(info.source):
        for slot, (frame, seconds) in enumerate(decoder_frames(decoder, wanted, info)):
            pixels[slot] = resize(frame, height, width)
            times[slot] = seconds - info.start_time
    order = np.searchsorted(wanted, indices)
    return Clip(pixels[order], times[order], indices, info, notes)


def decoder_frames(decoder, wanted, info):
    """Yield ((H, W, 3) array, seconds) for sorted frame numbers, a few full-size frames at a time."""
    chunk = max(_CHUNK_BYTES // (info.height * info.width * 3), 1)
    for begin in range(0, len(wanted), chunk):
        batch = decoder.get_frames_at(wanted[begin : begin + chunk])
        data = batch.data
        if tuple(data.shape[1:]) == (3, info.height, info.width):
            data = data.permute(0, 2, 3, 1)
        yield from zip(data.cpu().numpy(), batch.pts_seconds.tolist(), strict=True)
