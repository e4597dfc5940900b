"""What goes wrong in a detector, after DETAD (Alwassel et al., "Diagnosing Error in Temporal Action Detectors", ECCV 2018).

Every prediction is one of six kinds. Let IoU be its highest overlap with any annotation of its video, of whatever class (0 without
one), and t the threshold:

| kind                  | IoU        | class of that annotation                                     |
| --------------------- | ---------- | ------------------------------------------------------------ |
| `true positive`       | >= t       | the same, and no better prediction has taken it              |
| `double detection`    | >= t       | the same, but taken                                          |
| `wrong label`         | >= t       | another                                                      |
| `localization`        | .1 to t    | the same                                                     |
| `confusion`           | .1 to t    | another                                                      |
| `background`          | < .1       | any                                                          |

What a kind costs is how far mAP rises when its predictions are taken away. An annotation is missed when no prediction takes it; missed
ones, and the detector's mAP, are also given by how much of the video the annotation covers, how long it is and how many the video holds. Only the best 10 G predictions of a class with G annotations count, and precision is normalised (a class counts as if
it had as many annotations as the average class), so that rare classes and subsets compare with others.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .detection import DetectionReport
from .detection_matching import average_precision, overlapping_pairs


KINDS = ("true positive", "double detection", "wrong label", "localization", "confusion", "background")
_BACKGROUND_IOU = 0.1
_SIZES = ("XS", "S", "M", "L", "XL")

# upper ends of the bins, each with its upper end inside
ACTIVITYNET_BINS = {
    "coverage": (0.2, 0.4, 0.6, 0.8, 1.0),
    "length": (30.0, 60.0, 120.0, 180.0, np.inf),
    "instances": (1, 4, 8, np.inf),
}
THUMOS_BINS = {
    "coverage": (0.02, 0.04, 0.06, 0.08, 1.0),
    "length": (3.0, 6.0, 12.0, 18.0, np.inf),
    "instances": (1, 40, 80, np.inf),
}


@dataclass(frozen=True)
class BinResult:
    """The annotations of one bin.

    Attributes:
        name: "XS" to "XL".
        upper: upper end of the bin, inside it.
        num_annotations: how many there are.
        missed: (T,) share that no prediction takes.
        mAP: (T,) normalised mAP on them alone; predictions that take annotations outside are left out. NaN for an empty bin.
    """

    name: str
    upper: float
    num_annotations: int
    missed: np.ndarray
    mAP: np.ndarray  # noqa: N815


def analyze_detections(
    report: DetectionReport,
    bins: dict[str, tuple] | str = "activitynet",
    limit_factor: int | None = 10,
    normalize=True,
) -> "DetectionErrors":
    """Sort the predictions of an evaluation into kinds of error.

    Args:
        report: of `evaluate_detector`; errors are counted at each of its thresholds.
        bins: "activitynet", "thumos14" (both as DETAD publishes them), or {"coverage" | "length" | "instances": upper ends}.
        limit_factor: predictions per class that count, in numbers of its annotations; None: all.
        normalize: normalise precision.

    Raises:
        ValueError: bins that do not exist.
    """
    known = {"activitynet": ACTIVITYNET_BINS, "thumos14": THUMOS_BINS}
    if isinstance(bins, str):
        if bins not in known:
            raise ValueError(f"`bins` must be one of {', '.join(known)} or a dict of upper ends, got {bins!r}.")
        bins = known[bins]
    unknown = set(bins) - set(ACTIVITYNET_BINS)
    if unknown:
        raise ValueError(f"bins of {sorted(unknown)}: there are {', '.join(ACTIVITYNET_BINS)}.")
    return DetectionErrors(report, dict(bins), limit_factor, normalize)


@dataclass
class DetectionErrors:
    """Kinds of error of one evaluation.

    Attributes:
        report: the evaluation.
        bins: upper ends by characteristic.
        limit_factor: predictions per class that count, in numbers of its annotations; None: all.
        normalize: whether precision is normalised.
    """

    report: DetectionReport
    bins: dict[str, tuple]
    limit_factor: int | None
    normalize: bool

    @property
    def tious(self) -> tuple[float, ...]:
        """(T,) thresholds."""
        return self.report.tious

    @cached_property
    def rank(self) -> np.ndarray:
        """(P,) rank of a prediction in its class, from 0, in numbers of the class's annotations."""
        rank = np.full(len(self.report.matches.order), np.inf)
        for _, rows, count in self.report.classes():
            rank[rows] = np.arange(rows.stop - rows.start) / count
        return rank

    @cached_property
    def counted(self) -> np.ndarray:
        """(P,) which predictions count."""
        return np.isfinite(self.rank) & (True if self.limit_factor is None else self.rank < self.limit_factor)

    @cached_property
    def kinds(self) -> np.ndarray:
        """(P, T) index into `KINDS` of every prediction, in the order of the report's matches."""
        data, matches = self.report.data, self.report.matches
        ranked = data.predictions.take(matches.order)
        prediction, annotation, iou = overlapping_pairs(
            ranked, data.truth, np.finfo(float).tiny, same_label=False, protocol=self.report.protocol
        )
        by_overlap = np.lexsort((-iou, prediction))
        prediction, annotation, iou = prediction[by_overlap], annotation[by_overlap], iou[by_overlap]
        rows, first = np.unique(prediction, return_index=True)
        highest, same = np.zeros(len(ranked)), np.zeros(len(ranked), dtype=bool)
        highest[rows] = iou[first]
        same[rows] = data.truth.label[annotation[first]] == ranked.label[rows]
        near = highest[:, None] >= np.array(self.tious)
        kinds = np.where(near, np.where(same, 1, 2)[:, None], np.where(same, 3, 4)[:, None])
        kinds[highest < _BACKGROUND_IOU] = 5
        kinds[matches.true_positives()] = 0
        return kinds

    @cached_property
    def shares(self) -> np.ndarray:
        """(T, 6) share of every kind among the predictions that count."""
        return self._shares(self.counted)

    def profile(self, steps: int = 10) -> np.ndarray:
        """(steps, T, 6) shares among predictions of rank 0 to G, G to 2 G, ... of their classes; NaN where there are none."""
        return np.stack([self._shares((self.rank >= step) & (self.rank < step + 1)) for step in range(steps)])

    @cached_property
    def mAP(self) -> np.ndarray:  # noqa: N802
        """(T,) mAP of the predictions that count."""
        return self._mean_precision(np.broadcast_to(self.counted[:, None], self.kinds.shape))

    @cached_property
    def gains(self) -> np.ndarray:
        """(T, 5) how far mAP rises without the predictions of each kind but the first."""
        keeps = [self.counted[:, None] & (self.kinds != kind) for kind in range(1, len(KINDS))]
        return np.stack([self._mean_precision(keep) for keep in keeps], axis=1) - self.mAP[:, None]

    @cached_property
    def missed(self) -> np.ndarray:
        """(T,) share of all annotations that no prediction takes."""
        return 1 - self._found.mean(0)

    @cached_property
    def by_characteristic(self) -> dict[str, list[BinResult]]:
        """Misses and mAP by coverage (left out where durations are unknown), length, and number of instances."""
        results = {}
        values = self._characteristics()
        for name, uppers in self.bins.items():
            value, lower, found = values[name], -np.inf, []
            if np.isnan(value).any():
                continue
            for size, upper in zip(_SIZES, uppers, strict=False):
                inside = (value > lower) & (value <= upper)
                missed = 1 - self._found[inside].mean(0) if inside.any() else np.full(len(self.tious), np.nan)
                found.append(BinResult(size, float(upper), int(inside.sum()), missed, self._precision_on(inside)))
                lower = upper
            results[name] = found
        return results

    def to_dict(self) -> dict:
        """Plain values, for JSON; thresholds in the order of "tious", kinds by name."""
        kinds = [{kind: float(share) for kind, share in zip(KINDS, row, strict=True)} for row in self.shares]
        gains = [{kind: float(gain) for kind, gain in zip(KINDS[1:], row, strict=True)} for row in self.gains]
        bins = {
            name: [
                {"bin": one.name, "upper": one.upper if np.isfinite(one.upper) else None, "n": one.num_annotations,
                 "missed": _plain(one.missed), "mAP": _plain(one.mAP)}
                for one in found
            ]
            for name, found in self.by_characteristic.items()
        }  # fmt: skip
        return {
            "tious": list(self.tious),
            "limit_factor": self.limit_factor,
            "normalized": self.normalize,
            "num_predictions": int(self.counted.sum()),
            "mAP": self.mAP.tolist(),
            "missed": self.missed.tolist(),
            "shares": kinds,
            "gains": gains,
            "by_characteristic": bins,
        }

    def to_text(self) -> str:
        """Averages over thresholds, for a terminal."""
        name = "normalised mAP" if self.normalize else "mAP"
        lines = [
            f"{int(self.counted.sum())} predictions, {name} {self.mAP.mean():.4f}; share of them, mAP without them"
        ]
        for number, kind in enumerate(KINDS):
            gain = f"  {self.gains[:, number - 1].mean():+.4f}" if number else ""
            lines.append(f"  {kind:<17}{self.shares[:, number].mean():7.1%}{gain}")
        lines.append(f"  missed: {self.missed.mean():.1%} of {len(self.report.data.truth)} annotations")
        for characteristic, found in self.by_characteristic.items():
            cells = [
                f"{one.name} {one.missed.mean():.1%} of {one.num_annotations}" for one in found if one.num_annotations
            ]
            lines.append(f"  missed by {characteristic}: {', '.join(cells)}")
        return "\n".join(lines)

    # ---- inner parts ------------------------------------------------------------------------------------------------

    @cached_property
    def _found(self) -> np.ndarray:
        """(G, T) whether a prediction that counts takes an annotation."""
        found = np.zeros((len(self.report.data.truth), len(self.tious)), dtype=bool)
        for column in range(len(self.tious)):
            taken = self.report.matches.found[self.counted, column]
            found[taken[taken >= 0], column] = True
        return found

    def _characteristics(self) -> dict[str, np.ndarray]:
        data = self.report.data
        length = data.truth.end - data.truth.start
        sizes = np.bincount(data.truth.video, minlength=len(data.videos))
        with np.errstate(divide="ignore", invalid="ignore"):
            coverage = np.minimum(length / data.durations[data.truth.video], 1.0)
        return {"coverage": coverage, "length": length, "instances": sizes[data.truth.video]}

    def _shares(self, rows: np.ndarray) -> np.ndarray:
        total = rows.sum()
        counts = np.stack([(self.kinds[rows] == kind).sum(0) for kind in range(len(KINDS))], axis=1)
        return counts / total if total else np.full(counts.shape, np.nan)

    def _mean_precision(self, keep: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
        """(T,) mean over classes of the average precision of the predictions `keep` (P, T) on the annotations `inside`."""
        report, per_class = self.report, []
        hits, found = report.matches.true_positives(), report.matches.found
        truth_label = report.data.truth.label
        average = len(truth_label) / len(report.ap) if self.normalize else None
        for number, (_, rows, count) in enumerate(report.classes(all_labels=True)):
            if inside is not None:
                count = int((inside & (truth_label == number)).sum())
            if not count:
                continue
            values = []
            for column in range(len(self.tious)):
                chosen = keep[rows, column]
                if inside is not None:
                    taken = found[rows, column]
                    chosen = chosen & ((taken < 0) | inside[taken])
                values.append(average_precision(hits[rows, column][chosen][:, None], count, normal_count=average)[0])
            per_class.append(values)
        return np.mean(per_class, axis=0) if per_class else np.full(len(self.tious), np.nan)

    def _precision_on(self, inside: np.ndarray) -> np.ndarray:
        return self._mean_precision(np.broadcast_to(self.counted[:, None], self.kinds.shape), inside)


def _plain(values: np.ndarray) -> list:
    return [None if np.isnan(value) else float(value) for value in values]
