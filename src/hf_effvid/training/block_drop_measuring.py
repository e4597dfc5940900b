"""What a model is worth on a part of the data, and how that differs from what another was worth on the same videos."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..evaluation.detection import NUM_RESAMPLES, DetectionReport, evaluate_detector
from ..evaluation.detection_predictions import save_predictions
from ..evaluation.intervals import bootstrap_interval, wilson_interval
from ..evaluation.scores import topk_hits
from .metrics import multi_label_metrics, single_label_metrics


_CLIP_RESAMPLES = 1000


@dataclass(frozen=True)
class Measured:
    """A model on the held-out videos.

    Attributes:
        metric: its name.
        value: a fraction.
        n: videos.
        interval: `(low, high)` over videos.
        interval_method: how it was made.
        loss: mean loss of the items, the task's own.
        difference: `value` minus that of the uncompressed model; None for that itself.
        difference_interval: of the difference on the same resampled videos.
    """

    metric: str
    value: float
    n: int
    interval: tuple[float, float] | None = None
    interval_method: str | None = None
    loss: float | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, document: dict) -> "Measured":
        """The inverse of `to_dict`."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})


class TaskCriterion:
    """A task as something that blocks are scored by: higher is better.

    Args:
        task: the task of the model that is scored.
        metric: name of its metric; `"loss"`: the negative mean loss.

    Attributes:
        losses: mean loss of every call of `score`, in their order.
    """

    def __init__(self, task, metric):
        self.task, self.metric, self.losses = task, metric, []

    def forward(self, batch):
        """What the model says of a batch."""
        return self.task(batch)

    def records(self, outputs, batch):
        """One record per item, with its index."""
        records = self.task.records(outputs, batch)
        for record, index in zip(records, batch["index"].tolist(), strict=True):
            record["index"] = index
        return records

    def score(self, records) -> float:
        """The metric of all records. An item that stands in for an unreadable one counts once."""
        found = self.task.metrics(once(records))
        self.losses.append(found["loss"])
        return -found["loss"] if self.metric == "loss" else found[self.metric]


def once(records) -> list[dict]:
    """Records by rising index, each index once."""
    unique = {}
    for record in records:
        unique.setdefault(record["index"], record)
    return [unique[index] for index in sorted(unique)]


@torch.no_grad()
def answers_of(task, batches, tious=None):
    """What a model says of the held-out videos.

    Args:
        task: the task of the model, whose metrics are those of the held-out part; it is put into evaluation mode.
        batches: of that part.
        tious: overlaps that a detector is measured at; None: a classifier.

    Returns:
        `ClipAnswers` or `WindowAnswers`.
    """
    task.eval()
    criterion, records = TaskCriterion(task, "loss"), []
    for batch in batches:
        records += criterion.records(criterion.forward(batch), batch)
    records = once(records)
    metrics = task.metrics(records)
    if tious is not None:
        return WindowAnswers(task.report, metrics.get("loss"))
    rows = {name: torch.stack([record[name] for record in records]) for name in ("logits", "label", "loss")}
    return ClipAnswers(rows["logits"], rows["label"], rows["loss"], task.multi_label)


class ClipAnswers:
    """A classifier's logits (N, K), the labels and losses (N,)."""

    file = "held_out.safetensors"

    def __init__(self, logits, labels, losses, multi_label):
        self.logits, self.labels, self.losses, self.multi_label = logits, labels, losses, multi_label

    def __len__(self):
        return len(self.labels)

    def save(self, folder) -> None:
        """Beside the model that gave them."""
        tensors = {"logits": self.logits, "labels": self.labels, "losses": self.losses}
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            str(Path(folder) / self.file),
            metadata={"multi_label": json.dumps(self.multi_label)},
        )

    @classmethod
    def load(cls, folder, data) -> "ClipAnswers":
        """What `save` wrote."""
        tensors = load_file(str(Path(folder) / cls.file))
        return cls(tensors["logits"], tensors["labels"], tensors["losses"], data.multi_label)

    def statistic(self, metric):
        """A function of indices (draws with replacement): the metric of those clips."""
        if metric == "top1":
            hits = topk_hits(self.logits.numpy(), self.labels.numpy(), 1)
            return lambda draw: float(hits[draw].mean())
        of = multi_label_metrics if self.multi_label else single_label_metrics
        return lambda draw: of(self.logits[draw], self.labels[draw])[metric]

    def measured(self, metric, before=None) -> Measured:
        """The metric with its interval, and the difference to what another model answered."""
        statistic, n = self.statistic(metric), len(self)
        value = statistic(np.arange(n))
        if metric == "top1":
            interval, method = wilson_interval(round(value * n), n), "wilson 95%"
        else:
            interval = bootstrap_interval(statistic, n, num_resamples=_CLIP_RESAMPLES, estimate=value)
            method = f"bootstrap over videos 95%, {_CLIP_RESAMPLES} resamples, bias removed"
        difference = None if before is None else _difference(statistic, before.statistic(metric), n, _CLIP_RESAMPLES)
        return _measured(metric, value, n, interval, method, self.losses.double().mean().item(), difference)


class WindowAnswers:
    """A detector's detections, as a report."""

    file = "held_out.json"

    def __init__(self, report: DetectionReport, loss):
        if report is None:
            raise ValueError("nothing is annotated in the held-out videos that could be read.")
        self.report, self.loss = report, loss

    def save(self, folder) -> None:
        """Beside the model that gave them, as ActivityNet's results files have them."""
        data, found = self.report.data, {name: [] for name in self.report.data.videos}
        rows = data.predictions
        for video, label, start, end, score in zip(
            rows.video, rows.label, rows.start, rows.end, rows.score, strict=True
        ):
            one = {"label": data.labels[label], "score": float(score), "segment": [float(start), float(end)]}
            found[data.videos[video]].append(one)
        save_predictions(Path(folder) / self.file, found, {"loss": self.loss})

    @classmethod
    def load(cls, folder, data) -> "WindowAnswers":
        """What `save` wrote, measured again."""
        document = json.loads((Path(folder) / cls.file).read_text(encoding="utf-8"))
        truth = data.annotations.to_activitynet()["database"]
        found = document["results"]
        report = evaluate_detector({name: truth[name] for name in found}, found, data.tious)
        return cls(report, document["external_data"]["loss"])

    def measured(self, metric, before=None) -> Measured:
        """The metric with its interval, and the difference to what another model answered."""
        report = self.report
        n, statistic = report.data.num_ground_truth_videos, report.average_mAP_of()
        method = f"bootstrap over videos 95%, {NUM_RESAMPLES} resamples, bias removed"
        difference = None
        if before is not None:
            difference = _difference(statistic, before.report.average_mAP_of(), n, NUM_RESAMPLES)
        return _measured(metric, report.average_mAP, n, report.interval(), method, self.loss, difference)


def _measured(metric, value, n, interval, method, loss, difference) -> Measured:
    change, change_interval = difference or (None, None)
    return Measured(metric, float(value), n, tuple(interval), method, loss, change, change_interval)


def _difference(own, other, n, num_resamples):
    """Value and interval of the difference of two statistics of the same videos."""
    everything = np.arange(n)
    value = own(everything) - other(everything)
    interval = bootstrap_interval(lambda draw: own(draw) - other(draw), n, num_resamples=num_resamples, estimate=value)
    return float(value), interval
