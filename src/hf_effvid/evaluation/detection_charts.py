"""The pictures of an error analysis (`detection_errors`): what false positives are, what they cost, and what is missed.

| picture           | shows                                                                                    |
| ----------------- | ---------------------------------------------------------------------------------------- |
| `false_positives` | kinds among the best G, 2 G, ... predictions of every class; mAP without each kind       |
| `misses`          | share of annotations that nothing finds, by coverage, length and number of instances     |
| `sensitivity`     | mAP on the annotations of each of these bins alone, and on all                           |
"""

import os
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .detection_errors import KINDS, BinResult, DetectionErrors


# told apart also without seeing red and green; what is right is the darkest
_COLOURS = ("#0B3C5D", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#BBBBBB")
_ALL = "#8C8C8C"
_SHOWN_STEPS = 10


def plot_errors(errors: DetectionErrors, folder: str | os.PathLike) -> list[Path]:
    """Draw all three, as PNG and SVG; averages over the thresholds of the analysis.

    Returns:
        The files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = plot_false_positives(errors, folder / "false_positives")
    files += _plot_bins(errors, folder / "misses", "missed", "share of annotations missed (%)")
    return files + _plot_bins(errors, folder / "sensitivity", "mAP", _precision_name(errors) + " (%)")


def plot_false_positives(errors: DetectionErrors, path: Path) -> list[Path]:
    """Left the kinds among predictions of falling score, right what each kind costs."""
    figure, (left, right) = _figure(errors, 11.5, 4.8, (3, 2))
    profile = errors.profile(_SHOWN_STEPS).mean(1)
    profile = profile[: np.flatnonzero(np.isfinite(profile[:, 0])).max(initial=0) + 1]
    places, bottom = np.arange(len(profile)), np.zeros(len(profile))
    for number, (kind, colour) in enumerate(zip(KINDS, _COLOURS, strict=True)):
        heights = 100 * np.nan_to_num(profile[:, number])
        left.bar(places, heights, bottom=bottom, color=colour, width=0.85, label=kind)
        bottom += heights
    left.set_xticks(places, [f"{step + 1} G" if step else "G" for step in places])
    left.set(xlabel="best predictions of a class with G annotations, in steps of G", ylabel="share of them (%)")
    left.set_ylim(0, 100)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, fontsize=8, frameon=False)
    gains = 100 * errors.gains.mean(0)
    places = np.arange(len(gains))[::-1]
    right.barh(places, gains, color=_COLOURS[1:])
    for place, gain in zip(places, gains, strict=True):
        right.annotate(f"{gain:+.1f}", (max(gain, 0), place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=9)  # fmt: skip
    right.set_yticks(places, KINDS[1:])
    right.set_xlim(0, max(1.25 * gains.max(initial=0), 1))
    right.set_xlabel(f"{_precision_name(errors)} rises without them (points)")
    return _save(figure, path)


def _plot_bins(errors: DetectionErrors, path: Path, quantity: str, label: str) -> list[Path]:
    results = errors.by_characteristic
    figure, axes = _figure(errors, 3.9 * max(1, len(results)), 3.9, (1,) * max(1, len(results)))
    total = 100 * (errors.missed if quantity == "missed" else errors.mAP).mean()
    for axis, (name, bins) in zip(axes, results.items(), strict=False):
        values = [100 * getattr(one, quantity).mean() if one.num_annotations else 0.0 for one in bins]
        axis.bar(range(len(bins)), values, color=_COLOURS[0], width=0.7)
        for place, (one, value) in enumerate(zip(bins, values, strict=True)):
            text = f"{value:.1f}" if one.num_annotations else "none"
            axis.annotate(text, (place, value), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85})  # fmt: skip
        axis.axhline(total, color=_ALL, linewidth=1, linestyle="--", zorder=0)
        axis.set_xticks(range(len(bins)), _names(bins), fontsize=8)
        axis.set_ylim(0, max(1.15 * max([*values, total]), 1))
        units = {"coverage": "coverage of the video", "length": "length (s)", "instances": "annotations in the video"}
        axis.set_xlabel(units[name])
    axes[0].set_ylabel(f"{label}; dashed: all", fontsize=9)
    return _save(figure, path)


def _names(bins: list[BinResult]) -> list[str]:
    """What a bin holds and how many annotations."""
    lower, names = None, []
    for one in bins:
        text = f"≤ {one.upper:g}" if np.isfinite(one.upper) else f"> {lower:g}"
        names.append(f"{one.name}\n{text}\nn {one.num_annotations}")
        lower = one.upper
    return names


def _precision_name(errors: DetectionErrors) -> str:
    return "normalised mAP" if errors.normalize else "mAP"


def _figure(errors: DetectionErrors, width: float, height: float, ratios: tuple[float, ...]):
    # the object interface: no global state, no display needed, no backend chosen for the caller
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    report = errors.report
    tious = ", ".join(f"{tiou:g}" for tiou in errors.tious) if len(errors.tious) < 4 else f"{errors.tious[0]:g} to {errors.tious[-1]:g}"  # fmt: skip
    title = f"{report.model_name} on {report.dataset_name} ({report.split}), tIoU {tious}, {int(errors.counted.sum())} predictions"
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
