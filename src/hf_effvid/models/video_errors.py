"""Typed errors of the video path, and the limits that protect it. Standard library only."""

from dataclasses import dataclass


class VideoError(ValueError):
    """A video could not be delivered.

    Attributes:
        source: What was being read (a path, a URL or a description such as ``<bytes, 1234 B>``).
        found: What was found there.
        hint: What the caller can do about it.
    """

    def __init__(self, source, found, hint=""):
        self.source = str(source)
        self.found = str(found)
        self.hint = str(hint)
        super().__init__(f"{self.source}: {self.found}. {self.hint}".rstrip())

    def __reduce__(self):
        return type(self), (self.source, self.found, self.hint)


class VideoNotFound(VideoError):
    """The path does not exist, or is not a regular file."""


class VideoNotReadable(VideoError):
    """The bytes are no video that can be decoded here."""


class VideoEmpty(VideoError):
    """A valid file without a single video frame."""


class VideoTooLarge(VideoError):
    """A limit of `VideoLimits` would be exceeded."""


class VideoTooShort(VideoError):
    """Fewer frames than were asked for, under a policy that does not fill up."""


class VideoTimeout(VideoError):
    """The wall-clock limit of `VideoLimits` was reached."""


class VideoSourceNotAllowed(VideoError):
    """A source that is refused by policy: a URL without permission, a private host, a playlist."""


ERROR_TYPES = {
    kind.__name__: kind
    for kind in (
        VideoError,
        VideoNotFound,
        VideoNotReadable,
        VideoEmpty,
        VideoTooLarge,
        VideoTooShort,
        VideoTimeout,
        VideoSourceNotAllowed,
    )
}


@dataclass(frozen=True)
class VideoLimits:
    """What one read may cost. Every limit is checked before the memory it guards is allocated.

    Attributes:
        max_bytes: Size of a local file, of a bytes object or of what a file object holds.
        max_download_bytes: Size of a download (`allow_remote=True`), counted while it streams.
        max_pixels: Width x height of one frame. FFmpeg gets it too, because opening a file already decodes.
        max_duration: Seconds a container may claim.
        max_decoded_frames: Frames that one read may decode, wanted or not.
        max_output_bytes: Size of the frames one read may return.
        max_streams: Streams (video, audio, subtitles, data) in the container.
        timeout: Wall-clock seconds for one read; `iterate_video` grants them anew for every frame.
        max_memory: Address space of the worker process of `isolate=True`, in bytes.
    """

    max_bytes: int = 4 * 2**30
    max_download_bytes: int = 512 * 2**20
    max_pixels: int = 4096 * 2304
    max_duration: float = 24 * 3600.0
    max_decoded_frames: int = 1_000_000
    max_output_bytes: int = 2**30
    max_streams: int = 64
    timeout: float = 60.0
    max_memory: int = 2 * 2**30

    def __post_init__(self):
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"VideoLimits.{name} must be a positive number, got {value!r}.")

    @classmethod
    def default(cls):
        """Return the limits in force where a call gives none."""
        return _current["limits"]


_current = {"limits": VideoLimits()}


def set_default_limits(limits):
    """Make `limits` the ones that hold where a call gives none, and return the previous ones."""
    if not hasattr(limits, "max_pixels"):
        raise TypeError(f"set_default_limits expects a VideoLimits, got {type(limits).__name__}.")
    previous = _current["limits"]
    _current["limits"] = limits
    return previous
