# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Writes what README.md and docs/ show but do not know: the printed outputs of README's Python blocks, and tables of numbers.

    make quickstart && python model_cards/fill_readme.py      # outputs and tables
    python model_cards/fill_readme.py --tables                # tables only: runs nothing, reads model_cards/results/*.json
    python model_cards/fill_readme.py --tables --check        # writes nothing; exit code 1 when a page differs

A page marks the places with comments that Markdown does not show, `<!-- NAME: begin --> <!-- NAME: end -->`. NAME is one of

    output               after a Python block: what it printed (blocks run in order and share their names)
    models               one row per model and data set: task, accuracy, multiply-accumulates, parameters
    results              every measured accuracy and every paired difference, by data set, of baselines, real videos and cards
    results of STEM      the same of model_cards/results/STEM.json alone
    speed of STEM        the times in that file
    ratios of STEM       the times in that file as ratios, with parameters and multiply-accumulates, a table per number of clips
    exports of STEM      exported files: size, time beside the model in PyTorch, distance from it
    explanations of STEM the scores of explanations in that file
    selection of STEM    a study of token selection: accuracy of every arm at every budget
    budgets of STEM      budgets per clip (LITE++): accuracy, cost, and differences to what each could be replaced by
    drops of STEM        dropped blocks: what every one cost and gave
    detections of STEM   detectors of actions: average mAP of every arm and baseline, and the paired difference to the best baseline
    students             studies of distillation, one row per data set
    students of STEM     arms of a distillation study: seeds, mean, paired differences to the student alone, the teachers and equal weights
    arms of STEM         several ways to drop blocks: every number of them, and the paired differences to the models with all blocks
    quoted               accuracies that others published

Seeds of one model, data set and variant become one row: the mean, the accuracy of each seed, and the Wilson interval of the mean over the
n videos (too wide rather than too narrow, since several seeds see the same videos).
"""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hf_effvid.evaluation.distillation_arms import TASK as STUDENTS
from hf_effvid.evaluation.results import Metric, ResultEntry, ResultsFile, wilson_interval
from hf_effvid.hub.block_drop_arms import arms_table
from hf_effvid.hub.compression_results import TASK as STEPS
from hf_effvid.hub.compression_results import steps_table
from hf_effvid.hub.distillation_results import overview_table, students_table
from hf_effvid.hub.ratio_tables import exports_table, ratios_table
from hf_effvid.hub.selection_results import study_table
from hf_effvid.hub.speed_table import SPEED_HEADER, speed_notes, speed_rows


ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "model_cards" / "results"
NOT_MEASURED = "not measured"
BASELINE = "baseline: "
DIFFERENCE = "top1 difference, A minus B"
# files whose numbers stand in the tables without a file's name; the other studies have a page of their own
IN_FRONT = ("baselines", "real")

SECTION = re.compile(
    r"<!-- ((?:models|results|quoted|speed|explanations|selection|budgets|detections|drops|arms|students|ratios|exports)(?: of [\w.-]+)?): begin -->"
)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OUTPUT_AFTER = re.compile(r"\s*<!-- output: begin -->\n(.*?)<!-- output: end -->", re.DOTALL)


class PageError(ValueError):
    """The page cannot be filled: a mark is missing, or a block of it fails."""


@dataclass(frozen=True)
class PythonBlock:
    """A fenced Python block of a Markdown page.

    Attributes:
        code: its text.
        line: the line of the page on which the code begins, counted from 1.
        output: start and end of the text between the output marks behind it, None where there are none.
    """

    code: str
    line: int
    output: tuple[int, int] | None


@dataclass(frozen=True)
class Group:
    """The seeds of one model on one split of one data set in one variant."""

    entries: tuple[ResultEntry, ...]

    @property
    def first(self) -> ResultEntry:
        return self.entries[0]

    @property
    def top1(self) -> list[Metric]:
        return [entry.metric("top1") for entry in self.entries]

    def cost(self, name: str) -> float | None:
        return next((getattr(e.cost, name) for e in self.entries if getattr(e.cost, name) is not None), None)


def python_blocks(page: str) -> list[PythonBlock]:
    """The fenced Python blocks of a page, in order."""
    blocks = []
    for found in PYTHON_BLOCK.finditer(page):
        output = OUTPUT_AFTER.match(page, found.end())
        line = page.count("\n", 0, found.start(1)) + 1
        blocks.append(PythonBlock(found[1], line, output.span(1) if output else None))
    return blocks


def run_blocks(blocks: Iterable[PythonBlock], page_name: str) -> list[str]:
    """Runs the blocks in the current folder, one after the other with the same names; returns what each printed on stdout.

    Raises:
        PageError: a block raised; the message names its line.
    """
    names = {"__name__": "__main__"}
    printed = []
    for block in blocks:
        # empty lines before the code, so that a traceback shows the line of the page
        code = compile("\n" * (block.line - 1) + block.code, page_name, "exec")
        stdout = io.StringIO()
        try:
            with contextlib.redirect_stdout(stdout):
                exec(code, names)
        except Exception as error:
            raise PageError(f"{page_name}, block at line {block.line}: {type(error).__name__}: {error}") from error
        printed.append(stdout.getvalue())
    return printed


def with_outputs(page: str, printed: list[str]) -> str:
    """The page with the text that each block printed between the marks behind it."""
    blocks = python_blocks(page)
    for block, text in reversed(list(zip(blocks, printed, strict=True))):
        if block.output is None:
            continue
        if not text.strip():
            raise PageError(f"the block at line {block.line} has output marks but printed nothing")
        start, end = block.output
        page = f"{page[:start]}\n```text\n{text.rstrip()}\n```\n\n{page[end:]}"
    return page


def with_section(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks of a section."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise PageError(f"expected the marks '{begin}' and '{end}' once each")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}" if text else f"{before}{begin}\n{end}{after}"


def with_tables(page: str, results: Path = RESULTS) -> str:
    """The page with the tables that the results files give, wherever it has marks for one.

    Raises:
        PageError: a mark without its partner, or one for a file that does not exist.
    """
    files = {path.stem: ResultsFile.load(path).results for path in sorted(results.glob("*.json"))}
    cards = {path.stem for path in (ROOT / "model_cards").glob("*.md")}
    front = [e for stem, of_file in files.items() if stem.startswith(IN_FRONT) or stem in cards for e in of_file]
    front = [entry for entry in front if entry.task not in (STEPS, STUDENTS)]
    for name in SECTION.findall(page):
        kind, _, stem = name.partition(" of ")
        if stem and stem not in files:
            raise PageError(f"'{name}': there is no {stem}.json in {results}")
        entries = files[stem] if stem else [e for of_file in files.values() for e in of_file]
        if kind == "models":
            text = models_table([entry for entry in front if not entry.quoted])
        elif kind == "results":
            text = results_tables(entries if stem else [entry for entry in front if not entry.quoted])
        elif kind == "speed":
            text = speed_table(entries)
        elif kind == "ratios":
            text = "\n".join(ratios_table(entries))
        elif kind == "exports":
            text = "\n".join(exports_table(entries))
        elif kind == "explanations":
            text = explanations_table(entries)
        elif kind == "selection":
            text = selection_table(entries)
        elif kind == "budgets":
            text = budgets_table(entries)
        elif kind == "drops":
            text = steps_table(entries)
        elif kind == "detections":
            text = detections_table(entries)
        elif kind == "students":
            text = students_table(entries) if stem else overview_table(entries)
        elif kind == "arms":
            text = arms_table(entries)
        else:
            text = quoted_table(entries)
        page = with_section(page, name, text)
    return page


def quoted_table(entries: list[ResultEntry]) -> str:
    """Accuracies that others published, with where they stand."""
    rows = [
        (
            _plain(entry.model),
            f"{_plain(entry.dataset)} ({_plain(entry.split)})",
            f"{metric.value:.1%}",
            " x ".join(str(entry.protocol.get(name, "?")) for name in ("num_frames", "num_clips", "num_crops")),
            _plain(entry.provenance.command),
        )
        for entry in entries
        if entry.quoted and (metric := entry.metric("top1")) is not None
    ]
    return _table(("model", "data set", "top-1, quoted", "frames x clips x crops", "source"), rows)


def speed_table(entries: list[ResultEntry]) -> str:
    """The times of benchmark entries, as model cards show them."""
    separator = " --- ".join("|" * SPEED_HEADER.count("|"))
    return "\n".join([SPEED_HEADER, separator, *speed_rows(entries), "", *speed_notes(entries)])


def explanations_table(entries: list[ResultEntry]) -> str:
    """Insertion and deletion of every map, their difference, and how far that is ahead of chance, with intervals."""
    kinds = ("insertion_auc", "deletion_auc", "insertion_minus_deletion_auc")

    def cell(metric: Metric | None, form: str) -> str:
        return f"{metric.value:{form}} [{metric.interval[0]:{form}}, {metric.interval[1]:{form}}]" if metric else "-"

    rows = [
        (
            f"{_plain(entry.dataset)} ({_plain(entry.split)})",
            _plain(entry.variant),
            *(cell(entry.metric(kind), ".3f") for kind in kinds),
            cell(entry.metric(f"{kinds[-1]} minus random"), "+.3f"),
            str(entry.metrics[0].n),
        )
        for entry in entries
        if entry.metric(kinds[0]) is not None
    ]
    header = ("data set", "map", "insertion, higher is better", "deletion, lower is better")
    return _table((*header, "insertion minus deletion", "the same minus that of random orders", "n"), rows)


def selection_table(entries: list[ResultEntry]) -> str:
    """One row per arm, one column per budget: top-1 in per cent, with an arrow where it is shown to differ from what the entry
    compares it with (`top1 minus ...`), such as random tokens."""
    study = study_table(entries)
    rows = [(_plain(arm), *cells) for arm, *cells in study.rows]
    table = _table(("arm", *(f"P = {ratio:g}" for ratio in study.ratios)), rows)
    if study.full is None:
        return table
    full, top1 = study.full, study.full.metric("top1")
    told = f"{_plain(full.model)} on {_plain(full.dataset)} ({_plain(full.split)}), n = {top1.n}, all tokens: top-1 {top1.value:.1%} "
    return f"{told}[{top1.interval[0]:.1%}, {top1.interval[1]:.1%}].\n\n{table}"


def budgets_table(entries: list[ResultEntry]) -> str:
    """One row per policy of budgets: what it costs and gets right, and the paired differences to its replacements, in points."""

    def points(entry: ResultEntry, other: str) -> str:
        found = entry.metric(f"difference_to_{other}")
        if found is None:
            return "-"
        low, high = (100 * end for end in found.interval)
        return f"{100 * found.value:+.1f} [{low:+.1f}, {high:+.1f}]"

    rows = []
    for entry in entries:
        top1, share = entry.metric("top1"), entry.metric("share on the small budget")
        if top1 is None or share is None:
            continue
        low, high = top1.interval
        rows.append(
            (
                _plain(entry.variant),
                f"{share.value:.0%}",
                f"{entry.cost.gmacs:.3g}",
                f"{top1.value:.1%} [{low:.1%}, {high:.1%}]",
                *(points(entry, other) for other in ("base", "fixed", "random")),
                str(top1.n),
            )
        )
    header = ("policy", "small budget", "GMACs", "top-1", "minus base budget", "minus one ratio of equal cost")
    return _table((*header, "minus budgets at random", "n"), rows)


def detections_table(entries: list[ResultEntry]) -> str:
    """Average mAP with its interval per arm, the values of its seeds, and how far it is ahead of the best trivial baseline, in per cent."""
    seeds: dict[tuple, list[ResultEntry]] = {}
    means: list[ResultEntry] = []
    for entry in entries:
        if entry.metric("average_mAP") is not None:
            means += [entry] if entry.provenance.seed is None else []
            seeds.setdefault((entry.model, entry.variant), []).append(entry)

    def points(metric: Metric | None, form: str) -> str:
        if metric is None:
            return "-"
        return f"{100 * metric.value:{form}} [{100 * metric.interval[0]:{form}}, {100 * metric.interval[1]:{form}}]"

    rows, against = [], ""
    for entry in sorted(means, key=lambda entry: not entry.model.startswith(BASELINE)):
        ahead = next((metric for metric in entry.metrics if metric.name.startswith("average_mAP minus ")), None)
        against = ahead.name.removeprefix("average_mAP minus ") if ahead else against
        runs = seeds.get((entry.model, entry.variant.partition(", mean of ")[0]), [])
        single = [f"{100 * run.metric('average_mAP').value:.1f}" for run in runs if run.provenance.seed is not None]
        rows.append(
            (
                f"{_plain(entry.model)}, {_plain(entry.variant)}",
                points(entry.metric("average_mAP"), ".1f"),
                ", ".join(single) or "-",
                *(f"{100 * entry.metric(f'mAP@{tiou}').value:.1f}" for tiou in ("0.3", "0.5", "0.7")),
                points(ahead, "+.1f"),
                str(entry.metrics[0].n),
            )
        )
    header = ("", "average mAP .3-.7 [95 %]", "seeds", "@.3", "@.5", "@.7")
    return _table((*header, f"minus {_plain(against)}" if against else "difference", "videos"), rows)


def grouped(entries: Iterable[ResultEntry]) -> list[Group]:
    """Entries with a top-1 accuracy, seeds together, in the order in which they first appear."""
    groups: dict[tuple, list[ResultEntry]] = {}
    for entry in entries:
        if entry.metric("top1") is not None:
            key = (entry.model, entry.dataset, entry.split, entry.variant, entry.quoted)
            groups.setdefault(key, []).append(entry)
    return [Group(tuple(sorted(of_key, key=lambda entry: entry.provenance.seed or 0))) for of_key in groups.values()]


def models_table(entries: list[ResultEntry]) -> str:
    """One row per model and data set, without baselines: the plain variant, else the first in the file."""
    plain: dict[tuple, Group] = {}
    for group in grouped(entries):
        key = (group.first.model, group.first.dataset)
        if not group.first.model.startswith(BASELINE) and (key not in plain or group.first.variant == ""):
            plain[key] = group
    rows = []
    for group in plain.values():
        entry = group.first
        parameters, gmacs = group.cost("parameters"), group.cost("gmacs")
        rows.append(
            (
                _model_name(entry),
                entry.task.replace("-", " "),
                f"{_plain(entry.dataset)} ({_plain(entry.split)})",
                f"{_accuracy(group)} {_interval(group)}",
                _count(group),
                f"{gmacs:.3g}" if gmacs else NOT_MEASURED,
                f"{parameters / 1e6:.2f} M" if parameters else NOT_MEASURED,
            )
        )
    return _table(("model", "task", "measured on", "top-1 [95 %]", "n", "GMACs per view", "parameters"), rows)


def results_tables(entries: list[ResultEntry]) -> str:
    """Accuracies by data set, baselines first, and below them the paired differences."""
    groups = grouped(entries)
    datasets = sorted({group.first.dataset for group in groups})
    ordered = sorted(
        groups, key=lambda g: (datasets.index(g.first.dataset), not g.first.model.startswith(BASELINE), g.first.quoted)
    )
    accuracies = [
        (
            f"{_plain(group.first.dataset)} ({_plain(group.first.split)})",
            _model_name(group.first, variant=True),
            _accuracy(group),
            _interval(group),
            _count(group),
            _seeds(group),
        )
        for group in ordered
    ]
    differences = [
        (
            f"{_plain(entry.dataset)} ({_plain(entry.split)})",
            _plain(f"{entry.model}: {entry.variant}")
            + (f", seed {entry.provenance.seed}" if entry.provenance.seed is not None else ""),
            f"{100 * metric.value:+.1f} points",
            f"[{100 * metric.interval[0]:+.1f}, {100 * metric.interval[1]:+.1f}]" if metric.interval else "none",
            str(metric.n),
        )
        for entry in sorted(entries, key=lambda entry: entry.dataset)
        if (metric := entry.metric(DIFFERENCE)) is not None
    ]
    tables = (
        _table(("data set", "model", "top-1", "95 % interval", "n", "each seed"), accuracies),
        _table(("data set", "paired difference, same videos", "top-1", "95 % interval", "n"), differences),
    )
    return "\n\n".join(table for table in tables if table)


def _model_name(entry: ResultEntry, variant: bool = False) -> str:
    name = _plain(entry.model)
    if (ROOT / "model_cards" / f"{entry.model}.md").is_file():
        name = f"[{name}](model_cards/{entry.model}.md)"
    if variant and entry.variant:
        name += f", {_plain(entry.variant)}"
    return f"{name} (quoted)" if entry.quoted else name


def _plain(text: str) -> str:
    """Text of our own results files inside a table cell."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _mean(group: Group) -> float:
    return sum(metric.value for metric in group.top1) / len(group.top1)


def _accuracy(group: Group) -> str:
    return f"{_mean(group):.1%}"


def _interval(group: Group) -> str:
    """That of the file for one run; for several the Wilson interval of their mean, which needs the same videos for all."""
    first = group.top1[0]
    if len(group.entries) == 1:
        interval = first.interval
    else:
        counts = {metric.n for metric in group.top1}
        if len(counts) != 1 or None in counts:
            raise PageError(
                f"{group.first.model} on {group.first.dataset}: seeds with different n {sorted(map(str, counts))}"
            )
        interval = wilson_interval(_mean(group) * first.n, first.n)
    return f"[{interval[0]:.1%}, {interval[1]:.1%}]" if interval else "none"


def _count(group: Group) -> str:
    return str(group.top1[0].n) if group.top1[0].n else "not stated"


def _seeds(group: Group) -> str:
    if len(group.entries) > 1:
        return ", ".join(f"{metric.value:.1%}" for metric in group.top1)
    return "one run"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(page: Path, results: Path, tables_only: bool) -> str:
    """The text that a page should have."""
    text = with_tables(page.read_text(encoding="utf-8"), results)
    blocks = python_blocks(text)
    if tables_only or not any(block.output for block in blocks):
        return text
    os.chdir(ROOT)  # the blocks name paths as a reader at the root of the repository sees them
    return with_outputs(text, run_blocks(blocks, page.name))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="this page alone; default: README.md and docs/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results files")
    parser.add_argument("--tables", action="store_true", help="only the tables; no block is run")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a page would change")
    options = parser.parse_args(arguments)
    differs = False
    for page in [options.page] if options.page else [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]:
        old, new = page.read_text(encoding="utf-8"), filled(page, options.results, options.tables)
        if new == old:
            print(f"{page}: up to date")
        elif options.check:
            differs = True
            print(f"{page}: out of date, run python model_cards/fill_readme.py", file=sys.stderr)
        else:
            page.write_text(new, encoding="utf-8")
            print(f"{page}: written")
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
