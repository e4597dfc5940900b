"""The steps of a benchmark: load every model, time all of them in turns, then their stages, then their memory."""

import contextlib
import gc
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from .benchmark_execution import BenchmarkError, NumberType, make_step, make_timer
from .benchmark_inputs import clip_shape, random_clips
from .benchmark_memory import MemoryNotMeasured, measure_cuda_peak_memory, measure_peak_memory
from .benchmark_report import Measurement
from .benchmark_stages import benchmark_video, stage_steps
from .benchmark_timing import WallTimer, paired_ratio, percentile, time_interleaved, warm_up
from .benchmark_variants import BenchmarkVariant, built, processor_of
from .macs import MacsError, count_macs, count_parameters


SEED = 0
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Subject:
    """A model that takes part: loaded, and what is known of it before anything is timed."""

    variant: BenchmarkVariant
    model: torch.nn.Module
    processor: object | None
    number_type: NumberType
    execution: str
    shape: tuple[int, int, int, int]
    parameters: int
    gmacs: float | None


def prepare(
    variant: BenchmarkVariant, execution: str, device: torch.device, stack: contextlib.ExitStack, notes: list[str]
) -> Subject:
    """Loads a model for as long as `stack` is open, and counts what can be counted without a clock.

    Raises:
        BenchmarkError: it does not open, or does not take clips of the shape that it names.
    """
    number_type, processor = NumberType.parse(variant.dtype), processor_of(variant)
    model = stack.enter_context(built(variant, number_type, device))
    shape = clip_shape(variant, getattr(model, "config", None), processor)
    try:
        count = count_macs(model, random_clips(model, shape, 1, number_type.weights, device, SEED))
    except MacsError as error:
        raise BenchmarkError(f"{variant.name} does not take clips of shape {shape} (T, C, H, W): {error}") from error
    if count.uncounted:
        notes.append(
            f"{variant.name}: GMACs are not stated, {', '.join(count.uncounted)} cannot be counted ({count.gmacs:.3g} "
            "without them)"
        )
    return Subject(
        variant=variant,
        model=model,
        processor=processor,
        number_type=number_type,
        execution=execution,
        shape=shape,
        parameters=count_parameters(model),
        gmacs=None if count.uncounted else count.gmacs,
    )


def measure_batch(
    subjects: Sequence[Subject],
    batch_size: int,
    rounds: int,
    device: torch.device,
    cuda_memory: bool,
    notes: list[str],
    advance: Callable[[str], None],
    clock: str = "wall",
) -> list[Measurement]:
    """Times all models at one batch size in interleaved rounds; one that does not fit into memory is left out and noted."""
    timer = make_timer(device, clock)
    steps, calls, executions, peaks = {}, {}, {}, {}
    for subject in subjects:
        name = subject.variant.name
        advance(f"warming up {name}, batch {batch_size}")
        try:
            inputs = random_clips(subject.model, subject.shape, batch_size, subject.number_type.weights, device, SEED)
            if cuda_memory:
                eager, _, _ = make_step(subject.model, inputs, subject.number_type, "eager")
                peaks[name] = measure_cuda_peak_memory(subject.model, inputs, eager)
            step, executions[name], note = make_step(subject.model, inputs, subject.number_type, subject.execution)
            calls[name] = warm_up(step, timer)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            notes.append(f"{name} does not fit into memory at batch {batch_size}")
            continue
        steps[name] = step
        if clock != "wall":
            executions[name] += f", {clock} time"
        if note:
            notes.append(f"{name}, batch {batch_size}: {note}")
    times = time_interleaved(steps, timer, rounds, calls, lambda: advance(f"timing, batch {batch_size}"))
    measurements = [
        _measurement(subject, batch_size, executions[subject.variant.name], times[subject.variant.name], peaks)
        for subject in subjects
        if subject.variant.name in times
    ]
    del steps
    gc.collect()
    return measurements


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def _measurement(subject: Subject, batch_size: int, execution: str, times, peaks: dict) -> Measurement:
    every_call = [milliseconds for visit in times for milliseconds in visit]
    median = statistics.median(every_call)
    return Measurement(
        name=subject.variant.name,
        batch_size=batch_size,
        dtype=subject.number_type.name,
        execution=execution,
        clip_shape=subject.shape,
        parameters=subject.parameters,
        gmacs=subject.gmacs,
        latency_ms=median,
        latency_p90_ms=percentile(every_call, 90),
        throughput_clips_per_s=batch_size / median * 1e3,
        times_ms=tuple(map(tuple, times)),
        peak_memory_mb=peaks.get(subject.variant.name),
    )


def with_speedups(measurements: Sequence[Measurement], baseline: str | None) -> list[Measurement]:
    """The measurements, each with its ratio to the baseline at the same batch size, from rounds that both were in."""
    references = {m.batch_size: m for m in measurements if m.name == baseline}

    def compared(m: Measurement) -> Measurement:
        if m.name == baseline or m.batch_size not in references:
            return m
        return replace(m, speedup=paired_ratio(references[m.batch_size].times_ms, m.times_ms))

    return [compared(m) for m in measurements]


def with_stages(
    measurements: Sequence[Measurement],
    subjects: Sequence[Subject],
    rounds: int,
    video,
    notes: list[str],
    advance: Callable[[str], None],
) -> list[Measurement]:
    """The measurements, each with the time to decode and to preprocess one clip, on the processor, in turns as well."""
    timer = WallTimer()
    with benchmark_video(video) as (source, description):
        steps = {
            (subject.variant.name, stage): step
            for subject in subjects
            for stage, step in stage_steps(subject.processor, subject.shape[0], source).items()
        }
        calls = {key: warm_up(step, timer, calls=1) for key, step in steps.items()}
        times = time_interleaved(steps, timer, rounds, calls, lambda: advance("timing decoding and preprocessing"))
    notes.append(f"decoding and preprocessing: {description}")
    without = [subject.variant.name for subject in subjects if subject.processor is None]
    if without:
        notes.append(f"no processor, so no preprocessing time: {', '.join(without)}")
    medians = {key: statistics.median(ms for visit in visits for ms in visit) for key, visits in times.items()}
    return [
        replace(m, decode_ms=medians.get((m.name, "decode")), preprocess_ms=medians.get((m.name, "preprocess")))
        for m in measurements
    ]


def with_cpu_memory(
    measurements: Sequence[Measurement],
    subjects: dict[str, tuple[BenchmarkVariant, tuple]],
    threads: int,
    notes: list[str],
    advance: Callable[[str], None],
) -> list[Measurement]:
    """The measurements, each with the peak memory that a fresh process found; what cannot be measured is noted.

    Args:
        measurements: on the processor.
        subjects: name -> `(variant, clip shape)`.
        threads: processor threads.
        notes: is added to.
        advance: called before each process.
    """
    completed, failed = [], set()
    for m in measurements:
        advance(f"memory of {m.name}, batch {m.batch_size}")
        peak = None
        if m.name not in failed:
            variant, shape = subjects[m.name]
            try:
                peak = measure_peak_memory(variant, shape, m.batch_size, threads=threads)
            except MemoryNotMeasured as error:
                failed.add(m.name)
                notes.append(f"peak memory not measured: {error}")
        # a model of a few kilobytes disappears among the pages that the allocator happens to give back
        completed.append(replace(m, peak_memory_mb=peak if peak is not None and peak > 0 else None))
    return completed
