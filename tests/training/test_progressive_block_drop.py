"""From a trained model to one with fewer blocks: what is chosen, what is left, when it stops, and what it leaves alone."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import VideoMAEForVideoClassification

from hf_effvid import CompressionOutcome, drop_blocks
from hf_effvid.data import load_video_dataset, tiny_motion_dataset
from hf_effvid.evaluation.classification import evaluate_classifier
from hf_effvid.training import block_drop_run
from hf_effvid.training.block_drop_errors import BlockDropError
from hf_effvid.training.block_drop_measuring import Measured
from hf_effvid.training.block_drop_outcome import CompressionStep
from hf_effvid.training.block_drop_recovery import is_dynamic
from hf_effvid.training.block_drop_run import BlockDropRun
from hf_effvid.training.block_drop_settings import BlockDropSettings

from .small_compression import ARGS, compress, tiny_host, tiny_motion


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()


def logits(folder, clips=2):
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    pixels = torch.randn(clips, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(pixels).logits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_motion(tmp_path_factory.mktemp("clips") / "data")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host") / "model"
    tiny_host(folder)
    return folder


@pytest.fixture(scope="module")
def run(host, data, tmp_path_factory):
    before = digest(host)
    outcome = compress(host, data, tmp_path_factory.mktemp("run") / "out", drop=2, timing_rounds=1)
    return SimpleNamespace(outcome=outcome, before=before, folder=outcome.folder)


class TestARun:
    def test_the_least_important_block_goes(self, run):
        steps = run.outcome.steps
        assert [step.kind for step in steps] == ["start", "drop", "drop"]
        for previous, step in zip(steps, steps[1:], strict=False):
            assert set(step.scores) == set(previous.kept)
            (gone,) = step.dropped
            assert step.scores[gone] == max(step.scores.values())
            assert step.kept == tuple(block for block in previous.kept if block != gone)

    def test_result_is_a_plain_checkpoint(self, run):
        model = VideoMAEForVideoClassification.from_pretrained(run.outcome.model_dir)
        assert model.config.num_hidden_layers == len(model.videomae.encoder.layer) == 4
        assert tuple(model.config.kept_blocks) == run.outcome.final_step.kept
        assert not [name for name in model.state_dict() if "lora" in name]
        assert digest_of_weights(run.outcome.model_dir) == digest_of_weights(f"{run.folder}/step-2/model")

    def test_numbers_are_those_of_the_saved_model(self, run, data):
        step = run.outcome.final_step
        rows = load_video_dataset(data, split="validation")
        report = evaluate_classifier(run.outcome.model_dir, rows, multi_view=False, progress=False)
        assert (step.after.value, step.after.n) == (report.top1, 8)
        assert step.after.interval == report.metric("top1").interval
        assert step.parameters == report.cost.parameters and step.gmacs == pytest.approx(report.cost.gmacs)
        difference = step.after.value - run.outcome.steps[0].after.value
        assert step.after.difference == pytest.approx(difference)

    def test_the_uncompressed_model_is_left_alone(self, run, host):
        assert digest(host) == run.before
        assert torch.equal(logits(host), logits(f"{run.folder}/step-0/model"))

    def test_recovery_has_every_term(self, run):
        record = json.loads((run_path(run) / "step-1" / "training.json").read_text())
        terms = {"task_loss", "feature_alignment", "classification_alignment"}
        assert len([line for line in record["history"] if terms <= line.keys()]) == ARGS["max_steps"]
        assert run.outcome.steps[1].train_steps == ARGS["max_steps"] and run.outcome.steps[1].trainable > 0

    def test_record_and_pictures(self, run):
        folder = run_path(run)
        assert CompressionOutcome.load(folder) == run.outcome
        assert CompressionOutcome.load(folder / "model").steps == run.outcome.steps
        assert (folder / "compression.md").read_text().strip() == run.outcome.table()
        assert (folder / "block_drop.png").is_file() and (folder / "block_drop.svg").is_file()
        summary = run.outcome.summary()
        assert "4 of 6 blocks are left" in summary and "8 held-out videos" in summary
        assert run.outcome.steps[2].milliseconds > 0 and run.outcome.steps[2].speedup > 0
        assert not list(folder.glob("step-*/checkpoint-*")), "checkpoints of finished steps are gone"

    def test_starting_over_costs_nothing(self, run, host, data, monkeypatch):
        monkeypatch.setattr(block_drop_run, "recover", None)
        monkeypatch.setattr(block_drop_run, "choose_blocks", None)
        monkeypatch.setattr(block_drop_run, "answers_of", None)
        again = compress(host, data, run.folder, drop=2, timing_rounds=1, resume=True)
        assert again.steps == run.outcome.steps and again.final == 2

    def test_another_run_is_refused(self, run, host, data):
        with pytest.raises(BlockDropError, match="already holds 3 steps"):
            compress(host, data, run.folder, drop=2)
        with pytest.raises(BlockDropError, match=r"told otherwise \(settings.tuning\)"):
            compress(host, data, run.folder, drop=2, tuning="full", resume=True)
        with pytest.raises(BlockDropError, match=r"told otherwise \(training\)"):
            compress(host, data, run.folder, args={"learning_rate": 0.5}, drop=2, resume=True)
        with pytest.raises(BlockDropError, match="contradict"):
            compress(host, data, run.folder, drop=2, resume=True, overwrite=True)

    @pytest.mark.slow
    def test_going_on_further(self, run, host, data, tmp_path):
        shutil.copytree(run.folder, tmp_path / "out")
        outcome = compress(host, data, tmp_path / "out", drop=3, resume=True)
        assert outcome.steps[:3] == run.outcome.steps and len(outcome.final_step.kept) == 3


def run_path(run):
    return Path(run.folder)


def digest_of_weights(folder):
    state = load_file(f"{folder}/model.safetensors")
    return {name: tensor.double().sum().item() for name, tensor in state.items()}


class TestWhichBlocks:
    """Orders, without recovery: what is left is then the model without these blocks."""

    def compress(self, host, data, folder, **options):
        return compress(host, data, folder, recovery=False, **options)

    def test_given(self, host, data, tmp_path):
        outcome = self.compress(host, data, tmp_path / "out", blocks=(4, 1))
        assert [step.dropped for step in outcome.steps] == [(), (4,), (1,)]
        assert outcome.steps[1].before == outcome.steps[1].after
        expected = drop_blocks(VideoMAEForVideoClassification.from_pretrained(host), [1, 4])
        expected.save_pretrained(tmp_path / "expected")
        assert torch.equal(logits(outcome.model_dir), logits(tmp_path / "expected"))

    @pytest.mark.slow
    def test_at_once(self, host, data, tmp_path):
        outcome = self.compress(host, data, tmp_path / "out", order="at_once", drop=3, criterion="loss")
        assert len(outcome.steps) == 2
        step = outcome.steps[1]
        assert set(step.dropped) == set(sorted(step.scores, key=step.scores.get)[-3:])

    @pytest.mark.slow
    @pytest.mark.parametrize("order", ["random", "random_at_once"])
    def test_drawn_by_the_seed(self, host, data, tmp_path, order):
        def drawn(folder, seed, drop):
            outcome = self.compress(host, data, tmp_path / folder, order=order, drop=drop, seed=seed)
            return [block for step in outcome.steps for block in step.dropped]

        first = drawn("a", 0, 3)
        assert drawn("b", 0, 2) == first[:2], "dropping more begins in the same way"
        assert drawn("c", 1, 3) != first and len(set(first)) == 3

    @pytest.mark.slow
    def test_by_discrepancy(self, host, data, tmp_path):
        outcome = self.compress(host, data, tmp_path / "out", drop=1, criterion="discrepancy")
        step = outcome.steps[1]
        assert set(step.scores) == set(range(6)) and step.scores[step.dropped[0]] == max(step.scores.values())

    def test_nothing(self, host, data, tmp_path):
        outcome = self.compress(host, data, tmp_path / "out", drop=0)
        assert outcome.final == 0 and torch.equal(logits(outcome.model_dir), logits(host))

    @pytest.mark.slow
    def test_a_target_of_multiply_accumulates(self, host, data, tmp_path):
        whole = self.compress(host, data, tmp_path / "a", drop=1, order="random").steps
        per_block = whole[0].gmacs - whole[1].gmacs
        target = whole[0].gmacs - 2.5 * per_block
        outcome = self.compress(host, data, tmp_path / "b", target_macs=target, order="random")
        assert len(outcome.final_step.kept) == 3 and outcome.final_step.gmacs <= target
        assert "within the target" in outcome.stopped

    def test_the_test_split_is_never_opened(self, host, tmp_path):
        data = tiny_motion(tmp_path / "data")
        for path in (data / "test").rglob("*.mp4"):
            path.write_bytes(b"not a video")
        outcome = self.compress(host, data, tmp_path / "out", drop=1, on_error="raise")
        assert outcome.data["scoring"] == outcome.data["recovery"] == 16 and outcome.data["held_out"] == 8

    @pytest.mark.slow
    def test_scoring_on_held_out_or_fewer_videos(self, host, data, tmp_path):
        outcome = self.compress(host, data, tmp_path / "out", drop=1, score_on="validation", score_videos=5)
        assert outcome.data["scoring"] == 5

    def test_classes_of_another_data_set(self, host, tmp_path):
        data = tiny_motion_dataset(tmp_path / "data", classes=("moves_up", "moves_down"))
        with pytest.raises(ValueError, match="moves_"):
            self.compress(host, data, tmp_path / "out", drop=1)


class TestRecovery:
    def step(self, host, data, folder, **options):
        outcome = compress(host, data, folder, **{"blocks": (3,)} | options)
        history = json.loads((folder / "step-1" / "training.json").read_text())["history"]
        return outcome.steps[1], {name for line in history for name in line}, outcome

    @pytest.mark.slow
    def test_alignment_terms(self, host, data, tmp_path):
        _, logged, _ = self.step(host, data, tmp_path / "a", align=("feature",))
        assert "feature_alignment" in logged and "classification_alignment" not in logged
        _, logged, _ = self.step(host, data, tmp_path / "b", align=())
        assert not [name for name in logged if name.endswith("_alignment")]

    @pytest.mark.slow
    def test_full_tuning_and_frozen_head(self, host, data, tmp_path):
        lora, _, _ = self.step(host, data, tmp_path / "a")
        full, _, outcome = self.step(host, data, tmp_path / "b", tuning="full", head="frozen")
        rank_two, _, _ = self.step(host, data, tmp_path / "c", rank=2)
        assert rank_two.trainable < lora.trainable < full.trainable
        before, after = (VideoMAEForVideoClassification.from_pretrained(f) for f in (host, outcome.model_dir))
        assert torch.equal(before.classifier.weight, after.classifier.weight)
        assert not torch.equal(
            before.videomae.encoder.layer[0].output.dense.weight, after.videomae.encoder.layer[0].output.dense.weight
        )

    @pytest.mark.slow
    def test_the_control_drops_nothing_and_recovers(self, host, data, tmp_path):
        outcome = compress(host, data, tmp_path / "out", drop=0, order="at_once")
        assert len(outcome.steps) == 2 and outcome.final_step.kept == tuple(range(6))
        assert not torch.equal(logits(outcome.model_dir), logits(host))

    @pytest.mark.slow
    def test_narrower_mlps_then_relu_at_the_end(self, host, data, tmp_path):
        pytest.importorskip("torch_pruning")
        outcome = compress(host, data, tmp_path / "out", drop=0, order="progressive", mlp_width=5, relu=True)
        assert [(step.kind, step.previous) for step in outcome.steps] == [("start", None), ("prune", 0), ("relu", 1)]
        pruned = outcome.steps[1]
        assert pruned.kept == outcome.steps[0].kept and pruned.gmacs < outcome.steps[0].gmacs
        saved = VideoMAEForVideoClassification.from_pretrained(outcome.model_dir).config
        assert (saved.intermediate_size, saved.hidden_act) == (5, "relu")

    def test_a_width_that_cannot_be_is_refused_before_anything_is_done(self, host, data, tmp_path):
        pytest.importorskip("torch_pruning")
        with pytest.raises(ValueError, match="intermediate_size must be a number of channels"):
            compress(host, data, tmp_path / "out", drop=1, mlp_width=10_000)
        assert not list((tmp_path / "out").glob("step-*"))

    @pytest.mark.slow
    def test_relu_at_the_end(self, host, data, tmp_path):
        outcome = compress(host, data, tmp_path / "out", blocks=(3,), relu=True)
        step = outcome.final_step
        assert step.kind == "relu" and step.kept == (0, 1, 2, 4, 5)
        assert step.activation_sparsity["after"] > 0.1 > step.activation_sparsity["before"]
        assert VideoMAEForVideoClassification.from_pretrained(outcome.model_dir).config.hidden_act == "relu"

    @pytest.mark.slow
    def test_seeds_differ(self, host, data, tmp_path):
        first, _, a = self.step(host, data, tmp_path / "a")
        second, _, b = self.step(host, data, tmp_path / "b", seed=1)
        assert not torch.equal(logits(a.model_dir), logits(b.model_dir))

    def test_what_recovery_decides_itself(self, host, data, tmp_path):
        with pytest.raises(BlockDropError, match="lora_r cannot be set"):
            compress(host, data, tmp_path / "out", args={"lora_r": 4})

    def test_dynamic_teacher_of_the_released_code_is_about_one_class(self):
        def config(model_type, num_labels):
            return SimpleNamespace(model_type=model_type, num_labels=num_labels)

        released = BlockDropSettings(preset="released")
        assert is_dynamic(released, config("actionformer", 1))
        assert not is_dynamic(released, config("actionformer", 20))
        assert not is_dynamic(BlockDropSettings(), config("actionformer", 1))
        assert is_dynamic(BlockDropSettings(teacher="dynamic"), config("videomae", 8))


def made_run(settings, differences, kinds=None, gmacs=None, milliseconds=None):
    """A run of six blocks, as if these steps were done."""
    run = BlockDropRun.__new__(BlockDropRun)
    run.settings, run.depth, run.data = settings, 6, SimpleNamespace(metric="top1")
    run.wanted, run.steps = settings.num_to_drop(6), []
    dropped = 0
    for number, difference in enumerate([None, *differences]):
        kind = "start" if number == 0 else (kinds or ["drop"] * 9)[number - 1]
        dropped += kind == "drop"
        after = Measured("top1", 0.9 + (difference or 0), 100, difference=difference)
        costs = {"gmacs": (gmacs or [None] * 9)[number], "milliseconds": (milliseconds or [None] * 9)[number]}
        run.steps.append(CompressionStep(number, kind, (dropped,), tuple(range(dropped, 6)), after, **costs))
    return run


class TestWhenItStops:
    def test_as_many_as_asked_for(self):
        assert made_run(BlockDropSettings(drop=2), [0.0])._stop() == (1, None)
        final, why = made_run(BlockDropSettings(drop=2), [0.0, -0.5])._stop()
        assert final == 2 and "as many" in why

    def test_the_last_model_within_the_margin(self):
        final, why = made_run(BlockDropSettings(margin=0.02), [0.01, -0.02, -0.03])._stop()
        assert final == 2 and "3.0 points" in why and "margin of 2" in why

    def test_the_margin_comes_before_the_number(self):
        assert made_run(BlockDropSettings(margin=0.02, drop=2), [0.0, -0.1])._stop()[0] == 1

    def test_nothing_is_within_the_margin(self):
        assert made_run(BlockDropSettings(margin=0.0), [-0.01])._stop()[0] == 0

    def test_time(self):
        run = made_run(BlockDropSettings(target_ms=8.0), [0.0, 0.0], milliseconds=[10.0, 9.0, 7.9])
        final, why = run._stop()
        assert final == 2 and "7.9 ms" in why
        assert made_run(BlockDropSettings(target_ms=12.0), [], milliseconds=[10.0])._stop()[0] == 0

    def test_steps_beyond_are_not_the_result(self):
        assert made_run(BlockDropSettings(drop=1), [0.0, 0.0])._stop()[0] == 1

    def test_relu_steps_are_not_drops(self):
        run = made_run(BlockDropSettings(drop=2), [0.0, 0.0], kinds=["drop", "relu"])
        assert run._stop() == (1, None)
