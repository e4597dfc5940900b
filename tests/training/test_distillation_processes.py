"""Killed and resumed distillation equals an uninterrupted one; two processes teach like one with the same total batch."""

from pathlib import Path

import pytest
import torch

from hf_effvid.training import last_complete_checkpoint

from .small_run import weights
from .small_teaching import build_trainer, tiny_x3d
from .test_resume import run_script


pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("small_teaching.py")
SGD = {"save_strategy": "no", "optim": "sgd", "learning_rate": 0.05, "max_steps": 5, "logging_steps": 1}


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    torch.set_num_threads(1)
    options = {"max_steps": 8, "settings": {"ramp": 0.5, "feature_loss": "fitnet"}, "ema_decay": 0.9}
    straight = build_trainer(tmp_path / "straight", **options)
    straight.train()
    killed = run_script(tmp_path / "run", options, "--kill-at-step", 5, script=SCRIPT)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert last_complete_checkpoint(tmp_path / "run").name == "checkpoint-3"
    resumed = build_trainer(tmp_path / "run", tiny_x3d(seed=9), **options)
    resumed.train(resume_from_checkpoint=True)
    expected, found = weights(straight), weights(resumed)
    assert expected.keys() == found.keys() and any("branch" in name for name in expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def both(tmp_path, **options):
    """(one process's weights, those of two, its first weights) after the same steps of 4 clips."""
    torch.set_num_threads(1)
    flags = ("--weights", tmp_path / "two.pt")
    given = {**SGD, **options}
    result = run_script(
        tmp_path / "two", {**given, "per_device_train_batch_size": 2}, *flags, processes=2, script=SCRIPT
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one = build_trainer(tmp_path / "one", per_device_train_batch_size=4, **given)
    start = weights(one)
    one.train()
    return weights(one), torch.load(tmp_path / "two.pt", weights_only=True)["weights"], start


def furthest(expected, found):
    return max((expected[name].double() - tensor.double()).abs().max().item() for name, tensor in found.items())


def test_two_processes_are_one_where_batch_norm_does_not_look_at_the_batch(tmp_path):
    settings = {"gather_relations": True, "feature_loss": "fitnet", "cnn_feature_weight": 0.5}
    expected, found, start = both(tmp_path, frozen=True, settings=settings)
    assert expected.keys() == found.keys()
    assert furthest(start, expected) > 1e-3
    assert furthest(expected, found) < 5e-6
