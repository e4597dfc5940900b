# /// script
# dependencies = ["hf_effvid", "matplotlib"]
# ///
"""What fewer tokens buy: seconds of VideoMAE with tokens selected (LITE and others), merged (ToMe, STA) or frames left out.

    python examples/bench_token_selection.py --parts all --results model_cards/results/token-selection-speed.json
    python examples/bench_token_selection.py --parts "batch 8" --results model_cards/results/token-selection-speed.json
    python examples/bench_token_selection.py --arms "random 0.5" "lite 0.5" --rounds 5 --batch-sizes 1
    python examples/bench_token_selection.py --device cuda --batch-sizes 32 --dtypes bfloat16 --compile default --results gpu.json

Clips of 16 x 224 x 224, random weights, the same for every arm: time does not depend on what a model knows. All arms take turns
(full, random, lite, ..., full, random, ...), so that ratios hold on a machine that is not quiet; their intervals are order
statistics over rounds. Mergers are set to the multiply-accumulates of keep 0.5 and 0.3. "choosing alone" is the learned selector
with top-k and gather on embeddings that are there already: one over its speed-up is the share that choosing costs.
With `--compile` every arm has one static length. `--parts` measures on the processor what the documentation states, each part in rounds
of its own: batch 1, batch 8, bfloat16, compiled; all together are about twelve quiet minutes of two cores. `--clock processor
--threads 1` counts the seconds that the process computes, for a machine that others keep busy, where threads that wait for each
other say nothing. Exit code 1 when a target is missed, with `--check`.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from transformers import VideoMAEConfig

from hf_effvid import benchmark
from hf_effvid.evaluation.benchmark_shares import check_time_shares, plot_time_shares
from hf_effvid.evaluation.results import ResultsFile, add_results
from hf_effvid.evaluation.selection_speed import CHOOSING, speed_variants


SIZES = {
    "tiny": dict(hidden_size=48, num_hidden_layers=6, num_attention_heads=2, intermediate_size=96, image_size=64, patch_size=8),
    "base": {},
}  # fmt: skip
SELECTED = ["random 0.7", "random 0.5", "random 0.3", "lite 0.5", "lite 0.3", "embedding_norm 0.5"]
MERGED = ["tome r=118", "tome r=118 plain", "tome 0.5", "tome 0.3", "sta 0.5", "sta 0.3"]
FRAMES = ["frames 8", "frames 4"]
ARMS = [*SELECTED, *MERGED, *FRAMES, CHOOSING]


@dataclass(frozen=True)
class Part:
    """Arms that take turns in one form of running them; six rounds give an interval of 95 %."""

    arms: list[str]
    batch_size: int
    rounds: int
    dtype: str = "float32"
    compile: str | None = None


_BOTH_BUDGETS = ["lite 0.5", "lite 0.3", "tome 0.5", "tome 0.3", "sta 0.5", "sta 0.3"]
PARTS = {
    "batch 1": Part(ARMS, 1, 8),
    "batch 8": Part(["lite 0.5", "lite 0.3", "tome 0.5", "sta 0.5", CHOOSING], 8, 6),
    "bfloat16": Part(["random 0.5", *_BOTH_BUDGETS, CHOOSING], 1, 8, dtype="bfloat16"),
    "compiled": Part(["random 0.5", "lite 0.5", "lite 0.3", "tome 0.5", "sta 0.5"], 1, 8, compile="default"),
}
# arm -> largest share of the full model's time, on the processor and on a GPU (there in batches of 32: smaller ones wait for launches)
TARGETS = (
    {"random 0.5": 0.43, "lite 0.5": 0.43, "random 0.3": 0.26, "lite 0.3": 0.26, CHOOSING: 0.005},
    {"random 0.5": 1 / 2.1, "lite 0.5": 1 / 2.1},
)


def measure(part, arguments, console):
    """One report on the arms of a part; what it says is printed, and recorded where that is wanted.

    Returns:
        The report, and whether the targets are met.
    """
    on_gpu = arguments.device.startswith("cuda")
    config = VideoMAEConfig(num_labels=400, **SIZES[arguments.size])
    variants, remarks = speed_variants(part.arms, arguments.size, config, arguments.device)
    print(*remarks, sep="\n", flush=True)
    report = benchmark(
        variants, batch_sizes=[part.batch_size], rounds=part.rounds, dtype=part.dtype, compile=part.compile,
        threads=arguments.threads, device=arguments.device, clock=arguments.clock, stages=False, memory=on_gpu,
    )  # fmt: skip
    targets = TARGETS[on_gpu] if arguments.size == "base" else {}
    lines, met = check_time_shares(report, {f"videomae-base, {k}": v for k, v in targets.items()}, 32 if on_gpu else 1)
    report = replace(report, notes=(*report.notes, *remarks))
    console.print(report.to_table())
    print(*lines, sep="\n", flush=True)
    if arguments.results is not None:
        add_results(arguments.results, report.to_result_entries())
    return report, met


def asked_for(arguments) -> list[Part]:
    """The named parts, or what the other arguments say."""
    if arguments.parts:
        names = list(PARTS) if "all" in arguments.parts else arguments.parts
        named = [PARTS[name] for name in names]
        return named if arguments.rounds is None else [replace(part, rounds=arguments.rounds) for part in named]
    modes = [None, arguments.compile] if arguments.compile else [None]
    return [
        Part(arguments.arms, size, arguments.rounds or 10, dtype, mode)
        for dtype in arguments.dtypes
        for mode in modes
        for size in arguments.batch_sizes
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=list(SIZES))
    parser.add_argument(
        "--parts", nargs="+", choices=["all", *PARTS], metavar="PART", help=f"all, or of {', '.join(PARTS)}"
    )
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8])
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32"], help="each is compared with the full model in the same type"
    )
    parser.add_argument("--compile", help="a mode of torch.compile, measured besides eager")
    parser.add_argument("--rounds", type=int, help="default: 10, or those of the part")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", default="wall", help="processor: this process's own seconds, for a busy machine (--threads 1)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="chart (PNG) of all times in the results file, or of these")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing; draw what the results file holds")
    arguments = parser.parse_args()
    parts = [] if arguments.draw_only else asked_for(arguments)
    measured = [measure(part, arguments, Console(width=170)) for part in parts]
    if arguments.picture is not None:
        entries = [entry for report, _ in measured for entry in report.to_result_entries()]
        if arguments.results is not None:  # also what was measured before
            entries = ResultsFile.load(arguments.results).results
        plot_time_shares(entries, arguments.picture, leave_out=[f"videomae-{arguments.size}, {CHOOSING}"])
    if arguments.check and not all(met for _, met in measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
