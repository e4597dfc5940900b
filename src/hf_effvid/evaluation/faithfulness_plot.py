"""Deletion and insertion curves as a picture."""

import os
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .faithfulness_report import DELETION, INSERTION
from .saliency import CENTRE, GRAD_CAM, PRODUCT, RANDOM, SPATIAL, TEMPORAL


# legible for every kind of colour vision; baselines are grey or dashed
_STYLES = {
    SPATIAL: {"color": "#0072B2"},
    TEMPORAL: {"color": "#D55E00"},
    PRODUCT: {"color": "#009E73"},
    GRAD_CAM: {"color": "#CC79A7", "linestyle": "--"},
    CENTRE: {"color": "#555555", "linestyle": "-."},
    RANDOM: {"color": "#999999", "linestyle": ":"},
}


def plot_curves(report, path: str | os.PathLike) -> Path:
    """Draws both kinds of curves of a `FaithfulnessReport`, means over the videos with the standard error as a band.

    Args:
        report: the report.
        path: picture to write; its ending decides the format.

    Returns:
        The path.
    """
    # the object interface: no global state, no display needed, no backend chosen for the caller
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    kinds = (
        (INSERTION, 1, "shown", "insertion (higher is better)"),
        (DELETION, 0, "hidden", "deletion (lower is better)"),
    )
    for axis, (kind, row, verb, name) in zip(figure.subplots(1, 2, sharey=True), kinds, strict=True):
        for method in report.methods:
            _draw(axis, report, method, kind, row)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel(f"share of cells {verb}, the most important first")
        axis.grid(True, color="#E5E5E5", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, 1)
        axis.legend(fontsize=8, frameon=False, title="area under the curve", title_fontsize=8, alignment="left")
    figure.axes[0].set_ylabel("probability of the predicted class")
    title = f"{report.model_name} on {report.dataset_name} ({report.split}), n = {report.n}, hidden cells: {report.protocol['fill']}"
    figure.suptitle(plain_text(title), fontsize=11, x=0.01, ha="left")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw(axis, report, method, kind, row) -> None:
    curves = report.curves[method][:, row]
    mean, error = curves.mean(0), curves.std(0) / np.sqrt(len(curves))
    shares = np.linspace(0, 1, curves.shape[1])
    style = _STYLES.get(method, {"color": "black"})
    axis.plot(shares, mean, linewidth=1.8, label=f"{report.area(method, kind).value:.3f}  {method}", **style)
    axis.fill_between(shares, mean - error, mean + error, color=style["color"], alpha=0.12, linewidth=0)
