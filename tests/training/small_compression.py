"""A compression that takes seconds: a VideoMAE of six blocks on generated clips. Imported by tests and started as a script.

As a script: `python small_compression.py OUTPUT_DIR '{"model": ..., "data": ..., "drop": 2, ...}' [--kill STEP AT | --kill-at-save STEP AT]`
where STEP is a step of the compression and AT a step of its recovery.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback, VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid.data import tiny_motion_dataset
from hf_effvid.training import checkpointing
from hf_effvid.training.model_setup import processor_for, save_classifier
from hf_effvid.training.progressive_block_drop import progressive_block_drop


CLASSES = ("grows", "moves_left", "moves_right", "shrinks")
ARGS = {
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "logging_steps": 1,
}


def tiny_motion(folder, **counts):
    """Sixteen training and eight validation clips of four classes."""
    return tiny_motion_dataset(
        folder, classes=CLASSES, clips_per_class={"train": 4, "validation": 2, "test": 1} | counts
    )


def tiny_host(folder=None, num_blocks=6, **fields):
    """A VideoMAE all of whose biases count, saved with its processor where a folder is given."""
    torch.manual_seed(0)
    sizes = {
        "image_size": 32,
        "patch_size": 16,
        "num_frames": 8,
        "tubelet_size": 2,
        "hidden_size": 16,
        "num_hidden_layers": num_blocks,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: number for number, name in enumerate(CLASSES)},
    }
    model = VideoMAEForVideoClassification(VideoMAEConfig(**sizes | fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if folder is not None:
        save_classifier(model, processor_for(model.config), str(folder))
    return model.eval()


def compress(model, data, output_dir, args=None, **options):
    """A quiet run."""
    torch.set_num_threads(1)
    options = {"timing_rounds": 0, "progress": False, "augmentation": "none"} | options
    return progressive_block_drop(str(model), str(data), output_dir=output_dir, args=ARGS | (args or {}), **options)


class KillWithin(TrainerCallback):
    """SIGKILL after a step of the recovery of one step of the compression."""

    def __init__(self, step, at):
        self.folder, self.at = f"step-{step}", at

    def on_step_end(self, args, state, control, **kwargs):
        if Path(args.output_dir).name == self.folder and state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at_save(step, at):
    """SIGKILL when all files of a checkpoint are written, but not its marker."""
    write_marker = checkpointing.write_marker

    def write_or_die(folder, at_step):
        if Path(folder).parent.name == f"step-{step}" and at_step == at:
            os.kill(os.getpid(), signal.SIGKILL)
        write_marker(folder, at_step)

    checkpointing.write_marker = write_or_die


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--kill", type=int, nargs=2)
    parser.add_argument("--kill-at-save", type=int, nargs=2)
    given = parser.parse_args()
    if given.kill_at_save is not None:
        kill_at_save(*given.kill_at_save)
    callbacks = [KillWithin(*given.kill)] if given.kill is not None else None
    compress(output_dir=given.output_dir, callbacks=callbacks, resume=True, **given.options)


if __name__ == "__main__":
    sys.exit(main())
