"""Measures every parity comparison and writes the table of docs/parity.md.

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

from .video_focalnet_reference import FULL_SIZE_CASE, TINY_CASES, ReferenceCase


PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
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


def table_rows(name, comparisons):
    """One row per case, group of quantities and precision: how many, the largest error, whether all pass."""
    for group, belongs in GROUPS.items():
        for dtype in ("float64", "float32"):
            chosen = [one for one in comparisons if belongs(one.quantity) and one.dtype == dtype]
            if chosen:
                worst = max(chosen, key=lambda one: one.max_abs_error)
                verdict = "yes" if all(one.passes for one in chosen) else "**no**"
                yield f"| `{name}` | {group} | {dtype} | {len(chosen)} | {worst.max_abs_error:.1e} | {verdict} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure and print, write nothing")
    arguments = parser.parse_args()
    measured = {name: measure(name) for name in (*TINY_CASES, FULL_SIZE_CASE)}
    lines = [
        f"Measured with torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s).",
        "",
        "| case | quantity | precision | compared | largest absolute error | within tolerance |",
        "| --- | --- | --- | --- | --- | --- |",
        *(row for name, comparisons in measured.items() for row in table_rows(name, comparisons)),
    ]
    print("\n".join(lines))
    if not arguments.check:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])
        print(f"\nwritten to {os.path.relpath(PAGE)}")
    return 0 if all(one.passes for comparisons in measured.values() for one in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
