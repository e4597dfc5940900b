"""Where the cost of detectors lies, as one bar per way of counting: multiply-accumulates hook-style, as they run, and time."""

import os
from collections.abc import Mapping
from pathlib import Path

from ..chart_text import plain_text
from .benchmark_detector_report import STAGES, DetectorBenchmarkReport, DetectorCounts


_COLOURS = {
    "backbone": "#0072B2",
    "head": "#E69F00",
    "post-processing": "#D55E00",
    "decode": "#999999",
    "preprocess": "#CCCCCC",
}


def plot_detector_costs(
    report: DetectorBenchmarkReport, path: str | os.PathLike, counted: Mapping[str, DetectorCounts] | None = None
) -> Path:
    """Draws the parts of every detector's cost.

    Args:
        report: of `benchmark_detectors`.
        path: picture to write; its ending decides the format.
        counted: name -> counts of further detectors, of which no time was taken.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    rows = []
    for m in report.measurements:
        rows += _rows_of_counts(m.name, m.counts)
        shares = {stage: m.share([stage]).value for stage in m.times_ms}
        took = f"{report.clock} time, {m.milliseconds() / 1e3:.3g} s for {m.seconds:.3g} s of video"
        rows.append((f"{plain_text(m.name)}\n{took}", shares))
    for name, counts in (counted or {}).items():
        rows += _rows_of_counts(name, counts)
    figure = Figure(figsize=(9, 0.62 * len(rows) + 1.7), dpi=130, layout="constrained")
    axis = figure.subplots()
    order = ("backbone", *(stage for stage in STAGES if stage != "backbone"))
    for place, (_, shares) in enumerate(rows):
        left = 0.0
        for part in order:
            width = shares.get(part, 0.0)
            axis.barh(place, width, left=left, height=0.62, color=_COLOURS[part])
            if width > 0.03:
                colour = "white" if part == "backbone" else "black"
                axis.text(left + width / 2, place, f"{width:.1%}", ha="center", va="center", fontsize=8, color=colour)
            left += width
    used = [part for part in order if any(shares.get(part) for _, shares in rows)]
    handles = [axis.barh(0, 0, color=_COLOURS[part], label=part) for part in used]
    axis.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.3, -0.12), ncols=len(used), fontsize=8, frameon=False
    )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="share of the whole")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_title(
        plain_text(f"{report.describe_machine()}; {len(report.measurements[0].per_round())} rounds"), fontsize=9
    )
    axis.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _rows_of_counts(name: str, counts: DetectorCounts):
    ways = (
        ("multiply-accumulates, hook-style count", counts.paper_gmacs, counts.paper_head_gmacs),
        ("multiply-accumulates that run", counts.gmacs, counts.head_gmacs),
    )
    for way, whole, head in ways:
        if whole:
            share = head / whole
            yield f"{plain_text(name)}\n{way}, {whole:.1f} G", {"backbone": 1 - share, "head": share}
