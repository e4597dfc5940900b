# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""How does the cost of Video-FocalNet grow with the number of frames and with resolution? (The paper's open question 3.)

    python examples/cost_curve.py                                             # tiny against VideoMAE small, about 10 minutes on two CPU cores
    python examples/cost_curve.py --preset small --frames 8 16 32 --sides 112 224

Multiply-accumulates (counted), latency (interleaved rounds, batch 1) and peak memory (a fresh process each) of Video-FocalNet and of an
attention model of about the same size, VideoMAE small, whose joint attention over all tokens is the usual alternative. Weights are random:
they do not change the cost. One curve keeps 224 x 224 pixels and varies the frames, the other keeps 8 frames and varies the side. Every
measurement goes to model_cards/results/cost-curve.json as soon as it is made; the picture is docs/images/cost_curve.png. The printed
exponent p says that twice the tokens cost 2^p times as much: 1 is linear.
"""

import argparse
import math
from functools import partial
from pathlib import Path

from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification, benchmark
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.evaluation.results import ResultsFile


ATTENTION = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
QUANTITIES = {
    "gmacs": "multiply-accumulates (1e9)",
    "latency_ms": "milliseconds",
    "peak_memory_mb": "peak memory (MB)",
}
COLOURS = ("#0072B2", "#D55E00")


def models_of(preset: str, frames: int, side: int) -> dict:
    """Name -> function that builds the model for clips of this shape; both classify 400 classes."""
    focal = VideoFocalNetConfig.from_preset(preset, num_frames=frames, image_size=side, num_labels=400)
    attention = VideoMAEConfig(**ATTENTION, num_frames=frames, image_size=side, num_labels=400)
    return {
        f"Video-FocalNet {preset}": partial(VideoFocalNetForVideoClassification, focal),
        "VideoMAE small": partial(VideoMAEForVideoClassification, attention),
    }


def measure(preset: str, frames: int, side: int, rounds: int, results: Path) -> dict:
    """Name -> measurement; also written to the results file."""
    shape = (frames, 3, side, side)
    variants = [
        BenchmarkVariant(f"{name}, {frames}x{side}x{side}", model, clip_shape=shape)
        for name, model in models_of(preset, frames, side).items()
    ]
    report = benchmark(variants, rounds=rounds, stages=False, progress=False)
    report.save(results)
    found = {m.name.partition(",")[0]: m for m in report.measurements}
    for name, m in found.items():
        memory = f"{m.peak_memory_mb:6.0f} MB" if m.peak_memory_mb else "not measured"
        print(
            f"{name:22s} {frames:3d} x {side:3d}: {m.gmacs:8.1f} GMACs  {m.latency_ms:8.1f} ms  {memory}", flush=True
        )
    return found


def growth(points: list[tuple[int, float]]) -> float:
    """The exponent between the first and the last point: cost ~ tokens^p."""
    (few, cheap), (many, dear) = points[0], points[-1]
    return math.log(dear / cheap) / math.log(many / few)


def draw(curves: dict, path: Path, machine: str) -> None:
    """One row per curve, one column per quantity, both axes logarithmic; dashed: what linear growth would be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), dpi=120, layout="constrained")
    for row, (title, points) in zip(figure.subplots(len(curves), 3, squeeze=False), curves.items(), strict=True):
        for axis, (quantity, label) in zip(row, QUANTITIES.items(), strict=True):
            for colour, name in zip(COLOURS, points[0][2], strict=True):
                values = [(x, tokens, getattr(found[name], quantity)) for x, tokens, found in points]
                values = [value for value in values if value[2]]
                if not values:
                    continue
                x, tokens, cost = zip(*values, strict=True)
                axis.plot(x, cost, "o-", color=colour, label=name)
                axis.plot(x, [cost[0] * t / tokens[0] for t in tokens], "--", color=colour, linewidth=0.8, alpha=0.6)
            axis.set(xscale="log", yscale="log", ylabel=label, xlabel=title)
            axis.set_xticks([x for x, *_ in points], [str(x) for x, *_ in points])
            axis.minorticks_off()
            axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.supxlabel(f"dashed: linear growth in the number of pixels. {machine}", fontsize=8, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="tiny, small or base")
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16, 32], help="at the middle side")
    parser.add_argument("--sides", type=int, nargs="+", default=[112, 160, 224, 320], help="pixels, at 8 frames")
    parser.add_argument("--side", type=int, default=224, help="side of the curve over frames")
    parser.add_argument("--clip-length", type=int, default=8, help="frames of the curve over sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/cost-curve.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/cost_curve.png"))
    args = parser.parse_args()

    shapes = {(frames, args.side) for frames in args.frames} | {(args.clip_length, side) for side in args.sides}
    found = {shape: measure(args.preset, *shape, args.rounds, args.results) for shape in sorted(shapes)}
    over_frames = [(t, t * args.side**2, found[t, args.side]) for t in sorted(args.frames)]
    over_sides = [(side, args.clip_length * side**2, found[args.clip_length, side]) for side in sorted(args.sides)]
    curves = {
        f"frames, at {args.side} x {args.side}": over_frames,
        f"side in pixels, at {args.clip_length} frames": over_sides,
    }
    for title, points in curves.items():
        for name in points[0][2] if len(points) > 1 else ():
            exponents = {
                q: growth([(tokens, getattr(m[name], q)) for _, tokens, m in points])
                for q in QUANTITIES
                if all(getattr(m[name], q) for _, _, m in points)
            }
            print(f"{name}, {title}: " + ", ".join(f"{q} ~ tokens^{p:.2f}" for q, p in exponents.items()))
    first = next(iter(found.values()))
    cost = ResultsFile.load(args.results).results[-1].cost
    draw(
        curves,
        args.picture,
        f"{cost.hardware}, {cost.num_threads} threads, batch 1, {len(next(iter(first.values())).times_ms)} rounds",
    )


if __name__ == "__main__":
    main()
