"""Trains a selector on drawn needles: `python selector_run.py OUTPUT_DIR '{"max_steps": 4, ...}' --weights FILE`, also under torchrun."""

import argparse
import json
from pathlib import Path

import torch

from hf_effvid.training import EffVidTrainer, SelectorTask
from tests.training.needle import DrawnClips, lite_host
from tests.training.small_run import arguments


def build_selector_trainer(output_dir, clips=16, validation=7, **overrides):
    """A trainer of the needle host's selector."""
    task = SelectorTask(lite_host(), keep_ratio=0.3)
    data, unseen = DrawnClips(count=clips), DrawnClips(count=validation, seed=8)
    return EffVidTrainer(task, args=arguments(output_dir, **overrides), train_dataset=data, eval_dataset=unseen)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trainer = build_selector_trainer(given.output_dir, **given.options)
    trainer.train()
    if trainer.is_world_process_zero():
        torch.save({"weights": trainer.task.state_dict(), "history": trainer.state.log_history}, given.weights)


if __name__ == "__main__":
    main()
