"""What an export gave: one row per way of running the model, with size, time and distance from the original."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..evaluation.benchmark_report import BENCHMARK_DATASET, BENCHMARK_SPLIT
from ..evaluation.benchmark_timing import PairedRatio
from ..evaluation.results import Cost, Provenance, ResultEntry, current_provenance
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

    def to_result_entries(self, model_name: str | None = None, command: str | None = None) -> list[ResultEntry]:
        """Times and sizes in the one results format: costs without metrics, as `effvid bench` writes them.

        Args:
            model_name: name of the checkpoint; default: that of its folder.
            command: recorded as what was run; default: this process's command line.
        """
        provenance = current_provenance(command, decode_included=False)
        return [self._entry(row, model_name or self.model_name, provenance) for row in self.rows]

    def _entry(self, row: ExportedFile, name: str, provenance: Provenance) -> ResultEntry:
        kind, number_type = row.variant.split(" ", 1)
        frames, _, height, width = self.shape
        compared = {}
        if row.speedup is not None:
            compared = {
                "baseline": ORIGINAL,
                "speedup": _rounded(row.speedup.median),
                "speedup_interval": tuple(map(_rounded, row.speedup.interval)),
                "speedup_interval_method": row.speedup.method,
            }
        cost = Cost(
            latency_ms=_rounded(row.latency_ms),
            latency_p90_ms=_rounded(row.latency_p90_ms),
            batch_size=1,
            hardware=self.hardware,
            dtype=number_type,
            decode_included=False,
            num_threads=self.num_threads,
            execution={"PyTorch": "eager", "ONNX": "onnxruntime"}.get(kind, kind),
            **compared,
        )
        return ResultEntry(
            task="video-classification",
            model=name,
            dataset=BENCHMARK_DATASET,
            split=BENCHMARK_SPLIT,
            metrics=(),
            cost=cost,
            provenance=replace(provenance, dtype=number_type),
            protocol={"num_frames": frames, "size": {"height": height, "width": width}},
            variant=f"{row.variant}, {self._threads()}, {self.hardware}",
            notes=(f"{row.variant}: {row.bytes:,} bytes",),
        )

    def _threads(self) -> str:
        return "1 thread" if self.num_threads == 1 else f"{self.num_threads} threads"

    def to_table(self) -> Table:
        """A table for a terminal."""
        clip = "x".join(map(str, self.shape))
        caption = [
            f"one clip of {clip}, {self.hardware}, {self._threads()}",
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
