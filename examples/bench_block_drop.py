# /// script
# dependencies = ["hf_effvid[prune]", "matplotlib"]
# ///
"""What a dropped block saves: milliseconds of VideoMAE-S and multiply-accumulates, and depth against width at equal arithmetic.

    python examples/bench_block_drop.py --results model_cards/results/block-drop-speed.json --picture docs/images/block-drop-speed.png
    python examples/bench_block_drop.py --clips 1 --rounds 20 --no-counts
    python examples/bench_block_drop.py --device cuda --clips 48 --dtype float16 --no-counts

VideoMAE-S with random weights (time does not depend on what a model knows) on clips of 16 x 160 x 160, as the backbone of AdaTAD and Progressive
Block Drop gets them; blocks go in the paper's order 7, 10, 6, 3. Beside the model without three blocks stand three that are as deep as the whole one and
cost the same multiply-accumulates: narrower MLPs; narrower MLPs and attention heads (both pruned by torch-pruning's dependency graph); a narrower
VideoMAE altogether. All models take turns, so that ratios hold on a machine that is not quiet; their intervals are order statistics over rounds.

Multiply-accumulates of the paper's detectors, on 768 frames, are counted both ways: as they run, and as the paper's tables count. Exit code 1 when a ratio
of dropped blocks is off by more than 3 % of .92, .83, .74, .66, with `--check`.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from transformers import VideoMAEConfig, VideoMAEModel

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, benchmark
from hf_effvid.compression import prune_channels
from hf_effvid.compression.block_drop import drop_blocks
from hf_effvid.compression.block_table import kept_blocks
from hf_effvid.evaluation.benchmark_detector import count_detector
from hf_effvid.evaluation.benchmark_shares import plot_time_shares, time_share
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance


SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
THUMOS = {"hidden_size": 512, "num_labels": 20, "max_sequence_length": 768}
ACTIVITYNET = {"hidden_size": 256, "num_labels": 1, "max_sequence_length": 192, "frames_per_step": 4, "use_absolute_positions": True}  # fmt: skip
# the paper's orders (table A), and the shares of the full model's time that its savings should come to on a processor
DROPS = {"S": [7, 10, 6, 3], "S, ActivityNet": [6, 3, 8, 11], "L": [20, 1, 4, 7, 6, 2]}
GOALS, TOLERANCE = {1: 0.92, 2: 0.83, 3: 0.74, 4: 0.66}, 0.03
CLIP, PIXELS = (16, 3, 160, 160), (1, 768, 3, 160, 160)
FULL, BLOCKS_OF_TABLE_7 = "VideoMAE-S", 3
# 3 of 12 blocks are a quarter of the arithmetic of all blocks: a quarter of every channel inside them, or half of the MLPs alone
NARROW_MLP, NARROW_BOTH, NARROW_ALL = {"intermediate_size": 760}, {"intermediate_size": 1152, "head_dim": 48}, 324


def trunk(**fields) -> VideoMAEModel:
    """VideoMAE-S for clips of 160 x 160, the same weights at every call."""
    torch.manual_seed(0)
    return VideoMAEModel(VideoMAEConfig(**{**SMALL, **fields}, image_size=CLIP[2], num_frames=CLIP[0])).eval()


def without(number: int) -> VideoMAEModel:
    """Without the first so many blocks of the paper's order."""
    return drop_originals(trunk(), DROPS["S"][:number])


def narrower(widths: dict) -> VideoMAEModel:
    """With channels pruned."""
    return prune_channels(trunk(), **widths)


def drop_originals(model, originals: list[int]):
    """Drops blocks by the numbers that they had at first."""
    present = kept_blocks(model)
    return drop_blocks(model, [present.index(block) for block in originals])


def models(max_dropped: int, widths: bool) -> dict[str, Callable]:
    """Name -> function that makes a model; the full one comes first."""
    made: dict[str, Callable] = {FULL: trunk}
    for number in range(1, max_dropped + 1):
        made[dropped_name(number)] = partial(without, number)
    if widths:
        made["MLPs 1536 -> 760"] = partial(narrower, NARROW_MLP)
        made["MLPs 1536 -> 1152, heads 64 -> 48"] = partial(narrower, NARROW_BOTH)
        made["384 -> 324 channels everywhere"] = partial(
            trunk, hidden_size=NARROW_ALL, intermediate_size=4 * NARROW_ALL
        )
    return made


def dropped_name(number: int) -> str:
    return f"{number} of 12 blocks dropped"


def check_shares(report) -> tuple[list[str], bool]:
    """One line for every number of dropped blocks with a goal, and whether all are within the tolerance."""
    lines, met = [], True
    for number, goal in GOALS.items():
        found = [m for m in report.measurements if m.name == dropped_name(number)]
        for measurement in found:
            share = time_share(measurement)
            near = abs(share.value / goal - 1) <= TOLERANCE
            met &= near
            lines.append(
                f"{measurement.name}, batch {measurement.batch_size}: {share.value:.3f} of the full model's time "
                f"({share.low:.3f} to {share.high:.3f}), {goal} within {TOLERANCE:.0%}: {'met' if near else 'MISSED'}"
            )
    return lines, met


def detector(width: dict, head: dict) -> ActionFormerForTemporalActionDetection:
    """A detector of the paper, without weights."""
    with torch.device("meta"):
        config = ActionFormerConfig(**head, attention_window=-1, backbone_config=VideoMAEConfig(**width))
        return ActionFormerForTemporalActionDetection(config).eval()


def count_rows() -> list[ResultEntry]:
    """Multiply-accumulates of the paper's detectors without their first blocks, both ways."""
    provenance, entries = current_provenance(), []
    subjects = {
        "VideoMAE-S, THUMOS14": (SMALL, THUMOS, DROPS["S"]),
        "VideoMAE-S, ActivityNet": (SMALL, ACTIVITYNET, DROPS["S, ActivityNet"]),
        "VideoMAE-L, THUMOS14": (LARGE, THUMOS, DROPS["L"]),
    }
    for name, (width, head, order) in subjects.items():
        model = detector(width, head)
        full = counts = count_detector(model, PIXELS)
        for number in range(len(order) + 1):
            before = counts
            if number:
                counts = count_detector(drop_originals(model, [order[number - 1]]), PIXELS)
            metrics = [
                Metric("gmacs", round(counts.gmacs, 3), 1),
                Metric("hook_style_gmacs", round(counts.paper_gmacs, 3), 1),
            ]
            if number:
                metrics += [
                    Metric("gmacs_per_dropped_block", round(before.gmacs - counts.gmacs, 3), 1),
                    Metric("hook_style_gmacs_per_dropped_block", round(before.paper_gmacs - counts.paper_gmacs, 3), 1),
                    Metric("gmacs_share", round(counts.gmacs / full.gmacs, 4), 1),
                    Metric("hook_style_gmacs_share", round(counts.paper_gmacs / full.paper_gmacs, 4), 1),
                ]
            print(name, number, *(f"{metric.name} {metric.value}" for metric in metrics), flush=True)
            entries.append(
                ResultEntry(
                    task="temporal-action-detection",
                    model=name,
                    dataset="one window of random pixels",
                    split="benchmark",
                    metrics=metrics,
                    variant=f"blocks {order[:number]} dropped, counted, not timed",
                    provenance=provenance,
                )
            )
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12, help="clips per pass; the paper's detectors read 48")
    parser.add_argument(
        "--rounds", type=int, default=6, help="6 or more give intervals of 95 %%; 0 counts and times nothing"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", default="wall", help="processor: seconds computed, for a busy machine (--threads 1)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--dropped", type=int, default=4, choices=range(1, 5), help="up to so many blocks dropped")
    parser.add_argument("--no-widths", action="store_true", help="depth alone, without the narrower models")
    parser.add_argument("--no-counts", action="store_true", help="do not count the paper's detectors")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a ratio is not the expected one")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="shares of time and arithmetic (PNG or SVG)")
    args = parser.parse_args()
    entries = [] if args.no_counts else count_rows()
    if not args.rounds:
        if args.results is not None:
            add_results(args.results, entries)
        return
    made = models(args.dropped, not args.no_widths)
    report = benchmark(
        [BenchmarkVariant(name, build, clip_shape=CLIP) for name, build in made.items()], batch_sizes=[args.clips], rounds=args.rounds,
        threads=args.threads, clock=args.clock, device=args.device, dtype=args.dtype, stages=False, memory=False,
    )  # fmt: skip
    lines, met = check_shares(report)
    report = replace(report, notes=(*report.notes, f"order of dropping: {DROPS['S'][: args.dropped]}; random weights"))
    Console(width=150).print(report.to_table())
    print(*lines, sep="\n", flush=True)
    timed = report.to_result_entries()
    if args.results is not None:
        add_results(args.results, [*entries, *timed])
    if args.picture is not None:
        plot_time_shares(timed, args.picture)
    if args.check and not met:
        sys.exit(1)


if __name__ == "__main__":
    main()
