"""Detections of one video as a picture: a lane per class, darker where the detector is surer, and what was annotated below it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..chart_text import plain_text
from .detection_files import one_line


# told apart in every kind of colour vision; several classes share one when there are more, their lanes tell which
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK = "#222222"
# inches: the picture, a row of detections, one of annotations, the space between two classes, a score
_WIDTH, _ROW, _TRUTH_ROW, _BETWEEN, _NUMBER = 11.0, 0.3, 0.14, 0.16, 0.34
_MAX_ROWS = 4
_LONGEST_NAME = 32  # characters
_FAINTEST = 0.25  # opacity of a score of 0


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """The colour of every class, in the order given; the same in the picture and in the video."""
    return {label: CLASS_COLOURS[number % len(CLASS_COLOURS)] for number, label in enumerate(labels)}


def classes_of(
    detections: Sequence[Mapping], truth: Sequence[Mapping] = (), classes: Sequence[str] | None = None
) -> list[str]:
    """The classes given and all others that occur, by their best score."""
    best = dict.fromkeys(classes or (), float("inf"))
    for one in [*detections, *truth]:
        best[one["label"]] = max(best.get(one["label"], 0.0), one.get("score", 0.0))
    given = list(dict.fromkeys(classes or ()))
    return given + sorted((label for label in best if label not in given), key=lambda label: (-best[label], label))


def plot_timeline(
    detections: Sequence[Mapping],
    path: str | os.PathLike,
    *,
    duration: float | None = None,
    truth: Sequence[Mapping] | None = None,
    classes: Sequence[str] | None = None,
    title: str = "",
    max_lanes: int = 24,
) -> Path:
    """Draw a timeline.

    Args:
        detections: of one video, `[{"label", "score", "start", "end"}]` in seconds.
        path: picture to write, .png or .svg; its ending decides the format.
        duration: seconds of the video; default: up to the last end.
        truth: annotations, `[{"label", "start", "end"}]`, drawn as a bar below the detections of their class; None draws none.
        classes: the first lanes, from top to bottom; other classes that occur follow by their best score.
        title: heading; shown as text, never as markup.
        max_lanes: more classes than that are left out, and their number is said.

    Returns:
        The path.

    Raises:
        ImportError: the picture needs matplotlib (`pip install "hf_effvid[train]"`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = classes_of(detections, truth or (), classes)
    labels, left_out = labels[:max_lanes], max(len(labels) - max_lanes, 0)
    lanes = [_Lane(label, detections, truth) for label in labels]
    end = duration or max((one["end"] for one in [*detections, *(truth or ())]), default=1.0)
    height = sum(lane.height for lane in lanes)
    figure = Figure(figsize=(_WIDTH, height + 1.2), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axis, top, middles = figure.subplots(), 0.0, []
    for lane, colour in zip(lanes, colours_of(labels).values(), strict=True):
        middles.append(top + 0.5 * (lane.height - _BETWEEN))
        lane.draw(axis, top, colour, end)
        top += lane.height
    axis.set_yticks(middles, [plain_text(_shortened(label)) for label in labels])
    axis.set_ylim(max(top, 0.1), -_BETWEEN)
    axis.set_xlim(0, end)
    axis.xaxis.set_major_formatter(lambda seconds, _: clock(seconds, end))
    axis.set_xticks(_ticks(end))
    axis.set_xlabel("seconds" if end < 120 else ("minutes:seconds" if end < 3600 else "hours:minutes:seconds"))
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_title(plain_text(_heading(title, detections, truth, left_out)), fontsize=10, loc="left")
    return _save(figure, Path(path))


def clock(seconds: float, longest: float) -> str:
    """A time as a video of that length needs it: 12.5, 3:07 or 1:02:03."""
    if longest < 120:
        return f"{seconds:g}"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if longest >= 3600 else f"{whole // 60}:{rest:02d}"


class _Lane:
    """What is drawn of one class: rows of detections that do not overlap, the best in the first one, and annotations below. In inches."""

    def __init__(self, label, detections, truth):
        self.truth = None if truth is None else [one for one in truth if one["label"] == label]
        self.rows = [[]]
        mine = (one for one in detections if one["label"] == label)
        for one in sorted(mine, key=lambda one: -one["score"]):
            free = next((row for row in self.rows if not any(_overlap(one, other) for other in row)), None)
            if free is None and len(self.rows) < _MAX_ROWS:
                self.rows.append([])
                free = self.rows[-1]
            (self.rows[-1] if free is None else free).append(one)

    @property
    def height(self):
        return _ROW * len(self.rows) + (_TRUTH_ROW if self.truth is not None else 0.0) + _BETWEEN

    def draw(self, axis, top, colour, end):
        """From `top` downwards."""
        for number, row in enumerate(self.rows):
            for one in reversed(row):  # where rows ran out, the better on top
                alone = not any(_overlap(one, other) for other in row if other is not one)
                _draw_detection(axis, one, top + (number + 0.5) * _ROW, colour, end, alone)
        for one in self.truth or ():
            middle = top + (len(self.rows) + 0.1) * _ROW + 0.5 * _TRUTH_ROW
            axis.barh(middle, one["end"] - one["start"], 0.7 * _TRUTH_ROW, one["start"], color=_INK)


def _overlap(first, second):
    return first["start"] < second["end"] and second["start"] < first["end"]


def _draw_detection(axis, one, middle, colour, end, with_number):
    """A bar whose opacity is the score, with its number where it fits."""
    from matplotlib.colors import to_rgb

    length, score = one["end"] - one["start"], min(max(one["score"], 0.0), 1.0)
    opacity = _FAINTEST + (1 - _FAINTEST) * score
    # mixed with white instead of transparent: the grid does not shine through
    mixed = tuple(opacity * part + 1 - opacity for part in to_rgb(colour))
    axis.barh(middle, length, 0.85 * _ROW, one["start"], color=mixed, edgecolor=colour, linewidth=0.8)
    shown = min(one["end"], end) - max(one["start"], 0.0)
    if with_number and shown / end * 0.8 * _WIDTH > _NUMBER:
        dark = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2] < 0.55
        axis.text(
            max(one["start"], 0.0) + shown / 2, middle, f"{score:.2f}", ha="center", va="center", fontsize=8,
            color="white" if dark else _INK,
        )  # fmt: skip


def _heading(title, detections, truth, left_out):
    parts = [one_line(title)] if title else []
    parts.append(f"{len(detections)} detection{'s' * (len(detections) != 1)}, darker is surer")
    if truth is not None:
        parts.append("black: annotated")
    if left_out:
        parts.append(f"{left_out} more class{'es' * (left_out != 1)} not shown")
    return "; ".join(parts)


def _shortened(label):
    label = one_line(label)
    return label if len(label) <= _LONGEST_NAME else label[: _LONGEST_NAME - 1] + "…"


def _ticks(end):
    """Round times, about ten of them."""
    steps = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((step for step in steps if end / step <= 12), end / 10)
    return [step * number for number in range(int(end / step + 1e-6) + 1)]


def _save(figure, path):
    import matplotlib

    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"a timeline is written to .png or .svg, got {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    if path.suffix.lower() == ".png":
        figure.savefig(draft, format="png")
    else:  # text stays text, and equal pictures are equal files
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hf_effvid"}):
            figure.savefig(draft, format="svg", metadata={"Date": None})
    os.replace(draft, path)
    return path
