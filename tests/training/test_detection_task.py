"""The task of a detector: its losses are the model's, one normaliser per step whatever the split of the batch, mAP over whole videos."""

import pytest
import torch

from hf_effvid.data.detection_collator import DetectionCollator
from hf_effvid.data.detection_datasets import FeatureWindows
from hf_effvid.evaluation import evaluate_detections
from hf_effvid.training import DetectionTask
from hf_effvid.training.optim import parameter_rules

from .small_detection import build_trainer, make_features, tiny_detector, tiny_processor
from .small_run import weights


STILL = {"drop_path_rate": 0.0}


def batch_of(number, pad_length=None, **options):
    annotations, store = make_features(number)
    data = FeatureWindows(annotations, tiny_processor(window_length=32), store, train=True, **options)
    return DetectionCollator(pad_length)([data[index] for index in range(number)])


def gradients(task):
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def test_without_a_trainer_the_losses_are_those_of_the_model():
    batch = batch_of(3)
    model = tiny_detector(**STILL).train()
    task = DetectionTask(tiny_detector(**STILL)).train()
    expected = model(batch["input_features"], batch["attention_mask"], labels=batch["labels"])
    found = task(batch)
    for name in ("loss", "classification_loss", "regression_loss"):
        assert torch.equal(found[name], expected[name])
    assert torch.equal(task.model.loss_normalizer.value, model.loss_normalizer.value)


def test_positive_points_are_counted_as_the_model_counts_them():
    batch = batch_of(4, pad_length=50)
    task = DetectionTask(tiny_detector()).train()
    before = task.model.loss_normalizer.value.item()
    task(batch)
    counted = (task.model.loss_normalizer.value.item() - 0.9 * before) / 0.1
    assert task.count_positive(batch) == pytest.approx(counted, abs=1e-3) and counted > 10


@pytest.mark.parametrize("shares", [[2, 2], [1, 3], [1, 1, 1, 1]])
def test_shares_of_a_step_add_up_to_one_large_batch(shares):
    """Losses, gradients and the running number; a share without annotations counts, too."""
    whole = batch_of(4)
    whole["labels"][0] = {"grid_segments": torch.zeros(0, 2), "class_labels": torch.zeros(0, dtype=torch.int64)}
    one, many = (DetectionTask(tiny_detector(**STILL)).double().train() for _ in range(2))
    whole["input_features"] = whole["input_features"].double()
    batches, first = [], 0
    for share in shares:
        rows = slice(first, first + share)
        batches.append({name: values[rows] for name, values in whole.items()})
        first += share
    for task, parts in ((one, [whole]), (many, batches)):
        task.prepare_step(parts, lambda value: value, 1)
        losses = [task(part)["loss"] / len(parts) for part in parts]
        sum(losses).backward()
        task.total = sum(losses).item()
    assert many.total == pytest.approx(one.total, rel=1e-9)
    assert torch.equal(one.model.loss_normalizer.value, many.model.loss_normalizer.value)
    expected = gradients(one)
    assert max(value.abs().max() for value in expected.values()) > 1e-3
    for name, value in gradients(many).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-12)


def test_accumulated_gradients_train_like_one_batch(tmp_path):
    options = {
        "max_steps": 4,
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.05,
        "data": {"num_videos": 10},
    }
    one = build_trainer(tmp_path / "one", tiny_detector(**STILL), per_device_train_batch_size=4, **options)
    many = build_trainer(
        tmp_path / "many",
        tiny_detector(**STILL),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        **options,
    )
    start = tiny_detector(**STILL).state_dict()
    one.train(), many.train()
    found, expected = weights(many), weights(one)
    assert max((expected[f"model.{name}"] - tensor).abs().max() for name, tensor in start.items()) > 1e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=3e-6)


def test_vectors_scales_and_position_tables_do_not_decay():
    rules = parameter_rules(DetectionTask(tiny_detector()))
    undecayed = {name.removeprefix("model.") for name, rule in rules.items() if not rule.decays}
    for name in ("level_scales", "actionformer.encoder.stem.0.layer_scale1", "classification_head.output.bias"):
        assert any(found.startswith(name) for found in undecayed), name
    tables = [name for name in rules if name.endswith("relative_bias")]
    assert tables and not any(rules[name].decays for name in tables)
    decayed = [name for name, rule in rules.items() if rule.decays]
    assert decayed and all(name.endswith("weight") and "norm" not in name for name in decayed)


def test_rates_of_parts():
    factors = {"actionformer": 0.5, "encoder": 2.0}
    rules = parameter_rules(DetectionTask(tiny_detector()), factors=factors)
    rates = {name: rule.lr_scale for name, rule in rules.items()}
    assert rates["model.level_scales"] == 1.0
    assert {rate for name, rate in rates.items() if ".encoder." in name} == {2.0}
    assert {rate for name, rate in rates.items() if ".embeddings." in name} == {0.5}
    with pytest.raises(ValueError, match="no trained parameter is in backbone"):
        parameter_rules(DetectionTask(tiny_detector()), factors={"backbone": 0.1})


@pytest.mark.parametrize("trunk", ["video_focalnet", "videomae", "adapters"])
def test_no_parameter_is_left_without_a_gradient(trunk):
    """Distributed training would wait for it; also in a batch without annotations."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    fields = {"model_type": "videomae", "image_size": 32, "num_frames": 4} | sizes
    if trunk == "video_focalnet":
        fields = {
            "model_type": trunk,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_frames": 4,
            "image_size": 32,
            "patch_size": 4,
        }
        fields |= {"focal_levels": [1, 1], "focal_windows": [3, 3]}
    extra = {"temporal_adapters": True, "freeze_backbone": True} if trunk == "adapters" else {}
    model = tiny_detector(backbone_config=fields, frames_per_step=2, **extra)
    nothing = {"grid_segments": torch.zeros(0, 2), "class_labels": torch.zeros(0, dtype=torch.int64)}
    pixels, mask = torch.randn(2, 8, 3, 32, 32), torch.ones(2, 8, dtype=torch.bool)
    task = DetectionTask(model).train()
    batch = {"pixel_values": pixels, "pixel_mask": mask, "labels": [nothing] * 2}
    assert task.count_positive(batch) == 0
    task(batch)["loss"].backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


class TestEvaluation:
    def test_windows_are_merged_and_measured_as_the_pipeline_does_it(self, tmp_path):
        trainer = build_trainer(tmp_path, data={"num_videos": 6, "validation": 3}, max_steps=3, save_strategy="no")
        trainer.train()
        metrics = trainer.evaluate()
        annotations, store = make_features(6, validation=3)
        data = trainer.task.evaluated
        assert len(data) == metrics["eval_clips"] > 3, "some videos are longer than the window"
        run = evaluate_detections(
            trainer.task.model,
            annotations.in_split("validation"),
            features=store,
            processor=data.processor,
            tious=(0.3, 0.5, 0.7),
            progress=False,
        )
        assert run.report.average_mAP == pytest.approx(metrics["eval_average_mAP"], abs=1e-9)
        assert metrics["eval_mAP@0.5"] == pytest.approx(run.report.mAP[1], abs=1e-9)

    @pytest.mark.parametrize("batch_size", [1, 5])
    def test_numbers_do_not_depend_on_batches(self, tmp_path, batch_size):
        values = [
            build_trainer(tmp_path / str(size), per_device_eval_batch_size=size).evaluate() for size in (2, batch_size)
        ]
        for name in ("eval_loss", "eval_average_mAP"):
            assert values[0][name] == pytest.approx(values[1][name], rel=1e-5)

    def test_a_video_of_which_a_window_is_missing_does_not_count(self, tmp_path):
        trainer = build_trainer(tmp_path, data={"validation": 3})
        task = trainer.task
        batch = DetectionCollator()([task.evaluated[index] for index in range(len(task.evaluated))])
        task.eval()
        with torch.no_grad():
            records = task.records(task(batch), batch)
        assert set(task.metrics(records)) == {"loss", "average_mAP", "mAP@0.3", "mAP@0.5", "mAP@0.7"}
        assert task.report.data.num_ground_truth_videos == 3
        task.metrics(records[1:])
        assert task.report.data.num_ground_truth_videos == 2

    def test_the_loss_of_an_evaluation_leaves_no_trace(self, tmp_path):
        trainer = build_trainer(tmp_path)
        before = trainer.task.model.loss_normalizer.value.clone()
        trainer.evaluate()
        assert torch.equal(trainer.task.model.loss_normalizer.value, before)
