"""What an export gave: one row per way of running the model, with size, time and distance from the original."""

from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..evaluation.benchmark_timing import PairedRatio
from .parity import Parity


ORIGINAL = "PyTorch float32"


@dataclass(frozen=True)
class ExportedFile:
    """One way of running the model.

    Attributes:
        variant: `ORIGINAL` for the model itself, else `"ONNX float32"`, `"ONNX int8 dynamic"`, ...
        file: name within the folder; empty for the model itself.
        bytes: size of the file; for the model itself, of its weights.
        latency_ms: median time of one clip, in milliseconds.
        latency_p90_ms: nine of ten took at most this long.
        speedup: against the model itself in PyTorch, from interleaved rounds; None for the model itself.
        parity: distance from the model; None for the model itself.
    """

    variant: str
    file: str
    bytes: int
    latency_ms: float
    latency_p90_ms: float
    speedup: PairedRatio | None = None
    parity: Parity | None = None

    def to_dict(self) -> dict:
        """JSON-ready."""
        document = {
            "variant": self.variant,
            "file": self.file,
            "bytes": self.bytes,
            "latency_ms": _rounded(self.latency_ms),
            "latency_p90_ms": _rounded(self.latency_p90_ms),
        }
        if self.speedup is not None:
            document["speedup"] = _rounded(self.speedup.median)
            document["speedup_interval"] = [_rounded(bound) for bound in self.speedup.interval]
        if self.parity is not None:
            document["parity"] = {
                "max_logit_difference": float(f"{self.parity.max_difference:.3g}"),
                "max_relative_difference": float(f"{self.parity.max_relative:.3g}"),
                "same_top1": self.parity.same_top1,
                "num_clips": self.parity.num_clips,
                "shapes": ["x".join(map(str, shape)) for shape in self.parity.shapes],
            }
        return document


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` did.

    Attributes:
        folder: where the files are.
        model_name: the model's name.
        rows: the model itself first, then the files.
        shape: (T, C, H, W) of its own clips, which the times are for.
        axes: axes that any length goes for.
        tolerance: largest relative difference that was allowed for the file in floats.
        hardware: what the times were measured on.
        num_threads: processor threads of the times.
        notes: why an axis is fixed, and the like.
    """

    folder: Path
    model_name: str
    rows: tuple[ExportedFile, ...]
    shape: tuple[int, int, int, int]
    axes: tuple[str, ...]
    tolerance: float
    hardware: str
    num_threads: int
    notes: tuple[str, ...] = field(default=())

    @property
    def files(self) -> tuple[ExportedFile, ...]:
        """The exported files, without the model itself."""
        return tuple(row for row in self.rows if row.file)

    def get(self, variant: str) -> ExportedFile:
        """The row of that variant.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.variant == variant:
                return row
        raise KeyError(f"no {variant!r} among {[row.variant for row in self.rows]}.")

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {
            "folder": str(self.folder),
            "model": self.model_name,
            "clip_shape": list(self.shape),
            "dynamic_axes": list(self.axes),
            "tolerance": self.tolerance,
            "hardware": self.hardware,
            "num_threads": self.num_threads,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def to_table(self) -> Table:
        """A table for a terminal."""
        threads = "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"
        clip = "x".join(map(str, self.shape))
        caption = [
            f"one clip of {clip}, {self.hardware}, {threads}",
            f"dynamic axes: {', '.join(self.axes) or 'none'}",
        ]
        table = Table(
            title=f"{escape(self.model_name)} in {escape(str(self.folder))}",
            caption=escape("; ".join([*caption, *self.notes])),
            caption_justify="left",
        )
        table.add_column("format", no_wrap=True)
        for title in ("MB", "p50 (ms)", "speed-up", "max diff", "same top-1"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(escape, _cells(row)))
        return table


def _cells(row: ExportedFile) -> list[str]:
    cells = [row.variant, f"{row.bytes / 1e6:.2f}", f"{row.latency_ms:.3g}"]
    if row.parity is None:
        return [*cells, "", "", ""]
    return [
        *cells,
        f"{row.speedup.median:.2f}",
        f"{row.parity.max_difference:.1e}",
        f"{row.parity.same_top1} of {row.parity.num_clips}",
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
