"""Evaluates any Hugging Face video classifier the way its recipe says, and reports what n videos can support."""

import contextlib
import os

import torch
from tqdm.auto import tqdm

from ..models.clip_sampling import check_count
from ..models.video_processing_effvid import aggregate_views
from .classification_report import ClassificationReport
from .clips import FRAME_ORDERS, RowLoader, describe_source, load_videos, score_views
from .cost import model_cost
from .labels import LabelMap
from .opening import evaluation_identity, evaluation_mode, load_classifier, model_name, open_rows
from .prediction_log import PredictionLog, PredictionLogError, VideoPrediction
from .protocol import describe_protocol
from .provenance import current_provenance


class NothingEvaluatedError(ValueError):
    """Not one video could be read and classified."""


def evaluate_classifier(
    model,
    dataset,
    processor=None,
    *,
    multi_view: bool = True,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int = 4,
    device=None,
    max_videos: int | None = None,
    on_error: str = "record",
    num_workers: int = 0,
    video_column: str = "video",
    label_column: str = "label",
    dataset_name: str | None = None,
    split: str | None = None,
    predictions_file: str | os.PathLike | None = None,
    frame_order: str = "natural",
    seed: int | None = None,
    command: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> ClassificationReport:
    """Top-1, top-5, per-class accuracy and confusion of a video classifier, or mAP and F1 of a multi-label one.

    Args:
        model: a video classifier (also wrapped by PEFT), or a folder or Hub id of one or of an adapter.
        dataset: rows with a video and a label: a `datasets` split (map-style or streaming) as `load_video_dataset` gives
            it, or a list of dicts. Class names, where the split has them, are matched to the model's by name. Values in
            columns `start` and `end` (seconds) limit a row to a part of its file.
        processor: the model's video processor, or a folder or Hub id; default: the one saved with the model.
        multi_view: look at the recipe's `num_clips` x `num_crops` views and aggregate them as it says; False: one view.
        num_clips, num_crops: other numbers of views than the recipe's.
        batch_size: views per forward pass.
        device: torch device; default: where the model is.
        max_videos: look at the first so many videos only.
        on_error: `"record"` lists unreadable videos in the report and goes on, `"raise"` stops at the first.
        num_workers: worker processes that decode.
        video_column, label_column: names of the columns.
        dataset_name, split: names for the report; default: what the split itself says.
        predictions_file: JSON-lines file with one line per video. An evaluation that was interrupted goes on with it.
        frame_order: `"natural"`; `"shuffled"` or `"reversed"` show whether the model looks at the order of frames at all. The
            shuffling depends on the video's row alone.
        seed: recorded as the seed of the run that trained the model; evaluation itself is deterministic.
        command: recorded as the command; default: this process's command line.
        trust_remote_code: run model code that comes with a checkpoint; installed architectures never need it.
        progress: show a progress bar.

    Returns:
        The report; `to_result_entry()` gives it in the one results format.

    Raises:
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
        LabelMismatchError: the labels do not fit the model.
        NothingEvaluatedError: no video could be evaluated.
        VideoError: an unreadable video under `on_error="raise"`.
        TypeError, ValueError: an argument of the wrong kind.
    """
    counts = {"batch_size": batch_size, "num_clips": num_clips, "num_crops": num_crops, "max_videos": max_videos}
    _check_arguments(dataset, on_error, frame_order, counts)
    model, processor = load_classifier(model, processor, trust_remote_code)
    rows, class_names = open_rows(dataset, video_column, label_column)
    dataset_name = dataset_name or getattr(getattr(dataset, "info", None), "dataset_name", None) or "unnamed"
    split = str(split or getattr(dataset, "split", None) or "all")
    multi_label = model.config.problem_type == "multi_label_classification"
    to_class = LabelMap(model.config.id2label, class_names, multi_label)
    options = {"multi_view": multi_view, "num_clips": num_clips, "num_crops": num_crops}
    options = {name: value for name, value in options.items() if value is not None}
    protocol = describe_protocol(processor, **options)
    if frame_order != "natural":
        protocol["frame_order"] = frame_order
    log = PredictionLog(predictions_file, evaluation_identity(model, protocol, rows, dataset_name, split))
    device = torch.device(device) if device is not None else model.device

    def to_scores(logits):
        return aggregate_views(logits, protocol["aggregation"], "sigmoid" if multi_label else "softmax")

    _check_same_rows(log, rows, video_column)
    views_shape = None
    with evaluation_mode(model, device), contextlib.closing(log):
        videos = load_videos(
            rows,
            RowLoader(processor, options, video_column, label_column, frame_order),
            skip=set(log.done),
            max_videos=max_videos,
            num_workers=num_workers,
        )
        scored = score_views(model, videos, to_scores, batch_size=batch_size, device=device, dtype=model.dtype)
        total = min(len(rows), max_videos or len(rows)) if hasattr(rows, "__len__") else max_videos
        for video, scores in tqdm(scored, total=total, initial=len(log.done), desc="evaluating", disable=not progress):
            if video.error is not None and on_error == "raise":
                raise video.error
            if video.error is None:
                views_shape = video.pixel_values.shape
            log.add(_prediction(video, scores, to_class))
        cost = model_cost(model, views_shape)
    predictions = [p for p in log if max_videos is None or p.index < max_videos]
    if not any(p.error is None for p in predictions):
        raise NothingEvaluatedError(_why_nothing(predictions))
    return ClassificationReport(
        labels=to_class.names,
        multi_label=multi_label,
        predictions=predictions,
        model_name=model_name(model),
        dataset_name=dataset_name,
        split=split,
        protocol=protocol,
        cost=cost,
        provenance=current_provenance(
            command, seed=seed, dtype=str(model.dtype).removeprefix("torch."), device=device
        ),
    )


def _check_arguments(dataset, on_error: str, frame_order: str, counts: dict) -> None:
    for name, count in counts.items():
        if count is not None:
            check_count(name, count)
    if on_error not in ("record", "raise"):
        raise ValueError(f'on_error must be "record" or "raise", got {on_error!r}.')
    if frame_order not in FRAME_ORDERS:
        raise ValueError(f"frame_order must be one of {FRAME_ORDERS}, got {frame_order!r}.")
    if isinstance(dataset, (str, os.PathLike)):
        raise TypeError(
            f"expected rows with a video and a label, got the path {str(dataset)!r}. "
            "Load it first: load_video_dataset(path, split=...)."
        )


def _prediction(video, scores, to_class: LabelMap) -> VideoPrediction:
    label = to_class(video.label)
    if video.error is not None:
        return VideoPrediction(
            video.index, video.source, label, error=str(video.error), error_type=type(video.error).__name__
        )
    return VideoPrediction(video.index, video.source, label, scores, num_views=len(video.pixel_values))


def _check_same_rows(log: PredictionLog, rows, video_column: str) -> None:
    """A predictions file that is continued must belong to the same videos: the first and last known one are compared."""
    if not log.done or not hasattr(rows, "__getitem__"):
        return
    for index in {min(log.done), max(log.done)}:
        source = describe_source(rows[index], index, video_column) if index < len(rows) else "nothing"
        if source != log.done[index].source:
            raise PredictionLogError(
                f"the predictions file has {log.done[index].source!r} as video {index}, the data set has {source!r}. "
                "Choose another file, or delete it to start again."
            )


def _why_nothing(predictions: list[VideoPrediction]) -> str:
    if not predictions:
        return "the data set holds no videos."
    return f"not one of {len(predictions)} videos could be evaluated; the first error: {predictions[0].error}"
