"""Opening a container safely with PyAV, and reading what it holds without decoding it."""

import struct
from contextlib import contextmanager
from dataclasses import dataclass

from .video_errors import VideoEmpty, VideoError, VideoNotReadable, VideoSourceNotAllowed, VideoTooLarge
from .video_sources import GuardedFile
from .video_timeline import NATIVE_ERRORS, stream_duration, stream_fps


try:
    import av
except Exception:  # PyAV raises more than ImportError when a bundled library does not fit the system
    av = None


# Demuxers that may see untrusted bytes. Playlists (hls, dash, concat, image2 patterns) and everything that opens
# further files by name stay out. The audio formats are there to say "audio only" instead of "unreadable".
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,live_flv,asf,ogg,"
    "gif,apng,mjpeg,mxf,nut,rm,dv,yuv4mpegpipe,h263,vc1,vc1test,mp3,aac,flac,wav,aiff"
)

# PyAV 19 replaces by itself what is no UTF-8 in titles and comments; earlier ones raise unless they are told to
_METADATA = {} if av is None or int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
_LATE_STREAM_MARKS = (b"FLV", b"\x00\x00\x01\xba")  # FLV, MPEG program stream
_PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]")


@dataclass(frozen=True)
class VideoInfo:
    """What a container holds.

    Attributes:
        source: Name of what was read.
        container: FFmpeg's name of the container format.
        codec: FFmpeg's name of the video codec.
        pixel_format: Pixel format of the stream, such as `yuv420p`.
        width: Pixels, after the orientation was applied.
        height: Pixels, after the orientation was applied.
        rotation: Clockwise degrees (0, 90, 180, 270) by which stored frames are turned for display.
        mirrored: Whether stored frames are flipped left to right (before the rotation) for display.
        fps: Average frames per second, or None.
        duration: Seconds from the start of the first frame to the end of the last, or None.
        num_frames: Number of frames.
        num_frames_exact: Whether they were counted (True) or estimated from duration and rate (False).
        start_time: Time stamp of the first frame in the container's own clock, in seconds.
        num_video_streams: Video streams, cover art not counted.
        num_bytes: Size of the file.
    """

    source: str
    container: str
    codec: str
    pixel_format: str | None
    width: int
    height: int
    rotation: int
    mirrored: bool
    fps: float | None
    duration: float | None
    num_frames: int
    num_frames_exact: bool
    start_time: float
    num_video_streams: int
    num_bytes: int


@contextmanager
def native_errors(name):
    """Turn what PyAV and the file object raise into a `VideoError` of the source `name`."""
    try:
        yield
    except VideoError:
        raise
    except EOFError as error:
        raise VideoEmpty(name, "the data end before the first frame", "Copy or download the file again") from error
    except MemoryError as error:
        raise VideoTooLarge(name, f"not enough memory ({error})", "Lower VideoLimits.max_pixels") from error
    except NATIVE_ERRORS as error:
        found = f"cannot be read as a video ({type(error).__name__}: {str(error)[:200]})"
        raise VideoNotReadable(name, found, "Check that the file plays; it may be damaged or no video") from error


def open_container(opened, limits, deadline):
    """Open a source for demuxing, with FFmpeg confined to its bytes.

    Args:
        opened: The `SourceFile`.
        limits: The `VideoLimits`; `max_pixels` is also given to FFmpeg, which decodes while it opens.
        deadline: The `Deadline` of this read.

    Returns:
        (container, stream): the PyAV input container and the video stream to read.

    Raises:
        VideoNotReadable, VideoEmpty, VideoTooLarge, VideoSourceNotAllowed, VideoTimeout: as their names say.
    """
    if av is None:
        raise VideoNotReadable(opened.name, "PyAV is not installed", "Run: pip install av")
    with native_errors(opened.name):
        opened.file.seek(0)
        head = opened.file.read(64)
        refuse_playlists(head, opened.name)
        if head.startswith(b"GIF8") and len(head) >= 10:  # only the decoder would tell the size of a GIF
            check_pixels(*struct.unpack("<HH", head[6:10]), opened.name, limits)
        opened.file.seek(0)
        container = av.open(
            GuardedFile(opened.file, deadline),
            mode="r",
            **_options(head, limits),
            **_METADATA,
            io_open=_refuse_to_open,
        )
    try:
        with native_errors(opened.name):
            return container, _video_stream(container, opened, limits)
    except BaseException:
        container.close()
        raise


def refuse_playlists(head, name):
    """Refuse text that names other files, before FFmpeg sees it."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLIST_MARKS):
        raise VideoSourceNotAllowed(name, "a playlist, not a video", "Give the video file itself")


def _options(head, limits):
    """Return FFmpeg's options for opening a file that begins with `head`."""
    container = {"format_whitelist": ALLOWED_FORMATS, "protocol_whitelist": "none"}
    if head.startswith(_LATE_STREAM_MARKS):
        # Their streams appear only while FFmpeg analyses the file, too late for max_pixels: nothing may decode then.
        return {"container_options": {**container, "codec_whitelist": "none"}}
    return {"options": {"max_pixels": str(limits.max_pixels), "threads": "1"}, "container_options": container}


def _refuse_to_open(url, flags, options):
    raise PermissionError(f"a container may not open {url!r}")


def _video_stream(container, opened, limits):
    if len(container.streams) > limits.max_streams:
        found = f"{len(container.streams)} streams, the limit is {limits.max_streams}"
        raise VideoTooLarge(opened.name, found, "Raise VideoLimits.max_streams")
    candidates = video_streams(container)
    if not candidates:
        kinds = sorted({stream.type for stream in container.streams}) or ["no"]
        found = f"no video stream ({', '.join(kinds)} streams only)"
        if container.streams.video:
            found = "no video stream (cover art only)"
        raise VideoEmpty(opened.name, found, "Give a file with moving pictures")
    best = container.streams.best("video")
    stream = best if any(best is not None and best.index == one.index for one in candidates) else candidates[0]
    if stream.codec_context is None:
        found = f"no decoder for this video codec in {container.format.name}"
        raise VideoNotReadable(opened.name, found, "Convert it, for example to H.264")
    context = stream.codec_context
    check_pixels(context.width, context.height, opened.name, limits)
    context.options = {"max_pixels": str(limits.max_pixels)}
    context.thread_count = 1
    claimed = stream_duration(container, stream)
    if claimed is not None and claimed > limits.max_duration:
        found = f"a duration of {claimed:.0f} s, the limit is {limits.max_duration:.0f} s"
        raise VideoTooLarge(opened.name, found, "Raise VideoLimits.max_duration")
    return stream


def video_streams(container):
    """Return the video streams that are no cover art or thumbnail."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
        and not stream.disposition & av.stream.Disposition.timed_thumbnails
    ]


def check_pixels(width, height, name, limits):
    """Raise `VideoTooLarge` for a frame above `max_pixels`."""
    if width * height > limits.max_pixels:
        found = f"frames of {width}x{height} pixels, the limit is {limits.max_pixels} pixels"
        raise VideoTooLarge(name, found, "Raise VideoLimits.max_pixels")


def describe(container, stream, table, first, orientation, opened):
    """Build the `VideoInfo` of an opened container from its headers, its frame table and its first frame."""
    width, height = first.width, first.height
    if orientation.swaps_sides:
        width, height = height, width
    fps = stream_fps(stream)
    if table.exact and table.unique and table.end > 0:
        fps = len(table.pts) / table.end
    return VideoInfo(
        source=opened.name,
        container=container.format.name,
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        width=width,
        height=height,
        rotation=orientation.rotation,
        mirrored=orientation.mirrored,
        fps=fps,
        duration=table.end if table.end > 0 else None,
        num_frames=len(table.pts),
        num_frames_exact=table.exact,
        start_time=float(table.pts[0] * (stream.time_base or 0)),
        num_video_streams=len(video_streams(container)),
        num_bytes=opened.num_bytes,
    )
