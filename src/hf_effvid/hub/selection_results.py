"""A study of token selection in a card: one table of its own, since a hundred arms and budgets are not results of the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..evaluation.distillation_arms import TASK as ARMS
from ..evaluation.results import Metric, ResultEntry
from ..evaluation.selection_entries import ALL_TOKENS, TASK
from .compression_results import TASK as STEPS
from .escaping import escape_code, escape_markdown


@dataclass(frozen=True)
class StudyTable:
    """Accuracies of a study, one row per arm and one column per budget.

    Attributes:
        full: the entry with all tokens, None where the results hold none.
        ratios: budgets P, largest first.
        rows: name of the arm and its cells: top-1 in per cent, with an arrow where it is shown to differ from what its entry compares it
            with (`top1 minus ...`), such as random tokens.
    """

    full: ResultEntry | None
    ratios: tuple[float, ...]
    rows: tuple[tuple[str, ...], ...]


def study_table(entries: Sequence[ResultEntry]) -> StudyTable:
    """The table of the entries that `effvid select study` writes; those without an accuracy or a budget are left out."""
    arms: dict[str, dict[float, str]] = {}
    full = None
    for entry in entries:
        arm, _, ratio = entry.variant.rpartition(", keep ")
        top1 = entry.metric("top1")
        if top1 is None:
            continue
        if entry.variant == ALL_TOKENS:
            full = entry
        elif arm:
            arms.setdefault(arm, {})[float(ratio)] = f"{100 * top1.value:.1f}{_arrow(entry)}"
    ratios = tuple(sorted({ratio for of_arm in arms.values() for ratio in of_arm}, reverse=True))
    rows = tuple((arm, *(of_arm.get(ratio, "-") for ratio in ratios)) for arm, of_arm in arms.items())
    return StudyTable(full, ratios, rows)


def own_results(results: Sequence[ResultEntry]) -> list[ResultEntry]:
    """What speaks of the checkpoint itself: everything but the steps of a compression, the arms of a distillation and studies of token
    selection, of which the accuracy with all tokens remains."""
    return [
        replace(entry, task="video-classification") if entry.task == TASK else entry
        for entry in results
        if entry.task not in (TASK, STEPS, ARMS) or entry.variant == ALL_TOKENS
    ]


def study_lines(results: Sequence[ResultEntry]) -> list[str]:
    """Markdown of the study in a card, nothing where the results hold none."""
    entries = [entry for entry in results if entry.task == TASK]
    table = study_table(entries)
    if not table.rows or table.full is None:
        return []
    top1, origin = table.full.metric("top1"), table.full.provenance
    header = ("tokens chosen by", *(f"P = {ratio:g}" for ratio in table.ratios))
    return [
        f"Measured on {escape_markdown(table.full.dataset)} ({escape_markdown(table.full.split)}), {top1.n} videos, top-1 in %; all tokens: "
        f"{100 * top1.value:.1f}{_interval(top1)}. P is the share of tokens, or of a selection of equal cost; an arrow marks what is shown to differ "
        "from random tokens.",
        "",
        _line(header),
        _line(("---",) * len(header)),
        *(_line((escape_markdown(arm), *cells)) for arm, *cells in table.rows),
        "",
        f"Measured with {escape_code(origin.command)}, commit {escape_code(origin.commit or 'not recorded')}, {escape_markdown(origin.date)}.",
    ]


def _arrow(entry: ResultEntry) -> str:
    ahead = next((metric for metric in entry.metrics if metric.name.startswith("top1 minus ")), None)
    low, high = ahead.interval if ahead is not None and ahead.interval else (0, 0)
    return " ↑" if low > 0 else " ↓" if high < 0 else ""


def _interval(metric: Metric) -> str:
    if not metric.interval:
        return ""
    low, high = metric.interval
    return f" [{100 * low:.1f}, {100 * high:.1f}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
