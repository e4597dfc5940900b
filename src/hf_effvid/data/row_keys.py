"""What a row of a data set is recognised by, in whatever order, split or folder it comes."""

import hashlib
import os

from ..models.video_memory import encoded_behind


_PIECE = 64 * 1024


def row_key(row: dict) -> str:
    """A name of a row's clip that follows from the video's content and the part that is meant.

    The content is taken by its length, its first and its last 64 KiB, so a data set may be moved, renamed, split or sorted anew, and a
    file that was replaced is another one. Files on the Hub go by their address.

    Args:
        row: with "video", and "start" / "end" in seconds where only a part is meant.

    Returns:
        32 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
        ValueError: the video is neither a file nor bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    times = ["" if row.get(name) is None else repr(float(row[name])) for name in ("start", "end")]
    for part in (*_content(row["video"]), *(time.encode() for time in times)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _content(video) -> tuple[bytes, ...]:
    video = encoded_behind(video)
    if isinstance(video, dict):
        video = video["path"] if video.get("bytes") is None else video["bytes"]
    if isinstance(video, (bytes, bytearray, memoryview)):
        content = bytes(video)
        return str(len(content)).encode(), content[:_PIECE], content[-_PIECE:]
    if not isinstance(video, (str, os.PathLike)):
        raise ValueError(
            f"a video must be a file or bytes to be recognised again, got {type(video).__name__}: give paths, or "
            "leave `views` and stored answers of teachers out."
        )
    if "::" in str(video) or "://" in str(video):
        return (str(video).encode(),)
    with open(video, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        head = file.read(_PIECE)
        file.seek(max(length - _PIECE, 0))
        return str(length).encode(), head, file.read(_PIECE)
