# /// script
# dependencies = ["hf_effvid", "matplotlib"]
# ///
"""What fewer tokens buy: seconds of VideoMAE with tokens selected (LITE and others), merged (ToMe, STA) or frames left out.

    python examples/bench_token_selection.py --threads 2 --results model_cards/results/token-selection-speed.json
    python examples/bench_token_selection.py --size small --arms "random 0.5" "lite 0.5" --rounds 5 --batch-sizes 1
    python examples/bench_token_selection.py --device cuda --batch-sizes 32 --dtypes bfloat16 --compile default --results gpu.json

Clips of 16 x 224 x 224, random weights, the same for every arm: time does not depend on what a model knows. All arms take turns
(full, random, lite, ..., full, random, ...), so that ratios hold on a machine that is not quiet; their intervals are order
statistics over rounds. Mergers are set to the multiply-accumulates of keep 0.5 and 0.3. "choosing alone" is the learned selector
with top-k and gather on embeddings that are there already: one over its speed-up is the share that choosing costs.
With `--compile` every arm has one static length. Exit code 1 when a target is missed, with `--check`.
"""

import argparse
import copy
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import benchmark
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.evaluation.results import add_results
from hf_effvid.models.configuration_lite_videomae import LiteVideoMAEConfig
from hf_effvid.models.merging_videomae import merge_tokens
from hf_effvid.models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from hf_effvid.models.token_merging_cost import merging_gmacs, r_for_macs, selection_gmacs
from hf_effvid.models.token_selection import gather_tokens, num_kept_tokens, top_k_indices


SIZES = {
    "tiny": dict(hidden_size=48, num_hidden_layers=6, num_attention_heads=2, intermediate_size=96, image_size=64, patch_size=8),
    "small": dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536),
    "base": {},
}  # fmt: skip
FULL, CHOOSING = "full", "choosing alone"
SELECTED = ["random 0.7", "random 0.5", "random 0.3", "lite 0.5", "lite 0.3", "embedding_norm 0.5"]
MERGED = ["tome r=118", "tome r=118 plain", "tome 0.5", "tome 0.3", "sta 0.5", "sta 0.3"]
FRAMES = ["frames 8", "frames 4"]
ARMS = [*SELECTED, *MERGED, *FRAMES, CHOOSING]
# arm -> largest share of the full model's time: on the processor, on a GPU
TARGETS = {"random 0.5": (0.43, 1 / 2.1), "lite 0.5": (0.43, 1 / 2.1), "random 0.3": (0.26, None), "lite 0.3": (0.26, None),
           CHOOSING: (0.005, None)}  # fmt: skip

GPU_BATCH = 32  # from here on the target counts there: a smaller batch waits for launches


class FewerFrames(nn.Module):
    """A model that looks at every n-th frame of the clips that the others get."""

    def __init__(self, model, step):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, pixel_values):
        return self.model(pixel_values[:, :: self.step])


class Choosing(nn.Module):
    """Selector, top-k and gather on embeddings that are made once for each shape, outside of what is timed."""

    def __init__(self, lite, keep_ratio):
        super().__init__()
        self.selector, self.num_tokens = lite.selector, lite.videomae.embeddings.num_patches
        self.width, self.kept = lite.config.hidden_size, num_kept_tokens(self.num_tokens, keep_ratio)
        self._embeddings = {}

    def forward(self, pixel_values):
        embeddings = self._made(pixel_values)
        return gather_tokens(embeddings, top_k_indices(self.selector(embeddings), self.kept))

    def _made(self, like):
        key = (len(like), like.dtype, like.device)
        if like.is_meta or key not in self._embeddings:
            made = torch.zeros(len(like), self.num_tokens, self.width, dtype=like.dtype, device=like.device)
            if like.is_meta:
                return made
            self._embeddings[key] = made.normal_()
        return self._embeddings[key]


def with_weights(model_class, config, weights, device):
    """A model with these very tensors as its weights, and its positions where it runs."""
    with torch.device("meta"):
        model = model_class(config)
    model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
    embeddings = model.videomae.embeddings
    # VideoMAE keeps this table on the processor and copies it in every pass, which no CUDA graph can hold
    embeddings.position_embeddings = embeddings.position_embeddings.to(device)
    return model.eval()


def make_arm(name, config, weights, device):
    """The model of an arm, on shared weights.

    Raises:
        ValueError: it cannot be made at this size, for example a merger that does not reach its budget.
    """
    config = copy.deepcopy(config)
    kind, _, value = name.partition(" ")
    if name == CHOOSING:
        lite = LiteVideoMAEConfig(**config.to_diff_dict())
        return Choosing(with_weights(LiteVideoMAEForVideoClassification, lite, weights, device), 0.5)
    if kind == "frames":
        step = config.num_frames // int(value)
        config.num_frames = int(value)
        return FewerFrames(with_weights(VideoMAEForVideoClassification, config, weights, device), step)
    if kind in ("tome", "sta"):
        stock = with_weights(VideoMAEForVideoClassification, config, weights, device)
        return merge_tokens(stock, kind, number_merged(name, config), proportional_attention="plain" not in name)
    if name == FULL:
        return with_weights(VideoMAEForVideoClassification, config, weights, device)
    settings = config.to_diff_dict() | {"keep_ratio": float(value), "scorer": kind, "selector_trained": True}
    return with_weights(LiteVideoMAEForVideoClassification, LiteVideoMAEConfig(**settings), weights, device)


def number_merged(name, config):
    """r of a merging arm: given, or the one that costs what keeping a share of the tokens costs."""
    kind, value = name.split()[:2]
    if value.startswith("r="):
        return int(value[2:])
    return r_for_macs(config, kind, selection_gmacs(config, float(value)))


def variants_of(arms, size, config, device):
    """Variants to benchmark, the full model first, and remarks about arms that this size cannot have."""
    torch.manual_seed(0)
    weights = LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**config.to_diff_dict())).state_dict()
    shape = (config.num_frames, config.num_channels, config.image_size, config.image_size)
    variants, remarks = [], []
    for name in [FULL, *arms]:
        try:
            r = number_merged(name, config) if name.split()[0] in ("tome", "sta") else None
        except ValueError as error:
            remarks.append(f"{name} is left out: {error}")
            continue
        if r is not None:
            remarks.append(
                f"{name}: r = {r}, {merging_gmacs(config, name.split()[0], r):.4g} GMACs with the search for pairs"
            )
        make = partial(make_arm, name, config, weights, device)
        variants.append(BenchmarkVariant(f"videomae-{size}, {name}", make, clip_shape=shape))
    return variants, remarks


def check_targets(report, size, on_gpu):
    """Lines that say which targets are met; True with them where all are."""
    lines, fine = [], True
    for m in report.measurements:
        target = TARGETS.get(m.name.partition(", ")[2], (None, None))[on_gpu]
        if target is None or m.speedup is None or (on_gpu and m.batch_size < GPU_BATCH):
            continue
        share, (low, high) = 1 / m.speedup.median, (1 / end for end in reversed(m.speedup.interval))
        met = share <= target
        fine &= met
        lines.append(
            f"{m.name}, batch {m.batch_size}: {share:.4g} of the full model's time ({low:.4g} to {high:.4g}), target {target:.3g}: "
            f"{'met' if met else 'MISSED'}"
        )
    return lines if size == "base" else [], fine or size != "base"


def plot(reports, path):
    """One line per arm: its share of the full model's time in every form, beside its share of the multiply-accumulates."""
    from matplotlib.figure import Figure

    names = list(
        dict.fromkeys(m.name for r in reports for m in r.measurements if m.speedup and CHOOSING not in m.name)
    )
    forms = [(r, batch) for r in reports for batch in sorted({m.batch_size for m in r.measurements})]
    figure = Figure(figsize=(8, 0.32 * len(names) + 1.6), dpi=130, layout="constrained")
    axis = figure.subplots()
    for place, (report, batch) in enumerate(forms):
        full = report.get(report.baseline, batch)
        shown = [m for m in report.measurements if m.name in names and m.batch_size == batch and m.speedup]
        rows = [names.index(m.name) + 0.5 * ((place + 0.5) / len(forms) - 0.5) for m in shown]
        shares = [1 / m.speedup.median for m in shown]
        ends = [
            [abs(1 / end - share) for end in reversed(m.speedup.interval)]
            for m, share in zip(shown, shares, strict=True)
        ]
        label = f"time, batch {batch}, {full.dtype}, {full.execution}"
        axis.errorbar(
            shares, rows, xerr=list(zip(*ends, strict=True)), fmt="o", markersize=4, linewidth=1, label=label
        )
        if place == 0:
            counted = [m.gmacs / full.gmacs for m in shown]
            axis.plot(counted, [names.index(m.name) for m in shown], "k|", markersize=14, label="multiply-accumulates")
    axis.set_yticks(range(len(names)), [name.partition(", ")[2] for name in names])
    axis.set(
        xlim=(0, None),
        ylim=(len(names) - 0.5, -0.5),
        xlabel=f"share of {reports[0].baseline}, median of paired rounds",
    )
    axis.set_title(reports[0].describe_machine(), fontsize=9)
    axis.legend(fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=list(SIZES))
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8])
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32"], help="each is compared with the full model in the same type"
    )
    parser.add_argument("--compile", help="a mode of torch.compile, measured besides eager")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="chart of the times (PNG)")
    arguments = parser.parse_args()
    console, on_gpu = Console(width=170), arguments.device.startswith("cuda")
    config = VideoMAEConfig(num_labels=400, **SIZES[arguments.size])
    variants, remarks = variants_of(arguments.arms, arguments.size, config, arguments.device)
    print(*remarks, sep="\n", flush=True)
    reports, all_met = [], True
    for dtype in arguments.dtypes:
        for mode in [None, arguments.compile] if arguments.compile else [None]:
            report = benchmark(
                variants,
                batch_sizes=arguments.batch_sizes,
                rounds=arguments.rounds,
                threads=arguments.threads,
                dtype=dtype,
                compile=mode,
                stages=False,
                memory=on_gpu,
                device=arguments.device,
            )
            lines, met = check_targets(report, arguments.size, on_gpu)
            all_met &= met
            report = replace(report, notes=(*report.notes, *remarks))
            console.print(report.to_table())
            print(*lines, sep="\n", flush=True)
            reports.append(report)
            if arguments.results is not None:
                add_results(arguments.results, report.to_result_entries())
    if arguments.picture is not None:
        plot(reports, arguments.picture)
    if arguments.check and not all_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
