"""`train_token_selector`: on needles it is known which tokens count, so what was learned can be marked right or wrong."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, VideoMAEForVideoClassification

from hf_effvid.compression.token_faithfulness import FaithfulnessProtocol, TokenFaithfulness, UnfaithfulOracleError
from hf_effvid.data.synthetic_needle import make_needle_dataset
from hf_effvid.training import EffVidTrainer, last_complete_checkpoint, token_selector
from hf_effvid.training.selector_task import SelectorTask
from hf_effvid.training.token_selector import SelectorOutcome, match_labels, open_host, train_token_selector

from .needle import HOSTS, TASKS, DrawnClips, lite_host, needle_host, token_auc
from .small_run import arguments


KEEP = 0.3
QUICK_GATE = FaithfulnessProtocol(num_clips=24, num_deletions=8, shares=(0.1, 0.5), random_draws=1, keep_ratios=(0.2,))
QUIET = {"use_cpu": True, "report_to": "none", "dataloader_pin_memory": False, "per_device_train_batch_size": 16}


def trained_on(kind, folder, epochs=6, clips=512, selector=None, **options):
    """A selector trained in memory on drawn clips."""
    task = SelectorTask(lite_host(kind, **(selector or {})), keep_ratio=KEEP, **options)
    args = arguments(
        folder, max_steps=-1, num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-3, save_strategy="no", ema_decay=0.0
    )  # fmt: skip
    torch.set_num_threads(1)
    EffVidTrainer(task, args=args, train_dataset=DrawnClips(kind, clips)).train()
    return task.model.eval()


@torch.no_grad()
def accuracies(model, clips, keep_ratios):
    """Scorer -> accuracy at each keep ratio, on the same clips; `random` is the mean of three draws."""

    def share(**call):
        return (model(clips.pixels, **call).logits.argmax(-1) == clips.labels).float().mean().item()

    lite = [share(keep_ratio=keep, scorer="lite") for keep in keep_ratios]
    draws = [
        [share(keep_ratio=k, scorer="random", selection_extras={"seed": seed}) for k in keep_ratios]
        for seed in range(3)
    ]
    return lite, torch.tensor(draws).mean(0).tolist()


def test_on_needles_the_selector_beats_chance_by_far(tmp_path):
    """At .3 and .1 of the tokens at least 10 and 25 points above random, within 5 points of the whole host."""
    model = trained_on("needle", tmp_path)
    clips = DrawnClips(count=256, seed=6)
    with torch.no_grad():
        scores = model.token_scores(clips.pixels, scorer="lite")
        full = (model(clips.pixels, keep_ratio=1.0).logits.argmax(-1) == clips.labels).float().mean().item()
    assert token_auc(scores, clips.truth.informative) > 0.8
    lite, random = accuracies(model, clips, (0.3, 0.1))
    assert lite[0] > random[0] + 0.10 and lite[1] > random[1] + 0.25, (full, lite, random)
    assert lite[0] > full - 0.05, (full, lite)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_needle_dataset(
        tmp_path_factory.mktemp("needles"), TASKS["needle"], {"train": 4, "validation": 3}, progress=False
    )


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    """(folder, outcome, options) of a run of three epochs on video files."""
    folder = tmp_path_factory.mktemp("run")
    fields = {
        **QUIET,
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "save_total_limit": None,
        "num_train_epochs": 3,
    }
    options = dict(gate=QUICK_GATE, keep_ratio=KEEP, hidden_sizes=(16, 8), cache="ram", progress=False, args=fields)
    return folder, train_token_selector(HOSTS / "needle", videos, output_dir=folder, **options), options


def test_a_run_leaves_a_lite_checkpoint_with_its_report(run):
    folder, outcome, _ = run
    assert isinstance(outcome, SelectorOutcome) and outcome.model_dir == str(folder / "model")
    report = TokenFaithfulness.load(folder / "model")
    assert report.to_dict() == outcome.faithfulness.to_dict() and report.passed and report.rank_correlation.n == 24
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["model_type"] == "lite_videomae" and config["selector_trained"] is True
    assert config["keep_ratio"] == KEEP and config["scorer"] == "lite"
    metrics = outcome.training.metrics
    assert {"loss", "rank_correlation", "overlap", "top1_full", "top1_lite", "top1_random"} <= metrics.keys()
    assert all(math.isfinite(value) for value in metrics.values())
    assert outcome.training.steps == 6, "32 clips in batches of 16, three times"
    assert outcome.training.num_trainable < 3000
    assert "passed" in outcome.summary()
    json.dumps(outcome.to_dict())


def test_the_host_in_it_is_the_one_that_came_in(run):
    folder, _, _ = run
    before = needle_host().state_dict()
    stock = VideoMAEForVideoClassification.from_pretrained(folder / "model", dtype=torch.float32)
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert before["videomae.encoder.layer.0.attention.attention.query.bias"].abs().max() > 0
    lite = AutoModelForVideoClassification.from_pretrained(folder / "model", dtype=torch.float32)
    clips = DrawnClips(count=4)
    with torch.no_grad():
        kept = lite(clips.pixels)
        assert torch.equal(lite(clips.pixels, keep_ratio=1.0).logits, stock(clips.pixels).logits)
    assert kept.kept_indices.shape == (4, 19)


def test_the_selector_moved_and_the_checkpoints_are_complete(run):
    folder, _, _ = run
    assert last_complete_checkpoint(folder).name == "checkpoint-6"
    fresh = open_host(HOSTS / "needle", KEEP, hidden_sizes=(16, 8), seed=42)
    saved = AutoModelForVideoClassification.from_pretrained(folder / "model", dtype=torch.float32)
    moved = [
        (a - b).abs().max() for a, b in zip(fresh.selector.parameters(), saved.selector.parameters(), strict=True)
    ]
    assert min(moved) > 0


def test_resuming_equals_going_through(run, videos, tmp_path, monkeypatch):
    folder, straight, options = run
    shutil.copytree(folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoint-6")
    shutil.rmtree(tmp_path / "cut" / "model")
    # the report of the first part is taken over: the same oracle need not be checked twice
    monkeypatch.setattr(token_selector, "measure_faithfulness", None)
    resumed = train_token_selector(HOSTS / "needle", videos, output_dir=tmp_path / "cut", resume=True, **options)
    first, second = (load_file(f"{outcome.model_dir}/model.safetensors") for outcome in (straight, resumed))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.faithfulness.to_dict() == straight.faithfulness.to_dict()


def test_an_oracle_that_fails_is_refused_unless_forced(videos, tmp_path):
    options = dict(
        output_dir=tmp_path, gate=QUICK_GATE, oracle={"oracle_tensor": "mlp_out"}, hidden_sizes=(8,), cache="ram", progress=False,
        args={**QUIET, "max_steps": 1, "eval_strategy": "no", "save_strategy": "no"},
    )  # fmt: skip
    with pytest.raises(UnfaithfulOracleError, match="mlp_out of block -1"):
        train_token_selector(HOSTS / "needle", videos, **options)
    assert not (tmp_path / "model").exists()
    outcome = train_token_selector(HOSTS / "needle", videos, force=True, **options)
    assert TokenFaithfulness.load(outcome.model_dir).forced


def test_a_model_that_is_given_stays_as_it_is(videos, tmp_path):
    model = needle_host()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    args = {**QUIET, "max_steps": 1, "eval_strategy": "no", "save_strategy": "no"}
    train_token_selector(
        model,
        videos,
        output_dir=tmp_path,
        gate=False,
        hidden_sizes=(8,),
        progress=False,
        args=args,
        processor=HOSTS / "needle",
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_classes_are_matched_by_name():
    config = needle_host().config
    names = TASKS["needle"].class_names
    assert match_labels(names, config, "true") is None
    assert match_labels(names[::-1], config, "true").tolist() == list(range(7, -1, -1))
    assert match_labels(["texture_03", "cat"], config, "predicted").tolist() == [3, -1]
    with pytest.raises(ValueError, match="does not know 1 of the 2 classes.*'cat'.*predicted"):
        match_labels(["texture_03", "cat"], config, "true")
