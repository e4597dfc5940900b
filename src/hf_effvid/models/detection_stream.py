# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Actions while the video still runs: from a file, a camera or an iterator of frames, each said once, when nothing can change it any more.

The stream looks at the windows that the pipeline looks at, as soon as their frames are there. Windows to come begin one step after the last
one at the earliest, and what they say begins at most `window_reach` seconds before them: that second is the *horizon*. A detection is
*confirmed* when no candidate that begins at the horizon or later can change it (`streaming_suppression.py`). So a stream says what

    pipe(video, threshold=threshold, window_reach=window_reach, max_segments=10**9)

says of the whole video: the same labels, seconds and scores, ordered by when they were confirmed. The two options are what a stream
cannot have otherwise: segments that reach back without a limit, and the best so many of a video whose end is not known.
"""

from dataclasses import dataclass
from typing import NamedTuple

from .clip_sampling import check_count
from .detection_frames import DetectorInputError, TickedFrames
from .detection_scores import check_threshold, label_names, threshold_per_class
from .live_video import check_live_source, live_frames
from .read_ahead import read_ahead
from .streaming_hysteresis import StreamingHysteresis
from .streaming_suppression import StreamingSuppression
from .temporal_decisions import decide
from .video_processing_effvid import decoding_size


class StreamedDetection(NamedTuple):
    """One confirmed action: seconds from the beginning of the stream, name, score."""

    start: float
    end: float
    label: str
    score: float


def stream_detections(
    pipe,
    source,
    *,
    threshold=None,
    hysteresis=1.0,
    gap=0.0,
    window=None,
    overlap=None,
    window_reach=None,
    fps=None,
    start=None,
    end=None,
    queue_size=64,
    live=False,
    live_options=None,
    limits=None,
    allow_remote=False,
    **changes,
):
    """Find the actions of one video, saying each as soon as it is certain.

    Args:
        pipe: a `TemporalActionDetectionPipeline` of a detector that reads pixels.
        source: whatever the pipeline takes; an iterator of frames, or of (seconds, frame); with `live=True` a camera or an address.
        threshold: as in a call of the pipeline. What can be said early depends on it: doubtful detections make others wait.
        hysteresis: a detection that reaches only this share of its threshold is said, too, where a chain of such ones of its label leads to one
            that reaches all of it; 1: there is one threshold.
        gap: seconds that may lie between the links of that chain.
        window, overlap: length of windows, and how much of one the next sees again, in seconds; default: those of the checkpoint.
        window_reach: seconds that a segment may begin before its window, or end after it; default: that of the checkpoint, or half a window.
        fps: rate of frames in memory or of an iterator that brings no seconds.
        start, end: the part to look at, in seconds.
        queue_size: frames that wait at most, decoded ahead by a thread.
        live: `source` is a device or an address that FFmpeg opens (`/dev/video0`, `rtsp://...`, a pipe). Nothing of that kind is opened
            without it.
        live_options: for FFmpeg, such as `{"video_size": "640x480"}`; `{"format": "v4l2"}` names its input.
        limits, allow_remote: as in `read_video`.
        **changes: fields of the recipe to change, as in a call of the pipeline.

    Returns:
        A `DetectionStream`.

    Raises:
        ValueError, TypeError: options that make no sense.
        DetectorInputError: the detector takes features, or stretches every video to one length.
        VideoSourceNotAllowed: a device or an address without `live=True`.
        VideoError, or what an iterator raises: while it runs; what was seen until then is said before.
    """
    check_streamable(pipe)
    if threshold is not None:
        check_threshold(threshold, pipe.model.config)
    check_count("queue_size", queue_size)
    if not 0 < hysteresis <= 1:
        raise ValueError(f"hysteresis is a share of the threshold, above 0 and at most 1, got {hysteresis!r}.")
    if not gap >= 0:
        raise ValueError(f"gap must be 0 or more seconds, got {gap!r}.")
    if live:
        source = {"frames": live_frames(source, live_options, limits), "fps": fps}
    elif live_options is not None:
        raise ValueError("live_options are for cameras and addresses: pass live=True, too.")
    else:
        check_live_source(source)
    # checks them, and the recipe with them
    pipe._sanitize_parameters(window=window, overlap=overlap, window_reach=window_reach, **changes)
    ticks = TickedFrames(
        source,
        pipe.video_processor.feature_fps,
        size=decoding_size(pipe.video_processor.recipe(), False),
        source_fps=fps,
        start=start,
        end=end,
        limits=limits,
        allow_remote=allow_remote,
    )
    settings = _Settings(threshold, hysteresis, gap, window, overlap, window_reach, queue_size, start or 0.0, changes)
    return DetectionStream(pipe, ticks, settings)


class _Settings(NamedTuple):
    threshold: object
    hysteresis: float
    gap: float
    window: float | None
    overlap: float | None
    window_reach: float | None
    queue_size: int
    offset: float
    changes: dict


class DetectionStream:
    """An iterator over `StreamedDetection`s (start, end, label, score), in the order in which they are confirmed.

    Use it as a context manager, or call `close()`, to stop early: the thread that decodes ends, and the source is closed.

    Attributes:
        latency: seconds. A detection is said at latest when so many seconds of video after its end have been read, and, where better
            candidates that overlap with it are not certain yet, after theirs. None until the first frame where the checkpoint leaves
            the frame rate to the video.
        position: second up to which the stream has been read.
        horizon: second before which nothing new begins.
    """

    def __init__(self, pipe, ticks, settings):
        self._state = _State(settings.offset)
        if ticks.fps is not None:
            cutter = pipe.window_cutter(ticks.fps, settings.window, settings.overlap)
            self._state.latency = latency_of(cutter, pipe, settings)
        # it does not know this object, so that whoever lets go of this object ends it
        self._detections = _detect(pipe, ticks, settings, self._state)

    latency, position, horizon = (
        property(lambda self, name=name: getattr(self._state, name)) for name in ("latency", "position", "horizon")
    )

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._detections)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Stop, wherever it is."""
        self._detections.close()


@dataclass
class _State:
    """How far a stream is, see `DetectionStream`."""

    position: float
    horizon: float | None = None
    latency: float | None = None


def _detect(pipe, ticks, settings, state):
    """Yield what is confirmed, and keep the state."""
    cutter = decider = failed = None
    frames = read_ahead(iter(ticks), settings.queue_size)
    try:
        while True:
            try:
                frame = next(frames, None)
            except Exception as error:  # what was seen until here is worth saying
                failed, frame = error, None
            if frame is None:
                break
            if cutter is None:
                cutter = pipe.window_cutter(ticks.fps, settings.window, settings.overlap)
                state.latency = latency_of(cutter, pipe, settings)
                decider = _Decider(pipe, reach_of(cutter, pipe, settings), settings)
            decider.look_at(cutter.push(frame))
            horizon = decider.horizon(cutter)
            state.position = settings.offset + cutter.num_frames / ticks.fps
            state.horizon = settings.offset + horizon
            # the file may say that it is up to a tick shorter than its frames
            yield from decider.confirmed(horizon, (cutter.num_frames - 1) / ticks.fps)
        if cutter is not None:
            decider.look_at(cutter.finish())
            yield from decider.confirmed(float("inf"), ticks.seconds)
        if failed is not None:
            raise failed
    finally:
        frames.close()


class _Decider:
    """From windows to confirmed detections."""

    def __init__(self, pipe, reach, settings):
        self.pipe, self.reach, self.settings = pipe, reach, settings
        self.names = label_names(pipe.model.config)
        upper = threshold_per_class(settings.threshold, pipe.model.config, self.names)
        self.lower = scaled(upper, settings.hysteresis)
        self.recipe = pipe.video_processor.recipe(**settings.changes)
        floor = self.lower
        if isinstance(floor, dict):  # a class that is not named has no threshold
            floor = min(floor.get(index, 0.0) for index in self.names)
        self.suppression = StreamingSuppression(
            method=self.recipe["nms_method"],
            iou_threshold=self.recipe["nms_iou_threshold"],
            sigma=self.recipe["nms_sigma"],
            floor=floor,
            **{
                name: self.recipe[name]
                for name in ("min_score", "class_agnostic", "voting_threshold", "voting_weight")
            },
        )
        self.hysteresis = StreamingHysteresis(upper, settings.gap)
        self.shared = pipe.shared_clips()
        self.settled_at = None

    def look_at(self, windows):
        for window in windows:
            changes = {**self.settings.changes, "window_reach": self.reach}
            (found,) = self.pipe.window_candidates([window], shared=self.shared, **changes)
            self.suppression.add(found.segments.cpu(), found.scores.cpu(), found.labels.cpu())
            self.settled_at = None

    def horizon(self, cutter):
        """Nothing that windows to come say begins before it: the next one begins after the last, and the last ends with the video."""
        after_last = 0 if cutter.last is None else cutter.last + 1
        first = max(after_last, cutter.num_steps - cutter.length)
        return cutter.grid.shifted(first).to_seconds(-0.5) - self.reach

    def confirmed(self, horizon, now):
        """`StreamedDetection`s that are certain; `now`: seconds that the video is known to last."""
        passed = int((self.suppression.ends <= horizon).sum())
        at_end = horizon == float("inf")
        if not at_end and (passed == 0 or passed == self.settled_at):
            return []  # nothing happened that could make a candidate certain
        found = self.suppression.settle(horizon, horizon if at_end else now)
        self.settled_at = int((self.suppression.ends <= horizon).sum())
        found = decide(found, now if at_end else None, self.lower, self.recipe["min_duration"])
        said = self.hysteresis.add(found)
        self.hysteresis.forget({} if at_end else self._alive(horizon))
        offset = self.settings.offset
        return [
            StreamedDetection(start + offset, end + offset, self.names.get(label, f"LABEL_{label}"), score)
            for start, end, label, score in said
        ]

    def _alive(self, horizon):
        """Where there may still be detections, see `StreamingHysteresis.forget`."""
        waiting, voters = self.suppression.waiting, self.suppression.voters
        if self.suppression.voting is not None:  # a vote may move an end to wherever a voter is
            return {None: [(min([horizon, *voters.start.tolist()]), float("inf"))]}
        alive = {None: [(horizon, float("inf"))]}
        for start, end, label in zip(
            waiting.start.tolist(), waiting.end.tolist(), waiting.label.tolist(), strict=True
        ):
            alive.setdefault(label, []).append((start, end))
        return alive


def check_streamable(pipe):
    """Refuses a detector that does not look at a video window by window."""
    if not pipe.reads_pixels:
        raise DetectorInputError(
            "a stream",
            "a detector of features",
            "Use a detector with a backbone, or pass the features of the whole video to the pipeline",
        )
    if pipe.video_processor.resize_length is not None:
        raise DetectorInputError(
            "a stream",
            "a detector that stretches every video to one length (resize_length)",
            "Its end has to be known: pass the whole video to the pipeline",
        )


def reach_of(cutter, pipe, settings):
    """Seconds, see `window_reach` in `stream_detections`."""
    given = settings.window_reach if settings.window_reach is not None else pipe.video_processor.window_reach
    return given if given is not None else 0.5 * cutter.length * cutter.grid.step


def latency_of(cutter, pipe, settings):
    """A window, what later windows may reach back, and the two steps that are not complete: the next one, and the first one after the last window."""
    return (cutter.length + 2) * cutter.grid.step + reach_of(cutter, pipe, settings)


def scaled(threshold, share):
    """Thresholds times a number."""
    if isinstance(threshold, dict):
        return {label: share * score for label, score in threshold.items()}
    return share * threshold


__all__ = ["DetectionStream", "StreamedDetection", "stream_detections"]
