"""From a classifier to a folder that is checked: trace, write, compare, measure, and only then put it in place."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm.auto import tqdm

from ..evaluation.benchmark_execution import execution_settings
from ..evaluation.benchmark_stages import write_panning_texture
from ..evaluation.benchmark_timing import WallTimer, paired_ratio, percentile, time_interleaved, warm_up
from ..evaluation.provenance import describe_hardware
from .errors import ExportError, ParityError
from .folder import check_place, new_folder, write_recipe, write_record
from .int8 import SCHEMES, write_int8
from .onnx_format import DEFAULT_OPSET, check_onnx, write_onnx
from .opening import Subject, open_subject
from .parity import TOLERANCES, Parity, clips_to_try, compare, shapes_to_try
from .report import ORIGINAL, ExportedFile, ExportReport
from .runtime import ExportedClassifier
from .tracing import LogitsOnly, ShapeProbe, smallest_lengths, trace


FORMATS = {"onnx": "ONNX", "pt2": "torch.export"}
_MODEL_FILE = {"onnx": "model.onnx", "pt2": "model.pt2"}


def export_model(
    model,
    folder: str | os.PathLike,
    processor=None,
    *,
    format: str = "onnx",
    dtype: str = "float32",
    int8: Sequence[str] = (),
    opset: int = DEFAULT_OPSET,
    tolerance: float | None = None,
    threads: int | None = None,
    rounds: int = 10,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Writes a folder from which the model runs without this package, for ONNX without torch.

    The folder holds the model file, 8-bit variants of it, the processor's and the model's configuration, and `export.json`:
    names and shapes of input and output, labels, preprocessing, versions, sizes, times and the distance from the model. It
    appears whole, and only if the file gives the model's logits on noise and on a decoded video, at the model's own shape and
    at other batch sizes, clip lengths and sizes where the model takes any.

    Args:
        model: a video classifier of transformers, or a folder or Hub id of one. It is left as it is.
        folder: where to write.
        processor: its processor; default: the one saved with it.
        format: `"onnx"`, or `"pt2"` for torch.export.
        dtype: `"float32"`, `"float16"` or `"bfloat16"`: what the file computes in. Input and output are float32.
        int8: further files with 8-bit weights, any of `"dynamic"` and `"weight-only"` (ONNX, float32).
        opset: version of the ONNX operators.
        tolerance: largest difference of a logit, relative to the largest logit where that is above 1; default: 1e-4 for
            float32, 2e-2 for float16, 0.15 for bfloat16. 8-bit files are measured, not refused.
        threads: processor threads for the times; default: those of torch.
        rounds: interleaved rounds of timing.
        overwrite: replace an earlier export in the folder.
        trust_remote_code: run model code that comes with the checkpoint.
        progress: show a progress bar.

    Returns:
        The report.

    Raises:
        ExportError: the model cannot be exported as asked.
        ParityError: the file gives other numbers than the model; nothing is written.
        MissingExtraError: ONNX without the `export` extra.
        ValueError: the model has no processor.
    """
    options = _Options(format, dtype, tuple(int8), opset, TOLERANCES.get(dtype) if tolerance is None else tolerance)
    if format == "onnx":
        check_onnx(opset)
    check_place(Path(folder), overwrite)
    subject = open_subject(model, processor, trust_remote_code)
    bar = tqdm(total=4 + len(options.int8), desc="exporting", disable=not progress, leave=False)
    with new_folder(folder, overwrite) as work, torch.no_grad(), execution_settings(threads, False), bar:
        video = _decoded_video(subject.processor)
        bar.update()
        reference = LogitsOnly(subject.model)
        graph = _write_checked(reference, work, video, options)
        bar.update()
        paths = {f"{FORMATS[format]} {dtype}": work / _MODEL_FILE[format]}
        for scheme in options.int8:
            target = work / f"model_int8_{scheme.replace('-', '_')}.onnx"
            paths[f"{FORMATS[format]} int8 {scheme}"] = write_int8(work / _MODEL_FILE[format], target, scheme)
            bar.update()
        rows = _measure(reference, paths, graph, video, rounds)
        bar.update()
        report = ExportReport(
            folder=Path(folder),
            model_name=subject.name,
            rows=rows,
            shape=tuple(video.shape[1:]),
            axes=graph.axes,
            tolerance=options.tolerance,
            hardware=describe_hardware(),
            num_threads=torch.get_num_threads(),
            notes=graph.notes,
        )
        _complete(work, subject, report, graph, options)
        bar.update()
    return report


@dataclass(frozen=True)
class _Options:
    """The checked arguments that decide what the file is."""

    format: str
    dtype: str
    int8: tuple[str, ...]
    opset: int
    tolerance: float | None

    def __post_init__(self):
        if self.format not in FORMATS:
            raise ExportError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}.")
        if self.dtype not in TOLERANCES:
            raise ExportError(f"dtype must be one of {', '.join(TOLERANCES)}, got {self.dtype!r}.")
        unknown = [scheme for scheme in self.int8 if scheme not in SCHEMES]
        if unknown:
            raise ExportError(f"int8 must be one of {', '.join(SCHEMES)}, got {unknown[0]!r}.")
        if self.int8 and (self.format, self.dtype) != ("onnx", "float32"):
            raise ExportError(f"int8 starts from format onnx in float32, got {self.format} in {self.dtype}.")
        if (self.format, self.dtype) == ("onnx", "bfloat16"):
            raise ExportError("onnxruntime has no bfloat16 on a processor: use dtype float16, or format pt2.")
        if not self.tolerance > 0:
            raise ExportError(f"tolerance must be above 0, got {self.tolerance!r}.")


@dataclass(frozen=True)
class _Graph:
    """What was written, and how far it is from the model."""

    axes: tuple[str, ...]
    smallest: dict[str, int]
    parity: Parity
    clips: list
    notes: tuple[str, ...]


def _complete(work: Path, subject: Subject, report: ExportReport, graph: "_Graph", options: _Options) -> None:
    """Everything that belongs beside the model files."""
    write_record(
        work,
        subject.model.config,
        write_recipe(work, subject.model, subject.own_processor),
        report.shape,
        graph.axes,
        graph.smallest,
        [row.to_dict() for row in report.files],
        model=report.model_name,
        format=options.format,
        opset=options.opset if options.format == "onnx" else None,
        tolerance=report.tolerance,
        timed_on={"hardware": report.hardware, "num_threads": report.num_threads},
        notes=list(report.notes),
    )


def _decoded_video(processor) -> torch.Tensor:
    """Two clips (2, T, C, H, W) of a video file with detail, motion and noise, decoded and prepared as the recipe says."""
    clips = []
    with TemporaryDirectory(prefix="effvid-export-") as folder:
        for seed in range(2):
            path = Path(folder, f"{seed}.mp4")
            write_panning_texture(path, seconds=1, width=192, height=144, seed=seed)
            clips.append(processor([str(path)], return_tensors="pt")["pixel_values"][:1])
    return torch.cat(clips)


def _write_checked(reference: LogitsOnly, work: Path, video: torch.Tensor, options: _Options) -> _Graph:
    """Writes the file with as many open axes as the model allows: fewer are tried when a check fails."""
    probe = ShapeProbe(reference, video.shape[1:])
    free = probe.free_axes()
    closing = ((), ("height", "width"), ("frames",), ("frames", "height", "width"), free)
    attempts = [tuple(axis for axis in free if axis not in closed) for closed in closing]
    failures: list[ExportError] = []
    for axes in dict.fromkeys(attempts):
        try:
            graph = _write_once(probe, work, axes, video, options)
        except ExportError as error:
            failures.append(error)
            continue
        fixed = [name for name in ("batch", "frames", "height", "width") if name not in axes]
        notes = [f"fixed: {', '.join(fixed)}"] if fixed else []
        if failures:
            closed = ", ".join(axis for axis in free if axis not in axes)
            notes.append(f"{closed} could not stay open: {failures[0]}")
        return _Graph(graph.axes, graph.smallest, graph.parity, graph.clips, tuple(notes))
    raise next((error for error in failures if isinstance(error, ParityError)), failures[0])


def _write_once(probe: ShapeProbe, work: Path, axes, video, options: _Options) -> _Graph:
    reference, shape = probe.module, probe.shape
    module = reference
    if options.dtype != "float32":
        module = LogitsOnly(copy.deepcopy(reference.model).to(getattr(torch, options.dtype)))
    path = work / _MODEL_FILE[options.format]
    program = trace(module, shape, axes)
    # an ONNX file holds no such conditions
    smallest = smallest_lengths(program) if options.format == "pt2" else {}
    if options.format == "pt2":
        torch.export.save(program, path)
    else:
        write_onnx(program, path, axes, options.opset)
    shapes = shapes_to_try(shape, axes, smallest, probe.accepts)
    clips = clips_to_try(shapes, video)
    runner = ExportedClassifier(path, reference.model.config)
    try:
        parity = compare(reference, lambda pixels: runner(pixels).logits, clips)
    except Exception as error:  # of onnxruntime or a guard of torch.export: a shape that it does not take after all
        raise ExportError(
            f"the file does not run: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    if not parity.max_relative <= options.tolerance:
        raise ParityError(
            f"the exported file differs from the model: by {parity.max_difference:.3g} in a logit, relative "
            f"{parity.max_relative:.3g}, allowed {options.tolerance:.3g}; worst on {parity.worst}; the same class on "
            f"{parity.same_top1} of {parity.num_clips} clips. Nothing was written."
        )
    return _Graph(tuple(axes), smallest, parity, clips, ())


def _measure(
    reference: LogitsOnly, paths: dict[str, Path], graph: _Graph, video, rounds: int
) -> tuple[ExportedFile, ...]:
    """Times the model and every file in turns, and compares the 8-bit files with the model."""
    clip = video[:1].contiguous()
    runners = {variant: ExportedClassifier(path, reference.model.config) for variant, path in paths.items()}
    steps = {ORIGINAL: lambda: reference(clip)}
    steps |= {variant: (lambda runner=runner: runner(clip)) for variant, runner in runners.items()}
    timer = WallTimer()
    times = time_interleaved(steps, timer, rounds, {name: warm_up(step, timer) for name, step in steps.items()})
    latencies = {name: _latencies(visits) for name, visits in times.items()}
    weights = sum(tensor.numel() * tensor.element_size() for tensor in reference.state_dict().values())
    rows = [ExportedFile(ORIGINAL, "", weights, *latencies[ORIGINAL])]
    for variant, path in paths.items():
        parity = graph.parity  # of the file in floats, which came first
        if len(rows) > 1:
            parity = compare(reference, lambda pixels, run=runners[variant]: run(pixels).logits, graph.clips)
        speedup = paired_ratio(times[ORIGINAL], times[variant])
        size = path.stat().st_size
        rows.append(ExportedFile(variant, path.name, size, *latencies[variant], speedup, parity))
    return tuple(rows)


def _latencies(visits: list[list[float]]) -> tuple[float, float]:
    """Median and 90th percentile of milliseconds over all rounds."""
    times = [milliseconds for visit in visits for milliseconds in visit]
    return percentile(times, 50), percentile(times, 90)
