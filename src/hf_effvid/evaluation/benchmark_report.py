"""What a benchmark found, and the forms it is given in: table, result entries, chart, choice under a budget."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .benchmark_budget import Accuracy, BudgetChoice, best_under_budget
from .benchmark_execution import BenchmarkError
from .benchmark_timing import PairedRatio
from .results import Cost, Provenance, ResultEntry, ResultsFile, add_results


# the "data set" of a benchmark entry: there is none, the pixels are random
BENCHMARK_DATASET, BENCHMARK_SPLIT = "random clips", "benchmark"


@dataclass(frozen=True)
class Measurement:
    """One model at one batch size.

    Attributes:
        name: of the model.
        batch_size: clips per pass.
        dtype: number type, for example `"bfloat16-autocast"`.
        execution: `"eager"`, `"compile:<mode>"` or `"cuda graph"`.
        clip_shape: (T, C, H, W).
        parameters: their number.
        gmacs: multiply-accumulates per clip in units of 1e9; None where they cannot be counted completely.
        latency_ms: median time of one pass over the batch, in milliseconds, decoding not included.
        latency_p90_ms: nine of ten passes took at most this long.
        throughput_clips_per_s: batch size over median time.
        times_ms: per round, the time of each call.
        peak_memory_mb: weights and activations in MB (1e6 bytes), None where not measured.
        decode_ms: median time to decode the frames of one clip, None where not measured.
        preprocess_ms: median time to turn them into model input.
        speedup: times faster than the baseline, round by round; None for the baseline.
    """

    name: str
    batch_size: int
    dtype: str
    execution: str
    clip_shape: tuple[int, int, int, int]
    parameters: int
    gmacs: float | None
    latency_ms: float
    latency_p90_ms: float
    throughput_clips_per_s: float
    times_ms: tuple[tuple[float, ...], ...] = field(repr=False)
    peak_memory_mb: float | None = None
    decode_ms: float | None = None
    preprocess_ms: float | None = None
    speedup: PairedRatio | None = None


@dataclass(frozen=True)
class BenchmarkReport:
    """Result of `benchmark`.

    Attributes:
        measurements: models by batch sizes, in the order in which they were measured.
        provenance: command, commit, hardware, versions, date.
        num_threads: processor threads.
        baseline: name of the model that the speed-ups compare with, None when there is one model.
        accuracies: name -> accuracy, where known.
        budget_ms: milliseconds that a pass may take, None when none was named.
        notes: what a reader has to know: load of the machine, the video, what could not be measured and why.
    """

    measurements: tuple[Measurement, ...]
    provenance: Provenance
    num_threads: int
    baseline: str | None = None
    accuracies: Mapping[str, Accuracy] = field(default_factory=dict)
    budget_ms: float | None = None
    notes: tuple[str, ...] = ()

    def get(self, name: str, batch_size: int | None = None) -> Measurement:
        """The measurement of a model, at its smallest batch unless `batch_size` says otherwise.

        Raises:
            KeyError: there is none.
        """
        found = [m for m in self.measurements if m.name == name and batch_size in (None, m.batch_size)]
        if not found:
            raise KeyError(f"no measurement of {name!r} at batch size {batch_size}.")
        return min(found, key=lambda m: m.batch_size)

    def best_under_budget(self, budget_ms: float | None = None) -> BudgetChoice:
        """The best setting whose answer takes at most `budget_ms`, and why; see `benchmark_budget.best_under_budget`.

        Args:
            budget_ms: milliseconds; default: what `benchmark` was given.

        Raises:
            BenchmarkError: there is no budget.
        """
        budget_ms = self.budget_ms if budget_ms is None else budget_ms
        if budget_ms is None:
            raise BenchmarkError("no budget: call best_under_budget(20), or benchmark(..., budget_ms=20).")
        return best_under_budget(self.measurements, budget_ms, self.accuracies)

    def to_table(self):
        """A `rich.table.Table` for a terminal; columns that would say the same in every row are in its caption."""
        from .benchmark_table import benchmark_table

        return benchmark_table(self)

    def to_result_entries(self) -> list[ResultEntry]:
        """Every measurement in the one result format: costs without metrics, since accuracies have entries of their own."""
        return [self._entry(measurement) for measurement in self.measurements]

    def save(self, path: str | os.PathLike) -> ResultsFile:
        """Adds the entries to the result file at `path` (newer ones replace older ones of the same setting)."""
        return add_results(path, self.to_result_entries())

    def plot_pareto(self, path: str | os.PathLike) -> tuple[Path, Path]:
        """Accuracy against milliseconds of every model with a known accuracy, at the smallest batch, as PNG and SVG.

        Args:
            path: where to; the suffix is replaced.

        Returns:
            `(png, svg)`.

        Raises:
            BenchmarkError: no accuracy is known.
        """
        from .pareto_chart import ParetoPoint, plot_pareto

        shown = [self.get(name) for name in self.accuracies if any(m.name == name for m in self.measurements)]
        if not shown:
            raise BenchmarkError(
                "a chart of accuracy against time needs accuracies: benchmark(..., accuracies={name: fraction or metric})."
            )
        points = [
            ParetoPoint(
                m.name, m.latency_ms / m.batch_size, self.accuracies[m.name].value, self.accuracies[m.name].interval
            )
            for m in shown
        ]
        kinds = sorted({self.accuracies[m.name].name for m in shown})
        batches = ", ".join(str(size) for size in sorted({m.batch_size for m in shown}))
        return plot_pareto(
            points,
            path,
            title="Accuracy against time",
            time_label=f"milliseconds per clip (median, batch {batches}, model alone)",
            accuracy_label=" / ".join(kinds),
            footnote=f"{self.describe_machine()}; {len(shown[0].times_ms)} interleaved rounds; {self.provenance.date}",
            budget_ms=self.budget_ms,
        )

    def describe_machine(self) -> str:
        """Hardware, threads and version of torch in one line."""
        hardware, torch_version = self.provenance.hardware, self.provenance.versions.get("torch")
        return f"{hardware}, {self._threads()}, torch {torch_version}"

    def _threads(self) -> str:
        return "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"

    def _entry(self, m: Measurement) -> ResultEntry:
        hardware = self.provenance.hardware
        frames, _, height, width = m.clip_shape
        ratio = m.speedup
        cost = Cost(
            gmacs=m.gmacs or None,
            parameters=m.parameters or None,
            latency_ms=rounded(m.latency_ms),
            latency_p90_ms=rounded(m.latency_p90_ms),
            throughput_clips_per_s=rounded(m.throughput_clips_per_s),
            peak_memory_mb=rounded(m.peak_memory_mb),
            batch_size=m.batch_size,
            hardware=hardware,
            dtype=m.dtype,
            decode_included=False,
            decode_ms=rounded(m.decode_ms),
            preprocess_ms=rounded(m.preprocess_ms),
            num_threads=self.num_threads,
            execution=m.execution,
            num_rounds=len(m.times_ms),
            baseline=self.baseline if ratio else None,
            speedup=rounded(ratio.median) if ratio else None,
            speedup_interval=tuple(map(rounded, ratio.interval)) if ratio else None,
            speedup_interval_method=ratio.method if ratio else None,
        )
        return ResultEntry(
            task="video-classification",
            model=m.name,
            dataset=BENCHMARK_DATASET,
            split=BENCHMARK_SPLIT,
            metrics=(),
            cost=cost,
            provenance=replace(self.provenance, dtype=m.dtype, decode_included=False),
            protocol={"num_frames": frames, "size": {"height": height, "width": width}},
            # a newer measurement of the same setting on the same kind of machine replaces this one, any other stands beside it
            variant=f"batch {m.batch_size}, {m.dtype}, {m.execution}, {self._threads()}, {hardware}",
            notes=self.notes,
        )


def rounded(value: float | None) -> float | None:
    """Five digits that count: no clock is better than that, and a file of numbers is read by people too."""
    return None if value is None else float(f"{value:.5g}")
