"""A compression in the results format, one entry per step, and back: the numbers that a card and the documentation show as one table."""

from collections.abc import Sequence

from ..evaluation.block_drop_chart import StepRow, markdown_table
from ..evaluation.results import Cost, Metric, Provenance, ResultEntry
from ..training.block_drop_outcome import CompressionOutcome


TASK = "block-drop"
_DIFFERENCE, _BEFORE = " minus uncompressed", " before recovery"


def step_entries(outcome: CompressionOutcome, model: str, split: str = "held out of train") -> list[ResultEntry]:
    """One entry per step of a compression, the uncompressed model first.

    Args:
        outcome: what `progressive_block_drop` handed back.
        model: name of the compressed checkpoint.
        split: what the held-out videos are called.

    Returns:
        Entries of the task `block-drop`: no results of the checkpoint itself, which was not chosen on its test videos.
    """
    provenance = Provenance(**outcome.provenance)
    rows = outcome.rows()
    return [
        ResultEntry(
            task=TASK,
            model=model,
            dataset=str(outcome.data.get("name") or "unnamed"),
            split=split,
            metrics=_metrics(step, outcome.metric),
            provenance=provenance,
            variant=f"step {step.step}: {row.name}",
            protocol={"step": step.step, "dropped": list(step.dropped), "kept": list(step.kept)},
            cost=_cost(step, provenance),
        )
        for step, row in zip(outcome.steps, rows, strict=True)
    ]


def step_rows(entries: Sequence[ResultEntry]) -> tuple[list[StepRow], str]:
    """The inverse, as far as tables and charts need it: rows in the order of the steps, and the name of the metric.

    Args:
        entries: a results file; entries of other tasks are passed over.
    """
    steps = sorted((entry for entry in entries if entry.task == TASK), key=lambda entry: entry.protocol["step"])
    if not steps:
        return [], ""
    depth, name = len(steps[0].protocol["kept"]), steps[0].metrics[0].name
    rows = []
    for entry in steps:
        before, gap = entry.metric(name + _BEFORE), entry.metric(name + _DIFFERENCE)
        rows.append(
            StepRow(
                num_dropped=depth - len(entry.protocol["kept"]),
                name=entry.variant.partition(": ")[2],
                value=entry.metrics[0].value,
                interval=entry.metrics[0].interval,
                before=before and before.value,
                difference=gap and gap.value,
                difference_interval=gap and gap.interval,
                n=entry.metrics[0].n,
                parameters=entry.cost.parameters,
                gmacs=entry.cost.gmacs,
                milliseconds=entry.cost.latency_ms,
                speedup=entry.cost.speedup,
                speedup_interval=entry.cost.speedup_interval,
            )
        )
    return rows, name


def steps_table(entries: Sequence[ResultEntry]) -> str:
    """The Markdown table of a compression; empty where the entries hold none."""
    rows, metric = step_rows(entries)
    return markdown_table(rows, metric) if rows else ""


def _metrics(step, name) -> tuple[Metric, ...]:
    after = step.after
    metrics = [Metric(name, after.value, after.n, after.interval, after.interval_method)]
    if step.before is not None:
        before = step.before
        metrics.append(Metric(name + _BEFORE, before.value, before.n, before.interval, before.interval_method))
    if after.difference is not None:
        method = "paired bootstrap 95%" if after.difference_interval else None
        metrics.append(Metric(name + _DIFFERENCE, after.difference, after.n, after.difference_interval, method))
    for when, share in (step.activation_sparsity or {}).items():
        metrics.append(Metric(f"activation sparsity {when}", share, after.n))
    return tuple(metrics)


def _cost(step, provenance) -> Cost:
    if step.milliseconds is None:
        return Cost(gmacs=step.gmacs, parameters=step.parameters)
    return Cost(
        gmacs=step.gmacs,
        parameters=step.parameters,
        latency_ms=step.milliseconds,
        batch_size=1,
        hardware=provenance.hardware or "not recorded",
        dtype=provenance.dtype or "float32",
        decode_included=False,
        speedup=step.speedup,
        speedup_interval=step.speedup_interval,
        speedup_interval_method="order statistics of the rounds, which take turns" if step.speedup_interval else None,
        baseline="the uncompressed model" if step.speedup else None,
    )
