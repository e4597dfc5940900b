# /// script
# dependencies = ["hf_effvid"]
# ///
"""Trains the tiny VideoMAE hosts of the needle tasks: examples/checkpoints/needle/{needle,global,conjunction}.

    python examples/make_needle_hosts.py                     # the committed hosts, about 3 minutes of one CPU core
    python examples/make_needle_hosts.py --steps 2 --out outputs/needle --tasks global     # does it run

The clips are those of hf_effvid/data/synthetic_needle.py: it is known which tokens carry the class, so that an oracle of token importance, and
a selector that learned from it, can be marked right or wrong. Each host is trained on all tokens of 8192 clips. What then becomes of oracles
and selectors is asked by examples/token_selection_needle.py. Weights are stored in half precision, 0.15 MB per host.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import EffVidVideoProcessor
from hf_effvid.data.synthetic_needle import NeedleTask, draw_needle_clips


TASKS = {
    "needle": NeedleTask("needle", amplitude=(4.0, 24.0)),
    "global": NeedleTask("global", amplitude=(20.0, 40.0)),
    "conjunction": NeedleTask("conjunction", num_needles=2, num_decoys=4, amplitude=(30.0, 60.0)),
}
STEPS = {"needle": 400, "global": 60, "conjunction": 400}
MEAN, STD = 0.5, 0.25
HOSTS = Path(__file__).parent / "checkpoints" / "needle"


def draw(task: NeedleTask, count: int, seed: int):
    """Pixels (N, T, 3, H, W) as the processor gives them, labels (N,), and the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(task.num_classes, size=count)
    clips = draw_needle_clips(task, labels, rng)
    pixels = torch.from_numpy(clips.frames).permute(0, 1, 4, 2, 3).float() / 255
    return (pixels - MEAN) / STD, torch.from_numpy(labels), clips


def build(task: NeedleTask, seed: int = 0) -> VideoMAEForVideoClassification:
    torch.manual_seed(seed)
    return VideoMAEForVideoClassification(
        VideoMAEConfig(
            image_size=task.size, patch_size=task.patch_size, num_frames=task.num_frames, tubelet_size=task.tubelet_size, hidden_size=48,
            num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, use_mean_pooling=True, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, id2label=dict(enumerate(task.class_names)), num_labels=task.num_classes,
            label2id={name: index for index, name in enumerate(task.class_names)},
        )
    )  # fmt: skip


def processor_of(task: NeedleTask) -> EffVidVideoProcessor:
    return EffVidVideoProcessor(
        num_frames=task.num_frames, size={"shortest_edge": task.size}, crop_size={"height": task.size, "width": task.size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3, horizontal_flip_safe=False,
    )  # fmt: skip


def train(task: NeedleTask, steps: int, num_clips: int = 8192, batch_size: int = 64, seed: int = 0):
    """A host that has seen all tokens."""
    model = build(task, seed)
    pixels, labels, _ = draw(task, num_clips, seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    order = torch.Generator().manual_seed(seed)
    for step in range(steps):
        batch = torch.randint(num_clips, (batch_size,), generator=order)
        loss = model(pixel_values=pixels[batch], labels=labels[batch]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"{task.kind}: step {step + 1}, loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def accuracy(model, task: NeedleTask, count: int = 512, seed: int = 1) -> float:
    pixels, labels, _ = draw(task, count, seed)
    return (model(pixel_values=pixels).logits.argmax(-1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--steps", type=int, help="default: what each task needs")
    parser.add_argument("--out", type=Path, default=HOSTS)
    given = parser.parse_args()
    for kind in given.tasks:
        task = TASKS[kind]
        model = train(task, given.steps or STEPS[kind])
        folder = given.out / kind
        print(f"{kind}: accuracy {accuracy(model, task):.3f} on 512 new clips, chance {1 / task.num_classes:.3f}")
        model.half().save_pretrained(folder)
        processor_of(task).save_pretrained(folder)
        for path in folder.iterdir():
            # the installed package opens these folders: they need no copy of its code
            path.unlink() if path.suffix == ".py" else path.chmod(0o644)
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
