# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""How far apart may a cue and its answer be? A stress test of Video-FocalNet's memory on generated clips.

    python examples/long_range.py                                  # 3 seeds of 5 models on 2 tasks, 23 CPU minutes: about 12 on two cores
    python examples/long_range.py --steps 20 --seeds 0 --tasks match     # does it run

The tasks are those of hf_effvid/data/synthetic_recall.py: `match` (is the answer's bar the cue's?) needs both bars whatever their order,
`order` (which came first?) needs their order. Neither a single frame nor a sum over frames tells the class. A small network of two
blocks is trained on clips of 32 frames with distances of 4 to 20 mixed, and tested at each distance, longer ones included, on clips of
their own; training clips are fresh at every step, so nothing can be learned by heart. Models: the published temporal encoding with 2 and
with 1 focal levels (the kernels of a block then reach 3 frames or 1 to either side); the same with the gate of its global context held at
zero, so that only kernels carry anything from frame to frame; and no temporal branch. A line at 50 % says that this training did not find
the task, not that the network could not represent it. Writes model_cards/results/long-range.json and docs/images/long_range.png.
"""

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.data.synthetic_recall import RECALL_CLASSES, draw_recall_clips
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance
from hf_effvid.models.video_focalnet_layers import VideoFocalNetModulation


FRAMES, DURATION, SIDE = 32, 4, 16
TRAIN_DISTANCES, TEST_DISTANCES = range(4, 21), (4, 8, 10, 12, 16, 20, 24, 28)
MODELS = {  # name -> label, focal levels, colour, line
    "levels-2": ("2 levels", 2, "#0072B2", "-"),
    "levels-1": ("1 level", 1, "#009E73", "-"),
    "kernels-2": ("2 levels, no global context", 2, "#0072B2", ":"),
    "kernels-1": ("1 level, no global context", 1, "#009E73", ":"),
    "none": ("no temporal branch", 2, "#4D4D4D", "-"),
}


def build(name: str) -> VideoFocalNetForVideoClassification:
    config = VideoFocalNetConfig(
        num_frames=FRAMES, image_size=SIDE, patch_size=SIDE, embed_dim=32, depths=[2], focal_levels=[MODELS[name][1]], focal_windows=[3],
        num_labels=2, drop_path_rate=0.0, use_postln_in_modulation=True, initialization="fan_in",
        temporal_encoding="none" if name == "none" else "parallel",
    )  # fmt: skip
    model = VideoFocalNetForVideoClassification(config)
    if name.startswith("kernels"):
        for module in model.modules():
            if isinstance(module, VideoFocalNetModulation):
                module.projection_in_temporal.register_forward_hook(close_global_gate)
    return model


def close_global_gate(module, inputs, output):
    """The last gate is that of the global context."""
    return torch.cat([output[..., :-1], torch.zeros_like(output[..., -1:])], dim=-1)


def draw(task: str, distances, rng) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.arange(len(distances)) % 2
    clips = draw_recall_clips(task, labels, distances, rng, SIDE, FRAMES, DURATION)
    pixels = torch.from_numpy(clips).permute(0, 1, 4, 2, 3).float() / 255
    return (pixels - 0.45) / 0.22, torch.from_numpy(labels)


def train_and_test(job: tuple[str, str, int], steps: int, clips: int) -> dict[int, int]:
    """Distance -> how many of `clips` test clips are classified correctly."""
    task, name, seed = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng, model = np.random.default_rng([seed, 0]), build(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:  # a short warm-up, then down to a tenth
            group["lr"] = 3e-3 * min(1, (step + 1) / 20) * (1 - 0.9 * step / steps)
        pixels, labels = draw(task, rng.choice(TRAIN_DISTANCES, 48), rng)
        optimizer.zero_grad()
        model(pixels, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    right = {}
    for distance in TEST_DISTANCES:
        pixels, labels = draw(
            task, [distance] * clips, np.random.default_rng([distance, 1])
        )  # the same for all models
        with torch.no_grad():
            right[distance] = int((model(pixels).logits.argmax(-1) == labels).sum())
    print(f"{task}, {name}, seed {seed}: " + ", ".join(f"{d}: {n / clips:.0%}" for d, n in right.items()), flush=True)
    return right


def entry(job: tuple[str, str, int], right: dict[int, int], steps: int, clips: int) -> ResultEntry:
    task, name, seed = job
    total = Metric.proportion("top1", sum(right.values()), clips * len(right))
    per_distance = [Metric.proportion(f"top1 at distance {distance}", n, clips) for distance, n in right.items()]
    return ResultEntry(
        task="video-classification", model="video-focalnet-memory", dataset=f"generated memory task: {task}", split="test",
        metrics=(total, *per_distance), variant=MODELS[name][0], protocol={"num_frames": FRAMES, "num_clips": 1, "num_crops": 1},
        provenance=current_provenance(seed=seed, dtype="float32"),
        notes=(f"{steps} steps of 48 clips, distances {TRAIN_DISTANCES[0]} to {TRAIN_DISTANCES[-1]} mixed; chance 50 %",),
    )  # fmt: skip


def plot(entries: list[ResultEntry], path: Path) -> None:
    """One panel per task, one line per model: the mean over seeds, every seed as a dot."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(e.dataset for e in entries))
    figure = Figure(figsize=(5.2 * len(tasks), 3.8), dpi=130, layout="constrained")
    for axis, dataset in zip(np.atleast_1d(figure.subplots(1, len(tasks), sharey=True)), tasks, strict=True):
        for label, _, colour, line in MODELS.values():
            seeds = [[e.metric(f"top1 at distance {d}").value for d in TEST_DISTANCES]
                     for e in entries if (e.dataset, e.variant) == (dataset, label)]  # fmt: skip
            if seeds:
                axis.plot(TEST_DISTANCES, np.mean(seeds, axis=0), line, color=colour, label=label)
                for seed in seeds:
                    axis.plot(TEST_DISTANCES, seed, "o", color=colour, markersize=3, alpha=0.6)
        axis.axhline(0.5, color="#999999", linestyle="--", linewidth=1)
        axis.set(title=dataset, xlabel="frames from cue to answer", ylim=(0.35, 1.03), xticks=TEST_DISTANCES)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("top-1 (dashed: chance)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=len(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(RECALL_CLASSES), default=list(RECALL_CLASSES))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--clips", type=int, default=300, help="test clips per distance")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/long-range.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/long_range.png"))
    args = parser.parse_args()

    jobs = [(task, name, seed) for seed in args.seeds for task in args.tasks for name in args.models]
    entries, work = [], partial(train_and_test, steps=args.steps, clips=args.clips)
    # "spawn": a forked child of a process that already runs torch threads may hang
    with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job, right in zip(jobs, pool.map(work, jobs), strict=True):
            entries.append(entry(job, right, args.steps, args.clips))
            add_results(args.results, entries[-1:])
    plot(entries, args.picture)


if __name__ == "__main__":
    main()
