"""The outcome of an evaluation: numbers with their n, tables, the confusion picture, and the results-file entry."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from .intervals import bootstrap_interval
from .prediction_log import VideoPrediction
from .results import Cost, Metric, Provenance, ResultEntry
from .scores import average_precision, confusion_matrix, mean_average_precision, micro_f1, topk_hits


_MULTI_LABEL_THRESHOLD = 0.5
# mAP sorts every class anew in each resample; 200 give the interval's ends to about a tenth of its width
_MAP_RESAMPLES = 200


@dataclass
class ClassificationReport:
    """Everything that was measured on one split.

    Attributes:
        labels: the model's class names, by number.
        multi_label: whether videos carry several labels.
        predictions: one record per video in data-set order, the failed ones included.
        model_name, dataset_name, split: what was evaluated on what.
        protocol: frames, views and aggregation that were used.
        cost: parameters and GMACs per view.
        provenance: how it was measured.
    """

    labels: list[str]
    multi_label: bool
    predictions: list[VideoPrediction]
    model_name: str
    dataset_name: str
    split: str
    protocol: dict
    cost: Cost
    provenance: Provenance
    notes: list[str] = field(default_factory=list)

    # ---- what was seen ----------------------------------------------------------------------------------------------

    @cached_property
    def evaluated(self) -> list[VideoPrediction]:
        """Videos that got a prediction."""
        return [p for p in self.predictions if p.error is None]

    @cached_property
    def failures(self) -> list[dict]:
        """Videos that got none: index, source, error and its type."""
        return [
            {"index": p.index, "source": p.source, "error_type": p.error_type, "error": p.error}
            for p in self.predictions
            if p.error is not None
        ]

    @property
    def n(self) -> int:
        """Number of videos behind every number."""
        return len(self.evaluated)

    @cached_property
    def scores(self) -> np.ndarray:
        """(n, K) probabilities."""
        return np.array([p.scores for p in self.evaluated], dtype=float)

    @cached_property
    def targets(self) -> np.ndarray:
        """(n,) right class numbers, or (n, K) bools for multi-label models."""
        if not self.multi_label:
            return np.array([p.label for p in self.evaluated], dtype=int)
        targets = np.zeros((self.n, len(self.labels)), dtype=bool)
        for row, prediction in zip(targets, self.evaluated, strict=True):
            row[prediction.label] = True
        return targets

    @cached_property
    def correct(self) -> np.ndarray:
        """(n,) bools, top-1 right; for multi-label models, every class decided right."""
        if self.multi_label:
            return ((self.scores > _MULTI_LABEL_THRESHOLD) == self.targets).all(axis=1)
        return topk_hits(self.scores, self.targets, 1)

    # ---- numbers ----------------------------------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """top1 and top5 (where there are more than five classes), or mAP and micro_f1, with n and interval."""
        if self.multi_label:
            return self._multi_label_metrics()
        metrics = [Metric.proportion("top1", int(self.correct.sum()), self.n)]
        if len(self.labels) > 5:
            metrics.append(Metric.proportion("top5", int(topk_hits(self.scores, self.targets, 5).sum()), self.n))
        return tuple(metrics)

    def _multi_label_metrics(self) -> tuple[Metric, ...]:
        scores, targets = self.scores, self.targets
        decisions = scores > _MULTI_LABEL_THRESHOLD
        statistics = {
            "mAP": (lambda rows: mean_average_precision(scores[rows], targets[rows]), _MAP_RESAMPLES),
            "micro_f1": (lambda rows: micro_f1(decisions[rows], targets[rows]), 1000),
        }
        metrics = []
        for name, (statistic, num_resamples) in statistics.items():
            value = statistic(np.arange(self.n))
            if np.isnan(value):  # not one positive label: there is no such number
                continue
            interval = bootstrap_interval(statistic, self.n, num_resamples=num_resamples)
            metrics.append(
                Metric(name, value, self.n, interval, f"bootstrap over videos 95%, {num_resamples} resamples")
            )
        return tuple(metrics)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, None where it does not exist."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @property
    def top1(self) -> float | None:
        """Share of videos whose best class is right; None for multi-label models."""
        metric = self.metric("top1")
        return metric.value if metric else None

    @property
    def top5(self) -> float | None:
        """Share of videos with the right class among the best five; None with five classes or fewer."""
        metric = self.metric("top5")
        return metric.value if metric else None

    @cached_property
    def per_class(self) -> list[dict]:
        """One dict per class: `label`, `n`, and `correct`, `accuracy`, `interval` (or `average_precision` for multi-label)."""
        rows = []
        for index, label in enumerate(self.labels):
            if self.multi_label:
                n = int(self.targets[:, index].sum())
                value = average_precision(self.scores[:, index], self.targets[:, index])
                rows.append({"label": label, "n": n, "average_precision": None if np.isnan(value) else value})
                continue
            mine = self.targets == index
            n, hits = int(mine.sum()), int(self.correct[mine].sum())
            metric = Metric.proportion("recall", hits, n) if n else None
            interval = list(metric.interval) if metric else None
            rows.append(
                {
                    "label": label,
                    "n": n,
                    "correct": hits,
                    "accuracy": metric.value if n else None,
                    "interval": interval,
                }
            )
        return rows

    @cached_property
    def confusion(self) -> np.ndarray:
        """(K, K) counts, row = right class, column = predicted class.

        Raises:
            ValueError: the model is multi-label; there is no such matrix then.
        """
        if self.multi_label:
            raise ValueError("a multi-label evaluation has no confusion matrix; see per_class.")
        return confusion_matrix(self.scores.argmax(axis=1), self.targets, len(self.labels))

    # ---- output -----------------------------------------------------------------------------------------------------

    def to_result_entry(self, task: str = "video-classification", variant: str = "") -> ResultEntry:
        """The numbers in the one results format."""
        return ResultEntry(
            task=task,
            model=self.model_name,
            dataset=self.dataset_name,
            split=self.split,
            metrics=self.metrics,
            cost=self.cost,
            provenance=self.provenance,
            protocol=self.protocol,
            variant=variant,
            num_failed=len(self.failures),
            notes=tuple(self.notes),
        )

    def to_dict(self) -> dict:
        """JSON-ready: the result entry, per class, confusion, failures."""
        document = {
            "result": self.to_result_entry().to_dict(),
            "n": self.n,
            "per_class": self.per_class,
            "failures": self.failures,
        }
        if not self.multi_label:
            document["confusion"] = self.confusion.tolist()
        return document

    def to_text(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.model_name} on {self.dataset_name} ({self.split}), {_views(self.protocol)}"]
        for metric in self.metrics:
            low, high = metric.interval
            lines.append(f"  {metric.name:<9}{metric.value:7.1%}   [{low:.1%}, {high:.1%}]   n = {metric.n}")
        if self.cost.parameters:
            gmacs = f", {self.cost.gmacs:.3g} GMACs per view" if self.cost.gmacs else ""
            lines.append(f"  {self.cost.parameters / 1e6:.2f} M parameters{gmacs}")
        for failure in self.failures[:5]:
            lines.append(f"  not evaluated: {failure['error']}")
        if len(self.failures) > 5:
            lines.append(f"  ... and {len(self.failures) - 5} more videos that could not be read")
        return "\n".join(lines)

    def plot_confusion(self, path: str | os.PathLike) -> Path:
        """Draws the confusion matrix (needs matplotlib) and returns the path of the picture."""
        from .confusion_plot import plot_confusion

        title = f"{self.model_name} on {self.dataset_name} ({self.split}), n = {self.n}, top-1 {self.top1:.1%}"
        return plot_confusion(self.confusion, self.labels, path, title=title)


def _views(protocol: dict) -> str:
    return f"{protocol.get('num_frames')} frames x {protocol['num_clips']} clips x {protocol['num_crops']} crops"
