"""Explanations as pictures: a contact sheet of frames, maps and weights, and a sheet of the gate maps of one block."""

import textwrap
from pathlib import Path

import numpy as np

from ..chart_text import plain_text
from .heat import HEAT_COLOURS, enlarged, lay_over, scale_of, step_of_frame


_MAX_COLUMNS = 8
# legible for every kind of colour vision, in print and on a dark page
_SPATIAL, _TEMPORAL = "#0072B2", "#D55E00"


def plot_contact_sheet(path, frames, explanation, *, title="", seconds=None):
    """Draws the frames, the same frames with each modulator over them, the weight of each step in time, and the gates.

    Args:
        path: picture to write; its ending decides the format.
        frames: (T, 3, H, W) uint8, as the model saw them; of more than 8 an even choice is shown.
        explanation: the `ClipExplanation` of that clip.
        title: heading; shown as text, never as markup.
        seconds: T times at which the frames are shown, None where nothing is known.

    Returns:
        The path.
    """
    maps = explanation.relative_maps()
    scale = scale_of(maps.values())
    columns = _columns(len(frames))
    rows = {"frames": frames.permute(0, 2, 3, 1).numpy(), **{n: lay_over(frames, m, scale) for n, m in maps.items()}}
    height, width = (1.3 * side / max(frames.shape[-2:]) for side in frames.shape[-2:])
    figure = _figure(width * len(columns) + 2.1, height * len(rows) + 2.5, title)
    pictures, charts = figure.subfigures(2, 1, height_ratios=[height * len(rows) + 0.3, 1.9])
    axes = pictures.subplots(len(rows), 1, squeeze=False)[:, 0]
    for (name, images), axis in zip(rows.items(), axes, strict=True):
        axis.imshow(_strip(images[columns], fill=255), interpolation="nearest")
        _label_row(axis, name.replace(" ", "\n"), size=9)
    _label_columns(axes[0], columns, frames.shape[-1], seconds)
    _colour_bar(pictures, axes, scale)
    _draw_charts(charts, explanation)
    return _save(figure, path)


def plot_gates(path, frames, explanation, *, title="", seconds=None):
    """Draws the gates of the explained block at every site: one row per branch and focal level, one scale for all.

    Args:
        path, frames, explanation, title, seconds: as in `plot_contact_sheet`.

    Returns:
        The path.
    """
    gates = explanation.gates[explanation.block]
    branches = {"spatial": gates.spatial, "temporal": gates.temporal}
    levels = {
        f"{branch}\n{name}": enlarged(of_branch[..., level], frames.shape[-2:]).numpy()
        for branch, of_branch in branches.items()
        if of_branch is not None
        for level, name in enumerate(level_names(of_branch.shape[-1]))
    }
    largest = max(max(np.abs(one).max() for one in levels.values()), 1e-12)
    columns = _columns(len(frames))
    steps = np.array(step_of_frame(len(frames), len(explanation.spatial)))[columns]
    height, width = (1.1 * side / max(frames.shape[-2:]) for side in frames.shape[-2:])
    figure = _figure(width * len(columns) + 2.1, height * (len(levels) + 1) + 0.8, title)
    first, *others = axes = figure.subplots(len(levels) + 1, 1)
    first.imshow(_strip(frames.permute(0, 2, 3, 1).numpy()[columns], fill=255), interpolation="nearest")
    for axis, of_level in zip(others, levels.values(), strict=True):
        strip = _strip(of_level[steps], fill=np.nan)
        image = axis.imshow(strip, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    for axis, name in zip(axes, ["frames", *levels], strict=True):
        _label_row(axis, name, size=8)
    _label_columns(first, columns, frames.shape[-1], seconds)
    figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01).set_label("gate", fontsize=8)
    return _save(figure, path)


def level_names(count):
    """Names of the gates of a block: the focal levels from near to far, then the global context."""
    return [f"level {level + 1}" for level in range(count - 1)] + ["global"]


def _draw_charts(figure, explanation):
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    weights = explanation.temporal_weight
    if weights is None:
        left.axis("off")
        left.text(0, 0.5, "this model has no temporal branch", fontsize=8, va="center")
    else:
        left.bar(range(1, len(weights) + 1), weights, color=_TEMPORAL)
        left.axhline(1 / len(weights), color="#555555", linestyle=":", linewidth=1)
        left.set_title("share of each step in the temporal modulator (dotted: equal shares)", fontsize=8, loc="left")
        left.set_xlabel("step in time", fontsize=8)
    _draw_gate_bars(right, [gates.means() for gates in explanation.gates])
    for axis in (left, right):
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)


def _draw_gate_bars(axis, blocks):
    """Mean size of every gate, block by block: light for the nearest level, dark for the global context."""
    count = len(blocks[0]["spatial"]["mean_abs"])
    width = 0.8 / (2 * count)
    for branch, colour, first in (("spatial", _SPATIAL, 0), ("temporal", _TEMPORAL, count)):
        for level, name in enumerate(level_names(count)):
            shown = [(i, b[branch]["mean_abs"][level]) for i, b in enumerate(blocks) if _has(b, branch, level)]
            axis.bar(
                [i - 0.4 + (first + level + 0.5) * width for i, _ in shown], [value for _, value in shown], width,
                color=colour, alpha=0.35 + 0.65 * level / max(count - 1, 1), label=f"{branch}, {name}" if shown else None,
            )  # fmt: skip
    axis.set_title("mean size of the gates", fontsize=8, loc="left")
    axis.set_xlabel("block", fontsize=8)
    axis.set_xticks(range(len(blocks)), [str(index) for index in range(len(blocks))])
    axis.legend(fontsize=6, ncols=2, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _has(block, branch, level):
    return block[branch] is not None and level < len(block[branch]["mean_abs"])


def _columns(num_frames):
    """Which frames are shown."""
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, _MAX_COLUMNS)).round().astype(int)).tolist()


def _strip(images, fill):
    """(columns, H, W, ...) side by side in one picture with gaps: many small axes take seconds to lay out."""
    gap = np.full((images.shape[1], _gap(images.shape[2]), *images.shape[3:]), fill, dtype=images.dtype)
    parts = [part for image in images for part in (image, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _gap(width):
    """Pixels between two columns."""
    return max(width // 12, 1)


def _label_row(axis, name, size):
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_ylabel(name, fontsize=size)


def _label_columns(axis, columns, width, seconds):
    """Above every column the time at which its frame is shown, or its number."""
    centres = [position * (width + _gap(width)) + (width - 1) / 2 for position in range(len(columns))]
    known = seconds is not None and all(seconds[column] is not None for column in columns)
    labels = [f"{seconds[column]:.2f} s" if known else f"frame {column + 1}" for column in columns]
    axis.xaxis.set_ticks_position("top")
    axis.set_xticks(centres, labels, fontsize=8)
    axis.tick_params(axis="x", length=0)


def _colour_bar(figure, axes, scale):
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("heat", HEAT_COLOURS / 255)
    bar = figure.colorbar(ScalarMappable(Normalize(*scale), colours), ax=list(axes), fraction=0.02, pad=0.01)
    bar.set_label("modulator,\ntimes its mean\nover the clip", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _figure(width, height, title):
    # the object interface: no global state, no display needed, no backend chosen for the caller
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = max(width, 7)
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        # a title wider than the picture would push the layout apart
        figure.suptitle(textwrap.fill(plain_text(title), int(13 * width)), fontsize=11, x=0.01, ha="left")
    return figure


def _save(figure, path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
