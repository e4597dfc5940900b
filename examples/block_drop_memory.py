# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""How much memory does recovery after a dropped block take: LoRA against full fine-tuning?

    python examples/block_drop_memory.py                          # VideoMAE-S and B, about ten minutes of one CPU core
    python examples/block_drop_memory.py --sizes tiny --side 32   # seconds

Two training steps (AdamW, float32) of a VideoMAE that lost blocks, in a fresh process each: the largest sum of all tensors that live at
once, weights, gradients, the optimiser's state and activations, as torch's allocator hands them out (what `torch.cuda.
max_memory_allocated` says on a GPU). With alignment the uncompressed teacher is in it. Weights are random: they do not change the memory.
Results go to model_cards/results/block-drop-memory.json.
"""

import argparse
import copy
import json
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import drop_blocks
from hf_effvid.compression.recovery import recovery_lora
from hf_effvid.evaluation.provenance import current_provenance
from hf_effvid.evaluation.results import Cost, Metric, ResultEntry, ResultsFile
from hf_effvid.training import AlignmentTask, ClassificationTask


# hidden size, heads, blocks
SIZES = {"tiny": (48, 4, 4), "S": (384, 6, 12), "B": (768, 12, 12)}
# name -> tuning, head, aligned with the teacher, activations recomputed
ARMS = {
    "full fine-tuning": ("full", "train", True, False),
    "LoRA": ("lora", "train", True, False),
    "LoRA, head frozen": ("lora", "frozen", True, False),
    "full fine-tuning, checkpointing": ("full", "train", True, True),
    "LoRA, checkpointing": ("lora", "train", True, True),
    "LoRA, no alignment": ("lora", "train", False, False),
}
NUM_LABELS = 20
STEPS = 2  # the second one has the optimiser's state beside activations and gradients


def run_steps(size: str, arm: str, dropped: int, batch_size: int, side: int) -> tuple[int, int]:
    """Two training steps; (parameters that train, blocks that are left)."""
    hidden_size, heads, depth = SIZES[size]
    tuning, head, aligned, checkpointing = ARMS[arm]
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=hidden_size,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        intermediate_size=4 * hidden_size,
        image_size=side,
        num_labels=NUM_LABELS,
    )
    teacher = VideoMAEForVideoClassification(config)
    student = drop_blocks(copy.deepcopy(teacher) if aligned else teacher, range(1, 1 + dropped))
    task = ClassificationTask(recovery_lora(student, tuning=tuning, head=head))
    task = AlignmentTask(task, teacher) if aligned else task
    if checkpointing:
        task.gradient_checkpointing_enable({"use_reentrant": False})
    task.train()
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    clips = torch.randn(batch_size, config.num_frames, 3, side, side)
    for _ in range(STEPS):
        task({"pixel_values": clips, "labels": torch.zeros(batch_size, dtype=torch.long)})["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return sum(parameter.numel() for parameter in trained), depth - dropped


def measure_here(options: dict) -> dict:
    """The measurement itself, in this process: the largest sum of all tensors that live at once."""
    torch.set_num_threads(1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        trained, blocks = run_steps(**options)
    changes = [
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = accumulate(size for _, size in sorted(changes, key=lambda change: change[0]))
    return {"peak_mb": max(held) / 1e6, "trained": trained, "blocks": blocks}


def measure(options: dict) -> dict:
    """The measurement in a fresh process."""
    done = subprocess.run([sys.executable, __file__, "--measure", json.dumps(options)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{options['arm']}: the process failed.\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def entry(size: str, arm: str, found: dict, full_mb: float | None, args: argparse.Namespace) -> ResultEntry:
    """One arm as a result."""
    metrics = [
        Metric("peak_training_memory_mb", found["peak_mb"], n=1),
        Metric("trained_parameters", found["trained"], n=1),
    ]
    if full_mb is not None:
        metrics.append(Metric("share_of_full_fine_tuning", found["peak_mb"] / full_mb, n=1))
    return ResultEntry(
        task="training-memory",
        model=f"VideoMAE-{size}, {found['blocks']} of {SIZES[size][2]} blocks",
        dataset="random clips",
        split="benchmark",
        variant=arm,
        metrics=tuple(metrics),
        cost=Cost(batch_size=args.batch_size, dtype="float32", num_threads=1),
        provenance=current_provenance(seed=0, dtype="float32"),
        protocol={"num_frames": 16, "size": {"height": args.side, "width": args.side}},
        notes=(
            "sum of all tensors that live at once, in two steps of AdamW; the teacher is in it but for 'no alignment'",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["S", "B"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--dropped", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--side", type=int, default=160, help="pixels; clips have 16 frames")
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/block-drop-memory.json"))
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        print(json.dumps(measure_here(args.measure)))
        return
    entries = []
    for size in args.sizes:
        full_mb = None
        for arm in args.arms:
            options = {
                "size": size,
                "arm": arm,
                "dropped": args.dropped,
                "batch_size": args.batch_size,
                "side": args.side,
            }
            found = measure(options)
            full_mb = found["peak_mb"] if arm == "full fine-tuning" else full_mb
            share = f"{found['peak_mb'] / full_mb:6.2f} of full" if full_mb else ""
            print(
                f"VideoMAE-{size} {arm:32s} {found['trained']:>11,} train {found['peak_mb']:8.0f} MB {share}",
                flush=True,
            )
            entries.append(entry(size, arm, found, full_mb, args))
    known = ResultsFile.load(args.results) if args.results.is_file() else ResultsFile()
    known.merge(entries).save(args.results)
    print(f"results: {args.results}")


if __name__ == "__main__":
    main()
