"""The confusion matrix as a picture that can be read: shares per row, counts in the cells, long names cut."""

import os
import textwrap
from pathlib import Path

import numpy as np

from ..chart_text import plain_text


# above this the cells are too small for numbers, above the second for names
_MAX_CLASSES_WITH_COUNTS = 25
_MAX_CLASSES_WITH_NAMES = 60


def plot_confusion(confusion: np.ndarray, labels: list[str], path: str | os.PathLike, title: str = "") -> Path:
    """Draws (K, K) counts, row = right class, coloured by the share of the row.

    Args:
        confusion: (K, K) counts.
        labels: K class names.
        path: picture to write, for example `confusion.png`.
        title: line above the picture.

    Returns:
        The path.
    """
    # the object interface: no global state, no display needed, no backend chosen for the caller
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(labels)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros(confusion.shape), where=totals > 0)
    side = float(np.clip(1.9 + 0.5 * count, 4.5, 16))
    figure = Figure(figsize=(side + 1.6, side + 0.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label("share of the videos of a class (row)")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("right class")
    if title:
        # a title wider than the picture would push the layout apart
        figure.suptitle(textwrap.fill(_cut(plain_text(title), 160), width=int(10 * side)), fontsize=11)
    if count <= _MAX_CLASSES_WITH_NAMES:
        size = 10 if count <= 15 else 9 if count <= 30 else 8
        names = [_cut(plain_text(label), 24) for label in labels]
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=size)
        axes.set_yticks(
            range(count), [f"{n} ({int(t)})" for n, t in zip(names, totals[:, 0], strict=True)], fontsize=size
        )
    if count <= _MAX_CLASSES_WITH_COUNTS:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    return path


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
