"""Measured times as a table of a model card; benchmark entries hold costs and no accuracy."""

from collections.abc import Sequence

from ..evaluation.results import Cost, ResultEntry
from .escaping import escape_code, escape_markdown


SPEED_HEADER = "| model | run as | batch | ms, median (p90) | clips per s | peak memory | times faster |"


def speed_entries(results: Sequence[ResultEntry]) -> list[ResultEntry]:
    """The entries that hold nothing but costs with a time in them: what `effvid bench` writes."""
    return [entry for entry in results if not entry.metrics and entry.cost.latency_ms is not None]


def speed_rows(results: Sequence[ResultEntry]) -> list[str]:
    """One Markdown table row per benchmark entry, in order."""
    return [_row(entry) for entry in speed_entries(results)]


def speed_notes(results: Sequence[ResultEntry]) -> list[str]:
    """Under the table: on what, with what and when it was measured; once per run and not per row."""
    notes = []
    for entry in speed_entries(results):
        cost, origin = entry.cost, entry.provenance
        if entry.quoted:
            notes.append(f"Quoted from {escape_markdown(origin.command, 300)}; we did not measure it.")
            continue
        threads = f", {cost.num_threads} threads" if cost.num_threads else ""
        rounds = f", {cost.num_rounds} interleaved rounds" if cost.num_rounds else ""
        decoding = "decoding included" if cost.decode_included else "the model alone, decoding not included"
        commit = escape_code(origin.commit) if origin.commit else "not recorded"
        notes.append(
            f"Measured on {escape_markdown(cost.hardware)}{threads}{rounds}; {decoding}; {escape_code(origin.command)}, "
            f"commit {commit}, {escape_markdown(origin.date)}."
        )
    return list(dict.fromkeys(notes))


def own_costs(results: Sequence[ResultEntry], name: str) -> list[Cost]:
    """The costs that are this checkpoint's: of its accuracy entries, and of the benchmark entries that bear its name.

    Args:
        results: accuracies and benchmark entries, those of other models among them.
        name: of the checkpoint's repository; the names under which its accuracies were measured count as well.
    """
    timed = speed_entries(results)
    measured = [entry for entry in results if entry not in timed and not entry.quoted]
    names = {name, *(entry.model for entry in measured)}
    mine = [entry.cost for entry in timed if entry.model in names and not entry.quoted]
    return [*(entry.cost for entry in measured), *mine]


def _row(entry: ResultEntry) -> str:
    cost = entry.cost
    p90 = f" ({_number(cost.latency_p90_ms)})" if cost.latency_p90_ms else ""
    memory = f"{cost.peak_memory_mb:.4g} MB" if cost.peak_memory_mb else "not measured"
    cells = (
        escape_markdown(entry.model),
        escape_markdown(", ".join(filter(None, (cost.dtype, cost.execution)))),
        str(cost.batch_size),
        f"{_number(cost.latency_ms)}{p90}",
        f"{cost.throughput_clips_per_s:.3g}" if cost.throughput_clips_per_s else "not measured",
        memory,
        _speedup(cost),
    )
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    """Three digits that count, and no powers of ten: 0.123, 12.3, 1230."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _speedup(cost: Cost) -> str:
    if not cost.speedup:
        return "1"
    interval = cost.speedup_interval
    between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{cost.speedup:.2f}{between} than {escape_markdown(cost.baseline)}"
