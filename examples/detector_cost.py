# /// script
# dependencies = ["hf_effvid", "matplotlib"]
# ///
"""What an end-to-end detector costs, stage by stage, and what suppressing its candidates costs.

    python examples/detector_cost.py --results model_cards/results/detection-bench.json --chart docs/images/detector-cost.png
    python examples/detector_cost.py --rounds 2 --blocks 1

The detector is that of AdaTAD and Progressive Block Drop on THUMOS14: 768 frames of 160x160, every fourth of 30 a second, as 48 clips of 16
through VideoMAE-S, then ActionFormer with 512 channels and global attention. Weights are random: times do not depend on them, but
for post-processing, which is at its most expensive with a detector that knows nothing. Multiply-accumulates, which need no
weights, are counted for the ActivityNet detector and for VideoMAE-L as well, as they run and as the paper's tables count.

Time is processor time of one thread, which a busy machine does not falsify; shares are ratios within a round. Post-processing is timed
once more by itself, with as many candidates as a whole test set has (400,000): chosen from the outputs of 200 windows, merged,
suppressed, put into seconds.
"""

import argparse
import time

import torch
from transformers import VideoMAEConfig

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerProcessor
from hf_effvid.evaluation import Metric, ResultEntry, add_results, current_provenance
from hf_effvid.evaluation.benchmark_detector import benchmark_detectors, count_detector
from hf_effvid.evaluation.benchmark_detector_chart import plot_detector_costs
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.models.modeling_actionformer import ActionFormerDetectionOutput
from hf_effvid.models.temporal_points import make_points


SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
THUMOS = {"hidden_size": 512, "num_labels": 20, "max_sequence_length": 768}
ACTIVITYNET = {"hidden_size": 256, "num_labels": 1, "max_sequence_length": 192, "frames_per_step": 4, "use_absolute_positions": True}  # fmt: skip
PIXELS = (1, 768, 3, 160, 160)
CANDIDATES, CANDIDATE_WINDOWS, WINDOWS_PER_VIDEO = 400_000, 200, 6


def make_detector(width: dict, head: dict) -> ActionFormerForTemporalActionDetection:
    """A detector on a VideoMAE, with new weights; 8 clips go through the backbone at a time."""
    trunk = VideoMAEConfig(**width)
    config = ActionFormerConfig(**head, attention_window=-1, backbone_config=trunk, clips_per_pass=8)
    return ActionFormerForTemporalActionDetection(config).eval()


def make_processor() -> ActionFormerProcessor:
    """Frames of 160x160 at 7.5 a second, a feature for each."""
    return ActionFormerProcessor(
        feature_stride=1, feature_num_frames=1, feature_fps=7.5, window_length=768, size={"shortest_edge": 160}, crop_size=160
    )  # fmt: skip


def make_outputs(model, seed: int) -> list[ActionFormerDetectionOutput]:
    """What a detector might say of windows: as many candidates above the threshold as all levels may keep together."""
    generator = torch.Generator().manual_seed(seed)
    points = make_points(768, model.config.regression_ranges)
    shape = (1, len(points), model.config.num_labels)
    outputs = []
    for _ in range(CANDIDATE_WINDOWS):
        logits = torch.full(shape, -20.0)
        chosen = torch.randperm(logits.numel(), generator=generator)[: CANDIDATES // CANDIDATE_WINDOWS]
        logits.view(-1)[chosen] = (torch.randn(len(chosen), generator=generator) * 2 - 3).clamp(min=-6)
        offsets = torch.rand(1, len(points), 2, generator=generator) * 6 + 0.1
        outputs.append(ActionFormerDetectionOutput(logits=logits, offsets=offsets, point_mask=torch.ones(1, len(points), dtype=bool), points=points))  # fmt: skip
    return outputs


def time_post_processing(model, processor, repeats: int = 3) -> tuple[int, float]:
    """Number of candidates and least processor time of all that follows the network, for windows of many videos."""
    videos = -(-CANDIDATE_WINDOWS // WINDOWS_PER_VIDEO)
    steps = 384 * (WINDOWS_PER_VIDEO + 1)
    planned = processor.plan_windows([steps] * videos)[:CANDIDATE_WINDOWS]
    outputs, seconds, number = make_outputs(model, 0), [], 0
    for _ in range(repeats):
        began = time.process_time()
        candidates = [
            one
            for row, window in zip(outputs, planned, strict=True)
            for one in processor.decode_windows(row, [window])
        ]
        processor.merge_windows(candidates, durations=[steps / 7.5] * videos)
        seconds.append(time.process_time() - began)
        number = sum(len(one.scores) for one in candidates)
    return number, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6, help="Rounds; 6 or more give a 95 % interval.")
    parser.add_argument("--blocks", type=int, help="Blocks of the backbone, for a trial; the real one has 12.")
    parser.add_argument("--video", help="Video whose decoding is timed; default: a generated one.")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: then wall time.")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--results", help="Results file (JSON) to write or extend.")
    parser.add_argument("--chart", help="Picture to draw.")
    args = parser.parse_args()
    torch.manual_seed(0)
    small = {**SMALL, "num_hidden_layers": args.blocks or 12}
    model, processor = make_detector(small, THUMOS), make_processor()
    on_cpu = args.device == "cpu"
    report = benchmark_detectors(
        [BenchmarkVariant("VideoMAE-S, THUMOS14", model, processor)],
        rounds=args.rounds,
        threads=1 if on_cpu else None,
        clock="processor" if on_cpu else "wall",
        device=args.device,
        dtype=args.dtype,
        video=args.video,
    )
    from rich.console import Console

    Console().print(report.to_table())
    with torch.device("meta"):
        others = {
            "VideoMAE-S, ActivityNet": make_detector(SMALL, ACTIVITYNET),
            "VideoMAE-L, THUMOS14": make_detector(LARGE, THUMOS),
        }
    counted = {name: count_detector(other, PIXELS) for name, other in others.items()}
    for name, counts in counted.items():
        print(f"{name}: {counts.gmacs:.1f} GMACs, {counts.paper_gmacs:.1f} hook-style, head {counts.head_gmacs:.2f}")
    torch.set_num_threads(1)
    number, seconds = time_post_processing(model, processor)
    print(f"post-processing of {number} candidates of {CANDIDATE_WINDOWS} windows: {seconds:.3f} s of processor time")
    if args.chart:
        plot_detector_costs(report, args.chart, counted)
    if args.results:
        report.save(args.results)
        save_counts(args.results, counted, number, seconds)


def save_counts(path: str, counted: dict, number: int, seconds: float) -> None:
    """What was not timed stage by stage, in the same file."""
    shared = {"task": "temporal-action-detection", "split": "benchmark", "provenance": current_provenance(seed=0)}
    entries = [
        ResultEntry(
            model=name,
            dataset="one window of random pixels",
            metrics=[
                Metric("gmacs", round(counts.gmacs, 4), 1),
                Metric("head_gmacs", round(counts.head_gmacs, 4), 1),
                Metric("hook_style_gmacs", round(counts.paper_gmacs, 4), 1),
                Metric("hook_style_head_gmacs", round(counts.paper_head_gmacs, 4), 1),
            ],
            variant="counted, not timed",
            **shared,
        )
        for name, counts in counted.items()
    ]
    entries.append(
        ResultEntry(
            model="post-processing",
            dataset="generated candidates",
            metrics=[Metric("processor_seconds", round(seconds, 4), -(-CANDIDATE_WINDOWS // WINDOWS_PER_VIDEO))],
            protocol={"num_candidates": number, "num_windows": CANDIDATE_WINDOWS, "num_classes": THUMOS["num_labels"]},
            notes=[
                "seconds of processor time of one thread, the least of three; selection, merging, suppression, seconds"
            ],
            **shared,
        )
    )
    add_results(path, entries)


if __name__ == "__main__":
    main()
