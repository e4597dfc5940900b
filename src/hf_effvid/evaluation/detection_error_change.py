"""What goes wrong in a detector before and after something was done to it: two error analyses in one picture."""

import os
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .detection_errors import KINDS, DetectionErrors


_BEFORE, _AFTER = "#8C8C8C", "#0072B2"
_WIDTH = 0.4


def plot_error_change(
    before: DetectionErrors, after: DetectionErrors, path: str | os.PathLike, title: str = ""
) -> list[Path]:
    """Draws shares of the kinds of predictions, and shares of annotations that are missed, before and after.

    Args:
        before, after: analyses on the same videos at the same thresholds; averages over these are drawn.
        path: PNG and SVG are written beside each other under this name.
        title: heading; shown as text, never as markup.

    Returns:
        The files.

    Raises:
        ValueError: the two are of other thresholds or annotations.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if before.tious != after.tious or len(before.report.data.truth) != len(after.report.data.truth):
        raise ValueError("error analyses are compared on the same videos and thresholds; these differ.")
    characteristics = [name for name in before.by_characteristic if name in after.by_characteristic]
    count = 1 + len(characteristics)
    figure = Figure(figsize=(5 + 3.2 * len(characteristics), 4.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False, width_ratios=[1.6, *[1] * len(characteristics)])[0]
    _bars(axes[0], KINDS, before.shares.mean(0), after.shares.mean(0), "share of the predictions that count (%)")
    axes[0].tick_params(axis="x", rotation=30)
    axes[0].legend(fontsize=8, frameon=False)
    for axis, name in zip(axes[1:], characteristics, strict=True):
        bins = [one for one in before.by_characteristic[name] if one.num_annotations]
        names = [f"{one.name}\nn {one.num_annotations}" for one in bins]
        missed = [
            [one.missed.mean() for one in side.by_characteristic[name] if one.num_annotations]
            for side in (before, after)
        ]
        _bars(axis, names, *missed, "annotations missed (%)")
        axis.set_xlabel(name)
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


def _bars(axis, names, before, after, label):
    places = np.arange(len(names))
    for offset, values, colour, name in ((-0.5, before, _BEFORE, "before"), (0.5, after, _AFTER, "after")):
        heights = 100 * np.nan_to_num(np.asarray(values, dtype=float))
        axis.bar(places + offset * _WIDTH, heights, width=_WIDTH, color=colour, label=name)
        for place, height in zip(places, heights, strict=True):
            axis.annotate(
                f"{height:.1f}",
                (place + offset * _WIDTH, height),
                xytext=(0, 1),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
    axis.set_xticks(places, names, fontsize=8)
    axis.set_xlim(-0.8, max(len(names), 3) - 0.2)  # one bar alone is not as wide as the picture
    axis.set_ylabel(label, fontsize=9)
