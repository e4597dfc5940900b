"""Two processes (torchrun, gloo) train and evaluate like one with the same total batch."""

import pytest
import torch

from .small_run import RandomClips, build_trainer, tiny_model
from .test_resume import run_script


pytestmark = pytest.mark.slow

STILL = {"drop_path_rate": 0.0, "hidden_dropout_prob": 0.0}


def train_both(tmp_path, train, validation=None, model=STILL, **options):
    """(weights, history) of one process with batches of 4, and of two with batches of 2 each."""
    torch.set_num_threads(1)
    options = {
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_grad_norm": 1.0,
        "max_steps": 6,
        **options,
    }
    given = {"model": model, "train": train, **options}
    if validation is not None:
        given["validation"] = validation
        options["validation"] = RandomClips(**validation)
    result = run_script(
        tmp_path / "two",
        {**given, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2},
        "--weights",
        tmp_path / "two.pt",
        processes=2,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one = build_trainer(
        tmp_path / "one", tiny_model(**model), RandomClips(**train), per_device_train_batch_size=4, **options
    )
    one.train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    return ({n: t for n, t in one.task.state_dict().items()}, one.state.log_history), (two["weights"], two["history"])


def evaluations(history):
    return [entry for entry in history if "eval_loss" in entry]


def test_weights_and_metrics_agree(tmp_path):
    # 7 validation clips do not fill the processes' batches evenly
    (one, history_one), (two, history_two) = train_both(
        tmp_path, {"num_clips": 8}, {"num_clips": 7}, eval_strategy="steps", eval_steps=2, load_best_model_at_end=False
    )
    start = tiny_model(**STILL).state_dict()
    assert max((one[f"model.{name}"] - tensor).abs().max() for name, tensor in start.items()) > 1e-2
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=3e-6)
    assert len(evaluations(history_one)) == len(evaluations(history_two)) == 3
    for left, right in zip(evaluations(history_one), evaluations(history_two), strict=True):
        assert left["eval_clips"] == right["eval_clips"] == 7
        assert left["eval_top1"] == right["eval_top1"]
        assert left["eval_loss"] == pytest.approx(right["eval_loss"], abs=1e-5)


def test_multi_label_agrees_too(tmp_path):
    (one, history_one), (two, history_two) = train_both(
        tmp_path,
        {"num_clips": 8, "multi_label": True},
        {"num_clips": 5, "multi_label": True},
        model={**STILL, "problem_type": "multi_label_classification"},
        eval_strategy="steps",
        eval_steps=6,
        load_best_model_at_end=False,
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=3e-6)
    left, right = evaluations(history_one)[-1], evaluations(history_two)[-1]
    assert left["eval_clips"] == right["eval_clips"] == 5
    assert left["eval_mAP"] == pytest.approx(right["eval_mAP"], abs=1e-6)
