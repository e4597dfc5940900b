# /// script
# dependencies = ["hf_effvid[timm]"]
# ///
"""What a gauge of LITE++ takes beside what it saves, at the size of published models: milliseconds only, with random weights.

    python examples/bench_difficulty_gauge.py --threads 1 --clock processor        # -> model_cards/results/difficulty-gauge-speed.json

The host is a LITE VideoMAE on 16 frames of 224 x 224 pixels, gauges are small students on 8 frames. Random weights know nothing of videos, so the
thresholds lie at the median confidence: half of the clips get the small budget (the paper's costs imply .49). Host at the base budget, host at the
mixed budgets, gauge, and gauge with host are timed in turns; the ratio of every round goes into the interval.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForVideoClassification

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification, VideoDifficultyGauge
from hf_effvid.evaluation.gauge_timing import time_gauge
from hf_effvid.evaluation.provenance import current_provenance
from hf_effvid.evaluation.results import ResultEntry, add_results
from hf_effvid.models.budget_gauges import confidence_of
from hf_effvid.models.token_budget import BudgetPolicy
from hf_effvid.training.model_setup import named_preset, processor_for


SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


def make_host(size, keep_ratio):
    """A LITE VideoMAE with random weights, and the processor of its kind."""
    width, heads = SIZES[size]
    config = LiteVideoMAEConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, num_labels=400, keep_ratio=keep_ratio,
        scorer="embedding_norm",
    )  # fmt: skip
    return LiteVideoMAEForVideoClassification(config).eval(), processor_for(config)


def make_gauge(preset, num_frames, host_processor):
    config = named_preset(preset)
    config.num_frames, config.num_labels = num_frames, 400
    model = AutoModelForVideoClassification.from_config(config).eval()
    return VideoDifficultyGauge(model, processor_for(config), host_processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the VideoMAE")
    parser.add_argument(
        "--keep-ratios", type=float, nargs="+", default=[0.9, 0.5], help="base budgets; the small one is the paper's"
    )
    parser.add_argument("--gauges", nargs="+", default=["tsm:mobilenetv4-small", "movinet:a0"], help="presets")
    parser.add_argument("--gauge-frames", type=int, default=8)
    parser.add_argument("--clips", type=int, default=2, help="even; in one batch")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/difficulty-gauge-speed.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    for keep_ratio in given.keep_ratios:
        host, processor = make_host(given.size, keep_ratio)
        clips = torch.randn(given.clips, 16, 3, 224, 224) * torch.linspace(0.5, 2.0, given.clips).view(-1, 1, 1, 1, 1)
        for preset in given.gauges:
            gauge = make_gauge(preset, given.gauge_frames, processor)
            middle = float(
                confidence_of(gauge.logits(clips)).sort().values[given.clips // 2 - 1 : given.clips // 2 + 1].mean()
            )
            host.set_budget_policy(BudgetPolicy(0.0, middle, gauge="model"), gauge=gauge)
            found = time_gauge(host, clips, batch_size=given.clips, rounds=given.rounds, clock=given.clock)
            print(
                f"VideoMAE-{given.size}, keep ratio {keep_ratio:g}, gauge {preset}",
                found.summary(),
                sep="\n",
                flush=True,
            )
            entry = ResultEntry(
                task="token-selection",
                model=f"videomae-{given.size}, random weights",
                dataset="random pixels",
                split="none",
                metrics=found.metrics(),
                provenance=current_provenance(seed=0, dtype="float32", device=host.device),
                protocol={"clip": [16, 3, 224, 224], "gauge_frames": given.gauge_frames, "batch_size": given.clips,
                          "threads": found.threads, "clock": found.clock, "easy_share": found.easy_share},
                variant=f"time of LITE++, gauge {preset}, keep {BudgetPolicy(0, 1).easy_ratio(keep_ratio):g} or {keep_ratio:g}",
                notes=(found.summary(),),
            )  # fmt: skip
            add_results(given.results, [entry])


if __name__ == "__main__":
    main()
