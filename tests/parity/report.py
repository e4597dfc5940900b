"""Measures every parity comparison and writes the tables of docs/parity.md.

python -m tests.parity.report            # all cases, some 20 s
python -m tests.parity.report --check    # measures, writes nothing
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import torch
import transformers

from . import actionformer_reference
from .video_focalnet_reference import FULL_SIZE_CASE, TINY_CASES, ReferenceCase


PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
# architecture -> what stands before and after its table
MARKS = {
    "video_focalnet": ("<!-- measured: begin -->", "<!-- measured: end -->"),
    "actionformer": ("<!-- actionformer: begin -->", "<!-- actionformer: end -->"),
}
# quantities of Video-FocalNet, row by row
GROUPS = {
    "logits": lambda name: name == "logits",
    "features": lambda name: not name.startswith(("gradient", "cross", "logits")) and "_last_" not in name,
    "modulators and gates": lambda name: "_last_" in name,
    "cross entropy": lambda name: name == "cross entropy",
    "gradient norms": lambda name: name.startswith("gradient"),
}


def measure(name):
    """All comparisons of one case; the gradients were recorded for the small ones only."""
    case = ReferenceCase(name)
    comparisons = case.compare_float64() + case.compare_float32()
    return comparisons + (case.compare_gradients() if "grad_norms" in case.record else [])


def measure_all():
    """architecture -> case -> its comparisons by group."""
    cases = {}
    for name in (*TINY_CASES, FULL_SIZE_CASE):
        found = measure(name)
        cases[name] = {group: [one for one in found if belongs(one.quantity)] for group, belongs in GROUPS.items()}
    detectors = {}
    for name in actionformer_reference.CASES:
        found = list(actionformer_reference.compare_all(name))
        groups = dict.fromkeys(one.quantity for one in found)
        detectors[name] = {group: [one for one in found if one.quantity == group] for group in groups}
    return {"video_focalnet": cases, "actionformer": detectors}


def table_rows(name, groups):
    """One row per case, group of quantities and precision: how many, the largest error, whether all pass."""
    for group, comparisons in groups.items():
        for dtype in ("float64", "float32"):
            chosen = [one for one in comparisons if one.dtype == dtype]
            if chosen:
                worst = max(chosen, key=lambda one: one.max_abs_error)
                verdict = "yes" if all(one.passes for one in chosen) else "**no**"
                yield f"| `{name}` | {group} | {dtype} | {len(chosen)} | {worst.max_abs_error:.1e} | {verdict} |"


def table(cases):
    """A table with what it was measured on."""
    return [
        f"Measured with torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s).",
        "",
        "| case | quantity | precision | compared | largest absolute error | within tolerance |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row for name, groups in cases.items() for row in table_rows(name, groups)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure and print, write nothing")
    arguments = parser.parse_args()
    measured = measure_all()
    page = PAGE.read_text()
    for architecture, cases in measured.items():
        lines = table(cases)
        print("\n".join([architecture, *lines]))
        begin, end = MARKS[architecture]
        before, rest = page.split(begin)
        page = before + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    if not arguments.check:
        PAGE.write_text(page)
        print(f"\nwritten to {os.path.relpath(PAGE)}")
    comparisons = [
        one for cases in measured.values() for groups in cases.values() for row in groups.values() for one in row
    ]
    return 0 if all(one.passes for one in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
