"""What share of the baseline's time others take: against targets, and as a picture beside their share of the arithmetic."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chart_text import plain_text
from .benchmark_report import BenchmarkReport, Measurement
from .results import ResultEntry


@dataclass(frozen=True)
class TimeShare:
    """Time of a model over that of the baseline, from rounds that both took part in; below 1 is faster.

    Attributes:
        value: median over rounds.
        low: lower end of its interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def time_share(measurement: Measurement) -> TimeShare | None:
    """The share of the baseline's time, None for the baseline itself."""
    if measurement.speedup is None:
        return None
    low, high = measurement.speedup.interval
    return TimeShare(1 / measurement.speedup.median, 1 / high, 1 / low)


def check_time_shares(
    report: BenchmarkReport, targets: Mapping[str, float], min_batch_size: int = 1
) -> tuple[list[str], bool]:
    """Compares shares of time with the largest that are wanted.

    Args:
        report: with a baseline.
        targets: name of a model -> largest share of the baseline's time; what was not measured is passed over.
        min_batch_size: smaller batches are passed over.

    Returns:
        One line for each comparison, and whether all targets are met.
    """
    lines, met = [], True
    for m in report.measurements:
        share, target = time_share(m), targets.get(m.name)
        if share is None or target is None or m.batch_size < min_batch_size:
            continue
        met &= share.value <= target
        lines.append(
            f"{m.name}, batch {m.batch_size}: {share.value:.4g} of the time of {report.baseline} ({share.low:.4g} to "
            f"{share.high:.4g}), target {target:.3g}: {'met' if share.value <= target else 'MISSED'}"
        )
    return lines, met


def plot_time_shares(entries: Sequence[ResultEntry], path: str | os.PathLike, leave_out: Sequence[str] = ()) -> Path:
    """Draws one line per model: its share of the baseline's time in every form that was measured, beside its share of the
    multiply-accumulates.

    Args:
        entries: of benchmarks on one machine (`BenchmarkReport.to_result_entries`, or those of a results file) against one baseline.
        path: picture to write; its ending decides the format.
        leave_out: names that are not shown.

    Returns:
        The path.

    Raises:
        ValueError: no entry states a ratio to a baseline.
    """
    from matplotlib.figure import Figure

    shown = [entry for entry in entries if entry.cost.speedup and entry.model not in leave_out]
    if not shown:
        raise ValueError("a picture of shares of time needs times that were compared with a baseline, got none.")
    names = list(dict.fromkeys(entry.model for entry in shown))
    forms = list(dict.fromkeys(map(_form, shown)))
    figure = Figure(figsize=(8, 0.36 * len(names) + 2.2), dpi=130, layout="constrained")
    axis = figure.subplots()
    for place, form in enumerate(forms):
        of_form = [entry for entry in shown if _form(entry) == form]
        shares = [1 / entry.cost.speedup for entry in of_form]
        ends = [[1 / bound for bound in reversed(entry.cost.speedup_interval)] for entry in of_form]
        spread = [[abs(share - end[side]) for share, end in zip(shares, ends, strict=True)] for side in (0, 1)]
        rows = [names.index(entry.model) + 0.6 * ((place + 0.5) / len(forms) - 0.5) for entry in of_form]
        label = "time, batch {}, {}, {}".format(*form)
        axis.errorbar(shares, rows, xerr=spread, fmt="o", markersize=3.5, linewidth=1, label=label)
    counted = _shares_of_arithmetic(entries, names)
    axis.plot(
        list(counted.values()),
        [names.index(name) for name in counted],
        "k|",
        markersize=14,
        label="multiply-accumulates",
    )
    axis.set_yticks(range(len(names)), [plain_text(name) for name in names])
    axis.set(xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    axis.set_xlabel(f"share of {plain_text(shown[0].cost.baseline)}, median of paired rounds and interval")
    first = shown[0]
    axis.set_title(
        plain_text(
            f"{first.cost.hardware}, {first.cost.num_threads} threads, torch {first.provenance.versions.get('torch')}"
        ),
        fontsize=9,
    )
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _form(entry: ResultEntry) -> tuple:
    """How it was run: batch size, number type, eager or compiled."""
    return entry.cost.batch_size, entry.cost.dtype, entry.cost.execution


def _shares_of_arithmetic(entries: Sequence[ResultEntry], names: list[str]) -> dict[str, float]:
    """Model -> its share of the baseline's multiply-accumulates, where both are known."""
    gmacs = {entry.model: entry.cost.gmacs for entry in entries if entry.cost.gmacs}
    baselines = {entry.model: entry.cost.baseline for entry in entries if entry.cost.baseline}
    return {
        name: gmacs[name] / gmacs[baselines[name]] for name in names if name in gmacs and baselines.get(name) in gmacs
    }
