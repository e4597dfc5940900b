"""Accuracy against milliseconds: which models are worth their time, in one picture for a model card."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chart_text import plain_text


# legible for every kind of colour vision, in print and on a dark page
_ON_FRONT, _BEHIND, _BUDGET = "#0072B2", "#8C8C8C", "#D55E00"
# where a name may stand, seen from its point: offset in points and alignment, the first that is free is taken
_LABEL_PLACES = (
    (8, 9, "left"),
    (8, -10, "left"),
    (-8, 9, "right"),
    (-8, -10, "right"),
    (0, 17, "center"),
    (0, -18, "center"),
    (12, 22, "left"),
    (12, -24, "left"),
)


@dataclass(frozen=True)
class ParetoPoint:
    """One model of the chart.

    Attributes:
        name: label.
        milliseconds: time per clip.
        accuracy: fraction in [0, 1].
        interval: `(low, high)` of the accuracy, drawn as a bar; None without.
    """

    name: str
    milliseconds: float
    accuracy: float
    interval: tuple[float, float] | None = None


def pareto_front(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """The points that no other beats: none is at least as fast and at least as accurate, and better in one of the two.

    Returns:
        Them in order of time; of points equal in both, all.
    """
    return sorted(
        (p for p in points if not any(_beats(other, p) for other in points)),
        key=lambda p: (p.milliseconds, p.accuracy, p.name),
    )


def _beats(a: ParetoPoint, b: ParetoPoint) -> bool:
    as_good = a.milliseconds <= b.milliseconds and a.accuracy >= b.accuracy
    return as_good and (a.milliseconds < b.milliseconds or a.accuracy > b.accuracy)


def plot_pareto(
    points: Sequence[ParetoPoint],
    path: str | os.PathLike,
    *,
    title: str = "",
    time_label: str = "milliseconds per clip",
    accuracy_label: str = "accuracy",
    footnote: str = "",
    budget_ms: float | None = None,
) -> tuple[Path, Path]:
    """Draws the chart, as a picture and as vectors.

    Args:
        points: the models.
        path: where to; its suffix is replaced by `.png` and by `.svg`.
        title: line above.
        time_label, accuracy_label: what the axes show.
        footnote: small print below: machine, number of videos, number of rounds.
        budget_ms: draws a line at so many milliseconds.

    Returns:
        `(png, svg)`.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("a chart of accuracy against time needs at least one model with both.")
    # the object interface: no global state, no display needed, no backend chosen for the caller
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _set_up_axes(axes, points, budget_ms)
    _draw_points(axes, points)
    if budget_ms is not None:
        axes.axvline(budget_ms, color=_BUDGET, linestyle=":", linewidth=1.5)
        axes.annotate(
            f"{budget_ms:g} ms", (budget_ms, 0.01), xycoords=("data", "axes fraction"), xytext=(4, 2),
            textcoords="offset points", color=_BUDGET, fontsize=9,
        )  # fmt: skip
    axes.set_xlabel(time_label)
    axes.set_ylabel(f"{accuracy_label} (%)")
    if title:
        axes.set_title(plain_text(title), fontsize=12, loc="left")
    if footnote:
        figure.supxlabel(plain_text(footnote), fontsize=7.5, color="#555555", x=0.01, ha="left")
    _draw_labels(figure, axes, points, budget_ms)
    png, svg = Path(path).with_suffix(".png"), Path(path).with_suffix(".svg")
    png.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png)
    # text stays text, and equal charts are equal files
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_effvid"}):
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


def _set_up_axes(axes, points, budget_ms) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    times = [p.milliseconds for p in points] + ([budget_ms] if budget_ms is not None else [])
    if max(times) > 4 * min(times):  # otherwise the fast ones stick to the left edge
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(min(times) / 1.35, max(times) * 1.6)
    else:
        axes.set_xlim(0, max(times) * 1.25)
    ends = [100 * end for p in points for end in (p.accuracy, *(p.interval or ()))]
    margin = max(1.0, 0.14 * (max(ends) - min(ends)))
    axes.set_ylim(max(min(ends) - margin, -1), min(max(ends) + margin, 101))
    axes.grid(True, color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_points(axes, points) -> None:
    front = pareto_front(points)
    # a staircase: between two models nothing is to be had but the slower one's time at the faster one's accuracy
    axes.step(
        [p.milliseconds for p in front], [100 * p.accuracy for p in front], where="post", color=_ON_FRONT, alpha=0.5,
        linewidth=1.5, zorder=2,
    )  # fmt: skip
    for point in points:
        colour = _ON_FRONT if point in front else _BEHIND
        spread = None
        if point.interval is not None:
            low, high = point.interval
            spread = [[100 * (point.accuracy - low)], [100 * (high - point.accuracy)]]
        axes.errorbar(
            point.milliseconds, 100 * point.accuracy, yerr=spread, color=colour, marker="o", markersize=7, elinewidth=1,
            capsize=3, zorder=3,
        )  # fmt: skip


def _draw_labels(figure, axes, points, budget_ms) -> None:
    """Each name next to its point, on the side where it covers least of what is there already."""
    figure.draw_without_rendering()  # from here on the axes stay where they are, so that boxes can be compared
    renderer = figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    front = pareto_front(points)
    taken = [_box_around(axes, point) for point in points] + _line_boxes(axes, front, budget_ms)
    for point in points:
        best = None
        for x, y, align in _LABEL_PLACES:
            text = axes.annotate(
                plain_text(point.name), (point.milliseconds, 100 * point.accuracy), xytext=(x, y),
                textcoords="offset points", fontsize=9, ha=align, va="center", zorder=4,
                color="#222222" if point in front else "#666666",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            hidden = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, inside)
            if best is None or hidden < best[0]:
                if best is not None:
                    best[1].remove()
                best = (hidden, text, box)
            else:
                text.remove()
        taken.append(best[2])


def _box_around(axes, point):
    from matplotlib.transforms import Bbox

    low, high = point.interval or (point.accuracy, point.accuracy)
    x, bottom = axes.transData.transform((point.milliseconds, 100 * low))
    top = axes.transData.transform((point.milliseconds, 100 * high))[1]
    return Bbox([[x - 9, bottom - 9], [x + 9, top + 9]])


def _line_boxes(axes, front, budget_ms) -> list:
    """Thin boxes along the staircase and the budget, so that no name is crossed out by them."""
    from matplotlib.transforms import Bbox

    bottom, top = axes.get_ylim()
    lines = [((budget_ms, bottom), (budget_ms, top))] if budget_ms is not None else []
    for before, after in zip(front, front[1:], strict=False):
        corner = (after.milliseconds, 100 * before.accuracy)
        lines += [((before.milliseconds, corner[1]), corner), (corner, (corner[0], 100 * after.accuracy))]
    boxes = []
    for line in lines:
        (x0, y0), (x1, y1) = axes.transData.transform(line)
        boxes.append(Bbox([[x0 - 3, y0 - 3], [x1 + 3, y1 + 3]]))
    return boxes


def _overlap(a, b) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)
