"""The benchmark as a table for a terminal."""

from rich.markup import escape
from rich.table import Table


def benchmark_table(report) -> Table:
    """One row per model and batch size.

    A column without values is left out; number type, execution and clip shape move to the caption when all rows agree.

    Args:
        report: a `BenchmarkReport`.
    """
    rows, captions = report.measurements, [report.describe_machine()]
    columns = [("model", "left", lambda m: m.name)]
    for title, describe in (
        ("dtype", lambda m: m.dtype),
        ("execution", lambda m: m.execution),
        ("clip", lambda m: "x".join(map(str, m.clip_shape))),
    ):
        values = {describe(m) for m in rows}
        if len(values) == 1:
            captions.append(f"{title} {values.pop()}")
        else:
            columns.append((title, "left", describe))
    columns += [
        ("params (M)", "right", lambda m: f"{m.parameters / 1e6:.2f}"),
        ("GMACs", "right", lambda m: _number(m.gmacs, 3)),
        ("batch", "right", lambda m: str(m.batch_size)),
        ("p50 (ms)", "right", lambda m: _number(m.latency_ms)),
        ("p90 (ms)", "right", lambda m: _number(m.latency_p90_ms)),
        ("clips/s", "right", lambda m: _number(m.throughput_clips_per_s)),
        ("peak (MB)", "right", lambda m: _number(m.peak_memory_mb)),
        ("decode (ms)", "right", lambda m: _number(m.decode_ms)),
        ("preprocess (ms)", "right", lambda m: _number(m.preprocess_ms)),
        (f"x {report.baseline}", "right", lambda m: _speedup(m, report.baseline)),
        ("accuracy", "right", lambda m: _accuracy(report.accuracies.get(m.name))),
    ]
    captions += [f"{len(rows[0].times_ms)} interleaved rounds", *report.notes]
    table = Table(title="Benchmark", caption=escape("; ".join(captions)), caption_justify="left")
    cells = [[describe(m) for m in rows] for _, _, describe in columns]
    kept = [number for number, values in enumerate(cells) if any(values)]
    for number in kept:
        title, justify, _ = columns[number]
        table.add_column(escape(title), justify=justify, no_wrap=number > 0)
    for row in zip(*(cells[number] for number in kept), strict=True):
        table.add_row(*map(escape, row))
    return table


def _number(value: float | None, digits: int = 3) -> str:
    """Three digits that count: 0.123, 12.3, 1230."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _speedup(measurement, baseline: str | None) -> str:
    if measurement.speedup is None:
        return "1" if measurement.name == baseline else ""
    low, high = measurement.speedup.interval
    return f"{measurement.speedup.median:.2f} [{low:.2f}, {high:.2f}]"


def _accuracy(accuracy) -> str:
    return f"{accuracy.value:.1%}" if accuracy else ""
