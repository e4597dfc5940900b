"""What a benchmark of detectors found: table, result entries, shares with intervals."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from .benchmark_report import BENCHMARK_SPLIT, rounded
from .benchmark_timing import median_interval
from .results import Cost, Metric, Provenance, ResultEntry, ResultsFile, add_results


STAGES = ("decode", "preprocess", "backbone", "head", "post-processing")
# what remains when a detector is given features
AFTER_THE_BACKBONE = ("head", "post-processing")


@dataclass(frozen=True)
class DetectorCounts:
    """What needs no clock.

    Attributes:
        parameters: number.
        gmacs: multiply-accumulates of one window in units of 1e9, as they run; None where they cannot be counted completely.
        head_gmacs: the part behind the backbone.
        paper_gmacs: the same as the tables of Progressive Block Drop count, see `paper_macs.py`; None for other trunks than VideoMAE.
        paper_head_gmacs: of that the part behind the backbone.
    """

    parameters: int
    gmacs: float | None = None
    head_gmacs: float | None = None
    paper_gmacs: float | None = None
    paper_head_gmacs: float | None = None


@dataclass(frozen=True)
class DetectorMeasurement:
    """One detector on one window.

    Attributes:
        name: of the model.
        dtype: number type of backbone and head.
        seconds: of video in the window.
        num_frames: frames in it (detectors on features: as many as features).
        num_steps: features in it.
        frame_shape: (C, H, W) of its frames, None for detectors on features.
        counts: `DetectorCounts`.
        times_ms: stage -> per round -> milliseconds of each call, for the whole window.
    """

    name: str
    dtype: str
    seconds: float
    num_frames: int
    num_steps: int
    frame_shape: tuple[int, int, int] | None
    counts: DetectorCounts
    times_ms: dict[str, tuple[tuple[float, ...], ...]] = field(repr=False)

    def per_round(self, stages: Sequence[str] | None = None) -> list[float]:
        """Milliseconds of some stages together, or of all, one number per round."""
        chosen = [self.times_ms[stage] for stage in (stages or self.times_ms) if stage in self.times_ms]
        return [sum(statistics.median(visit) for visit in visits) for visits in zip(*chosen, strict=True)]

    def milliseconds(self, stages: Sequence[str] | None = None) -> float:
        """Median over rounds of the time of some stages together, or of all."""
        return statistics.median(self.per_round(stages))

    def share(self, stages: Sequence[str]) -> Metric:
        """What part of the whole these stages take, within each round; its interval is that of a median over rounds."""
        shares = [part / whole for part, whole in zip(self.per_round(stages), self.per_round(), strict=True)]
        return self._over_rounds(_metric_name(stages) + "_share", shares)

    def speed(self, clock: str) -> Metric:
        """Seconds of video per second, of the wall or of this process's computing."""
        name = "seconds_of_video_per_second" if clock == "wall" else "seconds_of_video_per_processor_second"
        return self._over_rounds(name, [self.seconds * 1e3 / ms for ms in self.per_round()])

    def _over_rounds(self, name: str, values: Sequence[float]) -> Metric:
        low, high, coverage = median_interval(values)
        method = f"order statistics of {len(values)} rounds, {coverage:.1%}"
        interval = (rounded(low), rounded(high)) if len(values) > 1 else None
        # one window of one video; repeating it says how steady the clock is, nothing of other videos
        return Metric(name, rounded(statistics.median(values)), 1, interval, method if interval else None)


@dataclass(frozen=True)
class DetectorBenchmarkReport:
    """Result of `benchmark_detectors`.

    Attributes:
        measurements: in the order given.
        provenance: command, commit, hardware, versions, date.
        num_threads: processor threads.
        clock: `"wall"` or `"processor"`.
        notes: what a reader has to know.
    """

    measurements: tuple[DetectorMeasurement, ...]
    provenance: Provenance
    num_threads: int
    clock: str
    notes: tuple[str, ...] = ()

    def get(self, name: str) -> DetectorMeasurement:
        """The measurement of a detector.

        Raises:
            KeyError: there is none.
        """
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement
        raise KeyError(f"no measurement of {name!r}.")

    def describe_machine(self) -> str:
        """Hardware, threads, clock and version of torch in one line."""
        hardware, torch_version = self.provenance.hardware, self.provenance.versions.get("torch")
        clock = "processor time" if self.clock == "processor" else "wall time"
        return f"{hardware}, {self._threads()}, {clock}, torch {torch_version}"

    def to_table(self):
        """A `rich.table.Table` for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        first = self.measurements[0]
        captions = [self.describe_machine(), f"{len(first.per_round())} interleaved rounds", *self.notes]
        table = Table(title="Detectors, one window", caption=escape("; ".join(captions)), caption_justify="left")
        table.add_column("", no_wrap=True)
        for m in self.measurements:
            table.add_column(escape(m.name), justify="right")
        rows = [("window", lambda m: f"{m.seconds:.4g} s, {m.num_frames} frames"), ("dtype", lambda m: m.dtype)]
        rows.append(("params (M)", lambda m: f"{m.counts.parameters / 1e6:.2f}"))
        rows.append(("GMACs", lambda m: _gmacs(m.counts.gmacs)))
        rows.append(("  behind the backbone", lambda m: _gmacs(m.counts.head_gmacs)))
        rows.append(("GMACs, hook-style count", lambda m: _gmacs(m.counts.paper_gmacs)))
        rows += [(f"{stage} (ms)", lambda m, stage=stage: _stage(m, stage)) for stage in STAGES]
        rows.append(("head + post-processing", lambda m: f"{m.share(AFTER_THE_BACKBONE).value:.1%}"))
        rows.append(("s of video per s", lambda m: f"{m.speed(self.clock).value:.3g}"))
        for title, cell in rows:
            cells = [cell(m) for m in self.measurements]
            if any(cells):
                table.add_row(title, *cells)
        return table

    def to_result_entries(self) -> list[ResultEntry]:
        """Every detector in the one result format."""
        return [self._entry(m) for m in self.measurements]

    def save(self, path: str | os.PathLike) -> ResultsFile:
        """Adds the entries to the result file at `path`."""
        return add_results(path, self.to_result_entries())

    def _threads(self) -> str:
        return "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"

    def _entry(self, m: DetectorMeasurement) -> ResultEntry:
        network = [stage for stage in ("backbone", "head") if stage in m.times_ms]
        execution = "eager" if self.clock == "wall" else f"eager, {self.clock} time"
        cost = Cost(
            gmacs=m.counts.gmacs or None,
            parameters=m.counts.parameters,
            latency_ms=rounded(m.milliseconds(network)),
            decode_ms=rounded(m.milliseconds(["decode"])) if "decode" in m.times_ms else None,
            preprocess_ms=rounded(m.milliseconds(["preprocess"])) if "preprocess" in m.times_ms else None,
            batch_size=1,
            hardware=self.provenance.hardware,
            dtype=m.dtype,
            decode_included=False,
            num_threads=self.num_threads,
            execution=execution,
            num_rounds=len(m.per_round()),
        )
        later = [stage for stage in m.times_ms if stage not in ("decode", "preprocess")]
        counted = {
            "head_gmacs": m.counts.head_gmacs,
            "hook_style_gmacs": m.counts.paper_gmacs,
            "hook_style_head_gmacs": m.counts.paper_head_gmacs,
        }
        metrics = [
            m.speed(self.clock),
            *(m.share([stage]) for stage in m.times_ms),
            m.share(AFTER_THE_BACKBONE),
            *(Metric(f"{_metric_name([stage])}_ms", rounded(m.milliseconds([stage])), 1) for stage in later),
            *(Metric(name, rounded(value), 1) for name, value in counted.items() if value is not None),
        ]
        protocol = {"seconds": rounded(m.seconds), "num_steps": m.num_steps}
        if m.frame_shape is not None:
            height, width = m.frame_shape[1:]
            protocol |= {"num_frames": m.num_frames, "size": {"height": height, "width": width}}
        return ResultEntry(
            task="temporal-action-detection",
            model=m.name,
            dataset="one window of random pixels" if m.frame_shape else "one window of random features",
            split=BENCHMARK_SPLIT,
            metrics=tuple(metrics),
            cost=cost,
            provenance=replace(self.provenance, dtype=m.dtype, decode_included=m.frame_shape is not None),
            protocol=protocol,
            variant=f"{m.dtype}, {execution}, {self._threads()}, {self.provenance.hardware}",
            notes=self.notes,
        )


def _metric_name(stages: Sequence[str]) -> str:
    return "_and_".join(stage.replace("-", "_") for stage in stages)


def _gmacs(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _stage(m: DetectorMeasurement, stage: str) -> str:
    if stage not in m.times_ms:
        return ""
    return f"{m.milliseconds([stage]):.3g} ({m.share([stage]).value:.1%})"
