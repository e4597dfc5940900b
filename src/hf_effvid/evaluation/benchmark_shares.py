"""What share of the baseline's time others take: against targets, and as a picture beside their share of the arithmetic."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chart_text import plain_text
from .benchmark_report import BenchmarkReport, Measurement


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


def plot_time_shares(
    reports: Sequence[BenchmarkReport], path: str | os.PathLike, leave_out: Sequence[str] = ()
) -> Path:
    """Draws one line per model: its share of the baseline's time in every form, beside its share of the multiply-accumulates.

    Args:
        reports: of the same models with the same baseline, for example in two number types.
        path: picture to write; its ending decides the format.
        leave_out: names that are not shown.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    compared = [m for report in reports for m in report.measurements if time_share(m) and m.name not in leave_out]
    names = list(dict.fromkeys(m.name for m in compared))
    forms = [(report, size) for report in reports for size in sorted({m.batch_size for m in report.measurements})]
    figure = Figure(figsize=(8, 0.32 * len(names) + 1.6), dpi=130, layout="constrained")
    axis = figure.subplots()
    for place, (report, size) in enumerate(forms):
        baseline = report.get(report.baseline, size)
        shown = [m for m in report.measurements if m.name in names and m.batch_size == size and time_share(m)]
        shares = [time_share(m) for m in shown]
        rows = [names.index(m.name) + 0.5 * ((place + 0.5) / len(forms) - 0.5) for m in shown]
        ends = [[s.value - s.low for s in shares], [s.high - s.value for s in shares]]
        label = f"time, batch {size}, {baseline.dtype}, {baseline.execution}"
        axis.errorbar([s.value for s in shares], rows, xerr=ends, fmt="o", markersize=4, linewidth=1, label=label)
        counted = [m for m in shown if m.gmacs and baseline.gmacs] if place == 0 else []
        if counted:
            where = [m.gmacs / baseline.gmacs for m in counted]
            axis.plot(where, [names.index(m.name) for m in counted], "k|", markersize=14, label="multiply-accumulates")
    axis.set_yticks(range(len(names)), [plain_text(name) for name in names])
    axis.set(xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    axis.set_xlabel(f"share of {plain_text(reports[0].baseline)}, median of paired rounds and interval")
    axis.set_title(plain_text(reports[0].describe_machine()), fontsize=9)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
