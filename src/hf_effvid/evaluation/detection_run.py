"""`evaluate_detections`: a detector run over annotated videos, or their features, as its recipe says, and measured."""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..models.pipeline_temporal_action_detection import TemporalActionDetectionPipeline
from .detection import THUMOS_TIOUS, DetectionReport, evaluate_detector
from .detection_predictions import save_predictions
from .opening import evaluation_identity, model_name
from .prediction_log import PredictionLog
from .provenance import current_provenance
from .results import ResultEntry


@dataclass(frozen=True)
class VideoDetections:
    """What was found in one video.

    Attributes:
        index: position among the annotated videos.
        source: its name.
        detections: `{"label", "score", "segment"}` each, best first; None when the video failed.
        error: message when it failed, else None.
    """

    index: int
    source: str
    detections: list | None = None
    error: str | None = None


@dataclass
class DetectionRun:
    """What came out.

    Attributes:
        report: the numbers, over the videos that could be read.
        predictions: detections by video, as results files have them.
        errors: videos that could not be read, and why; they are not in the numbers.
        protocol: how the detector was run.
    """

    report: DetectionReport
    predictions: dict[str, list[dict]]
    errors: dict[str, str] = field(default_factory=dict)
    protocol: dict = field(default_factory=dict)

    def to_text(self) -> str:
        """A few lines for a terminal."""
        lines = [self.report.to_text()]
        if self.errors:
            name, why = next(iter(self.errors.items()))
            lines.append(f"  {len(self.errors)} videos could not be read, the first is {name}: {why}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**self.report.to_dict(), "errors": self.errors, "run": self.protocol}

    def to_result_entry(self) -> ResultEntry:
        """The entry for a results file, with what the detector was run with."""
        entry = self.report.to_result_entry()
        unread = {"num_unreadable": len(self.errors)} if self.errors else {}
        return replace(entry, protocol={**entry.protocol, **self.protocol, **unread})


def evaluate_detections(
    model,
    annotations,
    *,
    features=None,
    processor=None,
    tious=THUMOS_TIOUS,
    protocol: str = "default",
    video_scores: Mapping | None = None,
    batch_size: int = 4,
    device=None,
    max_videos: int | None = None,
    on_error: str = "record",
    predictions_file: str | os.PathLike | None = None,
    dataset_name: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    command: str | None = None,
    progress: bool = True,
    **recipe,
) -> DetectionRun:
    """Detections of annotated videos, and their mean average precision.

    Runs `TemporalActionDetectionPipeline` with all scores, so that the numbers are those of what users call.

    Args:
        model: a detector, or a folder or Hub id of one.
        annotations: `DetectionAnnotations`, of one split. Classes are matched by name; a detector of one class that comes without
            `video_scores` is measured on when something happens, whatever it is.
        features: video name -> stored features, for detectors without a backbone.
        processor: the model's `ActionFormerProcessor`; default: the one saved with it.
        tious: overlaps.
        protocol: treatment of what is not clean, see `evaluate_detector`.
        video_scores: what a classifier says of each video, `{name: {label: probability}}`, see `read_video_scores`.
        batch_size: windows per forward pass; results do not depend on it.
        device: torch device; default: where the model is.
        max_videos: look at the first so many videos only.
        on_error: `"record"` leaves unreadable videos out and lists them, `"raise"` stops at the first.
        predictions_file: results file (JSON, ActivityNet's format). An evaluation that was interrupted goes on with what it had
            written beside it (`.partial`).
        dataset_name, split: names for the report.
        seed: recorded as the seed of the run that trained the model.
        command: recorded as the command; default: this process's command line.
        progress: show a progress bar.
        recipe: fields of the recipe to change: suppression, number of candidates.

    Returns:
        A `DetectionRun`.

    Raises:
        ValueError: model, annotations and features do not fit each other, or no video could be read.
        PredictionLogError: the `.partial` file belongs to another evaluation.
    """
    pipe = TemporalActionDetectionPipeline(model, processor, **({"device": device} if device is not None else {}))
    detector, videos = pipe.model, annotations.videos[:max_videos]
    if not pipe.reads_pixels and features is None:
        raise ValueError("this detector reads features: pass `features`, video name -> stored features.")
    truth = _truth(annotations, videos, detector.config, video_scores is not None)
    run = {"recipe": _plain(pipe.video_processor.recipe(**recipe)), "num_videos": len(videos)}
    name, split = dataset_name or Path(annotations.name).stem, split or (videos[0].split if videos else "all")
    partial = None if predictions_file is None else f"{os.fspath(predictions_file)}.partial"
    identity = evaluation_identity(detector, run | {"videos": _digest(videos)}, videos, name, split)
    log = PredictionLog(partial, identity, VideoDetections)
    with contextlib.closing(log):
        todo = [number for number in range(len(videos)) if number not in log.done]
        options = {"batch_size": batch_size, "on_error": on_error, "progress": progress, **recipe}
        for found in _detect(pipe, videos, todo, features, video_scores, options):
            log.add(found)
    predictions = {found.source: found.detections for found in log if found.error is None}
    errors = {found.source: found.error for found in log if found.error is not None}
    if not predictions:
        why = next(iter(errors.values()), "there is none")
        raise ValueError(f"{annotations.name}: not one of {len(videos)} videos could be read; the first: {why}")
    report = evaluate_detector(
        {name: entry for name, entry in truth.items() if name in predictions},
        predictions,
        tious,
        protocol=protocol,
        model_name=model_name(detector),
        dataset_name=name,
        split=split,
    )
    dtype = str(detector.dtype).removeprefix("torch.")
    report.provenance = current_provenance(command, seed=seed, dtype=dtype, device=torch.device(pipe.device))
    if predictions_file is not None:
        save_predictions(predictions_file, predictions, {"model": model_name(detector), "errors": errors})
        Path(partial).unlink()
    return DetectionRun(report, predictions, errors, run)


def _detect(pipe, videos, todo, features, video_scores, options):
    """`VideoDetections` of the videos that are still to do, in their order but for those that have no features."""
    sent, scores, failed = [], [], []

    def sources():
        for number in todo:
            try:
                source = _source(videos[number], features)
            except (OSError, ValueError, KeyError) as error:
                if options["on_error"] == "raise":
                    raise
                failed.append((number, error))
                continue
            sent.append(number)
            if video_scores is not None:
                scores.append(video_scores.get(videos[number].name, {}))
            yield source

    results = pipe.iterate(
        sources(), threshold=0.0, video_scores=None if video_scores is None else _following(scores), **options
    )
    for place, result in enumerate(results):
        number = sent[place]
        if isinstance(result, dict):
            yield VideoDetections(number, videos[number].name, error=result["message"])
            continue
        detections = [
            {"label": one["label"], "score": one["score"], "segment": [one["start"], one["end"]]} for one in result
        ]
        yield VideoDetections(number, videos[number].name, detections)
    for number, error in failed:
        yield VideoDetections(number, videos[number].name, error=str(error))


def _following(growing):
    """The items of a list that grows while it is read."""
    place = 0
    while True:
        yield growing[place]
        place += 1


def _source(video, features):
    if features is None:
        return video.path
    stored = features[video.name]
    return {
        "input_features": stored.features,
        "stride": stored.stride,
        "num_frames": stored.num_frames,
        "fps": stored.fps or video.fps,
        "duration": video.duration or stored.duration,
    }


def _truth(annotations, videos, config, classes_come_from_elsewhere):
    """The annotations of the videos, by name; without their classes for a detector that knows none."""
    names = {video.name for video in videos}
    database = annotations.to_activitynet()["database"]
    truth = {name: entry for name, entry in database.items() if name in names}
    ours = set(config.id2label.values())
    theirs = {one["label"] for entry in truth.values() for one in entry["annotations"]}
    if not theirs:
        raise ValueError(
            f"{annotations.name}: none of these {len(videos)} videos has an annotation to be measured on."
        )
    if classes_come_from_elsewhere or theirs & ours:
        return truth
    if config.num_labels > 1:
        raise ValueError(
            f"the detector's classes ({', '.join(sorted(ours)[:3])}, ...) and those of {annotations.name} "
            f"({', '.join(sorted(theirs)[:3])}, ...) have none in common."
        )
    only = config.id2label[0]
    return {
        name: entry | {"annotations": [one | {"label": only} for one in entry["annotations"]]}
        for name, entry in truth.items()
    }


def _plain(recipe):
    """What of a recipe decides on detections."""
    fields = (
        "feature_stride", "feature_num_frames", "feature_fps", "resize_length", "window_length", "window_overlap", "candidate_threshold",
        "candidate_top_k", "candidate_per_level", "nms_method", "nms_sigma", "nms_iou_threshold", "min_score", "max_segments",
        "class_agnostic", "voting_threshold", "score_fusion", "min_duration",
    )  # fmt: skip
    return {name: recipe[name] for name in fields if recipe.get(name) is not None}


def _digest(videos):
    return hashlib.sha256("\n".join(video.name for video in videos).encode()).hexdigest()[:16]
