"""A study of token selection as Markdown: what it got right, what it cost, and what the numbers can and cannot say."""

from .results import Metric
from .selection_entries import CLASS_RATIO, class_metrics, leak_metrics, null_note, value_metrics
from .selection_report import FULL, RANDOM, SelectionReport


_MARKS = {"better": " ↑", "worse": " ↓", "no difference shown": "", "": ""}


def markdown(report: SelectionReport) -> str:
    """All tables of a study, with the notes under them."""
    full = report.top1(report.full)
    seeds = f", mean of {report.num_models} training seeds" if report.num_models > 1 else ""
    parts = [
        f"# Token selection: {_plain(report.model_name)} on {_plain(report.dataset_name)} ({_plain(report.split)})",
        f"n = {report.n} videos ({report.num_failed} unreadable){seeds}. All tokens: top-1 {_share(full)}.",
        "## Accuracy",
        accuracy_table(report),
        f"Top-1 in %. ↑ ↓: the 95 % interval of the paired difference to `{RANDOM}` at the same budget lies above, below 0. "
        "Scores keep the same number of tokens; merging, fewer frames, smaller frames and smaller crops cost about the same "
        "(see below). Arms marked * are for analysis: their score needs the whole model, or the label.",
        "## Difference to random tokens",
        difference_table(report),
        "## Cost",
        cost_table(report),
        "GMACs of a clip, then milliseconds where they were measured.",
    ]
    for title, metrics, note in (
        ("Leak of the oracle's label", leak_metrics(report), ""),
        ("Values of tokens", value_metrics(report), null_note(report)),
        (
            f"Easy against hard classes (keep {CLASS_RATIO:g})",
            class_metrics(report),
            "Easy minus hard half of the classes; which are easy is decided on other videos than what is measured.",
        ),
    ):
        if metrics:
            parts += [f"## {title}", metric_table(metrics), note]
    if report.selector:
        parts += ["## Selector", *(f"- {_plain(name)}: {_plain(value)}" for name, value in report.selector.items())]
    if report.notes:
        parts += ["## Notes", *(f"- {_plain(note)}" for note in report.notes)]
    return "\n\n".join(part for part in parts if part).replace("\n\n- ", "\n- ") + "\n"


def accuracy_table(report: SelectionReport) -> str:
    """One row per arm, one column per budget."""

    def cell(result) -> str:
        return f"{100 * result.accuracy:.1f}{_MARKS[report.verdict(*result.key)]}"

    return _per_budget(report, cell)


def difference_table(report: SelectionReport) -> str:
    """Accuracy minus that of random tokens in points, with the interval of the paired difference."""

    def cell(result) -> str:
        metric = report.against_random.get(result.key)
        return _points(metric) if metric else "-"

    return _per_budget(report, cell, without=(RANDOM,))


def cost_table(report: SelectionReport) -> str:
    """GMACs and milliseconds of each arm at each budget, the full model first."""

    def cell(result) -> str:
        cost = result.cost
        macs = f"{cost.gmacs:.4g}" if cost.gmacs is not None else "-"
        return f"{macs} / {cost.latency_ms:.3g} ms" if cost.latency_ms is not None else macs

    ratios = report.keep_ratios
    row = f"| all tokens | {cell(report.full)} |" + " |" * (len(ratios) - 1)
    return _per_budget(report, cell, first=row)


def metric_table(metrics: list[Metric]) -> str:
    """Name, value with interval, and n."""
    rows = [f"| {_plain(m.name)} | {_number(m)} | {m.n} |" for m in metrics]
    return "\n".join(["| | value | n |", "| --- | --- | --- |", *rows])


def _per_budget(report: SelectionReport, cell, without=(), first: str | None = None) -> str:
    ratios = report.keep_ratios
    head = ["| arm | " + " | ".join(f"P = {ratio:g}" for ratio in ratios) + " |", "| --- |" + " --- |" * len(ratios)]
    rows = [first] if first else []
    for arm in (name for name in report.arms if name not in (*without, FULL)):
        of_arm = {ratio: report.get(arm, ratio) for ratio in ratios}
        star = " *" if any(r is not None and r.kind == "analysis" for r in of_arm.values()) else ""
        cells = [cell(result) if result is not None else "-" for result in of_arm.values()]
        rows.append(f"| {_plain(arm)}{star} | " + " | ".join(cells) + " |")
    return "\n".join([*head, *rows])


def _share(metric: Metric) -> str:
    low, high = metric.interval
    return f"{metric.value:.1%} [{low:.1%}, {high:.1%}]"


def _points(metric: Metric) -> str:
    low, high = metric.interval
    return f"{100 * metric.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _number(metric: Metric) -> str:
    if metric.interval is None:
        return f"{metric.value:.3f}"
    return f"{metric.value:.3f} [{metric.interval[0]:.3f}, {metric.interval[1]:.3f}]"


def _plain(value) -> str:
    """One cell of a table, whatever a stranger called a class or a model."""
    return " ".join(str(value).replace("|", "\\|").split())
