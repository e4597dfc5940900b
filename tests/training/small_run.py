"""A training run that takes a second: random clips, a tiny Video-FocalNet. Imported by tests and started as a script.

As a script: `python small_run.py OUTPUT_DIR '{"max_steps": 6, ...}' [--kill-at-save STEP | --kill-at-step STEP] [--resume]`.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback

from hf_effvid.models.configuration_video_focalnet import VideoFocalNetConfig
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from hf_effvid.training import ClassificationTask, EffVidTrainer, EffVidTrainingArguments, checkpointing


class RandomClips(Dataset):
    """Clips whose class is the channel that is bright; noise is a function of (epoch, index) like real augmentation."""

    def __init__(self, num_clips=8, num_classes=3, num_frames=2, size=16, augment=True, multi_label=False):
        self.num_clips, self.num_classes, self.num_frames, self.size = num_clips, num_classes, num_frames, size
        self.augment, self.multi_label, self.epoch = augment, multi_label, 0

    def __len__(self):
        return self.num_clips

    def set_epoch(self, epoch):
        self.epoch = epoch

    @property
    def labels(self):
        return [self._label(index) for index in range(self.num_clips)]

    def _label(self, index):
        if self.multi_label:
            return [float((index >> bit) & 1) for bit in range(self.num_classes)]
        return index % self.num_classes

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 * (self.epoch if self.augment else 0) + index)
        clip = torch.rand(self.num_frames, 3, self.size, self.size, generator=generator)
        label = self._label(index)
        for channel in range(3):
            bright = label[channel] if self.multi_label else float(channel == label)
            clip[:, channel] += 2 * bright
        return {"pixel_values": clip - 1, "labels": torch.tensor(label), "index": index}


def tiny_model(seed=0, **overrides):
    """A two-stage Video-FocalNet of a few thousand parameters."""
    torch.manual_seed(seed)
    fields = {
        "embed_dim": 8,
        "depths": [1, 1],
        "focal_levels": [1, 1],
        "focal_windows": [3, 3],
        "num_frames": 2,
        "image_size": 16,
        "num_labels": 3,
        "initialization": "fan_in",
        "use_layerscale": True,
        "layerscale_value": 0.5,
        "drop_path_rate": 0.2,
        "hidden_dropout_prob": 0.1,
    }
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig(**{**fields, **overrides}))


def arguments(output_dir, **overrides):
    """Arguments of a quiet run on the CPU."""
    fields = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 4,
        "learning_rate": 3e-3,
        "max_steps": 6,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 3,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }
    return EffVidTrainingArguments(**{**fields, **overrides})


def build_trainer(output_dir, model=None, train=None, validation=None, callbacks=None, task_options=None, **overrides):
    """A trainer over random clips."""
    args = arguments(output_dir, **overrides)
    task = ClassificationTask(model if model is not None else tiny_model(), **(task_options or {}))
    train = train if train is not None else RandomClips()
    return EffVidTrainer(task, args=args, train_dataset=train, eval_dataset=validation, callbacks=callbacks)


def weights(trainer):
    """Copies of all weights of a trainer's task."""
    return {name: tensor.detach().clone() for name, tensor in trainer.task.state_dict().items()}


class KillAtStep(TrainerCallback):
    """SIGKILL right after an optimiser step: nothing gets a chance to clean up."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at_save(step):
    """SIGKILL when all files of a checkpoint are written, but not its marker."""
    write_marker = checkpointing.write_marker

    def write_or_die(folder, at_step):
        if at_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        write_marker(folder, at_step)

    checkpointing.write_marker = write_or_die


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--kill-at-save", type=int)
    parser.add_argument("--kill-at-step", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = tiny_model(**given.options.pop("model", {}))
    train = RandomClips(**given.options.pop("train", {}))
    validation = given.options.pop("validation", None)
    validation = RandomClips(**validation) if validation is not None else None
    if given.kill_at_save is not None:
        kill_at_save(given.kill_at_save)
    callbacks = [KillAtStep(given.kill_at_step)] if given.kill_at_step is not None else None
    trainer = build_trainer(given.output_dir, model, train, validation, callbacks, **given.options)
    trainer.train(resume_from_checkpoint=given.resume)
    if given.weights is not None and trainer.is_world_process_zero():
        metrics = trainer.state.log_history
        torch.save({"weights": weights(trainer), "history": metrics}, given.weights)


if __name__ == "__main__":
    sys.exit(main())
