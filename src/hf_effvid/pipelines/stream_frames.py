"""The frames of one video as a stream wants them: in order, each with its second, from a file, a camera or an iterator, one at a time."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from ..models.detection_frames import TickedFrames
from ..models.live_video import check_live_source, live_frames
from ..models.video_errors import VideoLimits
from ..models.video_memory import encoded_behind, is_decoder, is_frames, read_frames
from ..models.video_reader import iterate_video, to_frames


class StreamRateError(ValueError):
    """Nobody says how many frames per second the model wants, or how many the source has."""


@dataclass(frozen=True)
class BadFrame:
    """Stands where an iterator gave something that is no frame."""

    seconds: float
    error: Exception


@dataclass(frozen=True)
class StreamSource:
    """Where frames come from, and how they are read.

    Attributes:
        source: what `read_video` takes, `{"frames": ..., "fps": rate}`, an iterator of frames or of (seconds, frame), a device or address.
        rate: frames per second that are wanted; None: all of them.
        every: only every so manyeth of them.
        fps: rate of frames that bring no seconds; default: `rate`.
        size: what frames are resized to while they are read, as in `read_video`.
        start, end: seconds.
        limits, allow_remote: as in `read_video`.
        live, live_options: see `live_frames`.
        keep_going: a bad frame of an iterator becomes a `BadFrame`, and the frame before it stays on display; else it is raised.
    """

    source: object
    rate: float | None = None
    every: int = 1
    fps: float | None = None
    size: object = None
    start: float | None = None
    end: float | None = None
    limits: VideoLimits | None = None
    allow_remote: bool = False
    live: bool = False
    live_options: dict | None = None
    keep_going: bool = False

    def frames(self):
        """Yield (second, uint8 tensor (3, H, W)) or a `BadFrame`.

        Raises:
            VideoSourceNotAllowed: a device or an address without `live`; before anything is read.
            StreamRateError: frames without a clock; before anything is read.
            VideoError: as `read_video`, possibly in the middle.
        """
        if self.live_options is not None and not self.live:
            raise ValueError("live_options are for cameras and addresses: pass live=True, too.")
        if self.live:
            return self._thinned(self._of_iterator(live_frames(self.source, self.live_options, self.limits), self.fps))
        check_live_source(self.source)
        source, fps = encoded_behind(self.source), self.fps
        if isinstance(source, Mapping) and "frames" in source:
            source, fps = source["frames"], source.get("fps") or fps
        if hasattr(source, "__next__") and not hasattr(source, "read"):
            return self._thinned(self._of_iterator(source, fps))
        in_memory = is_frames(source)
        if self.rate is None and not in_memory and not is_decoder(source):
            reading = {"size": self.size, "limits": self.limits, "allow_remote": self.allow_remote}
            return self._thinned(iterate_video(source, start=self.start, end=self.end, **reading))
        if in_memory and self.rate is None and fps is None:
            raise no_clock()
        return self._thinned(self._ticked(source, fps, self.rate or (fps if in_memory else None)))

    def _ticked(self, source, fps, rate):
        ticks = TickedFrames(
            source,
            rate,
            size=self.size,
            source_fps=fps,
            start=self.start,
            end=self.end,
            limits=self.limits,
            allow_remote=self.allow_remote,
        )
        for index, frame in enumerate(ticks):
            yield (self.start or 0.0) + index / ticks.fps, frame

    def _of_iterator(self, items, fps):
        problems, failed = deque(), None
        good = self._good(items, fps or self.rate, problems)
        try:
            for timed in self._ticked(good, None, self.rate) if self.rate is not None else self._part(good):
                while problems:
                    yield problems.popleft()
                yield timed
        except Exception as error:
            failed = error
        finally:
            good.close()
        yield from problems
        if failed is not None:
            raise failed

    def _part(self, timed):
        for seconds, frame in timed:
            if self.end is not None and seconds >= self.end - 1e-6:
                return
            if seconds >= (self.start or 0.0) - 1e-6:
                yield seconds, to_frames(frame)

    def _good(self, items, fps, problems):
        """(seconds from the first frame, (H, W, 3) uint8 array) of all frames that are some; the others go to `problems`."""
        limits, origin, size = self.limits or VideoLimits.default(), None, self.size
        try:
            for index, item in enumerate(items):
                is_timed = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], (int, float))
                if not is_timed and fps is None:
                    raise no_clock()
                seconds, frame = item if is_timed else (index / fps, item)
                origin = seconds if origin is None else origin
                seconds = float(seconds - origin)
                try:
                    pixels = read_frames([frame], limits, size=size).pixels
                except Exception as error:
                    if not self.keep_going:
                        raise
                    problems.append(BadFrame(seconds, error))
                    continue
                size = pixels.shape[1:3]  # later frames become as large as the first
                yield seconds, pixels[0]
        finally:
            if hasattr(items, "close"):
                items.close()

    def _thinned(self, timed):
        count = 0
        for one in timed:
            if isinstance(one, BadFrame):
                yield one
                continue
            if count % self.every == 0:
                yield one
            count += 1


def no_clock():
    """The error for frames that have no seconds where the recipe does not say how many of them make one."""
    return StreamRateError(
        "frames without a file have no seconds: pass fps=..., how many of them there are per second, or an iterator of (seconds, frame)."
    )
