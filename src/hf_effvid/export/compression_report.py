"""What a search over blocks, tokens and number types found: a table, entries of results, one Pareto chart, the choice under a budget."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..evaluation.benchmark_budget import Accuracy, BudgetChoice, best_under_budget
from ..evaluation.benchmark_report import rounded
from ..evaluation.benchmark_timing import PairedRatio
from ..evaluation.intervals import paired_bootstrap_difference
from ..evaluation.pareto_chart import ParetoPoint, pareto_front, plot_pareto
from ..evaluation.provenance import Provenance
from ..evaluation.results import Cost, Metric, ResultEntry
from .compression_candidates import TORCH_TYPES


DIFFERENCE = "top1 difference to the uncompressed model"


@dataclass(frozen=True)
class SearchRow:
    """One combination.

    Attributes:
        name: what it is called.
        dropped: blocks dropped.
        keep_ratio: share of tokens that it reads.
        number_type: `"float32"`, `"bfloat16"`, `"onnx"`, `"int8"`, ...
        correct: per video, whether it was right.
        gmacs: multiply-accumulates of a clip in units of 1e9, None where unknown.
        parameters: their number.
        latency_ms: median time of one clip.
        latency_p90_ms: nine of ten passes took at most this long.
        num_rounds: interleaved rounds.
        speedup: times faster than the first row, None for that.
    """

    name: str
    dropped: int
    keep_ratio: float
    number_type: str
    correct: tuple[bool, ...] = field(repr=False)
    gmacs: float | None
    parameters: int
    latency_ms: float
    latency_p90_ms: float
    num_rounds: int
    speedup: PairedRatio | None
    batch_size: int = 1

    @property
    def accuracy(self) -> Metric:
        """Top-1 with its Wilson interval."""
        return Metric.proportion("top1", sum(self.correct), len(self.correct))

    @property
    def throughput_clips_per_s(self) -> float:
        """Clips per second, one at a time."""
        return 1e3 / self.latency_ms


@dataclass(frozen=True)
class SearchReport:
    """Result of `search_compression`.

    Attributes:
        rows: the uncompressed model first.
        model_name, dataset_name, split: what was searched on what.
        num_failed: videos that could not be read.
        num_threads: processor threads.
        clock: `"wall"` or `"processor"`.
        scorer: what decided which tokens stay; None: the model's own trained selector, else "random".
        protocol: how videos were seen.
        provenance: command, commit, hardware, versions, date.
        notes: load of the machine.
    """

    rows: tuple[SearchRow, ...]
    model_name: str
    dataset_name: str
    split: str
    num_failed: int
    num_threads: int
    clock: str
    scorer: str | None
    protocol: dict
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def num_videos(self) -> int:
        """Videos that every combination answered."""
        return len(self.rows[0].correct)

    def front(self) -> list[SearchRow]:
        """Rows that no other beats in both accuracy and time, fastest first."""
        by_name = {row.name: row for row in self.rows}
        return [by_name[point.name] for point in pareto_front(self._points())]

    def best_under_budget(self, budget_ms: float) -> BudgetChoice:
        """The most accurate combination that answers within so many milliseconds."""
        known = {row.name: Accuracy(row.accuracy.value, row.accuracy.interval, "top1") for row in self.rows}
        return best_under_budget(self.rows, budget_ms, known)

    def difference(self, row: SearchRow) -> Metric:
        """Top-1 of a row minus that of the uncompressed model on the same videos."""
        paired = paired_bootstrap_difference(row.correct, self.rows[0].correct)
        interval = tuple(paired["interval"])
        return Metric(DIFFERENCE, paired["difference"], paired["n"], interval, "paired bootstrap over videos 95%")

    def to_table(self):
        """A `rich.table.Table` for a terminal; what is on the front is marked."""
        from rich.markup import escape
        from rich.table import Table

        front = {row.name for row in self.front()}
        failed = f", {self.num_failed} unreadable" if self.num_failed else ""
        caption = [
            f"{self.dataset_name} ({self.split}), n = {self.num_videos}{failed}",
            self.describe_machine(),
            f"{self.rows[0].num_rounds} interleaved rounds of one clip; * no other is both faster and more accurate",
            *self.notes,
        ]
        table = Table(
            title=escape(self.model_name),
            caption=escape("; ".join(caption)),
            caption_justify="left",
            box=None,
            pad_edge=False,
        )
        for title in ("", "dropped", "tokens", "numbers", "top-1", "points", "ms", "times"):
            left = title in ("", "numbers")
            table.add_column(title, justify="left" if left else "right", no_wrap=True)
        for row in sorted(self.rows, key=lambda row: row.latency_ms):
            low, high = (100 * bound for bound in self.difference(row).interval)
            table.add_row(
                "*" if row.name in front else "",
                str(row.dropped),
                f"{row.keep_ratio:g}",
                row.number_type,
                f"{row.accuracy.value:.1%}",
                f"{100 * self.difference(row).value:+.1f} [{low:+.1f}, {high:+.1f}]",
                f"{row.latency_ms:.2f}",
                "" if row.speedup is None else f"{row.speedup.median:.2f}",
            )
        return table

    def to_result_entries(self) -> list[ResultEntry]:
        """Every combination in the one result format."""
        return [self._entry(row) for row in self.rows]

    def plot(self, path: str | os.PathLike, budget_ms: float | None = None) -> tuple[Path, Path]:
        """Accuracy against milliseconds of everything that was tried, as PNG and SVG; names stand at the front and at the uncompressed model.

        Args:
            path: where to; the suffix is replaced.
            budget_ms: draws a line at so many milliseconds.

        Returns:
            `(png, svg)`.
        """
        named = {row.name for row in self.front()} | {self.rows[0].name}
        # intervals of dozens of models would cover each other; that of the uncompressed one says how wide they are
        points = [
            replace(
                point,
                name=point.name if point.name in named else "",
                interval=point.interval if point.name == self.rows[0].name else None,
            )
            for point in self._points()
        ]
        return plot_pareto(
            points,
            path,
            title=f"{self.model_name}: blocks x tokens x numbers",
            time_label="milliseconds per clip (median, batch 1, model alone)",
            accuracy_label=f"top-1 on {self.dataset_name} ({self.split}), n = {self.num_videos}",
            footnote=f"{self.describe_machine()}; {self.rows[0].num_rounds} interleaved rounds; {self.provenance.date}",
            budget_ms=budget_ms,
        )

    def describe_machine(self) -> str:
        """Hardware, threads, clock and version of torch in one line."""
        clock = "" if self.clock == "wall" else f"{self.clock} time, "
        threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
        return f"{self.provenance.hardware}, {threads}, {clock}torch {self.provenance.versions.get('torch')}"

    def _points(self) -> list[ParetoPoint]:
        return [ParetoPoint(row.name, row.latency_ms, row.accuracy.value, row.accuracy.interval) for row in self.rows]

    def _entry(self, row: SearchRow) -> ResultEntry:
        ratio, runtime = row.speedup, "eager" if row.number_type in TORCH_TYPES else "onnxruntime"
        cost = Cost(
            gmacs=row.gmacs or None,
            parameters=row.parameters,
            latency_ms=rounded(row.latency_ms),
            latency_p90_ms=rounded(row.latency_p90_ms),
            batch_size=1,
            hardware=self.provenance.hardware,
            dtype=row.number_type,
            decode_included=False,
            num_threads=self.num_threads,
            execution=runtime if self.clock == "wall" else f"{runtime}, {self.clock} time",
            num_rounds=row.num_rounds,
            baseline=self.rows[0].name if ratio else None,
            speedup=rounded(ratio.median) if ratio else None,
            speedup_interval=tuple(map(rounded, ratio.interval)) if ratio else None,
            speedup_interval_method=ratio.method if ratio else None,
        )
        tokens = {} if row.keep_ratio == 1 else {"scorer": self.scorer or "own selector, else random"}
        return ResultEntry(
            task="video-classification",
            model=self.model_name,
            dataset=self.dataset_name,
            split=self.split,
            metrics=(row.accuracy,) if ratio is None else (row.accuracy, self.difference(row)),
            cost=cost,
            provenance=replace(self.provenance, dtype=row.number_type),
            protocol={**self.protocol, **tokens},
            variant=row.name,
            num_failed=self.num_failed,
            notes=self.notes,
        )
