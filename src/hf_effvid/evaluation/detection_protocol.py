"""What evaluators of temporal action detection do differently, as options; and their inputs read into flat arrays.

All public evaluators match greedily per class and average over classes and thresholds. They part where data are not clean:

| preset         | duplicate annotations | without length     | IoU of 0/0 | IoU in  | unknown class |
| -------------- | --------------------- | ------------------ | ---------- | ------- | ------------- |
| `activitynet`  | kept                  | kept               | a match    | float64 | an error      |
| `actionformer` | dropped (0.001 s)     | below 0.001 s gone | 0          | float64 | ignored       |
| `opentad`      | dropped (0.001 s)     | gone               | 0          | float64 | ignored       |
| `mmaction2`    | kept                  | kept               | a match    | float32 | an error      |
| `detad`        | kept                  | gone               | 0          | float64 | an error      |

What no option reproduces is their order of equal scores where they sort with an unstable algorithm: it depends on NumPy's version and
on the processor. Here the prediction that was given first goes first; `tie_order="numpy"` takes `argsort()[::-1]` as most of them do.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class DetectionError(ValueError):
    """Ground truth or predictions cannot be evaluated; the message names the video and says what was expected."""


@dataclass(frozen=True)
class DetectionProtocol:
    """The treatment of what is not clean.

    Attributes:
        name: of the preset, for reports.
        duplicate_tolerance: annotations of one video and class whose ends are both this close (seconds) count once; None: all count.
        min_length: annotations shorter than this (seconds), or without any length, are dropped; None: all count.
        max_coverage: annotations that cover more than this share of their video are dropped; None: all count.
        undefined_matches: the IoU of two segments without length at one place is 0/0: whether that is a match.
        iou_dtype: "float64", or "float32": IoU is rounded to it, which moves pairs that lie exactly on a threshold.
        unknown_labels: "ignore" predictions of classes that are not in the ground truth (their number is reported), or "error".
        tie_order: order of equal scores, "stable" (as given) or "numpy" (`argsort()[::-1]`, unstable).
    """

    name: str = "default"
    duplicate_tolerance: float | None = None
    min_length: float | None = None
    max_coverage: float | None = None
    undefined_matches: bool = False
    iou_dtype: str = "float64"
    unknown_labels: str = "ignore"
    tie_order: str = "stable"

    def __post_init__(self):
        for name, allowed in (
            ("iou_dtype", ("float64", "float32")),
            ("unknown_labels", ("ignore", "error")),
            ("tie_order", ("stable", "numpy")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        DetectionProtocol(),
        DetectionProtocol("activitynet", undefined_matches=True, unknown_labels="error"),
        DetectionProtocol("actionformer", duplicate_tolerance=1e-3, min_length=1e-3),
        DetectionProtocol("opentad", duplicate_tolerance=1e-3, min_length=0.0),
        DetectionProtocol("mmaction2", undefined_matches=True, iou_dtype="float32", unknown_labels="error"),
        DetectionProtocol("detad", min_length=0.0, max_coverage=1.0, unknown_labels="error"),
    )
}


def find_protocol(protocol: str | DetectionProtocol) -> DetectionProtocol:
    """A preset by name, or the protocol itself.

    Raises:
        ValueError: there is no such preset.
    """
    if isinstance(protocol, DetectionProtocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"`protocol` must be one of {', '.join(PROTOCOLS)}, or a DetectionProtocol, got {protocol!r}."
        )
    return PROTOCOLS[protocol]


@dataclass(frozen=True)
class SegmentTable:
    """Segments of many videos as columns of equal length, in the order in which they were given.

    Attributes:
        video: int, index into `videos`.
        label: int, index into the class names; -1 for a class that is not among them.
        start, end: seconds.
        score: of predictions; zeros for annotations.
    """

    video: np.ndarray
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.video)

    def take(self, which: np.ndarray) -> "SegmentTable":
        """The rows chosen by a mask or by indices."""
        return SegmentTable(*(column[which] for column in (self.video, self.label, self.start, self.end, self.score)))


@dataclass(frozen=True)
class DetectionData:
    """Ground truth and predictions of one evaluation.

    Attributes:
        videos: names; those of the ground truth first, then those that only predictions name.
        num_ground_truth_videos: how many of them belong to the ground truth.
        labels: class names, in the order of their first annotation.
        durations: seconds per video of the ground truth; NaN where it is not said.
        truth: annotations that count.
        predictions: predictions of known classes.
        num_dropped: annotations that the protocol leaves out.
        num_unknown: predictions of unknown classes.
    """

    videos: list[str]
    num_ground_truth_videos: int
    labels: list[str]
    durations: np.ndarray
    truth: SegmentTable
    predictions: SegmentTable
    num_dropped: int
    num_unknown: int


def read_detection_data(ground_truth, predictions, protocol: DetectionProtocol, subset=None) -> DetectionData:
    """Read both sides; see `evaluate_detector` for what they may be.

    Raises:
        DetectionError: naming the video and what was expected.
    """
    database = _select_subset(_unwrap(ground_truth, "database"), subset)
    results = _unwrap(predictions, "results")
    videos = {name: number for number, name in enumerate(database)}
    num_truth = len(videos)
    labels: dict[str, int] = {}
    truth = _read_table(
        ((name, entry.get("annotations", [])) for name, entry in database.items()), videos, labels, "annotation", True
    )
    if not len(truth):
        raise DetectionError("the ground truth holds no annotation: check the file and `subset`.")
    durations = np.array([_number(entry.get("duration")) for entry in database.values()], dtype=float)
    for name in results:
        videos.setdefault(name, len(videos))
    predicted = _read_table(results.items(), videos, labels, "prediction", False)
    unknown = predicted.label < 0
    if unknown.any() and protocol.unknown_labels == "error":
        raise DetectionError(
            f"{int(unknown.sum())} predictions have a class that no annotation has: correct the labels, or pass a protocol "
            "with unknown_labels='ignore'."
        )
    kept = truth.take(_counting(truth, durations, protocol))
    if not len(kept):
        raise DetectionError(f"the protocol {protocol.name!r} leaves none of {len(truth)} annotations.")
    return DetectionData(
        videos=list(videos),
        num_ground_truth_videos=num_truth,
        labels=list(labels),
        durations=durations,
        truth=kept,
        predictions=predicted.take(~unknown),
        num_dropped=len(truth) - len(kept),
        num_unknown=int(unknown.sum()),
    )


def _unwrap(source, key: str) -> Mapping:
    """{video: ...} of a file, of a whole ActivityNet dict, or of its inner dict."""
    if isinstance(source, (str, os.PathLike)):
        try:
            source = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DetectionError(f"{source}: not a readable JSON file ({error}).") from None
    if isinstance(source, Mapping) and isinstance(source.get(key), Mapping):
        source = source[key]
    if not isinstance(source, Mapping):
        raise DetectionError(f"expected {{{key!r}: {{video: ...}}}}, got {type(source).__name__}.")
    return source


def _select_subset(database: Mapping, subset) -> Mapping:
    for name, entry in database.items():
        if not isinstance(entry, Mapping):
            raise DetectionError(f"video {name!r}: expected {{'annotations': [...]}}, got {str(entry)[:60]}.")
    if subset is None:
        return database
    wanted = {subset.lower()} if isinstance(subset, str) else {name.lower() for name in subset}
    chosen = {name: entry for name, entry in database.items() if str(entry.get("subset", "")).lower() in wanted}
    if not chosen:
        found = sorted({str(entry.get("subset", "")) for entry in database.values()})
        raise DetectionError(f"no video of the subset {subset!r}; there are {', '.join(found)}.")
    return chosen


def _read_table(items, videos: dict, labels: dict, kind: str, add_labels: bool) -> SegmentTable:
    """Columns in one pass over plain dicts: with 400,000 predictions every further pass is felt."""
    owner, names, segments, scores = [], [], [], []
    for name, entries in items:
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise DetectionError(f"video {name!r}: expected a list of {kind}s, got {str(entries)[:60]}.")
        try:
            segments += [entry["segment"] for entry in entries]
            names += [entry["label"] for entry in entries]
            if not add_labels:
                scores += [entry["score"] for entry in entries]
        except (TypeError, KeyError) as error:
            raise DetectionError(f"video {name!r}: a {kind} without {error}.") from None
        owner += [videos[name]] * len(entries)
    try:
        ends = np.array(segments, dtype=float).reshape(-1, 2)
        score = np.array(scores if not add_labels else np.zeros(len(owner)), dtype=float)
    except (TypeError, ValueError) as error:
        raise DetectionError(f"a segment must be [start, end] in seconds and a score a number ({error}).") from None
    if len(ends) != len(owner) or not (np.isfinite(ends).all() and np.isfinite(score).all()):
        raise DetectionError(
            f"segments and scores of {kind}s must be finite numbers, a segment [start, end] in seconds."
        )
    if add_labels:
        for name in names:
            labels.setdefault(str(name), len(labels))
    label = np.array([labels.get(str(name), -1) for name in names], dtype=np.int64)
    return SegmentTable(np.array(owner, dtype=np.int64), label, ends[:, 0], ends[:, 1], score)


def _counting(truth: SegmentTable, durations: np.ndarray, protocol: DetectionProtocol) -> np.ndarray:
    """Which annotations count."""
    length = truth.end - truth.start
    counts = np.ones(len(truth), dtype=bool)
    if protocol.min_length is not None:
        counts &= (length > 0) & (length >= protocol.min_length)
    if protocol.max_coverage is not None:
        duration = durations[truth.video]
        counts &= ~(length > protocol.max_coverage * duration)  # an unknown duration excludes nothing
    if protocol.duplicate_tolerance is not None:
        seen: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for row in range(len(truth)):
            earlier = seen.setdefault((int(truth.video[row]), int(truth.label[row])), [])
            start, end = float(truth.start[row]), float(truth.end[row])
            near = protocol.duplicate_tolerance
            if any(abs(start - a) <= near and abs(end - b) <= near for a, b in earlier):
                counts[row] = False
            else:
                earlier.append((start, end))
    return counts


def _number(value) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
