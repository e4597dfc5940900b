"""Two processes align a student with its teacher like one with the same total batch."""

from pathlib import Path

import pytest
import torch

from .small_alignment import build_trainer
from .small_run import weights
from .test_resume import run_script


pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("small_alignment.py")


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_two_processes_are_one(tmp_path, kind):
    """Videos of a detector's step have other numbers of steps, points and positives, so that means of means would show."""
    torch.set_num_threads(1)
    options = {
        "kind": kind,
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.05,
        "max_steps": 5,
        "logging_steps": 1,
    }
    if kind == "detector":  # shorter and longer than the window of 32 steps
        options["data"] = {"num_videos": 10, "steps": [12, 40]}
    flags = ("--weights", tmp_path / "two.pt")
    result = run_script(
        tmp_path / "two", {**options, "per_device_train_batch_size": 2}, *flags, processes=2, script=SCRIPT
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one = build_trainer(tmp_path / "one", per_device_train_batch_size=4, **options)
    start = weights(one)
    one.train()
    expected, two = weights(one), torch.load(tmp_path / "two.pt", weights_only=True)
    assert max((expected[name] - tensor).abs().max() for name, tensor in start.items()) > 1e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=0, atol=5e-6)
    steps = [entry for entry in one.state.log_history if "feature_alignment" in entry]
    assert len(steps) == 5 and all(entry["feature_alignment"] > 0 for entry in steps)
