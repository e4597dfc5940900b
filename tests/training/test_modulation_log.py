"""The log of gates and gradients: right values, in the history and in TensorBoard, and a training that does not notice it."""

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid.explanation import NoModulatorsError, explain_clip
from hf_effvid.training import ModulationLog
from hf_effvid.training.freezing import freeze
from hf_effvid.training.modulation_log import branch_of

from .small_run import RandomClips, build_trainer, tiny_model, weights


def log_lines(trainer):
    return [line for line in trainer.state.log_history if "loss" in line]


def quiet(tmp_path, **options):
    return {"output_dir": tmp_path, "save_strategy": "no", "logging_steps": 2, **options}


def test_off_by_default(tmp_path):
    trainer = build_trainer(**quiet(tmp_path))
    assert not any(isinstance(callback, ModulationLog) for callback in trainer.callback_handler.callbacks)
    trainer.train()
    assert not any("modulation" in name for line in trainer.state.log_history for name in line)


@pytest.mark.parametrize("frozen", [False, True])
def test_training_does_not_notice_it(tmp_path, frozen):
    """The model has dropout and drop path: one random draw too many, or a module in the wrong mode, would change the weights."""
    trained = []
    for log_modulation in (False, True):
        model = tiny_model()
        if frozen:
            freeze(model, ["embeddings"])
        options = {
            "validation": RandomClips(4),
            "eval_strategy": "steps",
            "eval_steps": 2,
            "load_best_model_at_end": False,
        }
        trainer = build_trainer(model=model, log_modulation=log_modulation, **quiet(tmp_path, **options))
        trainer.train()
        trained.append((weights(trainer), [line["loss"] for line in log_lines(trainer)]))
    assert trained[0][1] == trained[1][1]
    for name, tensor in trained[0][0].items():
        assert torch.equal(trained[1][0][name], tensor), name


def test_every_level_of_every_stage_is_in_every_log_line(tmp_path):
    model = tiny_model(focal_levels=[2, 1], depths=[2, 1])
    trainer = build_trainer(model=model, log_modulation=True, **quiet(tmp_path))
    trainer.train()
    lines = log_lines(trainer)
    assert len(lines) == 3
    levels = ["stage1/{}/level1", "stage1/{}/level2", "stage1/{}/global", "stage2/{}/level1", "stage2/{}/global"]
    expected = {
        f"modulation/{kind}/{level.format(branch)}"
        for kind in ("gate", "gate_mean")
        for level in levels
        for branch in ("spatial", "temporal")
    } | {f"modulation/gradient/{part}" for part in ("spatial", "temporal", "other", "temporal_to_spatial")}
    for line in lines:
        assert {name for name in line if name.startswith("modulation/")} == expected
        assert all(isinstance(line[name], float) for name in expected)
        assert line["modulation/gate/stage1/temporal/level1"] >= abs(
            line["modulation/gate_mean/stage1/temporal/level1"]
        )


def test_the_gates_are_those_of_the_model_and_the_gradients_those_of_its_parameters(tmp_path):
    """One clip, one step, no learning rate: what is logged can be computed again."""
    model = tiny_model(drop_path_rate=0.0, hidden_dropout_prob=0.0)
    clips = RandomClips(1, augment=False)
    options = {
        "learning_rate": 0.0,
        "max_steps": 1,
        "logging_steps": 1,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 1,
    }
    trainer = build_trainer(model=model, train=clips, log_modulation=True, **quiet(tmp_path, **options))
    trainer.train()
    (line,) = log_lines(trainer)
    pixel_values = clips[0]["pixel_values"][None]
    for index, gates in enumerate(explain_clip(model, pixel_values).gates):
        told = gates.means()
        for branch in ("spatial", "temporal"):
            for level, name in enumerate(("level1", "global")):
                place = f"stage{index + 1}/{branch}/{name}"
                assert line[f"modulation/gate/{place}"] == pytest.approx(told[branch]["mean_abs"][level], rel=1e-4)
                assert line[f"modulation/gate_mean/{place}"] == pytest.approx(told[branch]["mean"][level], rel=1e-4)
    model.train().zero_grad()
    torch.nn.functional.cross_entropy(model(pixel_values).logits, torch.tensor([0])).backward()
    squares = {"spatial": 0.0, "temporal": 0.0, "other": 0.0}
    for name, parameter in model.named_parameters():
        squares[branch_of(name)] += parameter.grad.square().sum().item()
    for branch, square in squares.items():
        assert line[f"modulation/gradient/{branch}"] == pytest.approx(square**0.5, rel=1e-3) and square > 0


def test_branches_cover_all_parameters_of_the_modulation():
    names = [name for name, _ in tiny_model().named_parameters()]
    by_branch = {
        branch: [name for name in names if branch_of(name) == branch] for branch in ("spatial", "temporal", "other")
    }
    assert all(".modulation." in name for name in by_branch["spatial"] + by_branch["temporal"])
    left = [name for name in by_branch["other"] if ".modulation." in name]
    assert {name.split(".modulation.")[1].split(".")[0] for name in left} == {"projection_out"}
    assert (
        branch_of("base_model.model.encoder.stages.0.layers.0.modulation.projection_in_temporal.lora_A.default.weight")
        == "temporal"
    )


def test_tensorboard_gets_them(tmp_path, monkeypatch):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = build_trainer(log_modulation=True, **quiet(tmp_path, report_to=["tensorboard"], max_steps=2))
    trainer.train()
    board = tensorboard.EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents*")).parent)).Reload()
    found = [tag for tag in board.Tags()["scalars"] if "modulation/" in tag]
    (event,) = board.Scalars(next(tag for tag in found if tag.endswith("modulation/gradient/temporal")))
    assert event.value == pytest.approx(log_lines(trainer)[0]["modulation/gradient/temporal"])


def test_a_model_without_temporal_branch_and_one_without_modulators(tmp_path):
    trainer = build_trainer(
        model=tiny_model(temporal_encoding="none"), log_modulation=True, **quiet(tmp_path, max_steps=2)
    )
    trainer.train()
    (line,) = log_lines(trainer)
    assert "modulation/gate/stage1/spatial/global" in line and not any("temporal" in name for name in line)
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=2, tubelet_size=1, hidden_size=16, num_hidden_layers=1, num_labels=3,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    with pytest.raises(NoModulatorsError, match="videomae"):
        build_trainer(model=VideoMAEForVideoClassification(config), log_modulation=True, **quiet(tmp_path))
