"""Results as table rows and as front matter; the same functions write a card and check it.

Benchmark entries hold no metric and so appear in none of them but `cost_facts`: their table is in `speed_table.py`.
"""

from collections.abc import Sequence

from huggingface_hub import EvalResult

from ..evaluation.results import Cost, Metric, ResultEntry
from .escaping import escape_code, escape_markdown


NOT_MEASURED = "not measured"

# our metric name -> (how people call it, the Hub's metric type)
_METRICS = {
    "top1": ("top-1 accuracy", "accuracy"),
    "top5": ("top-5 accuracy", "accuracy"),
    "mAP": ("mAP", "mean_average_precision"),
    "micro_f1": ("micro F1", "f1"),
    "average_mAP": ("average mAP", "mean_average_precision"),
}


def _views(protocol) -> str:
    return " x ".join(str(protocol.get(name, "?")) for name in ("num_frames", "num_clips", "num_crops"))


def _overlaps(protocol) -> str:
    tious = protocol.get("tious")
    return f"{min(tious):g} to {max(tious):g}" if tious else "?"


# task -> (heading of the column that says how it was measured, its cell)
_PROTOCOLS = {
    "video-classification": ("frames x clips x crops", _views),
    "temporal-action-detection": ("overlap (tIoU)", _overlaps),
}


def protocol_header(task: str) -> str:
    """Heading of the second column of a result table."""
    return _PROTOCOLS.get(task, _PROTOCOLS["video-classification"])[0]


def _metric_type(name: str) -> str:
    if name.startswith("mAP@"):  # at one overlap
        return "mean_average_precision"
    return _METRICS.get(name, (name, name))[1]


def metric_label(name: str) -> str:
    """How people call one of our metrics; an unknown name is its own."""
    return _METRICS.get(name, (name,))[0]


def result_rows(results: list[ResultEntry]) -> list[str]:
    """One Markdown table row per metric, in order."""
    return [_row(entry, metric) for entry in results for metric in entry.metrics]


def result_notes(results: list[ResultEntry]) -> list[str]:
    """Under the table: how each of our numbers was measured, what could not be read, and the remarks of the entries."""
    notes = []
    for entry in results:
        if not entry.metrics:
            continue
        name = escape_markdown(entry.dataset) + (f" ({escape_markdown(entry.variant)})" if entry.variant else "")
        origin = entry.provenance
        if entry.quoted:
            notes.append(f"{name}: quoted from {escape_markdown(origin.command, 300)}; we did not measure it.")
        else:
            commit = escape_code(origin.commit) if origin.commit else "not recorded"
            details = [f"commit {commit}", f"{origin.dtype}" if origin.dtype else "", escape_markdown(origin.date)]
            notes.append(f"{name}: measured with {escape_code(origin.command)}, {', '.join(filter(None, details))}.")
        if entry.num_failed:
            notes.append(f"{name}: {entry.num_failed} further videos could not be read and are not counted.")
        notes += [f"{name}: {escape_markdown(note, 400)}" for note in entry.notes]
    return notes


def evaluation_results(results: list[ResultEntry]) -> list[EvalResult]:
    """Our own measurements for the `model-index` of the front matter; quoted numbers are not ours to claim.

    A run that differs from the plain one (`variant`) says so in its metric name.
    """
    return [
        EvalResult(
            task_type=entry.task,
            dataset_type=entry.dataset_id or _slug(entry.dataset),
            dataset_name=entry.dataset,
            dataset_split=entry.split,
            metric_type=_metric_type(metric.name),
            metric_name=metric_label(metric.name) + (f" ({entry.variant})" if entry.variant else ""),
            metric_value=round(metric.value, 4),
        )
        for entry in results
        if not entry.quoted
        for metric in entry.metrics
    ]


def metric_ids(results: list[ResultEntry]) -> list[str]:
    """The Hub's metric types that occur, each once."""
    return list(dict.fromkeys(_metric_type(metric.name) for entry in results for metric in entry.metrics))


def cost_facts(costs: Sequence[Cost], view: str = "view") -> list[tuple[str, str]]:
    """Parameters, GMACs, latency and memory for the card's fact table; `not measured` where there is no number.

    Args:
        costs: of this checkpoint; for each fact the first one that states it counts.
        view: what their GMACs are of.
    """

    def first(name):
        return next((getattr(cost, name) for cost in costs if getattr(cost, name) is not None), None)

    parameters, gmacs, memory = first("parameters"), first("gmacs"), first("peak_memory_mb")
    timed = next((cost for cost in costs if cost.latency_ms is not None), None)
    latency = NOT_MEASURED
    if timed:
        decode = "decoding included" if timed.decode_included else "decoding not included"
        latency = f"{timed.latency_ms:.3g} ms per batch of {timed.batch_size} ({escape_markdown(timed.hardware)}, {timed.dtype}, {decode})"
    return [
        ("parameters", f"{parameters:,}" if parameters else NOT_MEASURED),
        (
            f"GMACs per {view} (multiply-accumulates; papers often say GFLOPs)",
            f"{gmacs:.4g}" if gmacs else NOT_MEASURED,
        ),
        ("latency", latency),
        ("peak memory", f"{memory:.4g} MB" if memory else NOT_MEASURED),
    ]


def _row(entry: ResultEntry, metric: Metric) -> str:
    protocol = _PROTOCOLS.get(entry.task, _PROTOCOLS["video-classification"])[1]
    interval = f"{metric.interval[0]:.1%} to {metric.interval[1]:.1%}" if metric.interval else "none"
    variant = f", {escape_markdown(entry.variant)}" if entry.variant else ""
    cells = (
        f"{escape_markdown(entry.dataset)} ({escape_markdown(entry.split)}){variant}",
        protocol(entry.protocol),
        metric_label(metric.name) if metric.name in _METRICS else escape_markdown(metric.name),
        f"{metric.value:.1%}",
        interval,
        str(metric.n) if metric.n else "?",
        "quoted" if entry.quoted else "measured",
    )
    return "| " + " | ".join(cells) + " |"


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) or "dataset"
