"""Variants of one model side by side: every seed as a dot, their mean, and how far the test clips alone could move it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..chart_text import plain_text
from .results import Metric


_FIRST, _OTHERS, _CHANCE = "#0072B2", "#4D4D4D", "#D55E00"


@dataclass(frozen=True)
class VariantRow:
    """One line of the chart.

    Attributes:
        name: label.
        seeds: accuracy of every seed, fractions in [0, 1].
        mean: their mean, with its interval over videos.
    """

    name: str
    seeds: Sequence[float]
    mean: Metric


def plot_variants(
    rows: Sequence[VariantRow], path: str | os.PathLike, title: str = "", chance: float | None = None
) -> Path:
    """Draws one line per variant, the first one in colour: it is what the others are compared with.

    Args:
        rows: the variants, from top to bottom.
        path: picture to write; its ending decides the format.
        title: heading; shown as text, never as markup.
        chance: accuracy of guessing, drawn as a dashed line.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), dpi=130, layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        colour = _FIRST if place == 0 else _OTHERS
        if row.mean.interval is not None:
            axis.plot(row.mean.interval, [place] * 2, color=colour, linewidth=7, alpha=0.3, solid_capstyle="butt")
        axis.plot([row.mean.value], [place], "|", color=colour, markersize=17, markeredgewidth=2)
        axis.plot(row.seeds, [place] * len(row.seeds), "o", color=colour, markersize=4)
    if chance is not None:
        axis.axvline(chance, color=_CHANCE, linestyle="--", linewidth=1)
        axis.text(chance, -0.62, " chance", color=_CHANCE, fontsize=8, ha="left", va="center")
    axis.set_yticks(range(len(rows)), [plain_text(row.name) for row in rows])
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.8), title=plain_text(title))
    axis.set_xlabel("top-1: seeds (dots), their mean (stroke), its 95 % interval over videos (bar)")
    axis.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
