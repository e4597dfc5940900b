"""What takes longer: controls whose answer is known, selector variants, two processes."""

from pathlib import Path

import pytest
import torch

from hf_effvid.compression import OracleSettings, oracle_importance

from .needle import DrawnClips, needle_host, token_auc
from .selector_run import build_selector_trainer
from .test_resume import run_script
from .test_token_selector import accuracies, trained_on


pytestmark = pytest.mark.slow


def test_on_the_negative_control_nothing_beats_chance(tmp_path):
    """Every token carries the class: what LITE keeps is at most as good as random tokens, and worse where few are kept."""
    model = trained_on("global", tmp_path)
    clips = DrawnClips("global", count=256, seed=6)
    lite, random = accuracies(model, clips, (0.3, 0.1, 0.05))
    assert random[0] > 0.9, "random tokens are enough here"
    assert all(ours <= chance + 0.02 for ours, chance in zip(lite, random, strict=True)), (lite, random)


def test_a_conjunction_is_seen_by_the_oracle_and_not_by_the_selector(tmp_path):
    """The documented failure: needles and decoys look alike to whom sees one token at a time."""
    clips = DrawnClips("conjunction", count=256, seed=6)
    settings = OracleSettings(label_source="predicted")
    oracle = oracle_importance(needle_host("conjunction"), clips.pixels, None, settings).scores
    needles, decoys = clips.truth.informative, clips.truth.decoys
    assert token_auc(oracle, needles, among=decoys) > 0.75
    model = trained_on("conjunction", tmp_path)
    with torch.no_grad():
        scores = model.token_scores(clips.pixels, scorer="lite")
    assert token_auc(scores, needles) > 0.75, "it finds what is shown at all"
    assert abs(token_auc(scores, needles, among=decoys) - 0.5) < 0.08, "but not which of it counts"


def test_a_selector_of_the_wrong_tensor_is_worse_than_chance(tmp_path):
    """What the gate is for: it learns faithfully from an oracle that knows nothing."""
    model = trained_on("needle", tmp_path, oracle=OracleSettings(oracle_tensor="mlp_out"))
    lite, random = accuracies(model, DrawnClips(count=256, seed=6), (0.5, 0.3))
    assert all(ours < chance + 0.03 for ours, chance in zip(lite, random, strict=True)), (lite, random)


def test_the_shuffled_control_finds_nothing(tmp_path):
    """Needles are anywhere: the targets of other clips tell places only. What order is left among tokens is an accident."""
    model = trained_on("needle", tmp_path, shuffled=True)
    clips = DrawnClips(count=256, seed=6)
    with torch.no_grad():
        scores = model.token_scores(clips.pixels, scorer="lite")
    assert token_auc(scores, clips.truth.informative) < 0.6
    lite, random = accuracies(model, clips, (0.3,))
    assert lite[0] < random[0] + 0.08, (lite, random)


@pytest.mark.parametrize("kind", ["deep", "transformer", "global"])
def test_every_kind_of_selector_finds_needles(kind, tmp_path):
    model = trained_on("needle", tmp_path, epochs=8, clips=256, selector={"selector_kind": kind})
    clips = DrawnClips(count=128, seed=6)
    with torch.no_grad():
        assert token_auc(model.token_scores(clips.pixels, scorer="lite"), clips.truth.informative) > 0.75


def test_two_processes_train_and_evaluate_like_one(tmp_path):
    torch.set_num_threads(1)
    options = {
        "save_strategy": "no", "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": False, "optim": "sgd",
        "learning_rate": 0.5, "max_steps": 4,
    }  # fmt: skip
    result = run_script(
        tmp_path / "two",
        {**options, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2},
        "--weights",
        tmp_path / "two.pt",
        processes=2,
        script=Path(__file__).with_name("selector_run.py"),
    )
    assert result.returncode == 0, result.stderr[-4000:]
    one = build_selector_trainer(tmp_path / "one", per_device_train_batch_size=4, **options)
    start = {name: tensor.clone() for name, tensor in one.task.state_dict().items()}
    one.train()
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, tensor in one.task.state_dict().items():
        torch.testing.assert_close(two["weights"][name], tensor, rtol=0, atol=3e-6)
        assert torch.equal(tensor, start[name]) == (not name.startswith("model.selector.")), name
    left, right = (
        [entry for entry in history if "eval_loss" in entry] for history in (one.state.log_history, two["history"])
    )
    assert len(left) == len(right) == 2
    for ours, theirs in zip(left, right, strict=True):
        assert ours["eval_clips"] == theirs["eval_clips"] == 7
        assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-5)
        assert ours["eval_top1_lite"] == theirs["eval_top1_lite"]
