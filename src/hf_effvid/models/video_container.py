"""Opening a container safely with PyAV, and reading what it holds without decoding it."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .video_errors import VideoEmpty, VideoError, VideoNotReadable, VideoSourceNotAllowed, VideoTooLarge
from .video_sources import GuardedFile


try:
    import av
except Exception:  # PyAV raises more than ImportError when a bundled library does not fit the system
    av = None


# Demuxers that may see untrusted bytes. Playlists (hls, dash, concat, image2 patterns) and everything that opens
# further files by name stay out. The audio formats are there to say "audio only" instead of "unreadable".
ALLOWED_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,live_flv,asf,ogg,"
    "gif,apng,mjpeg,mxf,nut,rm,wtv,dv,yuv4mpegpipe,h263,vc1,vc1test,mp3,aac,flac,wav,aiff"
)

# Above this size the packets are not listed: counting a feature film would read gigabytes to answer one clip.
MAX_SCAN_BYTES = 256 * 2**20

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


@contextmanager
def native_errors(name):
    """Turn what PyAV and the file object raise into a `VideoError` of the source `name`."""
    try:
        yield
    except VideoError:
        raise
    except MemoryError as error:
        raise VideoTooLarge(name, f"not enough memory ({error})", "Lower VideoLimits.max_pixels") from error
    except (OSError, EOFError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
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
        refuse_playlists(opened)
        opened.file.seek(0)
        container = av.open(
            GuardedFile(opened.file, deadline),
            mode="r",
            options={"max_pixels": str(limits.max_pixels), "threads": "1"},
            container_options={"format_whitelist": ALLOWED_FORMATS, "protocol_whitelist": "none"},
            metadata_errors="replace",
            io_open=_refuse_to_open,
        )
    try:
        with native_errors(opened.name):
            return container, _video_stream(container, opened, limits)
    except BaseException:
        container.close()
        raise


def refuse_playlists(opened):
    """Refuse text that names other files, before FFmpeg sees it."""
    head = opened.file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(_PLAYLIST_MARKS):
        raise VideoSourceNotAllowed(opened.name, "a playlist, not a video", "Give the video file itself")


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
    except (OSError, EOFError, ValueError):
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


def describe(container, stream, table, orientation, opened):
    """Build the `VideoInfo` of an opened container."""
    context = stream.codec_context
    width, height = context.width, context.height
    if orientation.swaps_sides:
        width, height = height, width
    fps = stream_fps(stream)
    if table.exact and table.unique and table.end > 0:
        fps = len(table.pts) / table.end
    return VideoInfo(
        source=opened.name,
        container=container.format.name,
        codec=context.name,
        pixel_format=context.pix_fmt,
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
