"""A detector killed and resumed equals one that was not, bit for bit; two processes train and evaluate like one."""

from pathlib import Path

import pytest
import torch

from hf_effvid.training import last_complete_checkpoint

from .small_detection import build_trainer, tiny_detector
from .small_run import weights
from .test_resume import assert_same, run_script


SCRIPT = Path(__file__).with_name("small_detection.py")
STILL = {"drop_path_rate": 0.0}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("flag", "at", "options"),
    [
        ("--kill-at-save", 6, {"max_steps": 8, "ema_decay": 0.9}),
        ("--kill-at-step", 4, {"max_steps": 6, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}),
    ],
    ids=["during_a_save", "mid_epoch_with_accumulation"],
)
def test_killed_and_resumed(tmp_path, flag, at, options):
    torch.set_num_threads(1)
    straight = build_trainer(tmp_path / "straight", **options)
    straight.train()
    killed = run_script(tmp_path / "run", options, flag, at, script=SCRIPT)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert last_complete_checkpoint(tmp_path / "run").name == "checkpoint-3"
    resumed = build_trainer(tmp_path / "run", tiny_detector(seed=9), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(weights(resumed), weights(straight))  # the running number of positive points among them


def test_two_processes_train_and_evaluate_like_one(tmp_path):
    """The videos of a step have different numbers of positive points, so that two numbers of them would not give the same gradient."""
    torch.set_num_threads(1)
    options = {"save_strategy": "no", "optim": "sgd", "learning_rate": 0.05, "max_steps": 6}
    # 3 validation videos do not fill the processes' batches evenly
    options |= {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": False}
    options |= {"data": {"num_videos": 11, "validation": 3}}
    sizes = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2}
    result = run_script(
        tmp_path / "two", {"model": STILL, **options, **sizes}, "--weights", tmp_path / "two.pt", processes=2, script=SCRIPT
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    one = build_trainer(tmp_path / "one", tiny_detector(**STILL), per_device_train_batch_size=4, **options)
    one.train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    start, expected = tiny_detector(**STILL).state_dict(), weights(one)
    assert max((expected[f"model.{name}"] - tensor).abs().max() for name, tensor in start.items()) > 1e-3
    for name, tensor in expected.items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=0, atol=5e-6)
    found, wanted = (
        [entry for entry in history if "eval_average_mAP" in entry]
        for history in (two["history"], one.state.log_history)
    )
    assert len(found) == len(wanted) == 2
    for left, right in zip(found, wanted, strict=True):
        assert left["eval_clips"] == right["eval_clips"] > 3
        assert left["eval_loss"] == pytest.approx(right["eval_loss"], abs=1e-5)
        assert left["eval_average_mAP"] == pytest.approx(right["eval_average_mAP"], abs=1e-4)
