"""Several ways to drop blocks side by side: a metric against the number of dropped blocks."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .results import Metric


_FIRST, _REFERENCE = "#D55E00", "#000000"
_OTHERS = (("#0072B2", "s", "--"), ("#009E73", "D", ":"), ("#7F7F7F", "v", "-."), ("#CC79A7", "^", "--"))


def plot_block_drop_arms(
    curves: Mapping[str, Mapping[int, Metric]], path: str | os.PathLike, metric: str, num_blocks: int, title: str = ""
) -> Path:
    """Draws one line per arm that starts at the uncompressed model, the first one in colour and with its interval.

    Args:
        curves: arm -> number of dropped blocks -> the metric, a fraction. Arms that hold 0 dropped blocks are level lines; the first
            of them is the uncompressed model.
        path: picture to write; its ending decides the format.
        metric: name on the axis.
        num_blocks: of the uncompressed model.
        title: heading; shown as text, never as markup.

    Returns:
        The path.

    Raises:
        ValueError: no arm holds 0 dropped blocks.
    """
    from matplotlib.figure import Figure

    levels = {name: curve[0] for name, curve in curves.items() if 0 in curve}
    if not levels:
        raise ValueError("expected the uncompressed model among the arms: one that holds 0 dropped blocks.")
    start = next(iter(levels.values()))
    figure = Figure(figsize=(8, 4.8), dpi=130, layout="constrained")
    axis = figure.subplots()
    for (name, level), line in zip(levels.items(), ("-", "--", "-.", ":"), strict=False):
        label = plain_text(f"all blocks, {name}")
        axis.axhline(100 * level.value, color=_REFERENCE, linewidth=1, linestyle=line, label=label)
    styles = ((_FIRST, "o", "-"), *_OTHERS)
    for place, (name, curve) in enumerate(item for item in curves.items() if item[0] not in levels):
        colour, marker, line = styles[min(place, len(styles) - 1)]
        shown = {0: start} | dict(sorted(curve.items()))
        values = [100 * point.value for point in shown.values()]
        axis.plot(list(shown), values, color=colour, marker=marker, linestyle=line, label=plain_text(name))
        if place == 0 and all(point.interval for point in shown.values()):
            low, high = 100 * np.array([point.interval for point in shown.values()]).T
            axis.fill_between(list(shown), low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel=f"dropped blocks, of {num_blocks}", title=plain_text(title))
    axis.set_ylabel(plain_text(f"{metric} (%), band: 95 % interval over videos"))
    axis.set_xticks(range(max(max(curve) for curve in curves.values()) + 1))
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
