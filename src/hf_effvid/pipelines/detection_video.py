"""Detections burned into a copy of the video: what happens now as labels, what happens when as a bar along the bottom edge.

Frames go through one at a time, with the times that they have in the source; size, orientation and sound stay as they are.
"""

import bisect
import logging
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..models.video_container import native_errors, open_container
from ..models.video_decoding import VideoFile
from ..models.video_errors import VideoLimits
from ..models.video_pixels import RgbConverter, orientation_of_frame
from ..models.video_sources import Deadline, open_source
from ..models.video_timeline import NATIVE_ERRORS, stream_duration, stream_fps
from .detection_files import one_line
from .detection_timeline import classes_of, colours_of


logger = logging.getLogger(__name__)

_READABLE_HEIGHT = 240  # pixels: smaller videos are enlarged, or no label would fit
# sound that mp4 takes as it is
_COPIED_SOUND = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
_WHITE, _BLACK, _SHADE = (255, 255, 255), (20, 20, 20), (0, 0, 0, 110)


def write_detection_video(
    source,
    detections: Sequence[Mapping],
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    limits: VideoLimits | None = None,
    allow_remote: bool = False,
) -> Path:
    """Write an mp4 that shows what was detected.

    Args:
        source: the video, as `read_video` takes it (a file; sound is copied from paths and bytes).
        detections: `[{"label", "score", "start", "end"}]` in seconds from the first frame.
        path: file to write, .mp4; it is there whole or not at all.
        classes: all classes, if videos of a series should share colours; default: those of this one.
        limits, allow_remote: as in `read_video`; `limits.timeout` holds for each frame.

    Returns:
        The path.

    Raises:
        VideoError: the source cannot be read.
        ValueError: another suffix, or the path of the source.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"a video with labels is written to .mp4, got {path.name!r}.")
    if isinstance(source, (str, os.PathLike)) and os.path.abspath(source) == os.path.abspath(path):
        raise ValueError(f"{path} is the video itself: choose another name for the copy.")
    limits = limits or VideoLimits.default()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    opened = open_source(source, limits, allow_remote)
    try:
        deadline = Deadline(limits.timeout, opened.name)
        video = VideoFile(opened, limits, deadline)
        try:
            with native_errors(opened.name), _Sound(source, limits) as sound:
                _copy(video, sound, detections, classes_of(detections, classes=classes), draft, deadline)
        finally:
            video.close()
        os.replace(draft, path)
    finally:
        opened.close()
        draft.unlink(missing_ok=True)
    return path


def _copy(video, sound, detections, classes, path, deadline):
    """Decode, draw and encode frame by frame."""
    first = video.peek()
    orientation, base = orientation_of_frame(first), video.stream.time_base or Fraction(1, 1000)
    rate = stream_fps(video.stream) or 25.0
    origin = (first.pts or 0) * base
    to_rgb, artist = RgbConverter(), None
    with av.open(str(path), "w", format="mp4") as container:
        stream, time, last = None, Fraction(0), None
        for frame in video.from_start():
            time = frame.pts * base - origin if frame.pts is not None else time + Fraction(1 / rate)
            pixels = orientation.apply(to_rgb(frame))
            if artist is None:
                duration = stream_duration(video.container, video.stream)
                artist = _Artist(pixels.shape, detections, classes, duration)
                stream = _picture_stream(container, rate, artist.size)
                sound.join(container, origin)
            stamp = round(time / stream.codec_context.time_base)
            if last is not None and stamp <= last:
                continue  # a time stamp that does not grow: no player would show that frame
            drawn = av.VideoFrame.from_ndarray(artist.draw(pixels, float(time)), format="rgb24")
            drawn.pts, drawn.time_base = stamp, stream.codec_context.time_base
            container.mux(stream.encode(drawn))
            sound.copy_until(time)
            last = stamp
            deadline.renew()
        container.mux(stream.encode(None))
        sound.copy_until(time + 1)


def _picture_stream(container, rate, size):
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"qmin": "2", "qmax": "5"}
    # fine enough for every rate in use, coarse enough for MPEG-4 (16 bits)
    stream.codec_context.time_base = Fraction(1, 60_000)
    return stream


class _Sound:
    """The first sound stream of the source, copied packet by packet as far as the pictures are."""

    def __init__(self, source, limits):
        self.opened = self.container = self.stream = self.copied = self.waiting = None
        if not isinstance(source, (str, os.PathLike, bytes)) or str(source).lower().startswith("http"):
            return
        self.opened = open_source(source, limits)
        self.container, _ = open_container(self.opened, limits, Deadline(limits.timeout, self.opened.name))
        found = self.container.streams.audio
        if found and found[0].codec_context is not None and found[0].codec_context.name in _COPIED_SOUND:
            self.stream = found[0]
        elif found:
            logger.warning("%s: its sound is of a kind that mp4 files do not hold; left out", self.opened.name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.opened is not None:
            self.container.close()
            self.opened.close()

    def join(self, container, origin):
        """Open a stream in the copy; `origin`: second of the source that becomes 0."""
        if self.stream is None:
            return
        self.output, self.copied, self.origin = container, container.add_stream_from_template(self.stream), origin
        self.packets = self.container.demux(self.stream)
        self._advance()

    def copy_until(self, time):
        """Copy what is heard until that second."""
        while self.waiting is not None and self.waiting.pts * self.waiting.time_base - self.origin <= time:
            packet, shift = self.waiting, round(self.origin / self.waiting.time_base)
            if packet.pts >= shift:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.pts - shift, self.copied
                self.output.mux(packet)
            self._advance()

    def _advance(self):
        try:
            self.waiting = next((one for one in self.packets if one.size and one.pts is not None), None)
        except NATIVE_ERRORS:  # damaged from here on: silence
            self.waiting = None


class _Artist:
    """Draws on the frames of one video, which come in the order of time."""

    def __init__(self, shape, detections, classes, duration):
        height, width = shape[:2]
        self.factor = -(-_READABLE_HEIGHT // height) if height < _READABLE_HEIGHT else 1
        width, height = width * self.factor, height * self.factor
        # codecs take even sizes only
        self.size = (width + width % 2, height + height % 2)
        self.font = ImageFont.load_default(max(14, self.size[1] // 24))
        self.line = round(1.45 * self.font.size)
        self.most = max(1, (self.size[1] // 2) // self.line)
        colours = colours_of(classes)
        self.colours = {label: _rgb(colours[label]) for label in classes}
        self.detections = sorted(detections, key=lambda one: one["start"])
        self.starts = [one["start"] for one in self.detections]
        self.begun, self.active = 0, []
        self.duration = duration or max((one["end"] for one in detections), default=1.0)
        self.bar = max(6, self.size[1] // 40)
        self.strip = self._draw_strip()

    def draw(self, pixels, seconds):
        """The frame with its labels: (height, width, 3) uint8."""
        page = Image.fromarray(np.ascontiguousarray(pixels))
        if self.factor > 1:
            page = page.resize((page.width * self.factor, page.height * self.factor), Image.NEAREST)
        if page.size != self.size:
            page = Image.fromarray(np.pad(np.asarray(page), [(0, self.size[1] - page.height), (0, self.size[0] - page.width), (0, 0)], "edge"))  # fmt: skip
        pen = ImageDraw.Draw(page, "RGBA")
        for row, one in enumerate(self._shown_at(seconds)[: self.most]):
            self._draw_label(pen, row, one)
        page.paste(self.strip, (0, self.size[1] - self.bar), self.strip)
        x = min(seconds / self.duration, 1.0) * (self.size[0] - 1)
        pen.rectangle((x - 1, self.size[1] - self.bar - 3, x + 1, self.size[1]), fill=_WHITE)
        return np.asarray(page)

    def _shown_at(self, seconds):
        """Detections at that time, the best first."""
        now = bisect.bisect_right(self.starts, seconds + 1e-6)
        self.active = [one for one in self.active + self.detections[self.begun : now] if one["end"] > seconds + 1e-6]
        self.begun = now
        return sorted(self.active, key=lambda one: -one["score"])

    def _draw_label(self, pen, row, one):
        number = f" {one['score']:.2f}"
        text, widest = one_line(one["label"]), self.size[0] - 2 * self.line
        while len(text) > 1 and self.font.getlength(text + number) > widest:
            text = text[:-2].rstrip("…") + "…"
        colour = self.colours[one["label"]]
        left = top = self.line // 4
        top += row * (self.line + 2)
        right = left + self.font.getlength(text + number) + self.line // 2
        pen.rectangle((left, top, right, top + self.line), fill=colour)
        middle = (left + self.line // 4, top + self.line // 2)
        pen.text(middle, text + number, fill=_on(colour), font=self.font, anchor="lm")

    def _draw_strip(self):
        """When what happens, the best on top, on a darkened edge."""
        strip = Image.new("RGBA", (self.size[0], self.bar), _SHADE)
        pen = ImageDraw.Draw(strip)
        for one in sorted(self.detections, key=lambda one: one["score"]):
            first, last = (one[name] / self.duration * self.size[0] for name in ("start", "end"))
            pen.rectangle((first, 1, max(last, first + 1), self.bar), fill=self.colours[one["label"]])
        return strip


def _rgb(colour):
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def _on(colour):
    """The ink that is legible on a colour."""
    return _WHITE if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 140 else _BLACK
