"""A tiny student with two tiny teachers, and clips for all three in memory. Imported by tests and started as a script.

As a script: `python small_teaching.py OUTPUT_DIR '{"max_steps": 6, ...}' [--kill-at-step STEP] [--resume] [--weights FILE]`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from hf_effvid import X3DConfig, X3DForVideoClassification
from hf_effvid.compression.teachers import Teacher
from hf_effvid.training import EffVidTrainer
from hf_effvid.training.distillation_settings import DistillationSettings
from hf_effvid.training.dual_teacher_distiller import DualTeacherDistiller
from tests.models.tiny_videomae import fill_biases, tiny_videomae
from tests.training import small_run


NAMES = ["red", "green", "blue"]
X3D = {"stem_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "head_size": 16, "num_frames": 2, "image_size": 16}


def name_classes(model):
    model.config.id2label = dict(enumerate(NAMES))
    model.config.label2id = {name: index for index, name in enumerate(NAMES)}
    return model


def tiny_x3d(seed=0, **fields):
    """A network with BatchNorm, whose biases are not zero."""
    torch.manual_seed(seed)
    fields = {**X3D, "num_labels": len(NAMES), "classifier_dropout": 0.0, **fields}
    return name_classes(fill_biases(X3DForVideoClassification(X3DConfig(**fields)), std=0.1)).eval()


def tiny_vit(**fields):
    """Reads 4 frames where the student reads 2, of another size."""
    return name_classes(tiny_videomae(**{"image_size": 24, "num_frames": 4, "num_labels": len(NAMES), **fields}))


def open_teachers(roles=("vit", "cnn")):
    models = {"vit": tiny_vit, "cnn": lambda: tiny_x3d(seed=5, hidden_sizes=[8, 20])}
    return {role: Teacher.open(models[role](), role, NAMES) for role in roles}


def own_pixels(role, pixels):
    """What a teacher sees of a student's clips (..., T, 3, H, W): the ViT each frame twice and larger, in another normalisation."""
    if role == "cnn":
        return pixels
    longer = pixels.repeat_interleave(2, dim=-4)
    return torch.nn.functional.pad(longer, (4, 4, 4, 4)) / 2


def make_batch(size=4, roles=("vit", "cnn")):
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(size, 2, 3, 16, 16, generator=generator)
    batch = {"pixel_values": pixels, "labels": torch.arange(size) % len(NAMES)}
    return batch | {f"{role}_pixel_values": own_pixels(role, pixels) for role in roles}


class ClipsForAll(small_run.RandomClips):
    """`RandomClips` with the pixels of both teachers."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {f"{role}_pixel_values": own_pixels(role, item["pixel_values"]) for role in ("vit", "cnn")}


def freeze_statistics(task):
    """BatchNorm that neither learns nor counts, in student and auxiliary modules, and is not the identity."""
    for module in task.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.constant_(module.weight, 0.7)
            for parameter in module.parameters():
                parameter.requires_grad_(False)
    return task


def build_trainer(output_dir, student=None, settings=None, train=None, callbacks=None, frozen=False, **overrides):
    """A trainer of a tiny student with two teachers."""
    student = tiny_x3d() if student is None else student
    task = DualTeacherDistiller(student, open_teachers(), DistillationSettings(**(settings or {})))
    if frozen:
        freeze_statistics(task)
    train = ClipsForAll() if train is None else train
    args = small_run.arguments(output_dir, **overrides)
    return EffVidTrainer(task, args=args, train_dataset=train, callbacks=callbacks)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--kill-at-step", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--weights", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    callbacks = [small_run.KillAtStep(given.kill_at_step)] if given.kill_at_step is not None else None
    trainer = build_trainer(given.output_dir, callbacks=callbacks, **given.options)
    trainer.train(resume_from_checkpoint=given.resume)
    if given.weights is not None and trainer.is_world_process_zero():
        torch.save({"weights": small_run.weights(trainer), "history": trainer.state.log_history}, given.weights)


if __name__ == "__main__":
    sys.exit(main())
