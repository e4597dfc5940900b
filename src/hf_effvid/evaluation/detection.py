"""`evaluate_detector`: mean average precision of temporal action detection at several overlaps, in the ActivityNet protocol.

Vectorised in NumPy: a run of 400,000 predictions takes about a second of processor time. The numbers are those of the public
evaluators to 1e-12 where no two scores are equal; what they do with data that are not clean is a `protocol` (`detection_protocol`).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .detection_matching import Matches, average_precision, match
from .detection_protocol import DetectionData, DetectionProtocol, find_protocol, read_detection_data
from .intervals import bootstrap_interval
from .results import Metric, Provenance, ResultEntry, current_provenance


ACTIVITYNET_TIOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
THUMOS_TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
_MAX_TIOUS = 62  # thresholds are bits of a 64-bit number
# every resample sorts nothing anew, yet runs through all predictions; 200 give the ends to about a tenth of the width
NUM_RESAMPLES = 200


def evaluate_detector(
    ground_truth,
    predictions,
    tious=ACTIVITYNET_TIOUS,
    *,
    subset: str | list[str] | None = None,
    protocol: str | DetectionProtocol = "default",
    model_name: str = "model",
    dataset_name: str = "dataset",
    split: str | None = None,
) -> "DetectionReport":
    """Measure detections against annotations.

    Args:
        ground_truth: an ActivityNet dict `{"database": {video: {"subset", "duration", "annotations": [{"segment": [start,
            end], "label"}]}}}`, its inner dict, or a JSON file; seconds.
        predictions: `{"results": {video: [{"segment", "label", "score"}]}}`, its inner dict, or a JSON file. Videos that the
            ground truth does not have count against precision.
        tious: overlaps at which a prediction counts as right.
        subset: only videos of this subset (or these).
        protocol: what is done with duplicate and empty annotations, 0/0 and unknown classes: "default" (nothing is dropped; 0/0 is
            0; unknown classes are ignored and reported), "activitynet", "actionformer", "opentad", "mmaction2", "detad", or a
            `DetectionProtocol`.
        model_name, dataset_name, split: names for the report.

    Returns:
        A `DetectionReport`: `average_mAP`, `mAP` per threshold, `ap` per class and threshold.

    Raises:
        DetectionError: a side cannot be read; names the video.
        ValueError: thresholds or a protocol that do not exist.
    """
    protocol = find_protocol(protocol)
    thresholds = np.unique(np.asarray(tious, dtype=float))
    if not len(thresholds) or len(thresholds) > _MAX_TIOUS or thresholds[0] <= 0 or thresholds[-1] > 1:
        raise ValueError(f"`tious` must be 1 to {_MAX_TIOUS} overlaps above 0 and up to 1, got {tious!r}.")
    data = read_detection_data(ground_truth, predictions, protocol, subset)
    return DetectionReport(
        data=data,
        matches=match(data.truth, data.predictions, thresholds, protocol),
        protocol=protocol,
        model_name=model_name,
        dataset_name=dataset_name,
        split=split or (subset if isinstance(subset, str) else "test"),
    )


@dataclass
class DetectionReport:
    """What was measured.

    Attributes:
        data: annotations and predictions that counted.
        matches: which prediction found which annotation.
        protocol: the treatment of what is not clean.
        model_name, dataset_name, split: what was evaluated on what.
        provenance: how the predictions were made; None: this process.
    """

    data: DetectionData
    matches: Matches
    protocol: DetectionProtocol
    model_name: str = "model"
    dataset_name: str = "dataset"
    split: str = "test"
    provenance: Provenance | None = None

    @property
    def tious(self) -> tuple[float, ...]:
        """The thresholds, rising."""
        return tuple(self.matches.tious.tolist())

    @cached_property
    def ap(self) -> dict[str, np.ndarray]:
        """(T,) average precision of every class that has an annotation; 0 for one without predictions."""
        hits = self.matches.true_positives()
        return {name: average_precision(hits[rows], count) for name, rows, count in self.classes()}

    @cached_property
    def mAP(self) -> np.ndarray:  # noqa: N802 (the field's own name)
        """(T,) mean over classes."""
        return np.mean(list(self.ap.values()), axis=0)

    @cached_property
    def average_mAP(self) -> float:  # noqa: N802
        """Mean over thresholds."""
        return float(self.mAP.mean())

    def interval(self, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95 % interval of `average_mAP` over the videos of the ground truth, its bias removed (see `bootstrap_interval`)."""
        low, high = bootstrap_interval(
            self.average_mAP_of(),
            self.data.num_ground_truth_videos,
            num_resamples=num_resamples,
            seed=seed,
            estimate=self.average_mAP,
        )
        return max(low, 0.0), min(high, 1.0)

    def average_mAP_of(self):  # noqa: N802
        """A function of videos, drawn with replacement (indices into those of the ground truth): `average_mAP` on them.

        Classes without an annotation among them are left out; NaN when no class is left.
        """
        hits, data = self.matches.true_positives(), self.data
        classes = [(hits[rows], data.predictions.video[self.matches.order[rows]], data.truth.video[data.truth.label == number])
                   for number, (_, rows, _) in enumerate(self.classes(all_labels=True))]  # fmt: skip

        def statistic(draw):
            weights = np.bincount(draw, minlength=len(data.videos)).astype(float)
            # predictions on videos without any ground truth belong to no draw: they count as they are
            weights[data.num_ground_truth_videos :] = 1
            values = [
                average_precision(right, weights[annotated].sum(), weights[predicted])
                for right, predicted, annotated in classes
                if weights[annotated].sum() > 0
            ]
            return float(np.mean(values)) if values else float("nan")

        return statistic

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {
            "average_mAP": self.average_mAP,
            "mAP": {f"{tiou:g}": float(value) for tiou, value in zip(self.tious, self.mAP, strict=True)},
            "ap": {name: values.tolist() for name, values in self.ap.items()},
            "tious": list(self.tious),
            "num_videos": self.data.num_ground_truth_videos,
            "num_annotations": len(self.data.truth),
            "num_annotations_dropped": self.data.num_dropped,
            "num_predictions": len(self.data.predictions),
            "num_predictions_of_unknown_classes": self.data.num_unknown,
            "protocol": self.protocol.name,
        }

    def to_text(self) -> str:
        """A few lines for a terminal."""
        data = self.data
        lines = [
            f"{self.model_name} on {self.dataset_name} ({self.split}): {data.num_ground_truth_videos} videos, "
            f"{len(data.truth)} annotations, {len(data.predictions)} predictions, protocol {self.protocol.name}",
            *(f"  mAP@{tiou:g}  {value:.4f}" for tiou, value in zip(self.tious, self.mAP, strict=True)),
            f"  average  {self.average_mAP:.4f}",
        ]
        if data.num_dropped:
            lines.append(f"  left out: {data.num_dropped} annotations (duplicates or without length)")
        if data.num_unknown:
            lines.append(f"  left out: {data.num_unknown} predictions of classes that no annotation has")
        return "\n".join(lines)

    def to_result_entry(self, num_resamples: int = NUM_RESAMPLES) -> ResultEntry:
        """The entry for a results file: average mAP with its interval, and mAP at every threshold."""
        n = self.data.num_ground_truth_videos
        method = f"bootstrap over videos 95%, {num_resamples} resamples, bias removed"
        average = Metric("average_mAP", self.average_mAP, n, self.interval(num_resamples), method)
        single = tuple(
            Metric(f"mAP@{tiou:g}", float(value), n) for tiou, value in zip(self.tious, self.mAP, strict=True)
        )
        return ResultEntry(
            task="temporal-action-detection",
            model=self.model_name,
            dataset=self.dataset_name,
            split=self.split,
            metrics=(average, *single),
            provenance=self.provenance or current_provenance(),
            protocol={
                "evaluator": self.protocol.name,
                "tious": list(self.tious),
                "n_annotations": len(self.data.truth),
            },
        )

    def classes(self, all_labels: bool = False):
        """Name, rows of its predictions in `matches.order` (a slice), and number of annotations of every class.

        Args:
            all_labels: also classes none of whose annotations count.
        """
        label = self.data.predictions.label[self.matches.order]
        numbers = np.arange(len(self.data.labels))
        begin, stop = (np.searchsorted(label, numbers, side=side) for side in ("left", "right"))
        counts = np.bincount(self.data.truth.label, minlength=len(numbers))
        for number, name in enumerate(self.data.labels):
            if counts[number] or all_labels:
                yield name, slice(begin[number], stop[number]), int(counts[number])
