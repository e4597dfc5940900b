"""A video classification pipeline that does not fall over: for every Hugging Face video classifier, ours and others.

pipe = pipeline("video-classification", model="MCG-NJU/videomae-base-finetuned-kinetics", pipeline_class=VideoClassificationPipeline)
pipe("phone.mov")                                       # any container, rotated, short, variable frame rate
pipe(paths, batch_size=8, on_error="record")            # one bad file is one error record
pipe("match.mp4", window=4.0, stride=2.0)               # labels with time stamps, constant memory
pipe.stream("match.mp4", target_fps=5)                  # running predictions of a model that remembers (causal TSM, MoViNet stream)
pipe(path, multi_view=True)                             # the clips x crops the checkpoint was tested with
pipe(path, explain=True, explain_dir="explanations")    # where and when a Video-FocalNet looked
"""

import os
from dataclasses import dataclass, field
from functools import partial

import torch
from tqdm.auto import tqdm
from transformers import Pipeline
from transformers.utils import logging

from ..host_loading import is_adapter, load_video_classifier
from ..host_processing import frame_size, frames_per_clip, load_processor, takes_videos
from ..models.batching import Batcher
from ..models.clip_sampling import check_count
from ..models.pipeline_inputs import (
    LIST,
    SINGLE,
    FailedItem,
    iterate,
    kind_of,
    map_ahead,
    name_of,
    number_of,
    video_of,
)
from ..models.video_errors import VideoTooShort
from ..models.video_processing_effvid import ReadOptions, aggregate_views
from ..models.video_selection import check_selection
from .classification_stream import RATE_PARAMS, has_stream_states, stream_by_state
from .clips import ClipRecipe, check_timing, read_clips, read_windows
from .explainer import Explainer
from .host_inputs import HostInputs, processor_for_size
from .position_interpolation import PositionInterpolationError, interpolate_positions, takes_num_frames


logger = logging.get_logger(__name__)

READING_PARAMS = tuple(ReadOptions.__dataclass_fields__)
RECIPE_PARAMS = (
    "num_frames",
    "frame_sampling_rate",
    "sampling",
    "frame_stride",
    "target_fps",
    "short_clip_policy",
    "multi_view",
    "num_clips",
    "num_crops",
    "aggregation",
)
EXPLAIN_PARAMS = ("explain", "explain_dir", "explain_block")
RUN_PARAMS = ("window", "stride", "on_error", "progress", "video_column", *EXPLAIN_PARAMS)
SCORE_PARAMS = ("top_k", "function_to_apply", "threshold")
FUNCTIONS = ("softmax", "sigmoid", "none")


@dataclass
class Video:
    """One video of a run, shared by everything that is predicted for it."""

    name: str
    recipe: ClipRecipe
    error: Exception | None = None


@dataclass
class Unit:
    """What the batcher carries for one prediction, a video or a window of it; the last unit of a video carries none.

    `times` are the seconds of the frames of each clip; `rows` are kept only for an explanation, which then stands in `told`.
    """

    video: Video
    start: float | None = None
    end: float | None = None
    is_last: bool = False
    times: list[list[float]] = field(default_factory=list)
    rows: torch.Tensor | None = None
    told: dict = field(default_factory=dict)


class VideoClassificationPipeline(Pipeline):
    """Classify videos.

    Args:
        model: A video classifier, or the name or folder of one (loaded with the matching processor).
        video_processor, image_processor: What came with the model; one of the two.
        num_frames, image_size: Other sizes than the model was trained with: its positions are interpolated, in place (see
            `position_interpolation`), and `image_size` changes a copy of the processor.
        model_kwargs: Passed to `from_pretrained` when `model` is a name (`revision`, `trust_remote_code`, `dtype`, ...).
        device, batch_size, num_workers: As in every pipeline; workers are threads that decode ahead.
        **kwargs: Defaults for the parameters of a call.
    """

    _load_processor = False
    _load_image_processor = None
    _load_video_processor = None
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(
        self, model, video_processor=None, image_processor=None, image_size=None, model_kwargs=None, **kwargs
    ):
        kwargs.setdefault("task", "video-classification")
        if isinstance(model, (str, os.PathLike)):
            loading = dict(model_kwargs or {})
            if video_processor is None and image_processor is None:
                video_processor, image_processor = load_processors(model, loading)
            model = load_video_classifier(model, **loading)
        if is_adapter(model):
            model = model.merge_and_unload()  # a plain model is as fast as its base
        if video_processor is None and image_processor is None:
            raise ValueError(
                "A video classification pipeline needs the model's video processor or image processor, got neither: pass "
                "video_processor=AutoVideoProcessor.from_pretrained(...)."
            )
        interpolate_positions(model, kwargs.get("num_frames"), image_size)
        if image_size is not None:
            video_processor = video_processor and processor_for_size(video_processor, image_size)
            image_processor = image_processor and processor_for_size(image_processor, image_size)
        self.inputs = HostInputs(model, video_processor if video_processor is not None else image_processor)
        super().__init__(model, video_processor=video_processor, image_processor=image_processor, **kwargs)
        self.model.eval()

    def _sanitize_parameters(self, **params):
        known = {*READING_PARAMS, *RECIPE_PARAMS, *RUN_PARAMS, *SCORE_PARAMS}
        unknown = sorted(params.keys() - known)
        if unknown:
            raise TypeError(f"Unknown parameters {unknown}: a video classification pipeline takes {sorted(known)}.")
        if params.get("on_error") not in (None, "raise", "record"):
            raise ValueError(f"on_error must be 'raise' or 'record', got {params['on_error']!r}.")
        if params.get("function_to_apply") not in (None, *FUNCTIONS):
            raise ValueError(f"function_to_apply must be one of {FUNCTIONS}, got {params['function_to_apply']!r}.")
        if params.get("top_k") is not None:
            check_count("top_k", params["top_k"])
        check_timing(params.get("window"), params.get("stride"))
        given = {name: value for name, value in params.items() if value is not None}
        if "stride" in given and "window" not in {**getattr(self, "_forward_params", {}), **given}:
            raise ValueError(f"stride={given['stride']} needs a window: pass window=... seconds.")
        return (
            {name: value for name, value in given.items() if name in READING_PARAMS + RECIPE_PARAMS},
            {name: value for name, value in given.items() if name in RUN_PARAMS},
            {name: value for name, value in given.items() if name in SCORE_PARAMS},
        )

    def __call__(self, inputs, *, batch_size=None, num_workers=None, **kwargs):
        """Classify one video, a list, or a stream.

        Args:
            inputs: Path, bytes, file object, `datasets` Video value, torchcodec decoder, frames; a list or an array of them, a
                generator, a `KeyDataset`, a `datasets.Dataset` (its `video_column`). http(s) only with `allow_remote=True`.
            batch_size: Clips per forward pass, over the borders of videos.
            num_workers: Threads that decode ahead (whole videos only).
            start, end: The part to look at, seconds.
            window, stride: Classify every `window` seconds of the video, a new window every `stride` seconds (default: `window`).
            multi_view: Average the views of the recipe; `num_clips`, `num_crops` and `aggregation` override it.
            num_frames, sampling, frame_sampling_rate, target_fps, short_clip_policy: Other clips than the recipe's.
                `frame_sampling_rate=4` means a dense clip of every fourth frame.
            on_error: "raise", or "record": a video that fails gives `{"error", "message", "source"}` in its place, and, with windows,
                those that were classified before it failed under "windows".
            top_k: Number of labels (default 5); threshold: only labels that score as much (then all of them, without `top_k`).
            function_to_apply: "softmax", "sigmoid" or "none"; by default what `config.problem_type` asks for.
            limits, isolate, allow_remote: As in `read_video`.
            explain: Also say where and when the model looked (models with modulators: Video-FocalNet). Of several views the one that
                speaks most clearly for the label is explained; with windows, each of them.
            explain_dir: Also draw it: an overlay video, a contact sheet, gate maps, in one sub-folder per prediction.
            explain_block: The block that the maps come from (default: the last).
            progress: Show a progress bar.

        Returns:
            For one video: `[{"score", "label"}, ...]`, best first; with `window`, `[{"start", "end", "predictions": [...]}, ...]`;
            with `explain`, `{"predictions": [...], "explanation": {...}}`, also in each window (fields: `docs/explain.md`).
            A list of these for a list; an iterator, which computes as it is consumed, for a stream.
        """
        results = self.iterate(inputs, batch_size=batch_size, num_workers=num_workers, **kwargs)
        kind = kind_of(inputs)
        if kind == SINGLE:
            return next(iter(list(results)))
        return list(results) if kind == LIST else results

    def iterate(self, inputs, *, batch_size=None, num_workers=None, **kwargs):
        """As a call, but always an iterator with one result per video, computed as it is consumed."""
        windows = []
        run_params = {**self._forward_params, **self._sanitize_parameters(**kwargs)[1]}
        in_windows = run_params.get("window") is not None
        for unit, predictions in self._predict(inputs, batch_size, num_workers, kwargs):
            if predictions is not None and in_windows:
                windows.append({"start": unit.start, "end": unit.end, "predictions": predictions, **unit.told})
            elif predictions is not None:
                windows.append({"predictions": predictions, **unit.told} if unit.told else predictions)
            if not unit.is_last:
                continue
            if unit.video.error is not None:
                yield {**error_record(unit.video), **({"windows": windows} if in_windows else {})}
            else:
                yield windows if in_windows else windows[0]
            windows = []

    def stream(
        self,
        source,
        *,
        window=None,
        batch_size=None,
        piece=1,
        reset_every=None,
        fps=None,
        queue_size=64,
        live=False,
        live_options=None,
        **kwargs,
    ):
        """Classify one video while it is read, in constant memory, for videos of any length.

        With `window`, for every model: window by window, each by itself, an iterator over `{"start", "end", "predictions"}`.

        Without, for models that remember what they have seen (a causal TSM, a MoViNet stream): a `ClassificationStream`, an iterator over
        `{"start", "end", "num_frames", "predictions"}`, the prediction of all frames so far after every `piece` of them. It is that of the
        model on these frames at once. Frames are those that the recipe's `target_fps` (a call may give another) takes of the source; a
        recipe that spreads its frames over the whole video says no rate, so `target_fps` is needed then.

        Args:
            source: As in a call; without `window` also an iterator of frames or of (seconds, frame), and with `live=True` a camera or an
                address.
            window, batch_size: Seconds, and windows per forward pass; `stride` as in a call.
            piece: Frames per forward pass and prediction: more are quicker, and later.
            reset_every: Seconds after which the model forgets, for what never ends: a running mean over an hour hardly moves any more.
                `reset()` of the stream does the same at any time.
            fps: Rate of frames in memory or of an iterator that brings no seconds; default: the rate of the recipe.
            queue_size: Frames that wait at most, decoded ahead by a thread.
            live, live_options: `source` is a device or an address that FFmpeg opens (`/dev/video0`, `rtsp://...`, a pipe), with these
                options. Nothing of that kind is opened without it.
            **kwargs: As in a call. With `on_error="record"` a source that fails ends with an error record, and so does, in its place,
                what an iterator gives that is no frame; without `window` there are no views, explanations or workers.

        Raises:
            ValueError: Options that make no sense, or neither a `window` nor a model with states.
            VideoError, or what an iterator raises: While it runs, unless it is recorded; what was seen until then is said before.
        """
        if window is None:
            window = self._forward_params.get("window")
        running = {"reset_every": reset_every, "fps": fps, "live": live or None, "live_options": live_options}
        if window is not None:
            given = sorted(name for name, value in running.items() if value is not None)
            if given:
                raise ValueError(f"{given} are for models with states, without window=...; got window={window}.")
            return self._stream_windows(source, batch_size, {**kwargs, "window": window})
        if not has_stream_states(self.model):
            raise ValueError(
                f"{type(self.model).__name__} does not remember what it has seen (no causal TSM, no MoViNet stream): pass window=... seconds."
            )
        refused = sorted(kwargs.keys() - {*READING_PARAMS, *RATE_PARAMS, *SCORE_PARAMS, "on_error"})
        if refused or batch_size is not None:
            raise ValueError(f"{refused or ['batch_size']} are for whole clips: pass window=... seconds, too.")
        given = self._sanitize_parameters(**kwargs)
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        params, run, scoring = ({**old, **new} for old, new in zip(defaults, given, strict=True))
        rate = {name: params[name] for name in RATE_PARAMS if name in params}
        return stream_by_state(
            self,
            video_of(source, run.get("video_column", "video")),
            ClipRecipe.of(self.inputs.processor, self.model.config, **rate),
            make_reading(params),
            scoring,
            piece=piece,
            reset_every=reset_every,
            fps=fps,
            queue_size=queue_size,
            live=live,
            live_options=live_options,
            keep_going=run.get("on_error", "raise") == "record",
        )

    def _stream_windows(self, source, batch_size, kwargs):
        for unit, predictions in self._predict([source], batch_size, None, kwargs):
            if predictions is not None:
                yield {"start": unit.start, "end": unit.end, "predictions": predictions, **unit.told}
            elif unit.is_last and unit.video.error is not None:
                yield error_record(unit.video)

    # ---- the run ----------------------------------------------------------------------------------------------------

    def _predict(self, inputs, batch_size, num_workers, kwargs):
        """(unit, predictions) in the order of the inputs; the last unit of a video has `is_last` and carries no predictions."""
        if batch_size is not None:
            check_count("batch_size", batch_size)
        given = self._sanitize_parameters(**kwargs)
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        reading_params, run, scoring = ({**old, **new} for old, new in zip(defaults, given, strict=True))
        record = run.get("on_error", "raise") == "record"
        explainer = self._explainer(run)
        batcher = Batcher(self._logits, batch_size or self._batch_size or 1, isolate_errors=record)
        bar = tqdm(total=number_of(inputs), unit="video", disable=not run.get("progress", False))
        failed = None
        with bar:
            for unit, rows in self._units(inputs, reading_params, run, num_workers or self._num_workers or 0):
                if unit.video.error is not None and not record:
                    failed = unit.video.error
                    break
                if explainer is not None:
                    unit.rows = rows
                batcher.add(unit, rows)
                yield from self._deliver(batcher, scoring, explainer, bar)
            batcher.run()
            yield from self._deliver(batcher, scoring, explainer, bar)
        if failed is not None:
            raise failed

    def _explainer(self, run):
        """What explains the predictions of this run, None when nobody asked."""
        if not run.get("explain") and run.get("explain_dir") is None:
            return None
        return Explainer(self.model, self.inputs.processor, run.get("explain_dir"), run.get("explain_block", -1))

    def _deliver(self, batcher, scoring, explainer, bar):
        for item in batcher.finished():
            unit = item.owner
            predictions = None
            if item.error is not None:
                unit.video.error = unit.video.error or item.error
            elif not unit.is_last:
                logits = torch.stack(item.results)
                predictions = self.postprocess(logits, recipe=unit.video.recipe, **scoring)
                if explainer is not None:
                    unit.told = {"explanation": self._explain(explainer, unit, logits, scoring)}
            bar.update(int(unit.is_last))
            yield unit, predictions

    def _explain(self, explainer, unit, logits, scoring):
        """The explanation of the best label, whether or not it passes the threshold."""
        scores = self._scores(logits, unit.video.recipe, scoring.get("function_to_apply"))
        index = scores.argmax().item()
        best = {"index": index, "label": label_of(self.model.config, index), "score": scores[index].item()}
        rows, unit.rows = unit.rows, None
        return explainer(unit.video.name, (unit.start, unit.end), rows, unit.times, logits, **best)

    def _units(self, inputs, params, run, num_workers):
        """Decode: (unit, rows) for every prediction, then (last unit, None) for every video."""
        sources = iterate(inputs, run.get("video_column", "video"))
        recipe, reading = self._recipe(params), make_reading(params)
        if run.get("window") is None:
            decoded = map_ahead(lambda source: self._rows(source, recipe, reading), sources, num_workers)
            for source, read, error in decoded:
                video = Video(name_of(source), recipe, error)
                if error is None:
                    rows, times = read
                    yield Unit(video, reading.start, reading.end, times=times), rows
                yield Unit(video, is_last=True), None
            return
        for source in sources:
            video, num_windows = Video(name_of(source), recipe), 0
            try:
                timing = run["window"], run.get("stride")
                for clips in read_windows(reject(source), recipe, reading, *timing, **self._preparation(recipe)):
                    rows = self.inputs.rows(clips.frames, recipe.num_crops)
                    num_windows += 1
                    yield Unit(video, clips.start, clips.end, times=clips.times), rows
                if num_windows == 0:
                    raise no_window(video.name, reading.start)
            except Exception as error:
                video.error = error
            yield Unit(video, is_last=True), None

    def _recipe(self, params):
        chosen = {name: params[name] for name in RECIPE_PARAMS if name in params}
        asks_for_views = chosen.pop("multi_view", False)
        recipe = ClipRecipe.of(self.inputs.processor, self.model.config, asks_for_views, **chosen)
        config = self.model.config
        if not takes_num_frames(config, recipe.num_frames):
            raise PositionInterpolationError(
                f"{type(self.model).__name__} takes {frames_per_clip(config)} frames of {frame_size(config)} pixels, not "
                f"num_frames={recipe.num_frames}: give num_frames={recipe.num_frames} when you build the pipeline, so that its "
                "positions are interpolated."
            )
        return recipe

    def _rows(self, source, recipe, reading):
        """The views of a video, and the seconds at which the frames of each of its clips are shown."""
        clips = read_clips(reject(source), recipe, reading, **self._preparation(recipe))
        for note in clips.notes:
            logger.warning(f"{name_of(source)}: {note}")
        return self.inputs.rows(clips.frames, recipe.num_crops), clips.times

    def _preparation(self, recipe):
        """How frames become small enough to be kept: while they are decoded, or by the host's own processor."""
        crops = recipe.num_crops
        return {"size": self.inputs.decoding_size(crops), "prepare": partial(self.inputs.prepare, num_crops=crops)}

    def _logits(self, rows):
        return self.forward({self.inputs.input_name: rows})["logits"]

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model and its processor (transformers' own pipelines leave the video processor out)."""
        super().save_pretrained(save_directory, **kwargs)
        if self.video_processor is not None:
            self.video_processor.save_pretrained(save_directory)

    # ---- the three steps of every transformers pipeline ----------------------------------------------------------------

    def preprocess(self, source, **params):
        """One video to model input: `{input name: (views, T, C, H, W)}`."""
        rows, _ = self._rows(source, self._recipe(params), make_reading(params))
        return {self.inputs.input_name: rows}

    def _forward(self, model_inputs, **params):
        pixels = {name: value.to(self.model.dtype) for name, value in model_inputs.items()}
        # VideoPrism's head gives (B, 1, K).
        return {"logits": self.model(**pixels).logits.float().flatten(1)}

    def postprocess(self, logits, recipe=None, top_k=None, function_to_apply=None, threshold=None):
        """Logits of the views (V, K) to labels, best first."""
        logits = logits["logits"] if isinstance(logits, dict) else logits
        scores = self._scores(logits, recipe, function_to_apply)
        if top_k is None:
            top_k = 5 if threshold is None else len(scores)
        values, ids = scores.topk(min(top_k, len(scores)))
        return [
            {"score": value, "label": label_of(self.model.config, index)}
            for value, index in zip(values.tolist(), ids.tolist(), strict=True)
            if threshold is None or value >= threshold
        ]

    def _scores(self, logits, recipe, function_to_apply):
        """(V, K) logits to the (K,) scores of a video."""
        if function_to_apply is None:
            by_problem = {"regression": "none", "multi_label_classification": "sigmoid"}
            function_to_apply = by_problem.get(self.model.config.problem_type, "softmax")
        aggregation = recipe.aggregation if recipe is not None else "softmax_mean"
        return aggregate_views(logits, aggregation, function_to_apply)


def no_window(name, start):
    """The error for a video out of which no window can be cut."""
    if start is None:
        return VideoTooShort(name, "no frame has a time, as in frames without a file", "Leave out window and stride")
    return VideoTooShort(name, f"no frame at or after start={start:g} s", "Choose an earlier start")


def label_of(config, index):
    """The name of a class; keys are strings where someone set `config.id2label` to what a JSON file holds."""
    names = config.id2label
    return names.get(index, names.get(str(index), f"LABEL_{index}"))


def load_processors(model, loading):
    """(video processor, image processor) of a checkpoint; one of them is None."""
    hub = {name: loading[name] for name in ("revision", "token", "trust_remote_code", "cache_dir") if name in loading}
    processor = load_processor(model, **hub)
    return (processor, None) if takes_videos(processor) else (None, processor)


def make_reading(params):
    reading = ReadOptions(**{name: params[name] for name in READING_PARAMS if name in params})
    check_selection(start=reading.start, end=reading.end)
    return reading


def reject(source):
    """Raise, where a source belongs, the error that a data set met instead of producing one."""
    if isinstance(source, FailedItem):
        raise source.error
    return source


def error_record(video):
    """What stands in the place of a video that failed."""
    return {"error": type(video.error).__name__, "message": str(video.error), "source": video.name}
