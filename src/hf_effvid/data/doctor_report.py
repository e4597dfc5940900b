"""What the data set doctor found, as text, as plain values and as a picture."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path


SEVERITIES = ("error", "warning", "note")
_SHOWN = 5  # items of a finding that are printed; all of them are in `to_dict`
_COLORS = ("#2f6fab", "#e8a33d", "#5a9e6f", "#a05195", "#8c8c8c")  # told apart also without seeing red and green


@dataclass
class FileRecord:
    """One video of the data set.

    Attributes:
        path: where it is.
        split: the split it belongs to.
        labels: its labels.
        start: first second of the part that is meant, or None.
        end: last second of it, or None.
        error: the name of the error that reading it gave; empty when it can be read.
        message: the error's text.
        notes: what the reader remarked, such as a truncated end.
        digest: hash of the file's bytes.
        num_bytes: its size.
        width: in pixels, upright.
        height: in pixels, upright.
        fps: frames per second; None when unknown.
        duration: seconds; None when unknown.
        num_frames: number of frames.
    """

    path: str
    split: str
    labels: list[str]
    start: float | None = None
    end: float | None = None
    error: str = ""
    message: str = ""
    notes: list[str] = field(default_factory=list)
    digest: str = ""
    num_bytes: int = 0
    width: int = 0
    height: int = 0
    fps: float | None = None
    duration: float | None = None
    num_frames: int = 0


@dataclass
class Finding:
    """Something worth knowing.

    Attributes:
        severity: "error" (spoils training or its numbers), "warning", or "note".
        code: a fixed name for programs.
        text: one sentence for people.
        items: the files or classes meant.
    """

    severity: str
    code: str
    text: str
    items: list[str]


@dataclass
class DatasetReport:
    """The result of `check_dataset`.

    Attributes:
        name: the folder or data set.
        class_names: its classes.
        files: one record per video.
        min_frames: fewer frames than this are reported.
        depth: how much of each file was decoded.
        findings: what was found.
    """

    name: str
    class_names: list[str]
    files: list[FileRecord]
    min_frames: int
    depth: str
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when there is no finding of severity "error"."""
        return all(finding.severity != "error" for finding in self.findings)

    @property
    def readable(self) -> list[FileRecord]:
        """The files without an error."""
        return [file for file in self.files if not file.error]

    @property
    def splits(self) -> list[str]:
        """The splits, in the order of the data set."""
        return list(dict.fromkeys(file.split for file in self.files))

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Readable videos per split and class, classes without any included."""
        counts = {split: dict.fromkeys(self.class_names, 0) for split in self.splits}
        for file in self.readable:
            for label in file.labels:
                counts[file.split][label] += 1
        return counts

    def to_dict(self) -> dict:
        """Everything as plain values, for JSON."""
        return {
            "name": self.name,
            "ok": self.ok,
            "num_files": len(self.files),
            "num_readable": len(self.readable),
            "class_counts": self.class_counts(),
            "statistics": {key: _spread(values) for key, values in self._measures().items()},
            "findings": [asdict(finding) for finding in self.findings],
            "files": [asdict(file) for file in self.files],
            "min_frames": self.min_frames,
            "depth": self.depth,
        }

    def to_text(self) -> str:
        """A page for a terminal. Names from the data set lose control characters, which could rewrite the screen."""
        lines = [f"{self.name}: {len(self.files)} videos, {len(self.class_names)} classes"]
        for split, counts in self.class_counts().items():
            total = sum(file.split == split for file in self.files)
            sizes = sorted(counts.values())
            lines.append(f"  {split}: {total} videos, {sizes[0]} to {sizes[-1]} per class")
        for key, values in self._measures().items():
            spread = _spread(values)
            if spread:
                lines.append(f"  {key}: {spread['min']:g} to {spread['max']:g}, median {spread['median']:g}")
        if not self.findings:
            lines.append("nothing wrong was found")
        for finding in self._by_severity():
            lines.append(f"{finding.severity.upper()}: {finding.text}")
            lines += [f"    {self._relative(item)}" for item in finding.items[:_SHOWN]]
            if len(finding.items) > _SHOWN:
                lines.append(f"    ... and {len(finding.items) - _SHOWN} more")
        lines.append("ok" if self.ok else "not ok: correct the errors above first")
        return "\n".join(printable(line) for line in lines)

    def _measures(self) -> dict[str, list[float]]:
        return {
            "frames": [file.num_frames for file in self.readable if file.num_frames],
            "frames per second": [round(file.fps, 3) for file in self.readable if file.fps],
            "seconds": [round(file.duration, 3) for file in self.readable if file.duration],
            "shorter side in pixels": [min(file.width, file.height) for file in self.readable if file.width],
        }

    def plot(self, path) -> Path:
        """Draw the data set: class balance, lengths, rates, sizes and findings.

        Args:
            path: the picture to write; its extension decides the format.

        Returns:
            The path.
        """
        # No pyplot: it would keep the figure and could need a display.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(15, 8.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplot_mosaic(
            [["classes", "seconds", "rates", "sizes"], ["classes", "text", "text", "text"]],
            width_ratios=[1.3, 1, 1, 1],
        )
        verdict = "ok" if self.ok else "not ok: see the errors below"
        title = f"{self.name}: {len(self.files)} videos, {len(self.class_names)} classes, {verdict}"
        figure.suptitle(printable(title), fontsize=14, color="black" if self.ok else "#b3261e", parse_math=False)
        self._plot_classes(axes["classes"])
        measures = self._measures()
        _plot_histogram(axes["seconds"], measures["seconds"], "length in seconds")
        _plot_histogram(axes["rates"], measures["frames per second"], "frames per second")
        self._plot_sizes(axes["sizes"])
        self._plot_findings(axes["text"])
        figure.savefig(path, dpi=110)
        return Path(path)

    def _plot_classes(self, axis) -> None:
        counts = self.class_counts()
        totals = Counter({name: sum(part[name] for part in counts.values()) for name in self.class_names})
        names = [name for name, _ in totals.most_common()]
        title = "readable videos per class"
        if len(names) > 40:  # no room for all names: the largest and the smallest classes matter
            title += f" (20 largest and 20 smallest of {len(names)})"
            names = names[:20] + names[-20:]
        left = [0] * len(names)
        for i, (split, part) in enumerate(counts.items()):
            sizes = [part[name] for name in names]
            axis.barh(range(len(names)), sizes, left=left, label=printable(split), color=_COLORS[i % len(_COLORS)])
            left = [a + b for a, b in zip(left, sizes, strict=True)]
        # A dollar sign in a name is no formula.
        axis.set_yticks(range(len(names)), [_short(name, 28) for name in names], fontsize=8, parse_math=False)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=11)
        axis.legend(fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.03), frameon=False)
        axis.spines[["top", "right"]].set_visible(False)

    def _plot_sizes(self, axis) -> None:
        sizes = Counter((file.width, file.height) for file in self.readable)
        axis.set_title("height over width in pixels", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
        if not sizes:
            return
        largest = max(sizes.values())
        axis.scatter(
            [size[0] for size in sizes],
            [size[1] for size in sizes],
            s=[20 + 200 * count / largest for count in sizes.values()],  # the area says how many videos
            color=_COLORS[0],
            alpha=0.6,
        )
        for (width, height), count in sizes.most_common(3):
            text = f"{width}x{height}: {plural(count, 'video')}"
            axis.annotate(text, (width, height), (0, -16), textcoords="offset points", fontsize=8, ha="center")
        axis.set_xlim(0, 1.4 * max(size[0] for size in sizes))
        axis.set_ylim(0, 1.4 * max(size[1] for size in sizes))

    def _plot_findings(self, axis) -> None:
        import textwrap

        axis.axis("off")
        lines = []
        for finding in self._by_severity():
            lines += textwrap.wrap(f"{finding.severity.upper()}: {finding.text}", 120)
            lines += [f"    {_short(self._relative(item), 112)}" for item in finding.items[:2]]
            if len(finding.items) > 2:
                lines.append(f"    ... and {len(finding.items) - 2} more")
        lines = lines or ["nothing wrong was found"]
        if len(lines) > 26:
            lines = [*lines[:25], "..."]
        text = "\n".join(printable(line) for line in lines)
        axis.text(0, 1, text, va="top", fontsize=9, family="monospace", parse_math=False)

    def _by_severity(self) -> list[Finding]:
        return sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))

    def _relative(self, item: str) -> str:
        """An item without the data set's folder, which every path would repeat."""
        return item.replace(f"{Path(self.name).absolute()}/", "")


def printable(text: str) -> str:
    """Text without characters that move the cursor, change colours or reorder what is shown."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _short(text: str, longest: int) -> str:
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def plural(count: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _spread(values: list[float]) -> dict:
    if not values:
        return {}
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def _plot_histogram(axis, values: list[float], title: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_ylabel("videos")
    axis.spines[["top", "right"]].set_visible(False)
    if not values:
        return
    if max(values) - min(values) < 1e-3 * max(values):  # one bar of a visible width instead of a hair
        middle = values[0]
        axis.hist(values, bins=1, range=(middle * 0.95, middle * 1.05), color=_COLORS[0])
        axis.set_xlim(middle * 0.5, middle * 1.5)
        return
    axis.hist(values, bins=min(30, max(5, len(set(values)))), color=_COLORS[0])
