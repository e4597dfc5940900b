# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Which actions a video shows, and from when to when: a pipeline for videos of any length.

pipe = pipeline("temporal-action-detection", model="a detector")
pipe("match.mp4")                                       # [{"label", "score", "start", "end"}], seconds, best first
pipe(paths, batch_size=8, on_error="record")            # one bad file is one error record
pipe("match.mp4", threshold={"serve": 0.4}, top_k=20)   # other operating points than the checkpoint's
pipe({"input_features": features, "fps": 30.0})         # detectors of features that somebody else extracted
pipe.stream("rtsp://camera", live=True)                 # (start, end, label, score) while the video still runs
"""

import copy
import os
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn
from transformers import AutoModel, AutoVideoProcessor, Pipeline

from .batching import Batcher
from .clip_sampling import check_count
from .detection_features import are_features, read_features
from .detection_frames import DetectorInputError, TickedFrames, read_evenly
from .detection_progress import DetectionProgress
from .detection_scores import check_threshold, scores_of_video, threshold_per_class
from .detection_stream import stream_detections
from .detection_windows import DetectorWindow, WindowCutter, pixels_of
from .pipeline_inputs import LIST, SINGLE, FailedItem, iterate, kind_of, name_of, number_of
from .read_ahead import read_ahead
from .shared_clips import SharedClips
from .time_grid import TimeGrid
from .video_processing_actionformer import check_detection_recipe
from .video_processing_effvid import decoding_size
from .video_selection import check_selection


TASK = "temporal-action-detection"
# what config.json says where this file lies beside it, for the stock `pipeline(..., trust_remote_code=True)`
CUSTOM_PIPELINES = {
    TASK: {
        "impl": "pipeline_temporal_action_detection.TemporalActionDetectionPipeline",
        "pt": ["AutoModel"],
        "type": "video",
    }
}
# that wait for the model at most, where a thread decodes
FRAMES_AHEAD = 256
READING_PARAMS = ("start", "end", "fps", "window", "overlap", "limits", "allow_remote")
RUN_PARAMS = ("on_error", "progress", "video_column")
DECISION_PARAMS = ("top_k", "threshold")
# fields of the recipe that a call may change: what happens to candidates, not what the model sees
RECIPE_PARAMS = (
    "candidate_threshold",
    "candidate_top_k",
    "candidate_per_level",
    "min_steps",
    "nms_method",
    "nms_sigma",
    "nms_iou_threshold",
    "min_score",
    "max_segments",
    "class_agnostic",
    "voting_threshold",
    "voting_weight",
    "score_fusion",
    "fusion_top_k",
    "min_duration",
    "window_reach",
)


@dataclass
class Video:
    """One video of a run: what its windows found so far, and what is known of it; `scores` as `scores_of_video` gives them."""

    name: str
    scores: tuple = (None, None)
    candidates: list = field(default_factory=list)
    duration: float | None = None
    offset: float = 0.0
    error: Exception | None = None


@dataclass
class Unit:
    """What the batcher carries: a window of a video, which ends at `seconds`; the last unit of a video carries none."""

    video: Video
    seconds: float = 0.0
    is_last: bool = False


class TemporalActionDetectionPipeline(Pipeline):
    """Find the actions in videos.

    Args:
        model: a detector (`ActionFormerForTemporalActionDetection`), or the name or folder of one.
        video_processor: its `ActionFormerProcessor`; loaded with the model where that is a name.
        model_kwargs: passed to `from_pretrained` when `model` is a name (`revision`, `trust_remote_code`, `dtype`, ...).
        device, batch_size: as in every pipeline.
        **kwargs: defaults for the parameters of a call.

    Raises:
        ValueError: model and processor do not fit each other.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, model, video_processor=None, model_kwargs=None, **kwargs):
        kwargs.setdefault("task", TASK)
        if isinstance(model, (str, os.PathLike)):
            loading = dict(model_kwargs or {})
            hub = {
                key: loading[key] for key in ("revision", "token", "trust_remote_code", "cache_dir") if key in loading
            }
            video_processor = video_processor or AutoVideoProcessor.from_pretrained(model, **hub)
            model = AutoModel.from_pretrained(model, **loading)
        self.reads_pixels = check_detector(model, video_processor)
        super().__init__(model, video_processor=video_processor, **kwargs)
        self.model.eval()

    def _sanitize_parameters(self, **params):
        known = {*READING_PARAMS, *RUN_PARAMS, *DECISION_PARAMS, *RECIPE_PARAMS}
        unknown = sorted(params.keys() - known)
        if unknown:
            raise TypeError(f"Unknown parameters {unknown}: this pipeline takes {sorted(known)}.")
        given = {name: value for name, value in params.items() if value is not None}
        if given.get("on_error") not in (None, "raise", "record"):
            raise ValueError(f"on_error must be 'raise' or 'record', got {given['on_error']!r}.")
        if "top_k" in given:
            check_count("top_k", given["top_k"])
        if "threshold" in given:
            check_threshold(given["threshold"], self.model.config)
        check_selection(start=given.get("start"), end=given.get("end"), target_fps=given.get("fps"))
        check_window(given.get("window"), given.get("overlap"))
        changes = {name: given[name] for name in RECIPE_PARAMS if name in given}
        if changes:
            check_detection_recipe(self.video_processor.recipe(**changes))
        return (
            {name: given[name] for name in READING_PARAMS if name in given},
            {name: given[name] for name in RUN_PARAMS + RECIPE_PARAMS if name in given},
            {name: given[name] for name in DECISION_PARAMS if name in given},
        )

    def __call__(self, inputs, *, batch_size=None, num_workers=None, video_scores=None, **kwargs):
        """Find the actions in one video, a list, or a stream of videos.

        Args:
            inputs: for detectors with a backbone: path, bytes, file object, `datasets` Video value, torchcodec decoder, frames (at
                `fps`), `{"frames": frames or an iterator of them, "fps": rate}`; http(s) only with `allow_remote=True`. For
                detectors of features: (T, C) arrays, `{"input_features", "fps", "duration"}`, files. A list or an array of
                these, a generator, a `KeyDataset`, a `datasets.Dataset` (its `video_column`).
            batch_size: windows per forward pass, over the borders of videos; results do not depend on it.
            num_workers: 0, or 1 for a thread that decodes while the model works; default: 1 where the model is on a GPU.
            video_scores: what a classifier says of the whole video, combined with the scores of segments: `{label: probability}`,
                the output of a video classification pipeline, or probabilities (C,); one of these per video.
            top_k: detections per video at most.
            threshold: lowest score, one number or `{label: number}` (0 for other labels); "operating_points": those of the
                checkpoint, which is the default where it has them. 0 gives all detections.
            window, overlap: length of windows, and how much of one the next sees again, in seconds.
            start, end: the part of the video to look at, in seconds.
            fps: rate of frames in memory, or of the video that features were made of.
            on_error: "raise", or "record": a video that fails gives `{"error", "message", "source"}` in its place.
            progress: show a progress bar; default: on a terminal, when it takes longer than two seconds.
            limits, allow_remote: as in `read_video`.
            **kwargs: how candidates are selected and suppressed, see `ActionFormerProcessorKwargs`.

        Returns:
            For one video `[{"label", "score", "start", "end"}, ...]`, seconds, best first. A list of these for a list; an iterator,
            which computes as it is consumed, for a stream.

        Raises:
            VideoError: a video or features that cannot be read; `DetectorInputError`: one given where the other is needed.
        """
        results = self.iterate(
            inputs, batch_size=batch_size, num_workers=num_workers, video_scores=video_scores, **kwargs
        )
        kind = kind_of(inputs, not self.reads_pixels)
        if kind == SINGLE:
            return next(iter(list(results)))
        return list(results) if kind == LIST else results

    def iterate(self, inputs, *, batch_size=None, num_workers=None, video_scores=None, **kwargs):
        """As a call, but always an iterator with one result per video, computed as it is consumed."""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        given = self._sanitize_parameters(**kwargs)
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        reading, run, decision = ({**old, **new} for old, new in zip(defaults, given, strict=True))
        if kind_of(inputs, not self.reads_pixels) == SINGLE and video_scores is not None:
            video_scores = [video_scores]
        num_workers = self._num_workers if num_workers is None else num_workers
        reading["decode_ahead"] = num_workers > 0 if num_workers is not None else self.device.type != "cpu"
        return self._predict(inputs, batch_size or self._batch_size or 1, video_scores, reading, run, decision)

    def stream(self, source, **options):
        """Find the actions of one video while it runs: a file, a camera, an iterator of frames; see `stream_detections` for the options.

        Returns:
            A `DetectionStream`, an iterator over confirmed (start, end, label, score).
        """
        return stream_detections(self, source, **options)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def _predict(self, inputs, batch_size, video_scores, reading, run, decision):
        record = run.get("on_error", "raise") == "record"
        changes = {name: run[name] for name in RECIPE_PARAMS if name in run}
        forward = partial(self.window_candidates, shared=self.shared_clips(), **changes)
        batcher = Batcher(forward, batch_size, isolate_errors=record, collate=list)
        bar = DetectionProgress(number_of(inputs, not self.reads_pixels), run.get("progress"))
        failed = None
        with bar:
            for unit, window in self._units(inputs, video_scores, reading, run.get("video_column", "video"), bar):
                if unit.video.error is not None and not record:
                    failed = unit.video.error
                    break
                batcher.add(unit, None if window is None else [window])
                yield from self._deliver(batcher, decision, changes, bar)
            batcher.run()
            yield from self._deliver(batcher, decision, changes, bar)
        if failed is not None:
            raise failed

    def _deliver(self, batcher, decision, changes, bar):
        for item in batcher.finished():
            unit = item.owner
            video = unit.video
            video.error = video.error or item.error
            video.candidates += item.results
            if not unit.is_last:
                bar.reached(unit.seconds)
                continue
            bar.done()
            if video.error is None:
                yield self.postprocess(video, **decision, **changes)
            else:
                yield {"error": type(video.error).__name__, "message": str(video.error), "source": video.name}

    def _units(self, inputs, video_scores, reading, video_column, bar):
        """Decode: (unit, window) for every window, then (last unit, None) for every video."""
        scores = None if video_scores is None else iter(video_scores)
        for source in iterate(inputs, video_column, not self.reads_pixels):
            video = Video(name_of(source))
            try:
                given = None if scores is None else next_given(scores)
                if isinstance(source, FailedItem):
                    raise source.error
                video.scores = scores_of_video(given, self.model.config)
                for window in self.windows(source, video, bar, **reading):
                    yield Unit(video, window.grid.to_seconds(window.num_steps - 0.5)), window
            except Exception as error:
                video.error = error
            yield Unit(video, is_last=True), None

    def windows(self, source, video=None, bar=None, **reading):
        """The windows of one source, one by one; `video` learns how long it was.

        Args:
            source: a video or features.
            video: gets `duration` and `offset`, the second at which the part begins.
            bar: is told how long it will be.
            **reading: as in a call; `decode_ahead`: whether a thread decodes.

        Yields:
            `DetectorWindow`s.
        """
        video = video or Video(name_of(source))
        if self.reads_pixels:
            yield from self._windows_of_pixels(source, video, bar, **reading)
        else:
            yield from self._windows_of_features(source, video, **reading)

    def _windows_of_pixels(
        self, source, video, bar, window=None, overlap=None, fps=None, start=None, decode_ahead=False, **reading
    ):
        if are_features(source):
            raise DetectorInputError(
                video.name,
                "features",
                "This detector has a backbone: give it the video, or use a detector of features",
            )
        processor, per_step = self.video_processor, self.model.config.frames_per_step
        video.offset = start or 0.0
        reading |= {"size": decoding_size(processor.recipe(), False), "source_fps": fps, "start": start}
        if processor.resize_length is not None:
            if window is not None or overlap is not None:
                raise ValueError(
                    f"this detector sees every video whole, in {processor.resize_length} steps: no windows."
                )
            num_steps = processor.resize_length
            frames, video.duration = read_evenly(source, num_steps * per_step, **reading)
            step = video.duration / num_steps
            yield DetectorWindow(0, num_steps, TimeGrid(0.5 * step, step), frames=tuple(frames))
            return
        ticks = TickedFrames(source, processor.feature_fps, **reading)
        cutter = None
        for frame in read_ahead(iter(ticks), FRAMES_AHEAD) if decode_ahead else ticks:
            if cutter is None:
                cutter = self.window_cutter(ticks.fps, window, overlap)
                if bar is not None:
                    bar.lasts(ticks.duration)
            yield from cutter.push(frame)
        yield from cutter.finish()
        video.duration = ticks.seconds

    def window_cutter(self, fps, window=None, overlap=None):
        """What cuts frames into windows, see `WindowCutter`.

        Args:
            fps: frames per second that it will get.
            window, overlap: as in a call.
        """
        grid = self.video_processor.time_grid(fps)
        length, share = window_in_steps(self._recipe_of_windows(), grid.step, window, overlap)
        return WindowCutter(grid, length, share, self.model.config.frames_per_step)

    def _recipe_of_windows(self):
        """(steps, share): without a window in the recipe, pixels come in windows as long as the model's longest input in training."""
        processor = self.video_processor
        longest = self.model.config.max_sequence_length if self.reads_pixels else None
        return processor.window_length or longest, processor.window_overlap

    def _windows_of_features(self, source, video, window=None, overlap=None, fps=None, **reading):
        unused = sorted(reading.keys() - {"limits", "allow_remote", "decode_ahead"})
        if unused:
            raise ValueError(f"{', '.join(unused)} select a part of a video: features are taken whole.")
        config, processor = self.model.config, self.video_processor
        features = read_features(source, processor.recipe(), sum(config.feature_sizes), fps)
        video.duration = features.duration
        if window is not None or overlap is not None:
            step = processor.time_grid(features.fps, len(features.values)).step
            processor = copy.copy(processor)
            recipe = window_in_steps(self._recipe_of_windows(), step, window, overlap)
            processor.window_length, processor.window_overlap = recipe
        for place in processor.plan_windows([len(features.values)], features.fps):
            row = processor.encode_features([features.values], [place])
            parts = (row["input_features"][0], row["attention_mask"][0])
            yield DetectorWindow(place.first, place.num_steps, place.grid, features=parts)

    def shared_clips(self):
        """What lets the windows of one run share the clips that they have in common; None where clips see each other."""
        backbone = self.model.actionformer.backbone
        if backbone is None or backbone.adapters is not None:
            return None
        return SharedClips(backbone, self.video_processor)

    def window_candidates(self, windows, shared=None, **changes):
        """What the detector says of windows of one shape, in seconds of their part, before suppression.

        Args:
            windows: `DetectorWindow`s.
            shared: the `shared_clips()` of a run.
            **changes: fields of the recipe to change.

        Returns:
            A list of `WindowCandidates` on the processor, one per window; their `video` is 0.
        """
        steps = self.video_processor.pad_length or 0
        if shared is not None:
            with self.device_placement(), self.get_inference_context()():
                features = shared.features(windows, self.device)
            inputs = {"input_features": features}
            if features.shape[1] < steps:
                mask = torch.arange(steps, device=features.device) < features.shape[1]
                padding = (0, 0, 0, steps - features.shape[1])
                inputs = {"input_features": nn.functional.pad(features, padding)}
                inputs["attention_mask"] = mask.expand(len(windows), -1)
        elif self.reads_pixels:
            inputs = pixels_of(windows, self.video_processor, steps * self.model.config.frames_per_step, self.device)
        else:
            features, masks = zip(*(window.features for window in windows), strict=True)
            inputs = {"input_features": torch.stack(features), "attention_mask": torch.stack(masks)}
        outputs = SimpleNamespace(**self.forward(inputs))
        return self.video_processor.decode_windows(outputs, [window.place for window in windows], **changes)

    def get_inference_context(self):
        return torch.inference_mode

    def save_pretrained(self, save_directory, **kwargs):
        """Save model and processor; the code of this pipeline goes with the model, so that the folder needs nothing else."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory)

    # ---- the three steps of every transformers pipeline ----------------------------------------------------------------

    def preprocess(self, source, **reading):
        """One video to its windows, all of them, as `{"video": Video, "windows": [DetectorWindow, ...]}`."""
        video = Video(name_of(source), scores_of_video(None, self.model.config))
        return {"video": video, "windows": list(self.windows(source, video, **reading))}

    def _forward(self, model_inputs, **params):
        outputs = self.model(**model_inputs)
        return {name: getattr(outputs, name) for name in ("logits", "offsets", "point_mask", "points")}

    def postprocess(self, video, top_k=None, threshold=None, **changes):
        """What the windows of a `Video` found, suppressed and decided on: the detections."""
        config, processor = self.model.config, self.video_processor
        names, scores = video.scores
        found = processor.merge_windows(
            video.candidates,
            durations=[video.duration],
            num_videos=1,
            video_scores=None if scores is None else [scores],
            threshold=threshold_per_class(threshold, config, names),
            top_k=top_k,
            **changes,
        )[0]
        parts = zip(found["labels"].tolist(), found["scores"].tolist(), found["segments"].tolist(), strict=True)
        return [
            {
                "label": names.get(label, f"LABEL_{label}"),
                "score": score,
                "start": start + video.offset,
                "end": end + video.offset,
            }
            for label, score, (start, end) in parts
        ]


def check_detector(model, processor):
    """Whether a detector reads pixels; refuses a model or a processor that does not fit.

    Raises:
        ValueError: no detector, no processor of one, or their grids differ.
    """
    if model.config.model_type != "actionformer" or not hasattr(model, "classification_head"):
        raise ValueError(
            f"temporal action detection needs an ActionFormerForTemporalActionDetection, got a {type(model).__name__}."
        )
    if not hasattr(processor, "decode_windows"):
        raise ValueError(
            f"temporal action detection needs the detector's ActionFormerProcessor, got {type(processor).__name__}: pass "
            "video_processor=ActionFormerProcessor.from_pretrained(...)."
        )
    if model.config.backbone_config is None:
        return False
    grid, frames = (processor.feature_stride, processor.feature_num_frames), model.config.frames_per_step
    if grid != (frames, frames):
        raise ValueError(
            f"a step of this detector is {frames} frames (config.frames_per_step): its processor needs feature_stride={frames} and "
            f"feature_num_frames={frames}, got {grid[0]} and {grid[1]}."
        )
    return True


def check_window(window, overlap):
    """Refuses windows that are no seconds."""
    for name, value in (("window", window), ("overlap", overlap)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
            raise ValueError(f"{name} must be seconds, got {value!r}.")
    if window == 0 or (window is not None and overlap is not None and overlap >= window):
        raise ValueError(f"expected a window above 0 and an overlap below it, got {window} and {overlap} seconds.")


def window_in_steps(recipe, step, window=None, overlap=None):
    """Windows as the grid counts them.

    Args:
        recipe: (steps, share) without a wish; steps may be None, for whole videos.
        step: seconds per step.
        window, overlap: wishes in seconds.

    Returns:
        (steps, share).

    Raises:
        ValueError: an overlap that is no part of the window.
    """
    length, share = recipe
    if window is not None:
        length = max(1, round(window / step))
    if overlap is None:
        return length, share
    if length is None or overlap >= length * step:
        seconds = "all of the video" if length is None else f"{length * step:g} s"
        raise ValueError(f"overlap={overlap:g} s needs longer windows, these are {seconds}: pass window=...")
    return length, overlap / (length * step)


def next_given(scores):
    """The scores of the next video; the caller gave too few if there are none."""
    try:
        return next(scores)
    except StopIteration:
        raise ValueError("expected one entry of video_scores per video, got fewer.") from None


__all__ = ["TemporalActionDetectionPipeline"]
