"""The pictures of a study of token selection: accuracy against cost, the spread of value, and what each class loses.

| picture        | shows                                                            | figure of LITE |
| -------------- | ---------------------------------------------------------------- | -------------- |
| `accuracy`     | accuracy against multiply-accumulates and against milliseconds   | 2              |
| `token_values` | histogram of values and Lorenz curve, easy and hard classes      | 3              |
| `classes`      | what random tokens cost each class, by how good the full model is | 5              |

Figures 4 and 7 (masks over frames) are drawn by `selection_masks`.
"""

import os
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .selection_classes import class_outcomes
from .selection_entries import CLASS_RATIO
from .selection_report import LITE, ORACLES, RANDOM, SelectionReport
from .selection_values import CURVE_POINTS, HISTOGRAM_BINS, null_lorenz


# legible for every kind of colour vision; what matters most is drawn strongest
_STRONG = {RANDOM: ("#000000", "s", "-"), LITE: ("#D55E00", "o", "-")}
_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7B4173", "#637939")
_MARKERS = {"score": "o", "analysis": "x", "merging": "^", "input": "v", "adaptive": "D"}
_LINES = ("-", "--", ":", "-.")
_EASY, _HARD, _NULL = "#0072B2", "#D55E00", "#8C8C8C"


def plot_study(report: SelectionReport, folder: str | os.PathLike) -> list[Path]:
    """Draws all three, as PNG and SVG.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = plot_accuracy(report, folder / "accuracy")
    if any(not one.is_flat for one in report.values):
        files += plot_values(report, folder / "token_values")
    if report.get(RANDOM, CLASS_RATIO) is not None:
        files += plot_classes(report, folder / "classes")
    return files


def plot_accuracy(report: SelectionReport, path: Path) -> list[Path]:
    """Accuracy of every arm against multiply-accumulates, and against milliseconds where they were measured."""
    timed = [r for r in report.results if r.cost.latency_ms is not None]
    panels = [("gmacs", "GMACs per clip")]
    if len(timed) > 1:
        batch = timed[0].cost.batch_size
        panels.append(("latency_ms", f"milliseconds per batch of {batch}" if batch != 1 else "milliseconds per clip"))
    figure, axes = _figure(report, 7.2 * len(panels) + 2.6, 6.0, len(panels))
    styles = _styles(report)
    for axis, (quantity, label) in zip(axes, panels, strict=True):
        for arm in report.arms:
            # from budget to budget, also where a smaller one took longer
            points = [r for ratio in report.keep_ratios if (r := report.get(arm, ratio)) is not None]
            points = [(x, 100 * r.accuracy) for r in points if (x := getattr(r.cost, quantity))]
            if points:
                axis.plot(*np.array(points).T, label=plain_text(arm), **styles[arm])
        full = getattr(report.full.cost, quantity)
        if full:
            axis.plot([full], [100 * report.full.accuracy], "*", color="black", markersize=14, label="all tokens")
        axis.axhline(100 * report.full.accuracy, color=_NULL, linewidth=0.8, zorder=0)
        axis.set_xlabel(label)
    axes[0].set_ylabel("top-1 (%)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    return _save(figure, path)


def plot_values(report: SelectionReport, path: Path) -> list[Path]:
    """Left the values of tokens stretched to [0, 1] in each clip, as the paper has them; right the Lorenz curve before stretching."""
    figure, (left, right) = _figure(report, 11, 4.8, 2)
    groups = _easy_and_hard(report)
    middles = (np.arange(HISTOGRAM_BINS) + 0.5) / HISTOGRAM_BINS
    for name, colour, values in groups:
        left.step(middles, np.mean([v.histogram for v in values], axis=0), where="mid", color=colour, label=name)
        lorenz = np.mean([v.lorenz for v in values if not v.is_flat], axis=0)
        right.plot(np.linspace(0, 1, CURVE_POINTS), lorenz, color=colour, label=name)
    left.set_yscale("log")
    left.set(xlabel="value of a token, stretched to [0, 1] in its clip", ylabel="share of tokens")
    places = np.linspace(0, 1, CURVE_POINTS)
    right.plot(places, null_lorenz(), color=_NULL, linestyle="--", label="null: Gaussian, half are zero")
    zeros = float(np.mean([v.zero_share for v in report.values]))
    if 0 < zeros < 1:
        label = f"null: Gaussian, {zeros:.0%} are zero as here"
        right.plot(places, null_lorenz(zero_share=zeros), color=_NULL, linestyle=":", label=label)
    right.plot([0, 1], [0, 1], color="#CCCCCC", linewidth=0.8, label="all tokens are worth the same")
    right.set(
        xlabel="share of tokens, the least valuable first", ylabel="share of the value", xlim=(0, 1), ylim=(0, 1)
    )
    for axis in (left, right):
        axis.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def plot_classes(report: SelectionReport, path: Path) -> list[Path]:
    """One dot per class: accuracy with all tokens, and what random tokens at half the budget cost."""
    figure, (axis,) = _figure(report, 7, 4.8, 1)
    outcomes = class_outcomes(
        report.labels, report.full.top1, report.get(RANDOM, CLASS_RATIO).top1, report.class_names
    )
    places: dict[tuple[float, float], list[str]] = {}
    for one in outcomes:
        places.setdefault((100 * one.full, 100 * one.loss), []).append(plain_text(one.name))
    axis.plot(*np.array(list(places)).T, "o", color=_EASY, markersize=5)
    middle = np.mean([x for x, _ in places])
    for (x, y), names in places.items() if len(outcomes) <= 20 else ():
        side = {"xytext": (-6, 4), "ha": "right"} if x > middle else {"xytext": (6, 4), "ha": "left"}
        axis.annotate(", ".join(names), (x, y), fontsize=7, textcoords="offset points", color="#555555", **side)
    axis.axhline(0, color=_NULL, linewidth=0.8)
    axis.set(
        xlabel="top-1 of the class with all tokens (%)", ylabel=f"points lost, random tokens, P = {CLASS_RATIO:g}"
    )
    return _save(figure, path)


def _styles(report: SelectionReport) -> dict[str, dict]:
    """Arm -> how its line is drawn; arms that matter most are the same in every study."""
    styles, count = {}, 0
    for arm in report.arms:
        kind = next(r.kind for r in report.results if r.arm == arm)
        if arm in _STRONG:
            colour, marker, line = _STRONG[arm]
            styles[arm] = {"color": colour, "marker": marker, "linestyle": line, "linewidth": 2.4, "zorder": 5}
            continue
        colour, line = _COLOURS[count % len(_COLOURS)], _LINES[count // len(_COLOURS) % len(_LINES)]
        styles[arm] = {"color": colour, "marker": _MARKERS.get(kind, "."), "linestyle": line, "linewidth": 1.2}
        styles[arm] |= {"markersize": 4, "alpha": 0.55 if arm in ORACLES else 0.9}
        count += 1
    return styles


def _easy_and_hard(report: SelectionReport) -> list[tuple[str, str, list]]:
    """The values of the videos of the easy half of the classes, and of the hard one; all together with fewer than two classes."""
    outcomes = class_outcomes(report.labels, report.full.top1, report.full.top1, report.class_names)
    order = sorted(outcomes, key=lambda one: -one.full)
    middle = len(order) // 2
    groups = []
    for name, colour, classes in (
        ("easy", _EASY, order[:middle]),
        ("hard", _HARD, order[-middle:] if middle else order),
    ):
        numbers = {report.class_names.index(one.name) for one in classes}
        labels = list(report.labels) * report.num_models
        values = [value for value, label in zip(report.values, labels, strict=True) if label in numbers]
        if any(not value.is_flat for value in values):
            groups.append((f"{name} classes", colour, values))
    return groups


def _figure(report: SelectionReport, width: float, height: float, columns: int):
    # the object interface: no global state, no display needed, no backend chosen for the caller
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(True, color="#E5E5E5", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    seeds = f", mean of {report.num_models} training seeds" if report.num_models > 1 else ""
    title = f"{report.model_name} on {report.dataset_name} ({report.split}), n = {report.n}{seeds}"
    figure.suptitle(plain_text(title), fontsize=11, x=0.01, ha="left")
    return figure, axes


def _save(figure, path: Path) -> list[Path]:
    import matplotlib

    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    figure.savefig(png)
    # text stays text, and equal charts are equal files
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_effvid"}):
        figure.savefig(svg, metadata={"Date": None})
    return [png, svg]
