"""`train_detector`: it learns, what it saves is what it measured, and every way to start and to adapt a backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoVideoProcessor
from typer.testing import CliRunner

from hf_effvid import train_detector
from hf_effvid.cli import app
from hf_effvid.compression.lora import merge_lora
from hf_effvid.data import load_detection_annotations
from hf_effvid.data.detection_annotations import ActionSegment, AnnotatedVideo, DetectionAnnotations
from hf_effvid.data.feature_store import FeatureStoreWriter
from hf_effvid.data.synthetic import write_clip
from hf_effvid.data.synthetic_streams import make_action_streams
from hf_effvid.evaluation import evaluate_detections
from hf_effvid.evaluation.detection_baselines import BASELINES, evaluate_without_pixels
from hf_effvid.models.configuration_video_focalnet import VideoFocalNetConfig
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.detection_defaults import ActionLengths, num_branch_layers, pixel_sizes
from hf_effvid.training.detection_setup import open_detector, prepare_backbone
from hf_effvid.training.detection_splits import detection_splits

from .small_detection import CLASSES, make_features


QUIET = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "eval_strategy": "no", "save_strategy": "no"}
SMALL = {"hidden_size": 16, "num_branch_layers": 2, "num_stem_layers": 1, "num_attention_heads": 2}


def train(model, data, folder, args=None, **options):
    return train_detector(model, data, output_dir=folder, args=QUIET | (args or {}), progress=False, **options)


def guessed(annotations):
    """Average mAP of everything that training annotations alone are worth, in three draws each."""
    truth = [annotations.in_split(name).to_activitynet() for name in ("train", "validation")]
    return [
        report.average_mAP for kind in BASELINES for report in evaluate_without_pixels(kind, *truth, seeds=range(3))
    ]


def write_squares(root, num_train, num_validation):
    """Video files of 8 seconds with squares of a colour at known times, and their annotations."""
    generator, videos = np.random.default_rng(0), []
    for number in range(num_train + num_validation):
        frames = generator.integers(90, 160, (64, 32, 32, 3), dtype=np.uint8)
        at, segments = int(generator.integers(4, 10)), []
        while (end := at + int(generator.integers(8, 20))) < 60:
            label, (top, left) = int(generator.integers(2)), generator.integers(0, 20, 2)
            frames[at:end, top : top + 12, left : left + 12] = (220, 20, 20) if label == 0 else (20, 20, 220)
            segments.append(ActionSegment(["red", "blue"][label], at / 8, end / 8))
            at = end + int(generator.integers(8, 16))
        path = root / f"{number}.mp4"
        write_clip(path, frames, fps=8)
        split = "train" if number < num_train else "validation"
        videos.append(AnnotatedVideo(path.name, str(path), split, segments, 8.0, 8.0))
    return DetectionAnnotations("squares", videos, ["blue", "red"])


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    make_action_streams(root, {"train": 4, "validation": 2}, size=32, seconds=(9, 11), seed=4, progress=False)
    return root / "annotations.csv"


def small_trunk():
    torch.manual_seed(0)
    config = VideoFocalNetConfig(
        embed_dim=8, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3], num_frames=4, image_size=32, patch_size=4, num_labels=3
    )  # fmt: skip
    return VideoFocalNetForVideoClassification(config)


class TestLearns:
    def test_a_seeded_problem_far_above_what_annotations_alone_are_worth(self, tmp_path):
        """The best guess without looking, of four kinds and three draws, is worth about 0.2; the detector has to be 0.4 above that."""
        annotations, store = make_features(num_videos=26, validation=8, seed=1)
        torch.set_num_threads(1)
        outcome = train(
            None,
            annotations,
            tmp_path / "run",
            {"max_steps": 70, "per_device_train_batch_size": 6, "learning_rate": 5e-3, "ema_decay": 0.9},
            features=store,
            config=SMALL | {"hidden_size": 32, "loss_normalizer_init": 50.0},
            operating_points=True,
        )
        guesses = guessed(annotations)
        assert max(guesses) < 0.3 and outcome.metrics["average_mAP"] > max(guesses) + 0.4, (guesses, outcome.metrics)
        model = AutoModel.from_pretrained(outcome.model_dir)
        assert set(model.config.operating_points) == set(CLASSES)
        assert all(0.05 < threshold < 0.95 for threshold in model.config.operating_points.values())
        run = evaluate_detections(
            outcome.model_dir, annotations.in_split("validation"), features=store, progress=False
        )
        assert run.report.average_mAP == pytest.approx(outcome.metrics["average_mAP"], abs=1e-6)
        assert json.loads((tmp_path / "run" / "training.json").read_text())["items"] == "windows"

    @pytest.mark.slow
    def test_videos_in_which_a_picture_tells_the_action(self, tmp_path):
        """Files of noise in which a red or a blue square shows up for a while; the best guess without looking is beaten by 0.3."""
        annotations = write_squares(tmp_path, num_train=16, num_validation=6)
        torch.set_num_threads(1)
        outcome = train(
            small_trunk(),
            annotations,
            tmp_path / "run",
            {"max_steps": 90, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "ema_decay": 0.9},
            config={"hidden_size": 32, "num_branch_layers": 2, "num_stem_layers": 1, "loss_normalizer_init": 30.0},
            augmentation="none",
        )
        guesses = guessed(annotations)
        assert outcome.metrics["average_mAP"] > max(guesses) + 0.3, (guesses, outcome.metrics)


class TestStarts:
    def test_a_csv_of_ones_own_from_the_command_line(self, streams, tmp_path):
        """The newcomer's line: nothing but a list; then its measurement."""
        small = [part for name, value in SMALL.items() for part in ("--set", f"model.{name}={value}")]
        quiet = [part for name, value in QUIET.items() for part in ("--set", f"training.{name}={value}")]
        result = CliRunner().invoke(
            app,
            ["train", str(streams), "--task", "detection", "-o", str(tmp_path / "run"), "--quiet", "--json", *small, *quiet]
            + ["--set", "training.max_steps=2", "--batch-size", "2"],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0
        outcome = json.loads(result.stdout)
        assert outcome["steps"] == 2 and outcome["num_validation"] > 2 and "average_mAP" in outcome["metrics"]
        folder = tmp_path / "run" / "model"
        processor, model = AutoVideoProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder)
        assert processor.feature_stride == model.config.frames_per_step and processor.horizontal_flip_safe is False
        lengths = ActionLengths.of(load_detection_annotations(streams, split="train"))
        assert processor.window_length * processor.feature_stride / processor.feature_fps >= lengths.long
        found = tmp_path / "found.json"
        measured = CliRunner().invoke(
            app,
            ["evaluate", str(folder), str(streams), "--split", "validation", "--json", "--quiet"]
            + ["--predictions", str(found), "--errors", str(tmp_path / "errors"), "--results", str(tmp_path / "r.json")],
            catch_exceptions=False,
        )  # fmt: skip
        assert measured.exit_code == 0
        assert json.loads(measured.stdout)["average_mAP"] == pytest.approx(outcome["metrics"]["average_mAP"], abs=1e-6)
        assert len(json.loads(found.read_text())["results"]) == 2 and not Path(f"{found}.partial").exists()
        assert (tmp_path / "errors" / "false_positives.png").is_file()
        entry = json.loads((tmp_path / "r.json").read_text())["results"][0]
        assert entry["task"] == "temporal-action-detection" and entry["metrics"][0]["interval"]

    def test_stored_features_from_the_command_line(self, tmp_path):
        annotations, store = make_features(6, validation=2)
        with FeatureStoreWriter(tmp_path / "features", recipe={"made": "by a test"}) as writer:
            for name, stored in store.items():
                writer.add(name, stored)
        listed = tmp_path / "annotations.json"
        listed.write_text(json.dumps(annotations.to_activitynet()))
        small = [part for name, value in SMALL.items() for part in ("--set", f"model.{name}={value}")]
        quiet = [part for name, value in QUIET.items() for part in ("--set", f"training.{name}={value}")]
        where = ["--features", str(tmp_path / "features")]
        result = CliRunner().invoke(
            app,
            ["train", str(listed), "--task", "detection", *where, "-o", str(tmp_path / "run"), "--quiet", "--json"]
            + [*small, *quiet, "--set", "training.max_steps=2"],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0
        again = ["evaluate", str(tmp_path / "run" / "model"), str(listed), *where, "--split", "validation", "--json"]
        measured = CliRunner().invoke(app, [*again, "--quiet"], catch_exceptions=False)
        expected = json.loads(result.stdout)["metrics"]["average_mAP"]
        assert json.loads(measured.stdout)["average_mAP"] == pytest.approx(expected, abs=1e-6)

    def test_a_trained_detector_gets_a_head_for_other_classes(self, tmp_path):
        annotations, store = make_features(4)
        first = train(
            None, annotations, tmp_path / "a", {"max_steps": 2}, features=store, config=SMALL, validation_share=0
        )
        others = DetectionAnnotations("others", make_features(4, classes=["run", "sit"])[0].videos, ["run", "sit"])
        second = train(first.model_dir, others, tmp_path / "b", {"max_steps": 1, "learning_rate": 1e-9}, features=store, validation_share=0)  # fmt: skip
        before, after = (
            ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir).state_dict()
            for outcome in (first, second)
        )
        assert after["classification_head.output.weight"].shape[0] == 2
        for name, tensor in before.items():
            if "classification_head.output" not in name and "loss_normalizer" not in name:
                torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
        with pytest.raises(ValueError, match="stays as it is"):
            train(first.model_dir, annotations, tmp_path / "c", features=store, config={"hidden_size": 8})

    def test_one_class(self, tmp_path):
        annotations, store = make_features(6, validation=2)
        outcome = train(
            None, annotations, tmp_path / "a", {"max_steps": 2}, features=store, config=SMALL, one_class=True
        )
        model = AutoModel.from_pretrained(outcome.model_dir)
        assert model.config.num_labels == 1 and outcome.class_names == ["action"]
        validation, options = annotations.in_split("validation"), {"features": store, "progress": False}
        alone = evaluate_detections(outcome.model_dir, validation, **options)
        assert alone.report.average_mAP == pytest.approx(outcome.metrics["average_mAP"], abs=1e-6)
        scores = {video.name: {name: 0.1 + 0.4 * (name == "jump") for name in CLASSES} for video in validation.videos}
        named = evaluate_detections(outcome.model_dir, validation, video_scores=scores, **options)
        assert {one["label"] for found in named.predictions.values() for one in found} <= set(CLASSES)
        assert sorted(named.report.data.labels) == CLASSES

    @pytest.mark.parametrize(
        ("model", "features", "message"),
        [("trunk", True, "is no detector"), ("features", False, "takes stored features")],
    )
    def test_models_that_do_not_fit(self, tmp_path, streams, model, features, message):
        annotations, store = make_features(3)
        model = (
            small_trunk() if model == "trunk" else ActionFormerForTemporalActionDetection.config_class(input_size=8)
        )
        with pytest.raises(ValueError, match=message):
            train(model, annotations if features else str(streams), tmp_path, features=store if features else None)


class TestBackbones:
    def run(self, streams, folder, args, **options):
        trunk = small_trunk()
        before = {name: tensor.clone() for name, tensor in trunk.base_model.state_dict().items()}
        outcome = train(
            trunk,
            str(streams),
            folder,
            {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01} | args,
            config=SMALL,
            **options,
        )
        model = ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir)
        after = model.actionformer.backbone.trunk.state_dict()
        moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
        return outcome, model, moved

    @pytest.mark.slow
    def test_frozen(self, streams, tmp_path):
        outcome, model, moved = self.run(streams, tmp_path, {"freeze": ["backbone"]})
        assert not moved and model.config.freeze_backbone
        assert outcome.num_trainable < outcome.num_parameters

    def test_lora_merged_is_what_was_evaluated(self, streams, tmp_path):
        outcome, model, moved = self.run(streams, tmp_path, {"lora_r": 2})
        assert moved and all(
            "projection" in name or "mlp" in name or "fc" in name or "weight" in name for name in moved
        )
        assert not any("norm" in name for name in moved), "only linear layers are adapted"
        assert outcome.adapter_dir is None
        initial = torch.ones_like(model.level_scales)
        assert not torch.equal(model.level_scales, initial), "the scales train beside the adapters"
        validation = load_detection_annotations(streams, split="validation")
        run = evaluate_detections(outcome.model_dir, validation, progress=False)
        # adapters beside the weights and inside them differ by rounding, which may order equal scores anew
        assert run.report.average_mAP == pytest.approx(outcome.metrics["average_mAP"], abs=0.02)

    def test_merged_adapters_say_what_adapters_beside_the_weights_say(self, tmp_path):
        detector = ActionFormerForTemporalActionDetection.from_backbone(
            small_trunk(), num_labels=2, frames_per_step=2, **SMALL
        )
        arguments = EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, lora_r=2)
        wrapped = prepare_backbone(detector, arguments).eval()
        pixels = torch.randn(2, 12, 3, 32, 32)
        plain = wrapped(pixel_values=pixels).logits
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        adapted = wrapped(pixel_values=pixels)
        assert (adapted.logits - plain).abs().max() > 1e-3
        trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
        assert not any(".trunk." in name and "lora" not in name for name in trained)
        merged = merge_lora(wrapped)(pixel_values=pixels)
        torch.testing.assert_close(merged.logits, adapted.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(merged.offsets, adapted.offsets, rtol=0, atol=1e-5)

    def test_pixels_are_normalised_as_the_classifier_was_trained(self, streams, tmp_path):
        trunk = small_trunk()
        trunk.save_pretrained(tmp_path / "trunk")
        EffVidVideoProcessor(
            num_frames=4, size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, image_mean=[0.1] * 3, image_std=[0.7] * 3
        ).save_pretrained(tmp_path / "trunk")  # fmt: skip
        annotations = load_detection_annotations(streams, split="train")
        for model in (tmp_path / "trunk", VideoFocalNetForVideoClassification.from_pretrained(tmp_path / "trunk")):
            detector, processor = open_detector(model, annotations, fields=SMALL)
            assert list(processor.image_mean) == [0.1] * 3 and dict(processor.size)["shortest_edge"] == 36
            found = detector.actionformer.backbone.trunk.state_dict()
            assert all(torch.equal(found[name], value) for name, value in trunk.base_model.state_dict().items())

    @pytest.mark.slow
    def test_full_at_a_rate_of_its_own(self, streams, tmp_path):
        _, _, moved = self.run(streams, tmp_path / "a", {"lr_factors": {"trunk": 0.0}})
        assert not moved
        _, _, moved = self.run(streams, tmp_path / "b", {})
        assert moved

    def test_what_needs_a_backbone(self, tmp_path):
        annotations, store = make_features(3)
        with pytest.raises(ValueError, match="has no backbone to freeze or adapt"):
            train(None, annotations, tmp_path, {"lora_r": 2}, features=store)


class TestSplits:
    def test_held_out_videos_leave_every_class_on_both_sides(self):
        annotations, store = make_features(12)
        splits = detection_splits(annotations, store, validation_share=0.25)
        assert splits.held_out and (len(splits.train.videos), len(splits.validation.videos)) == (9, 3)
        for part in (splits.train, splits.validation):
            assert {one.label for video in part.videos for one in video.segments} == set(CLASSES)
        assert not {video.name for video in splits.train.videos} & {video.name for video in splits.validation.videos}

    def test_the_test_split_is_never_touched(self):
        annotations, store = make_features(6, validation=2)
        for video in annotations.videos[:2]:
            video.split = "test"
        splits = detection_splits(annotations, store)
        assert {video.split for video in splits.train.videos} == {"train"}
        assert {video.split for video in splits.validation.videos} == {"validation"}

    def test_videos_without_features(self):
        annotations, store = make_features(4)
        del store["video_2"]
        splits = detection_splits(annotations, store, validation_share=0)
        assert splits.skipped == ["video_2"] and len(splits.train.videos) == 3
        with pytest.raises(ValueError, match="none of its 4 videos has features"):
            detection_splits(annotations, type(store)())

    def test_no_split_to_train_on(self):
        annotations, _ = make_features(4, validation=2)
        for video in annotations.videos[:2]:
            video.split = "test"
        with pytest.raises(ValueError, match=r"no split 'train', but test, validation"):
            detection_splits(annotations)


def test_sizes_follow_from_the_lengths_of_actions():
    config, processor = pixel_sizes(ActionLengths(short=1.0, long=8.0), frames_per_step=2, clip_frames=16)
    step = 2 / processor["feature_fps"]
    assert step == pytest.approx(0.25) and processor["window_length"] * step >= 16
    assert processor["window_length"] * 2 % 16 == 0, "whole clips"
    assert config["max_sequence_length"] == processor["window_length"]
    _, long = pixel_sizes(ActionLengths(short=1.0, long=600.0), frames_per_step=2, clip_frames=16)
    assert 256 <= long["window_length"] < 300, "an action of ten minutes is seen at a coarser grid"
    assert [num_branch_layers(steps) for steps in (3, 16, 60, 500, 5000)] == [2, 2, 4, 5, 5]
