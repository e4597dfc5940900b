"""What every dropped block cost and gave: a table, and a picture of metric and milliseconds against dropped blocks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chart_text import plain_text


_METRIC, _TIME, _BEFORE = "#0072B2", "#D55E00", "#8C8C8C"


@dataclass(frozen=True)
class StepRow:
    """One model on the way.

    Attributes:
        num_dropped: blocks that it lacks.
        name: which ones this step took, in words.
        value: metric on the held-out videos, a fraction.
        interval: around it.
        before: the same before recovery; None for the uncompressed model.
        difference: to the uncompressed model; None for that itself.
        difference_interval: around it.
        n: held-out videos.
        parameters, gmacs: of the model; None where not counted.
        milliseconds: of one input; None where not timed.
        speedup: the uncompressed model's time over this one's, in turns.
        speedup_interval: around it.
    """

    num_dropped: int
    name: str
    value: float
    interval: tuple[float, float] | None = None
    before: float | None = None
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    n: int | None = None
    parameters: int | None = None
    gmacs: float | None = None
    milliseconds: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None


def markdown_table(rows: Sequence[StepRow], metric: str) -> str:
    """One line per model, the uncompressed one first; percentages of the metric, points of differences."""
    head = [
        "dropped",
        "block",
        f"{metric} (%)",
        "before recovery",
        "difference",
        "parameters",
        "GMACs",
        "ms",
        "times faster",
    ]
    lines = [head, [":---", ":---", *["---:"] * (len(head) - 2)]]
    for row in rows:
        lines.append(
            [
                str(row.num_dropped),
                row.name,
                f"{100 * row.value:.1f}{_range(row.interval, 100, '.1f')}",
                "" if row.before is None else f"{100 * row.before:.1f}",
                "" if row.difference is None else f"{100 * row.difference:+.1f}{_range(row.difference_interval, 100, '+.1f')}",
                "" if row.parameters is None else _share(f"{row.parameters / 1e6:.3g} M", row.parameters, rows[0].parameters),
                "" if row.gmacs is None else _share(f"{row.gmacs:.3g}", row.gmacs, rows[0].gmacs),
                "" if row.milliseconds is None else f"{row.milliseconds:.3g}",
                "" if row.speedup is None else f"{row.speedup:.2f}{_range(row.speedup_interval, 1, '.2f')}",
            ]
        )  # fmt: skip
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    filled = [column for column in range(len(head)) if any(line[column] for line in lines[2:])]
    return "\n".join("| " + " | ".join(line[column] for column in filled) + " |" for line in lines)


def plot_block_drop(rows: Sequence[StepRow], metric: str, path: str | os.PathLike, title: str = "") -> list[Path]:
    """Draws the metric with its interval, before and after recovery, and below it the times where they were measured.

    Args:
        rows: the models, the uncompressed one first.
        metric: name of the metric.
        path: PNG and SVG are written beside each other under this name.
        title: heading; shown as text, never as markup.

    Returns:
        The files.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [row for row in rows if row.milliseconds is not None]
    figure = Figure(figsize=(7, 6.4 if timed else 4), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if timed else 1, 1, squeeze=False, sharex=True)[:, 0]
    _draw_metric(axes[0], rows, metric)
    if timed:
        _draw_times(axes[1], timed, rows)
    places = range(len(rows))
    axes[-1].set_xticks(places, [_tick(row) for row in rows], fontsize=8)
    axes[-1].set_xlabel("blocks dropped (below: which one this step took)")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(plain_text(title), fontsize=10, x=0.01, ha="left")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    figure.savefig(png)
    # text stays text, and equal charts are equal files
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_effvid"}):
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]


def _draw_metric(axis, rows, metric):
    places, values = range(len(rows)), [100 * row.value for row in rows]
    low, high = (
        [100 * abs(row.value - (row.interval or (row.value, row.value))[side]) for row in rows] for side in (0, 1)
    )
    axis.axhline(values[0], color=_BEFORE, linewidth=1, linestyle="--", zorder=0)
    axis.errorbar(
        places, values, yerr=[low, high], color=_METRIC, marker="o", capsize=3, label="after recovery (95 % interval)"
    )
    before = [(place, 100 * row.before) for place, row in enumerate(rows) if row.before is not None]
    if before:
        axis.plot(*zip(*before, strict=True), "x", color=_BEFORE, label="before recovery")
    for place, value in zip(places, values, strict=True):
        axis.annotate(f"{value:.1f}", (place, value), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axis.set_ylabel(f"{plain_text(metric)} on held-out videos (%)")
    axis.legend(fontsize=8, frameon=False)


def _draw_times(axis, timed, rows):
    places = [rows.index(row) for row in timed]
    axis.bar(places, [row.milliseconds for row in timed], color=_TIME, width=0.55)
    for place, row in zip(places, timed, strict=True):
        text = f"{row.milliseconds:.3g}" + (f"\n{row.speedup:.2f}x" if row.speedup is not None else "")
        axis.annotate(
            text,
            (place, row.milliseconds),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    axis.set_ylim(0, 1.25 * max(row.milliseconds for row in timed))
    axis.set_ylabel("milliseconds of one input;\ntimes faster, in turns")


def _tick(row: StepRow) -> str:
    return f"{row.num_dropped}\n{plain_text(row.name)}"


def _share(text: str, value: float, whole: float | None) -> str:
    return f"{text} ({100 * value / whole:.1f} %)" if whole else text


def _range(interval, factor: float, form: str) -> str:
    return "" if interval is None else f" [{factor * interval[0]:{form}}, {factor * interval[1]:{form}}]"
