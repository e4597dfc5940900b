"""A student that learns from its teacher in seconds. Imported by tests and started as a script.

As a script: `python small_alignment.py OUTPUT_DIR '{"kind": "detector", "max_steps": 6, ...}' --weights FILE`.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

import torch

from hf_effvid import drop_blocks
from hf_effvid.compression.recovery import recovery_lora
from hf_effvid.training import AlignmentTask, EffVidTrainer
from tests.models.tiny_videomae import tiny_videomae
from tests.training import small_detection, small_run


def build_trainer(output_dir, kind="classifier", **options):
    """A trainer whose model lost a block, with recovery LoRA and all terms of alignment."""
    if kind == "detector":
        teacher = small_detection.tiny_detector(drop_path_rate=0.0, use_layer_scale=False, num_stem_layers=2)
        student = recovery_lora(drop_blocks(copy.deepcopy(teacher), [1], "detector"), "detector")
        trainer = small_detection.build_trainer(output_dir, student, **options)
    else:
        teacher = tiny_videomae(num_hidden_layers=3, image_size=16, num_frames=2, num_labels=3)
        student = recovery_lora(drop_blocks(copy.deepcopy(teacher), [1]))
        trainer = small_run.build_trainer(output_dir, student, **options)
    return EffVidTrainer(
        AlignmentTask(trainer.task, teacher),
        args=trainer.args,
        train_dataset=trainer.train_dataset,
        data_collator=trainer.data_collator.collator,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--weights", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainer = build_trainer(given.output_dir, **given.options)
    trainer.train()
    if trainer.is_world_process_zero():
        torch.save({"weights": small_run.weights(trainer), "history": trainer.state.log_history}, given.weights)


if __name__ == "__main__":
    sys.exit(main())
