"""The overlay video: every frame that the model saw, beside itself with each modulator laid over it, as mp4."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .heat import HEAT_COLOURS, lay_over, scale_of, step_of_frame


_PANEL = 240  # pixels, about: the height that small frames are enlarged to
_SLOWEST, _FASTEST = 2.0, 60.0  # frames per second
_MARGIN, _HEADER, _FOOTER = 12, 58, 74
_BACKGROUND, _INK, _FAINT, _NOW, _OTHER = "#ffffff", "#222222", "#787878", "#d55e00", "#bbbbbb"


def write_overlay(path, frames, maps, *, title="", seconds=None, weights=None):
    """Writes an mp4 with one picture per frame of the clip, at the clip's own pace (2 to 60 frames per second).

    Args:
        path: file to write.
        frames: (T, 3, H, W) uint8, as the model saw them.
        maps: name -> (T', h, w) numbers from 0 up; all share one colour scale, drawn below.
        title: the line above, such as the predicted label; shown as it is.
        seconds: T times at which the frames are shown in the video, None where nothing is known.
        weights: T' numbers with the sum 1, drawn as bars below; None draws none.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = scale_of(maps.values())
    frames = _enlarged_frames(frames)
    shown = {"what the model sees": frames.permute(0, 2, 3, 1).numpy()}
    shown.update({name: lay_over(frames, one, scale) for name, one in maps.items()})
    page = _Page(shown, title, scale, weights)
    with av.open(str(path), "w", format="mp4") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=_rate(seconds))
        stream.width, stream.height = page.size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20"} if codec == "libx264" else {"qmin": "2", "qmax": "5"}
        for index in range(len(frames)):
            picture = page.draw(index, seconds[index] if seconds is not None else None)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class _Page:
    """The layout of one picture: title, panels with their names, bars over time, colour scale."""

    def __init__(self, shown, title, scale, weights):
        self.shown, self.title, self.scale, self.weights = shown, " ".join(title.split()), scale, weights
        self.num_frames, self.panel_height, self.panel_width = next(iter(shown.values())).shape[:3]
        width = _MARGIN + len(shown) * (self.panel_width + _MARGIN)
        # codecs take even sizes only
        self.size = (width + width % 2, (_HEADER + self.panel_height + _FOOTER) // 2 * 2)
        self.large, self.small = ImageFont.load_default(15), ImageFont.load_default(12)
        while self.large.getlength(self.title) > width - 2 * _MARGIN:
            self.title = self.title[:-2].rstrip("…") + "…"

    def draw(self, index, seconds):
        """The picture of one frame: (height, width, 3) uint8."""
        page = Image.new("RGB", self.size, _BACKGROUND)
        pen = ImageDraw.Draw(page)
        pen.text((_MARGIN, 8), self.title, fill=_INK, font=self.large)
        for column, (name, pictures) in enumerate(self.shown.items()):
            left = _MARGIN + column * (self.panel_width + _MARGIN)
            pen.text((left, _HEADER - 20), name, fill=_INK, font=self.small)
            page.paste(Image.fromarray(pictures[index]), (left, _HEADER))
        self._draw_time(pen, index, seconds)
        self._draw_scale(pen)
        return np.asarray(page)

    def _draw_time(self, pen, index, seconds):
        top = _HEADER + self.panel_height + 8
        at = f"frame {index + 1} of {self.num_frames}" + (f", {seconds:.2f} s" if seconds is not None else "")
        pen.text((_MARGIN, top), at, fill=_INK, font=self.small)
        if self.weights is None:
            return
        bottom, height, width = top + 56, 26, self.panel_width / len(self.weights)
        now = step_of_frame(self.num_frames, len(self.weights))[index]
        pen.text((_MARGIN, top + 14), "share of the temporal modulator", fill=_FAINT, font=self.small)
        for step, weight in enumerate(self.weights):
            left = _MARGIN + step * width
            tall = height * weight / max(self.weights)
            pen.rectangle(
                (left, bottom - tall, left + max(width - 2, 1), bottom), fill=_NOW if step == now else _OTHER
            )

    def _draw_scale(self, pen):
        """One scale for all maps, under the last panel."""
        left = self.size[0] - _MARGIN - self.panel_width
        top, width = _HEADER + self.panel_height + 26, self.panel_width
        for x in range(width):
            colour = HEAT_COLOURS[round(x / max(width - 1, 1) * (len(HEAT_COLOURS) - 1))]
            pen.line((left + x, top, left + x, top + 10), fill=tuple(int(value) for value in colour))
        pen.text((left, top - 18), "modulator, times its mean over the clip", fill=_FAINT, font=self.small)
        for value, anchor, x in ((self.scale[0], "la", left), (self.scale[1], "ra", left + width - 1)):
            pen.text((x, top + 14), f"{value:.1f}", fill=_INK, font=self.small, anchor=anchor)


def _enlarged_frames(frames):
    """Small frames become large enough to look at."""
    height, width = frames.shape[-2:]
    factor = max(1.0, _PANEL / height)
    size = (round(height * factor), round(width * factor))
    if size == (height, width):
        return frames
    larger = torch.nn.functional.interpolate(frames.float(), size=size, mode="bicubic", align_corners=False)
    return larger.round().clamp(0, 255).to(torch.uint8)


def _rate(seconds):
    """Frames per second that show the clip at its own pace, within reason: 8 frames of an hour should not take an hour to watch."""
    steps = np.diff(np.asarray(seconds, dtype=float)) if seconds is not None else np.array([])
    steps = steps[np.isfinite(steps) & (steps > 1e-3)]
    rate = 1 / float(np.median(steps)) if len(steps) else 4.0
    return Fraction(min(max(rate, _SLOWEST), _FASTEST)).limit_denominator(1001)
