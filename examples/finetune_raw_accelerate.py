# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""The training loop of `finetune_classifier.py`, spelled out with Accelerate, for those who want to change it.

Nothing here comes from `hf_effvid.training`: the data set and the model are the package's, the loop is yours. It shows the five
things that such loops usually get wrong, each marked in the code:

1. The order and the augmentation of the clips are functions of (seed, epoch, index), so a resumed run sees what it would have seen.
2. Norms, biases and layer scales do not decay.
3. Gradients are clipped once per optimiser step, not once per accumulated batch.
4. Evaluation counts every clip once, although the processes' last batches are filled up.
5. A checkpoint counts only once it is complete: it is written under another name and renamed at the end.

What the package's loop adds: moving average, layer-wise rates, losses for imbalance, NaN guard, logging, LoRA.

    python examples/finetune_raw_accelerate.py --max_steps 2                               # does everything run? (seconds)
    python examples/finetune_raw_accelerate.py --epochs 12
    python examples/finetune_raw_accelerate.py --epochs 12 --resume                        # after a crash
    torchrun --nproc_per_node 2 examples/finetune_raw_accelerate.py --data my_videos --gradient_accumulation 2
"""

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, RandomSampler
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from hf_effvid import (
    EffVidVideoProcessor,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    load_video_dataset,
)
from hf_effvid.data import ClipCollator, ClipDataset, label_names, make_motion_dataset


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="folder with train and validation clips; default: generated motions")
    parser.add_argument("--output_dir", type=Path, default=Path("finetuned_raw"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_steps", type=int, default=0, help="stop after so many optimiser steps")
    parser.add_argument("--batch_size", type=int, default=8, help="clips per process and forward pass")
    parser.add_argument("--gradient_accumulation", type=int, default=1)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def build_model(names):
    config = VideoFocalNetConfig(
        embed_dim=24,
        depths=[1, 1, 2],
        focal_levels=[2, 2, 2],
        focal_windows=[3, 3, 3],
        num_frames=8,
        image_size=48,
        drop_path_rate=0.0,
        use_layerscale=True,
        layerscale_value=0.1,
        use_postln_in_modulation=True,
        initialization="fan_in",
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    return VideoFocalNetForVideoClassification(config)


def parameter_groups(model, weight_decay=0.05):
    # 2. vectors (norms, biases, layer scales) keep their size
    vectors = [p for p in model.parameters() if p.numel() == max(p.shape)]
    matrices = [p for p in model.parameters() if p.numel() != max(p.shape)]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def epoch_loader(dataset, epoch, arguments, accelerator):
    """A fresh loader per epoch. 1. Its order depends on (seed, epoch), its clips on (seed, epoch, index)."""
    dataset.set_epoch(epoch)
    generator = torch.Generator().manual_seed(arguments.seed * 100_003 + epoch)
    sampler = RandomSampler(dataset, generator=generator)
    loader = DataLoader(dataset, arguments.batch_size, sampler=sampler, collate_fn=ClipCollator())
    return accelerator.prepare(loader)


@torch.no_grad()
def evaluate(model, loader, accelerator):
    """Top-1 and number of clips. 4. `gather_for_metrics` drops the clips that only filled the last batch."""
    model.eval()
    correct = []
    for batch in loader:
        hits = model(pixel_values=batch["pixel_values"]).logits.argmax(-1) == batch["labels"]
        correct.append(accelerator.gather_for_metrics(hits))
    correct = torch.cat(correct).float()
    return correct.mean().item(), len(correct)


def save_checkpoint(accelerator, folder, epoch, step):
    # 5. a run killed while it writes leaves "partial", which nobody resumes from, and its predecessor
    partial = folder / "partial"
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"epoch": epoch, "step": step}))
        older = checkpoints(folder)
        partial.rename(folder / f"checkpoint-{epoch:05d}")
        for leftover in older:
            shutil.rmtree(leftover)
    accelerator.wait_for_everyone()


def checkpoints(folder):
    return sorted(folder.glob("checkpoint-*"))


def train(arguments, data):
    accelerator = Accelerator(gradient_accumulation_steps=arguments.gradient_accumulation)
    set_seed(arguments.seed)
    rows = load_video_dataset(data)
    names = label_names(rows["train"])
    model = build_model(names)
    processor = EffVidVideoProcessor(num_frames=8, size={"shortest_edge": 48}, crop_size=48)
    # flips switch themselves off: the label names come in mirrored pairs
    clips = ClipDataset(rows["train"], processor, train=True, augmentation="light", seed=arguments.seed)
    held_out = DataLoader(ClipDataset(rows["validation"], processor), arguments.batch_size, collate_fn=ClipCollator())
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=arguments.learning_rate)
    batches = math.ceil(len(clips) / (arguments.batch_size * accelerator.num_processes))
    total = arguments.max_steps or arguments.epochs * math.ceil(batches / arguments.gradient_accumulation)
    # accelerate advances the schedule once per process
    schedule = get_cosine_schedule_with_warmup(
        optimizer, int(0.1 * total) * accelerator.num_processes, total * accelerator.num_processes
    )
    model, optimizer, schedule, held_out = accelerator.prepare(model, optimizer, schedule, held_out)
    epoch, step = 0, 0
    if arguments.resume and checkpoints(arguments.output_dir):
        newest = checkpoints(arguments.output_dir)[-1]
        accelerator.load_state(str(newest))
        progress = json.loads((newest / "progress.json").read_text())
        epoch, step = progress["epoch"], progress["step"]
    bar = tqdm(total=total, initial=step, disable=not accelerator.is_main_process)
    while step < total:
        model.train()
        for batch in epoch_loader(clips, epoch, arguments, accelerator):
            with accelerator.accumulate(model), accelerator.autocast():
                loss = model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    # 3. only when the gradient is whole
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                step += 1
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")
            if step >= total:
                break
        epoch += 1
        top1, seen = evaluate(model, held_out, accelerator)
        accelerator.print(f"epoch {epoch}: top-1 {top1:.3f} on {seen} clips (chance {1 / len(names):.3f})")
        save_checkpoint(accelerator, arguments.output_dir, epoch, step)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(arguments.output_dir / "model")
        processor.save_pretrained(arguments.output_dir / "model")
    accelerator.end_training()


def main():
    arguments = parse_arguments()
    if arguments.data is not None:
        train(arguments, arguments.data)
        return
    with tempfile.TemporaryDirectory() as scratch:
        counts = {"train": 16, "validation": 4} if arguments.max_steps else {"train": 200, "validation": 25}
        train(arguments, make_motion_dataset(Path(scratch) / "motion", clips_per_class=counts, seed=arguments.seed))


if __name__ == "__main__":
    main()
