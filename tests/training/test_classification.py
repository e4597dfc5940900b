"""`train_classifier` from video files to a Hub folder that opens without this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    VideoMAEImageProcessor,
)

from hf_effvid.data import load_video_dataset, tiny_motion_dataset
from hf_effvid.training import EffVidTrainingArguments, last_complete_checkpoint, train_classifier
from hf_effvid.training.data_splits import hold_out
from hf_effvid.training.model_setup import open_classifier, open_processor

from .small_run import tiny_model
from .test_trainer_steps import tiny_videomae


QUIET = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "report_to": "none",
}
CLASSES = ("moves_left", "moves_right", "grows", "shrinks")


def small_config(**overrides):
    return tiny_model(num_frames=4, image_size=32, **overrides).config


def train(model, data, output_dir, args=None, **options):
    torch.set_num_threads(1)
    return train_classifier(
        model, data, output_dir=output_dir, args={**QUIET, **(args or {})}, progress=False, **options
    )


@pytest.fixture(scope="session")
def motion(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("motion") / "data", classes=CLASSES)


@pytest.fixture(scope="class")
def run(motion, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    args = {"report_to": ["tensorboard"], "logging_steps": 1, "ema_decay": 0.9, "num_clips": 2, "mixup_alpha": 0.4}
    return train(small_config(), motion, folder, args=args), folder


class TestARun:
    def test_outcome(self, run):
        outcome, folder = run
        assert outcome.class_names == sorted(CLASSES)
        assert (outcome.num_train, outcome.num_validation, outcome.held_out) == (8, 4, False)
        assert outcome.steps == 4 and outcome.epochs == 2.0
        assert set(outcome.metrics) == {"loss", "top1", "mean_class_accuracy"}
        assert Path(outcome.best_checkpoint).parent == folder
        assert last_complete_checkpoint(folder).name == "checkpoint-4"
        saved = json.loads((folder / "training.json").read_text())
        assert saved["metrics"] == outcome.metrics
        assert [entry["epoch"] for entry in saved["history"] if "eval_loss" in entry] == [1.0, 2.0, 2.0]
        assert outcome.model_dir in outcome.summary() and "4 validation clips" in outcome.summary()

    def test_the_final_folder_is_the_best_checkpoint(self, run):
        outcome, _ = run
        final = AutoModelForVideoClassification.from_pretrained(outcome.model_dir).state_dict()
        best = AutoModelForVideoClassification.from_pretrained(outcome.best_checkpoint).state_dict()
        assert all(torch.equal(final[name], best[name]) for name in best)

    def test_the_final_folder_is_complete(self, run):
        outcome, _ = run
        folder = Path(outcome.model_dir)
        config = json.loads((folder / "config.json").read_text())
        assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(config["auto_map"])
        assert list(config["id2label"].values()) == outcome.class_names
        assert "use_cache" not in config, "Trainer's key for text generation"
        for reference in config["auto_map"].values():
            assert (folder / f"{reference.split('.')[0]}.py").is_file()
        processor = json.loads((folder / "video_preprocessor_config.json").read_text())
        assert (folder / f"{processor['auto_map']['AutoVideoProcessor'].split('.')[0]}.py").is_file()
        assert processor["horizontal_flip_safe"] is False, "moves_left and moves_right are mirror images"
        assert (processor["num_frames"], processor["num_clips"]) == (4, 1)
        leftovers = {path.suffix for path in folder.iterdir()} - {".py", ".json", ".safetensors"}
        assert not leftovers

    def test_tensorboard_events(self, run):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        _, folder = run
        scalars = {}
        for path in folder.glob("runs/*/events*"):
            events = EventAccumulator(str(path))
            events.Reload()
            for tag in events.Tags()["scalars"]:
                scalars.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
        assert len(scalars["train/loss"]) == 4
        assert len(scalars["eval/top1"]) == 3
        assert max(scalars["train/learning_rate"]) > 0

    def test_it_classifies_a_file(self, run, motion):
        outcome, _ = run
        processor = AutoVideoProcessor.from_pretrained(outcome.model_dir)
        model = AutoModelForVideoClassification.from_pretrained(outcome.model_dir).eval()
        clip = next((motion / "test" / "grows").glob("*.mp4"))
        with torch.no_grad():
            logits = model(**processor(str(clip))).logits
        assert logits.shape == (1, 4) and torch.isfinite(logits).all()

    def test_an_earlier_run_is_neither_mixed_nor_lost(self, run, motion):
        _, folder = run
        with pytest.raises(ValueError, match="already holds 2 checkpoints"):
            train(small_config(), motion, folder)
        with pytest.raises(ValueError, match="contradict"):
            train(small_config(), motion, folder, resume=True, overwrite=True)


@pytest.mark.slow
def test_the_final_folder_opens_without_the_package(motion, tmp_path):
    outcome = train(small_config(), motion, tmp_path / "run")
    clip = next((motion / "test" / "grows").glob("*.mp4"))
    processor = AutoVideoProcessor.from_pretrained(outcome.model_dir)
    model = AutoModelForVideoClassification.from_pretrained(outcome.model_dir).eval()
    with torch.no_grad():
        expected = model(**processor(str(clip))).logits[0].tolist()
    code = f"""
import sys
sys.modules["hf_effvid"] = None
import torch
from transformers import AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
folder = {outcome.model_dir!r}
processor = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor({str(clip)!r})
model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True).eval()
AutoModel.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    print(model(**inputs).logits[0].tolist())
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-6)


class TestData:
    def test_a_share_is_held_out_but_never_the_test_split(self, motion, tmp_path):
        splits = load_video_dataset(motion)
        del splits["validation"]
        outcome = train(small_config(), splits, tmp_path, args={"max_steps": 1}, validation_share=0.5)
        assert outcome.held_out
        assert (outcome.num_train, outcome.num_validation) == (4, 4)

    def test_without_validation_the_last_weights_are_the_result(self, motion, tmp_path):
        splits = load_video_dataset(motion)
        del splits["validation"]
        outcome = train(small_config(), splits, tmp_path, args={"max_steps": 2}, validation_share=0)
        assert (outcome.num_train, outcome.num_validation, outcome.metrics) == (8, 0, {})
        assert outcome.best_checkpoint is None and Path(outcome.model_dir, "config.json").is_file()
        args = {"max_steps": 1, "early_stopping_patience": 1}
        with pytest.raises(ValueError, match="needs validation clips"):
            train(small_config(), splits, tmp_path / "b", args=args, validation_share=0)

    def test_hold_out_takes_the_same_share_of_every_class(self):
        keys = ["a"] * 10 + ["b"] * 20 + ["c"]
        stay, held = hold_out(keys, 0.2, seed=0)
        assert sorted(stay + held) == list(range(31))
        assert [sum(keys[i] == key for i in held) for key in "abc"] == [2, 4, 0]
        assert hold_out(keys, 0.2, seed=0) == (stay, held)
        assert hold_out(keys, 0.2, seed=1) != (stay, held)
        with pytest.raises(ValueError, match="No class has two clips"):
            hold_out(["a", "b"], 0.5, seed=0)

    def test_unreadable_files_are_reported_and_do_not_count(self, motion, tmp_path):
        import shutil

        data = tmp_path / "data"
        shutil.copytree(motion, data)
        for split in ("train", "validation"):
            victim = next((data / split / "grows").glob("*.mp4"))
            victim.write_bytes(b"not a video")
        outcome = train(small_config(), data, tmp_path / "run", args={"max_steps": 2, "eval_steps": 2})
        assert {Path(entry["source"]).parent.name for entry in outcome.skipped} == {"grows"}
        assert len(outcome.skipped) == 2
        evaluated = [entry["eval_clips"] for entry in outcome.history if "eval_clips" in entry]
        assert evaluated and set(evaluated) == {3}
        assert "2 unreadable files were left out" in outcome.summary()

    def test_multi_label(self, motion, tmp_path):
        clips = {name: sorted((motion / split / name).glob("*.mp4")) for split in ("train",) for name in CLASSES}
        lines = ["file_name,label,split"]
        for name, paths in clips.items():
            labels = f"{name}|{'moves' if name.startswith('moves') else 'resizes'}"
            lines += [f"{path},{labels},{split}" for path, split in zip(paths, ("train", "validation"), strict=True)]
        (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
        outcome = train(
            small_config(),
            tmp_path / "metadata.csv",
            tmp_path / "run",
            args={"max_steps": 2, "loss": "asymmetric", "class_weights": "balanced", "balanced_sampling": True},
            multi_label=True,
            root=motion,
        )
        assert set(outcome.metrics) == {"loss", "mAP", "micro_f1"}
        assert outcome.class_names == sorted([*CLASSES, "moves", "resizes"])
        config = json.loads((Path(outcome.model_dir) / "config.json").read_text())
        assert config["problem_type"] == "multi_label_classification"
        assert [entry["eval_clips"] for entry in outcome.history if "eval_clips" in entry][-1] == 4

    def test_streaming(self, motion, tmp_path):
        outcome = train(small_config(), motion, tmp_path, args={"max_steps": 2, "eval_strategy": "no"}, streaming=True)
        assert outcome.steps == 2 and outcome.num_train is None

    @pytest.mark.parametrize("options", [{"loss": "focal", "label_smoothing": 0.1}, {"balanced_sampling": True}])
    def test_imbalance_options(self, motion, tmp_path, options):
        args = {"max_steps": 1, "class_weights": "effective_number", "eval_strategy": "no", **options}
        assert train(small_config(), motion, tmp_path, args=args).steps == 1


class TestModels:
    @pytest.fixture
    def videomae_folder(self, tmp_path):
        folder = tmp_path / "videomae"
        tiny_videomae(image_size=32, num_frames=4).save_pretrained(folder)
        size = {"height": 32, "width": 32}
        VideoMAEImageProcessor(size={"shortest_edge": 36}, crop_size=size).save_pretrained(folder)
        return folder

    def test_videomae_with_lora(self, motion, tmp_path, videomae_folder):
        args = {"max_steps": 2, "lora_r": 2, "layer_decay": 0.7, "gradient_checkpointing": True}
        outcome = train(videomae_folder, motion, tmp_path / "run", args=args)
        assert outcome.num_trainable < outcome.num_parameters
        adapter = Path(outcome.adapter_dir)
        assert (adapter / "adapter_config.json").is_file() and (adapter / "video_preprocessor_config.json").is_file()
        final = AutoModelForVideoClassification.from_pretrained(outcome.model_dir)
        assert type(final).__name__ == "VideoMAEForVideoClassification"
        assert not any("lora" in name for name in final.state_dict())
        processor = AutoVideoProcessor.from_pretrained(outcome.model_dir)
        assert (processor.size.shortest_edge, processor.crop_size.height) == (36, 32)

    def test_frozen_backbone(self, motion, tmp_path, videomae_folder):
        before = AutoModelForVideoClassification.from_pretrained(videomae_folder).state_dict()
        outcome = train(videomae_folder, motion, tmp_path / "run", args={"max_steps": 2, "freeze": ["backbone"]})
        after = AutoModelForVideoClassification.from_pretrained(outcome.model_dir).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("videomae."))

    def test_head_is_kept_for_the_same_classes_only(self, videomae_folder, tmp_path):
        folder = tmp_path / "own"
        model = open_classifier(videomae_folder, ["a", "b", "c"], seed=0)
        model.save_pretrained(folder)
        kept = open_classifier(folder, ["a", "b", "c"], seed=5)
        assert torch.equal(kept.classifier.weight, model.classifier.weight)
        renamed = open_classifier(folder, ["a", "b", "d"], seed=5)
        assert not torch.equal(renamed.classifier.weight, model.classifier.weight)
        assert renamed.config.id2label == {0: "a", 1: "b", 2: "d"}
        wider = open_classifier(folder, list("abcd"), seed=5)
        assert wider.classifier.weight.shape[0] == 4
        query = "videomae.encoder.layer.0.attention.attention.query.weight"
        assert torch.equal(wider.state_dict()[query], model.state_dict()[query])

    def test_presets_and_seeds(self):
        model = open_classifier(small_config(), ["a", "b"], seed=3)
        again = open_classifier(small_config(), ["a", "b"], seed=3)
        other = open_classifier(small_config(), ["a", "b"], seed=4)
        assert torch.equal(model.classifier.weight, again.classifier.weight)
        assert not torch.equal(model.classifier.weight, other.classifier.weight)
        with pytest.raises(ValueError, match="expects one of"):
            open_classifier("video_focalnet:enormous", ["a", "b"])
        with pytest.raises(ValueError, match="neither a folder nor a known"):
            open_classifier("resnet:tiny", ["a", "b"])
        with pytest.raises(ValueError, match="The model has 3 classes, the data set 2"):
            open_classifier(tiny_model(), ["a", "b"])

    def test_a_configuration_gets_a_fitting_recipe(self):
        processor = open_processor(None, open_classifier(small_config(), ["a", "b"]), small_config())
        assert (processor.num_frames, processor.crop_size.height, processor.size.shortest_edge) == (4, 32, 32)


class TestResume:
    def test_an_interrupted_call_continues(self, motion, tmp_path):
        from .small_run import KillAtStep

        class Stop(KillAtStep):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == self.step:
                    raise KeyboardInterrupt

        args = {"ema_decay": 0.9, "mixup_alpha": 0.4}
        straight = train(small_config(), motion, tmp_path / "a", args=args)
        with pytest.raises(KeyboardInterrupt):
            train(small_config(), motion, tmp_path / "b", args=args, callbacks=[Stop(3)])
        resumed = train(small_config(), motion, tmp_path / "b", args=args, resume=True)
        assert resumed.steps == straight.steps == 4
        left = AutoModelForVideoClassification.from_pretrained(straight.model_dir).state_dict()
        right = AutoModelForVideoClassification.from_pretrained(resumed.model_dir).state_dict()
        assert all(torch.equal(left[name], right[name]) for name in left)
        assert resumed.metrics == straight.metrics

    def test_resuming_before_the_first_checkpoint_starts(self, motion, tmp_path):
        assert train(small_config(), motion, tmp_path, args={"max_steps": 1}, resume=True).steps == 1

    def test_pushing_is_left_to_staging(self, motion, tmp_path):
        with pytest.raises(ValueError, match="stage_checkpoint and push_checkpoint"):
            train(small_config(), motion, tmp_path, args={"push_to_hub": True})


def test_one_class_is_refused_before_a_checkpoint_that_transformers_cannot_open(motion, tmp_path):
    shutil.copytree(motion / "train" / "grows", tmp_path / "data" / "grows")
    with pytest.raises(ValueError, match="one class only"):
        train(small_config(), tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("value", ["abc", -1.0, None])
def test_a_learning_rate_that_is_none(tmp_path, value):
    with pytest.raises(ValueError, match="learning_rate"):
        EffVidTrainingArguments(output_dir=str(tmp_path), learning_rate=value)
