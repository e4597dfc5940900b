"""A detector that trains in seconds: features in which every action raises a channel of its own. Imported by tests and started as a script.

As a script: `python small_detection.py OUTPUT_DIR '{"max_steps": 6, ...}' [--kill-at-save STEP | --kill-at-step STEP] [--resume]`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from hf_effvid.data.detection_annotations import ActionSegment, AnnotatedVideo, DetectionAnnotations
from hf_effvid.data.detection_collator import DetectionCollator
from hf_effvid.data.detection_datasets import FeatureWindows
from hf_effvid.data.stored_features import FeatureInfo, StoredFeatures
from hf_effvid.models.configuration_actionformer import ActionFormerConfig
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_effvid.models.video_processing_actionformer import ActionFormerProcessor
from hf_effvid.training import DetectionTask, EffVidTrainer
from tests.training.small_run import KillAtStep, arguments, kill_at_save, weights


CLASSES = ["clap", "jump", "wave"]
STRIDE, NUM_FRAMES, FPS, CHANNELS = 4, 8, 20.0, 8


class MemoryStore(dict):
    """Stored features in memory, as a `FeatureStore` gives them."""

    def info(self, name):
        stored = self[name]
        shape = (len(stored.features), stored.features.shape[1])
        return FeatureInfo(*shape, stored.stride, stored.num_frames, stored.fps, stored.duration)


def seconds(step):
    """What a step stands for."""
    return (step * STRIDE + NUM_FRAMES / 2) / FPS


def make_features(num_videos=8, steps=(40, 80), noise=0.5, seed=0, validation=0, classes=CLASSES):
    """(annotations, store): actions of 4 to 16 steps; the last `validation` videos are of that split."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    store, videos = MemoryStore(), []
    for number in range(num_videos):
        length, first, segments = draw(*steps), draw(1, 6), []
        features = noise * torch.randn(length, CHANNELS, generator=generator)
        while first + (span := draw(4, 16)) < length - 1:
            label = draw(0, len(classes) - 1)
            features[first : first + span + 1, label] += 2.0
            segments.append(ActionSegment(classes[label], seconds(first), seconds(first + span)))
            first += span + draw(3, 10)
        name, duration = f"video_{number}", length * STRIDE / FPS
        store[name] = StoredFeatures(features, STRIDE, NUM_FRAMES, FPS, duration)
        split = "train" if number < num_videos - validation else "validation"
        videos.append(AnnotatedVideo(name, name, split, segments, duration, FPS))
    return DetectionAnnotations("features", videos, list(classes)), store


def tiny_detector(seed=0, **fields):
    """An ActionFormer of a few thousand parameters."""
    torch.manual_seed(seed)
    sizes = {
        "input_size": CHANNELS,
        "hidden_size": 16,
        "num_branch_layers": 2,
        "num_stem_layers": 1,
        "num_attention_heads": 2,
        "attention_window": 5,
        "max_sequence_length": 32,
        "use_relative_positions": True,
        "loss_normalizer_init": 20.0,
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: number for number, name in enumerate(CLASSES)},
    }
    return ActionFormerForTemporalActionDetection(ActionFormerConfig(**sizes | fields))


def tiny_processor(**fields):
    """Its processor."""
    return ActionFormerProcessor(feature_stride=STRIDE, feature_num_frames=NUM_FRAMES, feature_fps=FPS, **fields)


def build_trainer(output_dir, model=None, data=None, callbacks=None, tious=(0.3, 0.5, 0.7), **overrides):
    """A trainer over generated features."""
    annotations, store = make_features(**{"num_videos": 8, "validation": 2} | (data or {}))
    processor, options = tiny_processor(window_length=32), {"store": store, "seed": 3}
    train = FeatureWindows(annotations.in_split("train"), processor, train=True, **options)
    validation = FeatureWindows(annotations.in_split("validation"), processor, train=False, **options)
    task = DetectionTask(model if model is not None else tiny_detector(), processor, validation, tious)
    return EffVidTrainer(
        task,
        args=arguments(output_dir, **overrides),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DetectionCollator(),
        callbacks=callbacks,
    )


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
    model = tiny_detector(**given.options.pop("model", {}))
    if given.kill_at_save is not None:
        kill_at_save(given.kill_at_save)
    callbacks = [KillAtStep(given.kill_at_step)] if given.kill_at_step is not None else None
    trainer = build_trainer(given.output_dir, model, callbacks=callbacks, **given.options)
    trainer.train(resume_from_checkpoint=given.resume)
    if given.weights is not None and trainer.is_world_process_zero():
        torch.save({"weights": weights(trainer), "history": trainer.state.log_history}, given.weights)


if __name__ == "__main__":
    sys.exit(main())
