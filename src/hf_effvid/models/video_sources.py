"""From whatever names a video to a seekable, bounded Python file object. No decoding happens here."""

import io
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from .video_errors import (
    VideoEmpty,
    VideoNotFound,
    VideoNotReadable,
    VideoSourceNotAllowed,
    VideoTimeout,
    VideoTooLarge,
)
from .video_remote import download


URL_SCHEMES = ("http://", "https://")


@dataclass
class SourceFile:
    """An opened source.

    Attributes:
        name: How errors and `VideoInfo` call it.
        file: Binary, seekable file object, positioned at 0.
        num_bytes: Its size.
        path: Path on disk, if there is one.
        owned: Whether `close` closes the file object (False: it belongs to the caller).
    """

    name: str
    file: object
    num_bytes: int
    path: str | None
    owned: bool

    def close(self):
        if self.owned:
            self.file.close()


class Deadline:
    """A wall-clock budget that several stages of one read share."""

    def __init__(self, seconds, name):
        self.seconds = seconds
        self.name = name
        self.renew()

    def renew(self):
        self.end = time.monotonic() + self.seconds

    def check(self):
        if time.monotonic() > self.end:
            raise VideoTimeout(
                self.name,
                f"not read within {self.seconds:g} s",
                "Raise VideoLimits.timeout, or shorten the selection (start, end, num_frames)",
            )


class GuardedFile:
    """The file object that FFmpeg sees: it stops at the deadline, so that no demuxer can read forever.

    Args:
        file: Binary, seekable file object.
        deadline: Budget that every read and seek checks.
    """

    # FFmpeg takes a file object's `name` as the URL, which demuxers use to find neighbouring files.
    name = ""

    def __init__(self, file, deadline):
        self._file = file
        self._deadline = deadline

    def read(self, size):
        self._deadline.check()
        return self._file.read(size)

    def seek(self, offset, whence=0):
        self._deadline.check()
        return self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()

    def seekable(self):
        return True

    def readable(self):
        return True


def open_source(source, limits, allow_remote=False):
    """Open a path, bytes, a file object, a `datasets` value or a URL.

    Args:
        source: str, Path, bytes-like, binary file object, or a dict with "bytes" and / or "path".
        limits: The `VideoLimits` that bound its size.
        allow_remote: Whether an http(s) URL may be downloaded.

    Returns:
        A `SourceFile`.

    Raises:
        VideoNotFound, VideoEmpty, VideoTooLarge, VideoSourceNotAllowed, VideoNotReadable: as their names say.
        TypeError: for anything that names no video.
    """
    if isinstance(source, dict):
        return _open_datasets_value(source, limits, allow_remote)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open_bytes(source, limits)
    if isinstance(source, str) and source.lower().startswith(URL_SCHEMES):
        data = download(source, limits, allow_remote)
        return _check_size(SourceFile(source, io.BytesIO(data), len(data), None, True), limits.max_download_bytes)
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source, limits)
    if hasattr(source, "read"):
        return _open_file_object(source, limits)
    raise TypeError(
        "A video is a path, bytes, a binary file object, a datasets Video value, a torchcodec VideoDecoder, a list of "
        f"images, a uint8 tensor, or (with allow_remote=True) an http(s) URL; got {type(source).__name__}."
    )


def _open_datasets_value(value, limits, allow_remote):
    if value.get("bytes") is not None:
        opened = _open_bytes(value["bytes"], limits)
        if value.get("path"):
            opened.name = str(value["path"])
        return opened
    if value.get("path") is not None:
        return open_source(value["path"], limits, allow_remote)
    raise TypeError(f"A datasets Video value has 'bytes' or 'path', got a dict with {sorted(map(str, value))}.")


def _open_bytes(data, limits):
    size = memoryview(data).nbytes
    opened = SourceFile(f"<bytes, {size} B>", None, size, None, True)
    _check_size(opened, limits.max_bytes)
    opened.file = io.BytesIO(data)
    return opened


def _open_path(source, limits):
    text = os.fsdecode(source)
    if "://" in text:
        raise VideoSourceNotAllowed(
            text,
            "a URL whose scheme is not http or https",
            "Give a local path, or an http(s) URL and allow_remote=True",
        )
    if "\0" in text or not text:
        raise VideoNotFound(repr(text), "not a usable file name", "Give the path of a video file")
    path = Path(text)
    try:
        status = path.stat()
    except OSError as error:
        raise VideoNotFound(text, f"no such file ({error})", "Check the path") from None
    # A FIFO or a device could block, or never end.
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise VideoNotFound(text, kind, "Give the path of a video file")
    opened = SourceFile(text, None, status.st_size, str(path), True)
    _check_size(opened, limits.max_bytes)
    try:
        opened.file = open(path, "rb")
    except OSError as error:
        raise VideoNotReadable(text, f"cannot be opened ({error})", "Check its permissions") from None
    return opened


def _open_file_object(file, limits):
    name = getattr(file, "name", None)
    label = str(name) if isinstance(name, (str, os.PathLike)) and str(name) else f"<{type(file).__name__}>"
    try:
        file.seek(0, os.SEEK_END)
        size = file.tell()
        file.seek(0)
        opened = SourceFile(label, file, size, None, False)
        seekable = True
    except (AttributeError, OSError, ValueError):
        seekable = False
    if seekable:
        _check_size(opened, limits.max_bytes)
        if isinstance(file.read(0), str):
            raise VideoNotReadable(label, "a file object opened in text mode", "Open it with mode 'rb'")
        return opened
    data = _read_bounded(file, label, limits.max_bytes)
    return _check_size(SourceFile(label, io.BytesIO(data), len(data), None, True), limits.max_bytes)


def _read_bounded(file, label, max_bytes):
    """Buffer a stream that cannot seek, such as a pipe or a response body."""
    chunks, total = [], 0
    while chunk := file.read(1 << 20):
        if isinstance(chunk, str):
            raise VideoNotReadable(label, "a file object opened in text mode", "Open it with mode 'rb'")
        total += len(chunk)
        if total > max_bytes:
            raise VideoTooLarge(label, f"more than {max_bytes} bytes", "Raise VideoLimits.max_bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _check_size(opened, max_bytes):
    if opened.num_bytes == 0:
        opened.close() if opened.file is not None else None
        raise VideoEmpty(opened.name, "0 bytes", "The file is empty: copy or download it again")
    if opened.num_bytes > max_bytes:
        opened.close() if opened.file is not None else None
        raise VideoTooLarge(
            opened.name,
            f"{opened.num_bytes} bytes, the limit is {max_bytes}",
            "Raise VideoLimits.max_bytes (max_download_bytes for a URL)",
        )
    return opened
