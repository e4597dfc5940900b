# /// script
# dependencies = ["hf_effvid[timm]"]
# ///
"""How much faster the small video CNNs are than VideoMAE, and than the teachers that they may learn from.

    python examples/bench_students.py --check                     # one clip at a time, two threads: three quiet minutes
    python examples/bench_students.py --batch-size 4 --rounds 6   # clips per second
    python examples/bench_students.py --results model_cards/results/students-speed.json
    python examples/bench_students.py --memory model_cards/results/students-speed.json
    python examples/bench_students.py --threads 1 --clock processor --only tsm x3d    # on a busy machine

Random weights, every model on clips of its own frames and size, all in turns: what counts are the ratios to VideoMAE-B on 16 x 224 x 224 within the
rounds of one run. `--memory` adds the peak memory of fresh processes to the rows of a results file, which need no quiet machine. Exit
code 1 when a goal is missed, with `--check`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from hf_effvid import benchmark
from hf_effvid.evaluation.benchmark_memory import measure_peak_memory
from hf_effvid.evaluation.results import ResultsFile, add_results
from hf_effvid.evaluation.student_speed import BASELINE, FOLDING, STUDENTS, TEACHERS, check_goals, variants


def chosen(only: list[str] | None) -> list:
    """The baseline, and of the others those whose names begin with one of the words."""
    others = [s for s in (*STUDENTS, *TEACHERS) if only is None or s.name.startswith(tuple(only))]
    return [BASELINE, *others]


def add_memory(path: Path, threads: int) -> None:
    """Measures the peak memory of the rows of one clip that lack it."""
    made = {variant.name: replace(variant, dtype="float32") for variant in variants(chosen(None), FOLDING)}
    entries = []
    for entry in ResultsFile.load(path).results:
        variant = made.get(entry.model)
        if variant is not None and entry.cost.batch_size == 1 and entry.cost.peak_memory_mb is None:
            peak = measure_peak_memory(variant, variant.clip_shape, 1, threads=threads)
            print(f"{entry.model}: {peak:.0f} MB", flush=True)
            entry = replace(entry, cost=replace(entry.cost, peak_memory_mb=round(peak, 1)))
        entries.append(entry)
    ResultsFile(entries).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", help="beginnings of names, such as tsm or 'x3d s'; the baseline always takes part"
    )
    parser.add_argument(
        "--no-one-by-one", action="store_true", help="without the rows of folded models whose modules run one by one"
    )
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12, help="6 or more give intervals of 95 %%")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", default="wall", help="processor: seconds computed, for a busy machine (--threads 1)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a goal is missed")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--memory", type=Path, help="measure nothing but the memory that this results file lacks")
    args = parser.parse_args()
    if args.memory is not None:
        add_memory(args.memory, args.threads)
        return
    subjects = chosen(args.only)
    one_by_one = [] if args.no_one_by_one else [subject for subject in FOLDING if subject in subjects]
    report = benchmark(
        variants(subjects, one_by_one), batch_sizes=[args.batch_size], rounds=args.rounds, threads=args.threads,
        clock=args.clock, device=args.device, dtype=args.dtype, stages=False, memory=False,
    )  # fmt: skip
    lines, met = check_goals(report)
    report = replace(report, notes=(*report.notes, "random weights"))
    Console(width=150).print(report.to_table())
    print(*lines, sep="\n", flush=True)
    if args.results is not None:
        add_results(args.results, report.to_result_entries())
    if args.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    main()
