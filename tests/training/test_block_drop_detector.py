"""Detectors with fewer blocks: of their backbone and of their own, with what goes wrong before and after."""

import json
from pathlib import Path

import pytest
import torch

from hf_effvid import ActionFormerForTemporalActionDetection, CompressionOutcome, make_action_streams
from hf_effvid.evaluation.detection import evaluate_detector
from hf_effvid.training.block_drop_errors import BlockDropError
from hf_effvid.training.progressive_block_drop import progressive_block_drop

from .small_compression import ARGS
from .small_detection import build_trainer, make_features, tiny_detector, tiny_processor


STREAM_DETECTOR = Path(__file__).parents[2] / "examples" / "checkpoints" / "stream-detector"


def compress(model, data, output_dir, args=None, **options):
    torch.set_num_threads(1)
    options = {"timing_rounds": 0, "progress": False} | options
    return progressive_block_drop(
        model, data, output_dir=output_dir, args=ARGS | {"max_steps": 2} | (args or {}), **options
    )


@pytest.fixture(scope="module")
def features():
    annotations, store = make_features(num_videos=8, validation=3)
    return {"data": annotations, "features": store, "processor": tiny_processor(window_length=32)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A detector that finds something, all of whose blocks do something."""
    torch.set_num_threads(1)
    model = tiny_detector(layer_scale_init_value=0.5, drop_path_rate=0.0)
    options = {"max_steps": 60, "learning_rate": 1e-2, "save_strategy": "no", "per_device_train_batch_size": 4}
    data = {"num_videos": 8, "validation": 3}
    build_trainer(tmp_path_factory.mktemp("trained"), model, data=data, **options).train()
    return model


class TestOnFeatures:
    @pytest.fixture(scope="class")
    def run(self, trained, features, tmp_path_factory):
        model = trained
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        outcome = compress(model, output_dir=tmp_path_factory.mktemp("run") / "out", drop=1, **features)
        return model, before, outcome

    def test_a_block_of_its_own(self, run, features):
        model, _, outcome = run
        first, last = outcome.steps
        assert outcome.depth == len(first.kept) == 3 and len(last.kept) == 2
        assert set(last.scores) == {0, 1, 2} and outcome.metric == "average_mAP" and last.after.n == 3
        compressed = ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir)
        assert list(compressed.config.kept_blocks) == list(last.kept)
        inputs = torch.randn(1, 32, 8)
        assert compressed(inputs).logits.shape == model(inputs).logits.shape, "the pyramid has its levels"

    def test_the_model_that_was_given_is_left_alone(self, run):
        model, before, _ = run
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_every_term_of_the_loss(self, run):
        _, _, outcome = run
        history = json.loads((Path(outcome.folder) / "step-1" / "training.json").read_text())["history"]
        terms = {"feature_alignment", "classification_alignment", "boundary_alignment", "classification_loss"}
        assert [line for line in history if terms <= line.keys()]

    def test_what_goes_wrong_before_and_after(self, run):
        _, _, outcome = run
        folder = Path(outcome.folder) / "errors"
        assert {path.name for path in folder.iterdir()} >= {"before", "after", "change.png", "change.svg"}
        assert outcome.steps[0].after.value > 0
        assert outcome.errors["before"]["mAP"] != outcome.errors["after"]["mAP"]
        assert CompressionOutcome.load(outcome.folder).errors == outcome.errors

    def test_detections_are_kept_and_give_the_numbers(self, run, features):
        _, _, outcome = run
        truth = features["data"].to_activitynet()["database"]
        for step in outcome.steps:
            found = json.loads((Path(outcome.folder) / f"step-{step.step}" / "held_out.json").read_text())["results"]
            report = evaluate_detector({name: truth[name] for name in found}, found, (0.3, 0.4, 0.5, 0.6, 0.7))
            assert report.average_mAP == pytest.approx(step.after.value, abs=1e-12)

    @pytest.mark.slow
    def test_at_one_overlap(self, features, tmp_path):
        outcome = compress(
            tiny_detector(), output_dir=tmp_path / "out", blocks=(1,), metric="mAP@0.5", recovery=False, **features
        )
        assert outcome.metric == outcome.final_step.after.metric == "mAP@0.5"
        assert outcome.errors["before"]["tious"] == [0.5]

    def test_no_backbone_no_blocks_of_it(self, features, tmp_path):
        with pytest.raises(ValueError, match="takes features"):
            compress(tiny_detector(), output_dir=tmp_path / "out", part="backbone", **features)

    def test_classes_that_the_model_does_not_know(self, features, tmp_path):
        annotations, store = make_features(num_videos=8, validation=3, classes=["clap", "jump", "sing"])
        with pytest.raises(BlockDropError, match="does not know sing"):
            compress(
                tiny_detector(), output_dir=tmp_path / "out", **features | {"data": annotations, "features": store}
            )

    @pytest.mark.slow
    def test_one_class(self, features, tmp_path):
        fields = {"layer_scale_init_value": 0.5, "id2label": {0: "action"}, "label2id": {"action": 0}}
        model = tiny_detector(**fields)
        outcome = compress(model, output_dir=tmp_path / "out", blocks=(0,), preset="released", **features)
        assert outcome.final_step.kept == (1, 2)
        history = json.loads((tmp_path / "out" / "step-1" / "training.json").read_text())["history"]
        assert any(line.get("classification_alignment", 0) > 1e-6 for line in history), "not zero for one class"


@pytest.mark.slow
def test_from_pixels(tmp_path):
    data = make_action_streams(tmp_path / "streams", {"train": 2, "validation": 2}, seconds=(10, 12), progress=False)
    source = data / "annotations.json"
    args = {"per_device_train_batch_size": 2, "max_steps": 1}
    outcome = compress(STREAM_DETECTOR, source, tmp_path / "out", args=args, drop=1, score_videos=1, timing_rounds=1)
    trunk = ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir).config.backbone_config
    assert sum(trunk.depths) == 3 and outcome.final_step.gmacs < outcome.steps[0].gmacs
    assert outcome.data["held_out"] >= 2 and outcome.final_step.milliseconds > 0
