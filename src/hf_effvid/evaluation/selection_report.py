"""The outcome of a study of token selection: what every way to spend fewer tokens costs and what it gets right, on the same videos."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from .intervals import bootstrap_mean_interval
from .results import Cost, Metric, Provenance
from .selection_values import TokenValues


FULL, RANDOM, LITE = "full", "random", "lite"
ORACLE_TRUE, ORACLE_PREDICTED, ORACLE_WRONG = "oracle (true label)", "oracle (predicted label)", "oracle (wrong label)"
ORACLES = (ORACLE_TRUE, ORACLE_PREDICTED, ORACLE_WRONG)
KINDS = ("all", "score", "analysis", "merging", "input", "adaptive")
"""Of arms: all tokens; a score of tokens; a score that itself needs the whole model or the label; merging; fewer or smaller frames;
a budget per clip."""

PAIRED = "paired bootstrap over videos 95%"
OVER_VIDEOS = "bootstrap over videos 95%"


class StudyError(ValueError):
    """A study cannot be made or put together as asked; the message says what to change."""


@dataclass
class ArmResult:
    """One way to spend fewer tokens (an *arm*) at one budget.

    Attributes:
        arm: name.
        kind: one of `KINDS`.
        keep_ratio: P, the share of tokens kept, or of a selection of equal cost.
        top1, top5: (n,) share of the draws (one, for an arm that draws nothing) in which a video was right.
        draws: accuracy of each draw; of each training seed in a mean of several models.
        num_tokens: tokens of a clip that reach the first block; None where that differs between clips.
        cost: multiply-accumulates of a clip, and the time where it was measured.
        label_hits: with the oracle of a wrong label: how often the model then says that very label.
    """

    arm: str
    kind: str
    keep_ratio: float
    top1: np.ndarray
    top5: np.ndarray
    draws: list[float]
    num_tokens: int | None = None
    cost: Cost = field(default_factory=Cost)
    label_hits: float | None = None

    @property
    def key(self) -> tuple[str, float]:
        """Arm and budget."""
        return self.arm, self.keep_ratio

    @property
    def accuracy(self) -> float:
        """Mean over videos and draws."""
        return float(self.top1.mean())


@dataclass
class SelectionReport:
    """Every arm of a study, on the same n videos.

    Attributes:
        model_name, dataset_name, split: what was studied on what.
        sources, labels: of the n videos.
        class_names: by number.
        results: the arms at every budget; the first is the full model.
        values: (n,) summaries of the oracle's values of the tokens of every video (label: the predicted one).
        protocol: how the videos were seen and the study was made.
        provenance: how it was measured.
        num_failed: videos that could not be read.
        notes: what a reader has to know, such as arms that were left out and why.
        selector: what is known of the training of the selector and of its oracle, as plain values.
        num_models: training seeds whose results were averaged.
    """

    model_name: str
    dataset_name: str
    split: str
    sources: list[str]
    labels: list[int]
    class_names: list[str]
    results: list[ArmResult]
    values: list[TokenValues]
    protocol: dict
    provenance: Provenance
    num_failed: int = 0
    notes: list[str] = field(default_factory=list)
    selector: dict = field(default_factory=dict)
    num_models: int = 1

    @property
    def n(self) -> int:
        """Number of videos."""
        return len(self.sources)

    @cached_property
    def by_key(self) -> dict[tuple[str, float], ArmResult]:
        """(arm, keep_ratio) -> result."""
        return {result.key: result for result in self.results}

    @property
    def full(self) -> ArmResult:
        """All tokens."""
        return self.by_key[FULL, 1.0]

    @property
    def arms(self) -> list[str]:
        """Names of the arms, without the full model."""
        return list(dict.fromkeys(result.arm for result in self.results if result.arm != FULL))

    @property
    def keep_ratios(self) -> list[float]:
        """Budgets, largest first."""
        return sorted({result.keep_ratio for result in self.results if result.arm != FULL}, reverse=True)

    def get(self, arm: str, keep_ratio: float) -> ArmResult | None:
        """One result, None where that arm has no such budget."""
        return self.by_key.get((arm, keep_ratio))

    def top1(self, result: ArmResult) -> Metric:
        """Accuracy with its interval over videos."""
        if set(np.unique(result.top1)) <= {0.0, 1.0}:
            return Metric.proportion("top1", int(result.top1.sum()), self.n)
        return Metric("top1", result.accuracy, self.n, bootstrap_mean_interval(result.top1), OVER_VIDEOS)

    def difference(self, result: ArmResult, other: ArmResult, name: str) -> Metric:
        """Accuracy of one minus that of the other, with the interval of the paired difference."""
        difference = result.top1 - other.top1
        return Metric(name, float(difference.mean()), self.n, bootstrap_mean_interval(difference), PAIRED)

    @cached_property
    def against_random(self) -> dict[tuple[str, float], Metric]:
        """(arm, keep_ratio) -> accuracy minus that of random tokens at the same budget."""
        name = f"top1 minus {RANDOM}"
        return {
            result.key: self.difference(result, other, name)
            for result in self.results
            if result.arm not in (FULL, RANDOM) and (other := self.get(RANDOM, result.keep_ratio)) is not None
        }

    def verdict(self, arm: str, keep_ratio: float) -> str:
        """`better` or `worse` than random tokens, or `no difference shown`: where the interval of the difference lies."""
        metric = self.against_random.get((arm, keep_ratio))
        if metric is None:
            return ""
        low, high = metric.interval
        return "no difference shown" if low <= 0 <= high else "better" if low > 0 else "worse"

    @classmethod
    def mean_of(cls, reports: Sequence["SelectionReport"]) -> "SelectionReport":
        """Several training seeds of one model on the same videos, averaged video by video; costs are those of the first.

        Raises:
            StudyError: the videos or the budgets differ.
        """
        first = reports[0]
        for other in reports[1:]:
            for name in ("sources", "labels", "keep_ratios"):
                if getattr(other, name) != getattr(first, name):
                    raise StudyError(f"studies of different {name} cannot be averaged: study all models the same way.")
        shared = [r for r in first.results if all(r.key in report.by_key for report in reports)]
        results = []
        for result in shared:
            same = [report.by_key[result.key] for report in reports]
            hits = [one.label_hits for one in same if one.label_hits is not None]
            results.append(
                ArmResult(
                    arm=result.arm,
                    kind=result.kind,
                    keep_ratio=result.keep_ratio,
                    top1=np.mean([one.top1 for one in same], axis=0),
                    top5=np.mean([one.top5 for one in same], axis=0),
                    draws=[one.accuracy for one in same],
                    num_tokens=result.num_tokens,
                    cost=result.cost,
                    label_hits=float(np.mean(hits)) if hits else None,
                )
            )
        values = first.values + [one for report in reports[1:] for one in report.values]
        return cls(
            first.model_name, first.dataset_name, first.split, first.sources, first.labels, first.class_names, results, values,
            first.protocol, replace(first.provenance, seed=None), first.num_failed,
            list(dict.fromkeys(note for report in reports for note in report.notes)),
            {f"{arm}, model {place}": told for place, r in enumerate(reports) for arm, told in r.selector.items()}, len(reports),
        )  # fmt: skip

    # ---- on disk -----------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict:
        """JSON-ready, with what every video got."""
        document = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        document["provenance"] = asdict(self.provenance)
        document["values"] = [asdict(one) for one in self.values]
        document["results"] = [
            {**asdict(r), "top1": r.top1.tolist(), "top5": r.top5.tolist(), "cost": _without_none(asdict(r.cost))}
            for r in self.results
        ]
        return document

    @classmethod
    def from_dict(cls, document: dict) -> "SelectionReport":
        """The inverse of `to_dict`."""
        results = [
            ArmResult(**{**r, "top1": np.array(r["top1"]), "top5": np.array(r["top5"]), "cost": Cost(**r["cost"])})
            for r in document["results"]
        ]
        return cls(
            **{name: document[name] for name in _PLAIN_FIELDS},
            provenance=Provenance(**document["provenance"]),
            values=[TokenValues(**one) for one in document["values"]],
            results=results,
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Writes `to_dict` as a file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SelectionReport":
        """Reads what `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


_PLAIN_FIELDS = (
    "model_name",
    "dataset_name",
    "split",
    "sources",
    "labels",
    "class_names",
    "protocol",
    "num_failed",
    "notes",
    "selector",
    "num_models",
)


def _without_none(values: dict) -> dict:
    return {name: value for name, value in values.items() if value is not None}
