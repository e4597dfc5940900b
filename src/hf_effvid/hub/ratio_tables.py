"""Times as ratios: models against one of them, exported files against the model that they were made from."""

from collections.abc import Sequence
from dataclasses import replace

from ..evaluation.results import ResultEntry
from .escaping import escape_markdown
from .speed_table import speed_notes


SPEED = "| model, frames x pixels | parameters | multiply-accumulates | ms, median (p90) | clips per s | peak memory | times faster |"
EXPORTS = "| model | run as | MB | ms, median (p90) | times faster than PyTorch | largest difference of a logit | same class |"


def ratios_table(results: Sequence[ResultEntry]) -> list[str]:
    """One table per number of clips, as `examples/bench_students.py` measures them: the baseline first, then by time.

    Args:
        results: entries that hold costs.
    """
    lines = []
    for size in sorted({entry.cost.batch_size for entry in results}):
        rows = [entry for entry in results if entry.cost.batch_size == size]
        baseline = next(entry.cost.baseline for entry in rows if entry.cost.baseline)
        rows.sort(key=lambda entry: (entry.model != baseline, entry.cost.latency_ms))
        lines += ["", f"{_clips(size)} per pass, against {escape_markdown(baseline)}:", "", SPEED, _ruler(SPEED)]
        lines += [_speed_row(entry) for entry in rows]
    return [*lines[1:], "", *speed_notes(results)]


def exports_table(results: Sequence[ResultEntry]) -> list[str]:
    """What `examples/export_students.py` wrote: the model in PyTorch, then its files.

    Args:
        results: entries that hold costs, sizes and distances.
    """
    notes = speed_notes([replace(entry, metrics=()) for entry in results])
    return [EXPORTS, _ruler(EXPORTS), *(_export_row(entry) for entry in results), "", *notes]


def _speed_row(entry: ResultEntry) -> str:
    cost = entry.cost
    cells = (
        escape_markdown(entry.model),
        f"{cost.parameters / 1e6:.3g} M",
        f"{cost.gmacs:.3g} G" if cost.gmacs else "not counted",
        _milliseconds(cost),
        f"{cost.throughput_clips_per_s:.3g}",
        f"{cost.peak_memory_mb:.0f} MB" if cost.peak_memory_mb else "not measured",
        _faster(cost),
    )
    return "| " + " | ".join(cells) + " |"


def _export_row(entry: ResultEntry) -> str:
    cost, difference, same = entry.cost, entry.metric("max_relative_logit_difference"), entry.metric("same_class")
    cells = (
        escape_markdown(entry.model),
        escape_markdown(entry.variant.split(",")[0]),
        f"{entry.metric('megabytes').value:.3g}",
        _milliseconds(cost),
        _faster(cost),
        f"{difference.value:.1e}" if difference else "",
        f"{same.value * same.n:.0f} of {same.n}" if same else "",
    )
    return "| " + " | ".join(cells) + " |"


def _milliseconds(cost) -> str:
    return f"{_number(cost.latency_ms)} ({_number(cost.latency_p90_ms)})"


def _faster(cost) -> str:
    if not cost.speedup:
        return "1"
    low, high = cost.speedup_interval
    return f"{_number(cost.speedup)} ({_number(low)} to {_number(high)})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _clips(size: int) -> str:
    return "One clip" if size == 1 else f"{size} clips"


def _ruler(header: str) -> str:
    return "| " + " | ".join("---" for _ in header.split("|")[1:-1]) + " |"
