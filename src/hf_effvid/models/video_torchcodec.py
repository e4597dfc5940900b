"""The optional torchcodec backend: PyAV describes the file and chooses the frames, torchcodec decodes them."""

import importlib
import os

import numpy as np

from .video_container import native_errors
from .video_decoding import SELECTION, Clip, allocate, probe, read_clip
from .video_errors import VideoNotReadable
from .video_memory import decoder_frames
from .video_pixels import Orientation, output_size, resize
from .video_selection import check_selection, select_frames


def load_decoder_class(name):
    """Return torchcodec's VideoDecoder; loaded on use, because it takes over a second that few callers need.

    Raises:
        VideoNotReadable: with the reason, for the source `name`.
    """
    try:
        return importlib.import_module("torchcodec.decoders").VideoDecoder
    except Exception as error:  # RuntimeError, not ImportError, where the system has no FFmpeg
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        hint = "Use backend='pyav', or install FFmpeg and torchcodec"
        raise VideoNotReadable(name, f"torchcodec cannot be loaded ({reason})", hint) from error


def read_with_torchcodec(opened, limits, deadline, size=None, **selection):
    """Do what `read_clip` does, decoding with torchcodec.

    The frames, their time stamps and their order are those of PyAV: torchcodec is only asked for frame numbers, what it
    does not know (mirrored display matrices) is put right, and where it fails or answers with another frame than the
    one asked for (some transport streams), PyAV reads the file and a note says so.

    Raises:
        VideoNotReadable: if torchcodec cannot be loaded.
        VideoError: as `read_clip`.
    """
    decoder_class = load_decoder_class(opened.name)
    check_selection(**{name: selection.get(name) for name in SELECTION})
    video, table, info, orientation = probe(opened, limits, deadline)
    stream_index = video.stream.index
    video.close()
    indices, notes = select_frames(info, table.times, **selection)
    wanted = sorted(set(indices))
    height, width = output_size(info.height, info.width, size)
    pixels = allocate(len(wanted), height, width, len(indices), opened.name, limits)
    try:
        with native_errors(opened.name):
            opened.file.seek(0)
            # An absolute path: FFmpeg takes what looks like `name:` for a protocol.
            source = opened.file.read() if opened.path is None else os.path.abspath(opened.path)
            decoder = decoder_class(source, stream_index=stream_index, dimension_order="NHWC", num_ffmpeg_threads=1)
            turn = _correction(decoder, orientation)
            for slot, (frame, seconds) in enumerate(decoder_frames(decoder, wanted, info)):
                deadline.check()
                _check_time(seconds, table.times[wanted[slot]] + info.start_time, opened.name)
                pixels[slot] = resize(turn(frame), height, width)
    except VideoNotReadable as error:
        clip = read_clip(opened, limits, deadline, size=size, indices=indices)
        clip.notes[:0] = [*notes, f"decoded with PyAV, because torchcodec failed: {error.found}"]
        return clip
    order = np.searchsorted(wanted, indices)
    return Clip(pixels[order], table.times[indices], indices, info, notes)


def _check_time(seconds, expected, name):
    if abs(seconds - expected) > 1e-3:
        raise VideoNotReadable(name, f"asked for the frame at {expected:.3f} s, got the one at {seconds:.3f} s")


def _correction(decoder, orientation):
    """Return what is left to do after torchcodec turned a frame: it rotates, but takes a mirror for a rotation."""
    if not orientation.mirrored:
        return np.ascontiguousarray
    degrees = getattr(decoder.metadata, "rotation", None) or 0.0  # counter-clockwise, as FFmpeg reports it
    undo = Orientation(rotation=int(round(degrees / 90.0)) % 4 * 90)
    return lambda frame: orientation.apply(undo.apply(frame))
