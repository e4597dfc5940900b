"""What models cost on this machine: parameters, multiply-accumulates, milliseconds, clips per second, memory.

```python
report = benchmark(["videomae-folder", ("ours", make_model)], batch_sizes=(1, 4), budget_ms=20)
```

Models take turns (A B C A B C ...), so that the ratio of two of them holds even where the milliseconds do not. Everything
is recorded in the one result format (`to_result_entries`).
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .benchmark_budget import as_accuracies, check_budget
from .benchmark_execution import BenchmarkError, check_clock, choose_execution, execution_settings, resolve_device
from .benchmark_load import describe_load
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
    clock: str = "wall",
    command: str | None = None,
    progress: bool | None = None,
) -> BenchmarkReport:
    """Measures one or several video classifiers on this machine.

    All models are in memory together. A pass goes over random clips of the shape that the model's recipe or configuration
    names. Milliseconds are those of the model alone; decoding and preprocessing are timed beside it.

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
        clock: `"wall"`, or `"processor"`: seconds that this process computed, with `threads=1` alone. Those hold where others use
            the machine too, and say nothing about waiting for memory or other threads; they are recorded under a name of their own.
        command: recorded as what was run; default: this process's command line.
        progress: show a progress bar on stderr; default: when it is a terminal.

    Returns:
        The report.

    Raises:
        BenchmarkError: an argument does not make sense, a model does not open or does not take its own clips.
    """
    variants = tuple(with_defaults(variant, dtype, compile) for variant in as_variants(models))
    names = [variant.name for variant in variants]
    _check(batch_sizes, rounds, baseline, names, budget_ms)
    accuracies = as_accuracies(accuracies, names)
    device = resolve_device(device)
    check_clock(clock, device, threads)
    plan = _Plan(
        variants=variants,
        executions={v.name: choose_execution(device.type, v.compile, cuda_graph) for v in variants},
        batch_sizes=tuple(batch_sizes),
        rounds=rounds,
        device=device,
        video=video,
        stages=stages,
        memory=memory,
        clock=clock,
    )
    notes, compiling = describe_load(device), any(variant.compile for variant in variants)
    with benchmark_progress(plan.num_steps, progress) as advance, execution_settings(threads, compiling, device):
        num_threads = torch.get_num_threads()
        measurements = _run(plan, num_threads, notes, advance)
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


@dataclass(frozen=True)
class _Plan:
    """The checked arguments of a benchmark."""

    variants: tuple[BenchmarkVariant, ...]
    executions: dict[str, str]
    batch_sizes: tuple[int, ...]
    rounds: int
    device: torch.device
    video: object
    stages: bool
    memory: bool
    clock: str = "wall"

    @property
    def fresh_processes(self) -> bool:
        """Whether memory is measured in processes of its own; a GPU counts for itself."""
        return self.memory and self.device.type == "cpu"

    @property
    def num_steps(self) -> int:
        """Calls of `advance` for the progress bar."""
        settings = len(self.variants) * len(self.batch_sizes)
        rounds = self.rounds * (len(self.batch_sizes) + self.stages)
        return len(self.variants) + settings * (1 + self.fresh_processes) + rounds


def _run(plan: _Plan, num_threads: int, notes: list[str], advance: Callable[[str], None]) -> list[Measurement]:
    """Everything that takes time; the models are gone before their memory is measured in fresh processes."""
    measurements, subjects = [], []
    with contextlib.ExitStack() as loaded:
        for variant in plan.variants:
            advance(f"loading {variant.name}")
            subjects.append(prepare(variant, plan.executions[variant.name], plan.device, loaded, notes))
        cuda_memory = plan.memory and plan.device.type == "cuda"
        for size in plan.batch_sizes:
            measurements += measure_batch(
                subjects, size, plan.rounds, plan.device, cuda_memory, notes, advance, plan.clock
            )
        if plan.stages:
            measurements = with_stages(measurements, subjects, plan.rounds, plan.video, notes, advance)
    sources = {subject.variant.name: (subject.variant, subject.shape) for subject in subjects}
    del subjects
    if plan.fresh_processes:
        measurements = with_cpu_memory(measurements, sources, num_threads, notes, advance)
    return measurements


def _check(batch_sizes, rounds, baseline: str | None, names: list[str], budget_ms) -> None:
    if budget_ms is not None:
        check_budget(budget_ms)
    sizes = list(batch_sizes)
    if not sizes or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sizes):
        raise BenchmarkError(f"batch_sizes must be positive numbers of clips, got {batch_sizes!r}.")
    if len(set(sizes)) != len(sizes):
        raise BenchmarkError(f"a batch size appears twice in {batch_sizes!r}.")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise BenchmarkError(f"rounds must be a positive number, got {rounds!r}.")
    if baseline is not None and baseline not in names:
        raise BenchmarkError(f"the baseline {baseline!r} is none of the models {names}.")
