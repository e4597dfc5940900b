"""Several ways to drop blocks as a table: every number of blocks, its seeds, and how far it is from the models with all blocks."""

from collections.abc import Sequence

from ..evaluation.results import Metric, ResultEntry


def arms_table(entries: Sequence[ResultEntry]) -> str:
    """Markdown: one row per arm and number of dropped blocks, in points.

    Args:
        entries: of one file, as `examples/compare_block_drops.py` writes them: one per seed, and one of the mean over seeds with
            differences called `<metric> minus <reference>`.

    Returns:
        The line that says on what videos, and the table; nothing where there are no such entries.
    """
    means = [entry for entry in entries if entry.provenance.seed is None and "dropped_blocks" in entry.protocol]
    if not means:
        return ""
    first = means[0].metrics[0]
    references = list(dict.fromkeys(metric.name for entry in means for metric in entry.metrics[1:]))
    minus = [plain(f"minus {name.partition(' minus ')[2]}") for name in references]
    rows = [["", "dropped", "GMACs", f"{first.name} [95 %]", "seeds", *minus]]
    rows.append(["---"] * len(rows[0]))
    for entry in means:
        variant = entry.variant.partition(", mean of ")[0]
        seeds = [one for one in entries if one.variant == variant and one.provenance.seed is not None]
        rows.append(
            [
                plain(entry.protocol["arm"]),
                f"{entry.protocol['dropped_blocks']} of {entry.protocol['num_blocks']}",
                "-" if entry.cost.gmacs is None else f"{entry.cost.gmacs:.3g}",
                points(entry.metrics[0], ".1f"),
                ", ".join(f"{100 * one.metric(first.name).value:.1f}" for one in seeds) or "-",
                *(points(entry.metric(name), "+.1f") for name in references),
            ]
        )
    told = (
        f"{plain(means[0].model)} on {plain(means[0].dataset)} ({plain(means[0].split)}), n = {first.n}, in per cent."
    )
    return "\n".join([told, "", *("| " + " | ".join(row) + " |" for row in rows)])


def points(metric: Metric | None, form: str) -> str:
    """A number with its interval, in per cent; a dash for none."""
    if metric is None:
        return "-"
    return f"{100 * metric.value:{form}} [{100 * metric.interval[0]:{form}}, {100 * metric.interval[1]:{form}}]"


def plain(text: str) -> str:
    """Text of a results file in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")
