"""What models cost on this machine: parameters, multiply-accumulates, milliseconds, clips per second, memory.

```python
report = benchmark(["videomae-folder", ("ours", make_model)], batch_sizes=(1, 4), budget_ms=20)
```

Models take turns (A B C A B C ...), so that the ratio of two of them holds even where the milliseconds do not. Everything
is recorded in the one result format (`to_result_entries`).
"""

import contextlib
import os
from collections.abc import Sequence

import torch

from .benchmark_budget import as_accuracies, check_budget
from .benchmark_execution import BenchmarkError, choose_execution, execution_settings
from .benchmark_measuring import SEED, measure_batch, prepare, with_cpu_memory, with_speedups, with_stages
from .benchmark_progress import benchmark_progress
from .benchmark_report import BenchmarkReport, Measurement
from .benchmark_variants import BenchmarkVariant, as_variants, with_defaults
from .results import current_provenance


__all__ = ["BenchmarkError", "BenchmarkReport", "BenchmarkVariant", "Measurement", "benchmark"]


def benchmark(
    models,
    *,
    batch_sizes: Sequence[int] = (1,),
    rounds: int = 10,
    threads: int | None = None,
    dtype: str = "float32",
    compile: str | None = None,
    device=None,
    video=None,
    baseline: str | None = None,
    accuracies=None,
    budget_ms: float | None = None,
    stages: bool = True,
    memory: bool = True,
    cuda_graph: bool | None = None,
    command: str | None = None,
    progress: bool | None = None,
) -> BenchmarkReport:
    """Measures one or several video classifiers on this machine.

    All models are in memory at the same time. A pass goes over random clips of the shape that the model's recipe or
    configuration names. Milliseconds are those of the model alone; `stages` times decoding and preprocessing beside it.

    Args:
        models: one of, or a list of: Hub id, folder, model, `(name, any of these or a function that gives a model)`,
            `BenchmarkVariant` (own number type, compiler, clip shape); or a dict name -> model.
        batch_sizes: clips per pass, each measured in rounds of its own.
        rounds: how often every model has its turn; intervals of ratios reach 95 % from 6 rounds on.
        threads: processor threads, default: torch's choice.
        dtype: `"float32"`, `"bfloat16"` or `"float16"` (weights are cast), `"bfloat16-autocast"` (weights stay).
        compile: mode of `torch.compile` (`"default"`, `"reduce-overhead"`, `"max-autotune"`); None runs eagerly.
        device: torch device; default: CUDA where there is one, else the processor.
        video: what decoding is timed on, anything that `read_video` takes; default: a generated one.
        baseline: name of the model that the others are compared with; default: the first.
        accuracies: name -> fraction, `Metric` or `ResultEntry`, for the chart and for the choice under a budget.
        budget_ms: milliseconds that a pass may take.
        stages: time decoding and preprocessing too.
        memory: measure peak memory; on the processor this starts a fresh process per model and batch size.
        cuda_graph: on CUDA, record the pass once and replay it; default: yes when nothing is compiled.
        command: recorded as what was run; default: this process's command line.
        progress: show a progress bar on stderr; default: when it is a terminal.

    Returns:
        The report.

    Raises:
        BenchmarkError: an argument does not make sense, a model does not open or does not take its own clips.
    """
    variants = [with_defaults(variant, dtype, compile) for variant in as_variants(models)]
    names = [variant.name for variant in variants]
    _check(batch_sizes, rounds, baseline, names)
    accuracies = as_accuracies(accuracies, names)
    if budget_ms is not None:
        check_budget(budget_ms)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    executions = {v.name: choose_execution(device.type, v.compile, cuda_graph) for v in variants}
    fresh_processes = memory and device.type == "cpu"
    settings = len(variants) * len(batch_sizes)
    total = len(variants) + settings * (1 + fresh_processes) + rounds * (len(batch_sizes) + stages)
    notes = _describe_load(device)
    with contextlib.ExitStack() as running:
        advance = running.enter_context(benchmark_progress(total, progress))
        running.enter_context(execution_settings(threads, any(v.compile for v in variants)))
        num_threads = torch.get_num_threads()
        with contextlib.ExitStack() as loaded:
            subjects = []
            for variant in variants:
                advance(f"loading {variant.name}")
                subjects.append(prepare(variant, executions[variant.name], device, loaded, notes))
            measurements = []
            for batch_size in batch_sizes:
                cuda_memory = memory and device.type == "cuda"
                measurements += measure_batch(subjects, batch_size, rounds, device, cuda_memory, notes, advance)
            if stages:
                measurements = with_stages(measurements, subjects, rounds, video, notes, advance)
            sources = {subject.variant.name: (subject.variant, subject.shape) for subject in subjects}
            del subjects
        if fresh_processes:
            measurements = with_cpu_memory(measurements, sources, num_threads, notes, advance)
    baseline = (baseline or names[0]) if len(names) > 1 else None
    return BenchmarkReport(
        measurements=tuple(with_speedups(measurements, baseline)),
        provenance=current_provenance(command, seed=SEED, dtype=dtype, device=device, decode_included=False),
        num_threads=num_threads,
        baseline=baseline,
        accuracies=accuracies,
        budget_ms=budget_ms,
        notes=tuple(notes),
    )


def _check(batch_sizes, rounds, baseline: str | None, names: list[str]) -> None:
    sizes = list(batch_sizes)
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise BenchmarkError(f"batch_sizes must be positive numbers of clips, got {batch_sizes!r}.")
    if len(set(sizes)) != len(sizes):
        raise BenchmarkError(f"a batch size appears twice in {batch_sizes!r}.")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise BenchmarkError(f"rounds must be a positive number, got {rounds!r}.")
    if baseline is not None and baseline not in names:
        raise BenchmarkError(f"the baseline {baseline!r} is none of the models {names}.")


def _describe_load(device: torch.device) -> list[str]:
    """How busy the machine is before anything starts: the first thing to look at when two runs disagree."""
    notes = []
    if hasattr(os, "getloadavg"):
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        notes.append(f"load average {load:.1f} on {cores} cores at the start")
        if load > cores / 2:
            notes.append("the machine was busy: trust the ratios, not the milliseconds")
    if device.type == "cuda":
        notes.append(f"float32 matmul precision {torch.get_float32_matmul_precision()!r}")
    return notes
