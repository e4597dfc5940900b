"""Rivals side by side: accuracy against multiply-accumulates and against milliseconds, a line for each kind."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..chart_text import plain_text
from .results import ResultEntry


_COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#8C8C8C", "#CC79A7")


def plot_rivals(
    whole: ResultEntry, families: Mapping[str, Sequence[ResultEntry]], path: str | os.PathLike, title: str = ""
) -> Path:
    """Draws both sides.

    Args:
        whole: the model that all of them started from; its first metric, with an interval, is what is shown of all.
        families: name -> results with `gmacs` and `latency_ms`, connected in this order.
        path: picture to write; its ending decides the format.
        title: heading.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    metric = whole.metrics[0]
    sides = (("gmacs", "GMACs per clip"), ("latency_ms", "milliseconds per clip (median, batch 1)"))
    for axis, (field, label) in zip(axes, sides, strict=True):
        axis.plot(getattr(whole.cost, field), 100 * metric.value, "k*", markersize=11, label=plain_text(whole.variant))
        for (family, entries), colour in zip(families.items(), _COLOURS, strict=False):
            found = [entry.metrics[0] for entry in entries]
            spread = [[100 * abs(m.value - m.interval[side]) for m in found] for side in (0, 1)]
            axis.errorbar(
                [getattr(entry.cost, field) for entry in entries], [100 * m.value for m in found], yerr=spread, color=colour,
                marker="o", linewidth=1.2, capsize=3, label=plain_text(family),
            )  # fmt: skip
        axis.set_xlabel(label)
        axis.grid(True, color="#E5E5E5", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"{plain_text(metric.name)} (%), n = {metric.n}, {plain_text(metric.interval_method)}")
    axes[1].legend(fontsize=8)
    figure.suptitle(plain_text(title), fontsize=10)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
