"""The outcome of scoring explanations: areas under curves with intervals, paired differences, results entries, a picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .intervals import bootstrap_interval
from .results import Metric, Provenance, ResultEntry
from .saliency import BASELINES


DELETION, INSERTION, GAIN = "deletion_auc", "insertion_auc", "insertion_minus_deletion_auc"
KINDS = (INSERTION, DELETION, GAIN)
"""Areas under curves, and their difference. Scattered holes in a clip are strange to a model and lower both areas, wherever the holes
are; the difference cancels that, so that a compact map does not win by being compact."""

_INTERVAL = "bootstrap over videos 95%"
_PAIRED = "paired bootstrap over videos 95%"


@dataclass
class FaithfulnessReport:
    """Curves of several methods on the same videos.

    Attributes:
        model_name, dataset_name, split: what was scored on what.
        sources: the n videos.
        curves: method -> (n, 2, num_steps + 1), probability of the predicted class along the deletion and the insertion.
        num_failed: videos that could not be read.
        protocol: how the videos were seen and cells hidden.
        provenance: how it was measured.
        num_models: training seeds whose curves were averaged.
        of_models: method -> (num_models, 2), mean areas of every one of them.
    """

    model_name: str
    dataset_name: str
    split: str
    sources: list[str]
    curves: dict[str, np.ndarray]
    num_failed: int
    protocol: dict
    provenance: Provenance
    of_models: dict[str, np.ndarray] | None = None

    @property
    def n(self) -> int:
        """Number of videos."""
        return len(self.sources)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of `saliency.METHODS`."""
        return list(self.curves)

    @cached_property
    def areas(self) -> dict[str, np.ndarray]:
        """Method -> (n, 2): area under the deletion and the insertion curve of every video, by trapezoids over the share of cells."""
        return {name: (c[..., 1:] + c[..., :-1]).mean(-1) / 2 for name, c in self.curves.items()}

    def values(self, method: str, kind: str) -> np.ndarray:
        """(n,) numbers of a kind: `DELETION` (lower is better), `INSERTION` or `GAIN` (higher)."""
        deletion, insertion = self.areas[method].T
        return {DELETION: deletion, INSERTION: insertion, GAIN: insertion - deletion}[kind]

    def area(self, method: str, kind: str) -> Metric:
        """The mean over the videos with its interval."""
        values = self.values(method, kind)
        return Metric(kind, float(values.mean()), self.n, _interval(values), _INTERVAL)

    def difference(self, method: str, other: str, kind: str) -> Metric:
        """A method minus another on the same videos, with the interval of the paired difference."""
        values = self.values(method, kind) - self.values(other, kind)
        return Metric(f"{kind} minus {other}", float(values.mean()), self.n, _interval(values), _PAIRED)

    def verdict(self, method: str, other: str, kind: str) -> str:
        """Better, worse or no difference shown: which side of 0 the interval of the paired difference lies on."""
        low, high = self.difference(method, other, kind).interval
        if low <= 0 <= high:
            return "no difference shown"
        return "worse" if (low > 0) == (kind == DELETION) else "better"

    @classmethod
    def mean_of(cls, reports: Sequence["FaithfulnessReport"]) -> "FaithfulnessReport":
        """Several training seeds of one model on the same videos: their curves averaged, video by video.

        Raises:
            ValueError: the videos, methods or protocols differ.
        """
        first = reports[0]
        for other in reports[1:]:
            for name in ("sources", "methods", "protocol"):
                if getattr(other, name) != getattr(first, name):
                    raise ValueError(f"reports of different {name} cannot be averaged: score all models the same way.")
        return cls(
            first.model_name,
            first.dataset_name,
            first.split,
            first.sources,
            {name: np.mean([report.curves[name] for report in reports], axis=0) for name in first.curves},
            first.num_failed,
            first.protocol,
            first.provenance,
            {name: np.stack([report.areas[name].mean(0) for report in reports]) for name in first.curves},
        )

    def to_result_entries(self) -> list[ResultEntry]:
        """One entry per method, in the one results format: the numbers of `KINDS`, and their differences to the baselines."""
        return [self._entry(method) for method in self.methods]

    def _entry(self, method: str) -> ResultEntry:
        metrics = [self.area(method, kind) for kind in KINDS]
        # modulators are compared with every baseline, a baseline with those before it
        others = BASELINES[: BASELINES.index(method)] if method in BASELINES else BASELINES
        metrics += [self.difference(method, other, kind) for other in others for kind in KINDS]
        notes = [
            "insertion_auc and insertion_minus_deletion_auc: higher is better; deletion_auc: lower is better; of the probability of the "
            "predicted class"
        ]
        notes.append(
            "mean probability with nothing hidden {:.3f}, with everything hidden {:.3f}".format(*self._ends(method))
        )
        if self.of_models is not None:
            each = ", ".join(f"{insertion:.3f} / {deletion:.3f}" for deletion, insertion in self.of_models[method])
            notes.append(
                f"mean over {len(self.of_models[method])} training seeds; insertion / deletion of each: {each}"
            )
        return ResultEntry(
            task="video-explanation",
            model=self.model_name,
            dataset=self.dataset_name,
            split=self.split,
            metrics=tuple(metrics),
            provenance=self.provenance,
            protocol=self.protocol,
            variant=f"{method}, hidden cells: {self.protocol['fill']}",
            num_failed=self.num_failed,
            notes=tuple(notes),
        )

    def _ends(self, method: str) -> tuple[float, float]:
        deletion = self.curves[method][:, 0].mean(0)
        return float(deletion[0]), float(deletion[-1])

    def to_dict(self) -> dict:
        """JSON-ready: the result entries."""
        return {"n": self.n, "results": [entry.to_dict() for entry in self.to_result_entries()]}

    def to_text(self) -> str:
        """A table for the terminal, and in words how the modulators compare with chance and the centre prior."""
        seeds = f", {len(next(iter(self.of_models.values())))} training seeds" if self.of_models is not None else ""
        lines = [
            f"{self.model_name} on {self.dataset_name} ({self.split}), n = {self.n}{seeds}, hidden cells: {self.protocol['fill']}",
            f"  {'':<28}{'insertion, higher is better':<30}{'deletion, lower is better':<30}insertion minus deletion",
        ]
        for method in self.methods:
            shown = [self.area(method, kind) for kind in KINDS]
            cells = [f"{m.value:.3f} [{m.interval[0]:.3f}, {m.interval[1]:.3f}]" for m in shown]
            lines.append(f"  {method:<28}{cells[0]:<30}{cells[1]:<30}{cells[2]}")
        for method in (name for name in self.methods if name not in BASELINES):
            for other in BASELINES:
                told = zip(("insertion", "deletion", "insertion minus deletion"), KINDS, strict=True)
                verdicts = ", ".join(f"{name} {self.verdict(method, other, kind)}" for name, kind in told)
                lines.append(f"  {method} against {other}: {verdicts}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike) -> Path:
        """Draws the curves (needs matplotlib) and returns the path of the picture."""
        from .faithfulness_plot import plot_curves

        return plot_curves(self, path)


def _interval(values: np.ndarray) -> tuple[float, float]:
    return bootstrap_interval(lambda rows: values[rows].mean(), len(values), num_resamples=2000)
