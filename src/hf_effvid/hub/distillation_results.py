"""A study of distillation as a table and in words: what each teacher is worth to a student, and whether the student is ahead of them."""

from collections.abc import Sequence

from ..evaluation.distillation_arms import ALONE, CNN_ONLY, CNN_TEACHER, FULL, TASK, UNIFORM, VIT_ONLY, VIT_TEACHER
from ..evaluation.results import ResultEntry
from .block_drop_arms import plain, points


_MEASURED_BY = (ALONE, UNIFORM, VIT_TEACHER, CNN_TEACHER)


def arm_means(entries: Sequence[ResultEntry]) -> list[ResultEntry]:
    """The entries of a study that are means over seeds, one per arm, in the order of the file."""
    return [
        entry
        for entry in entries
        if entry.task == TASK and entry.provenance.seed is None and ", mean of " in entry.variant
    ]


def students_table(entries: Sequence[ResultEntry]) -> str:
    """Markdown: one row per arm with its seeds, and the paired differences in points.

    Args:
        entries: of one file, as `evaluation.distillation_arms.arm_entries` makes them.

    Returns:
        The line that says on what videos, and the table; nothing where there are no such entries.
    """
    means = arm_means(entries)
    if not means:
        return ""
    # of a study with many arms only what every arm is measured by: no table has room for all pairs
    found = {metric.name for entry in means for metric in entry.metrics[1:]}
    references = [name for arm in _MEASURED_BY if (name := f"top1 minus {arm}") in found]
    timed = any(entry.cost.latency_ms for entry in means)
    rows = [["", "parameters", "GMACs", *(["ms"] if timed else []), "top-1 [95 %]", "seeds"]]
    rows[0] += [plain(f"minus {name.partition(' minus ')[2]}") for name in references]
    rows.append([":---", *["---:"] * (len(rows[0]) - 1)])
    for entry in means:
        arm = entry.protocol["arm"]
        seeds = [e for e in entries if e.task == TASK and e.variant == arm and e.provenance.seed is not None]
        named = arm if "teacher" not in arm else f"{arm}: {entry.model}"
        rows.append(
            [
                plain(named),
                "-" if entry.cost.parameters is None else f"{entry.cost.parameters / 1e6:.3g} M",
                "-" if entry.cost.gmacs is None else f"{entry.cost.gmacs:.3g}",
                *([f"{entry.cost.latency_ms:.3g}" if entry.cost.latency_ms else "-"] if timed else []),
                points(entry.metrics[0], ".1f"),
                ", ".join(f"{100 * one.metric('top1').value:.1f}" for one in seeds) if len(seeds) > 1 else "one run",
                *(points(entry.metric(name), "+.1f") for name in references),
            ]
        )
    first = means[0]
    told = f"{plain(first.dataset)} ({plain(first.split)}), n = {first.metrics[0].n}, in per cent; differences are paired, of the same videos."
    return "\n".join([told, "", *("| " + " | ".join(row) + " |" for row in rows)])


def overview_table(entries: Sequence[ResultEntry]) -> str:
    """Markdown: one row per test split of several studies, top-1 in per cent, and what the whole method is ahead of labels alone and of equal weights.

    Args:
        entries: of any files; arms that tables do not know by name are left out, and other splits, on which checkpoints were chosen.
    """
    shown = (ALONE, VIT_ONLY, CNN_ONLY, UNIFORM, FULL, VIT_TEACHER, CNN_TEACHER)
    studies: dict[tuple[str, str], dict[str, ResultEntry]] = {}
    for entry in arm_means([entry for entry in entries if entry.split == "test"]):
        studies.setdefault((entry.dataset, entry.split), {})[entry.protocol["arm"]] = entry
    rows = [["videos", "n", *shown, f"{FULL} minus {ALONE}", f"{FULL} minus {UNIFORM}"]]
    rows.append([":---", *["---:"] * (len(rows[0]) - 1)])
    for (dataset, split), arms in studies.items():
        if FULL not in arms:
            continue
        full = arms[FULL]
        values = [f"{100 * arms[arm].metrics[0].value:.1f}" if arm in arms else "-" for arm in shown]
        gaps = [points(full.metric(f"top1 minus {arm}"), "+.1f") for arm in (ALONE, UNIFORM)]
        rows.append([plain(f"{dataset} ({split})"), str(full.metrics[0].n), *values, *gaps])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if len(rows) > 2 else ""


def verdicts(entries: Sequence[ResultEntry], arm: str = FULL) -> list[str]:
    """Sentences: whether an arm is ahead of each teacher, of the student alone and of equal weights.

    Intervals over videos decide, and the seeds whether that says more than these runs: where their ranges overlap it may be luck.
    """
    mean = next((entry for entry in arm_means(entries) if entry.protocol["arm"] == arm), None)
    if mean is None:
        return []
    told = {
        VIT_TEACHER: "the ViT teacher",
        CNN_TEACHER: "the CNN teacher",
        ALONE: "the student that learned from labels alone",
        UNIFORM: "two teachers with equal weights and nothing else",
    }
    sentences = []
    for name, who in told.items():
        metric = mean.metric(f"top1 minus {name}")
        if metric is None or name == arm:
            continue
        low, high = metric.interval
        how = "is ahead of" if low > 0 else "is behind" if high < 0 else "is not shown to differ from"
        ours, theirs = (_range_of_seeds(entries, name) for name in (arm, name))
        doubt = ""
        if (low > 0 or high < 0) and ours[0] <= theirs[1] and theirs[0] <= ours[1]:
            doubt = f" on these videos; but its seeds lie from {_ends(ours)}, the others' from {_ends(theirs)}, so that it may be luck"
        sentences.append(f"It {how} {who}{doubt}: {points(metric, '+.1f')} points.")
    return sentences


def _range_of_seeds(entries, arm: str) -> tuple[float, float]:
    values = [
        entry.metric("top1").value
        for entry in entries
        if entry.task == TASK and entry.variant == arm and entry.protocol["arm"] == arm
    ]
    return min(values), max(values)


def _ends(values) -> str:
    return " to ".join(f"{100 * value:.1f}" for value in values)
