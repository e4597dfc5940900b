"""A compression that was killed ends where one that was not ends, bit for bit; so do its decisions on two processes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_effvid import CompressionOutcome

from .small_compression import compress, tiny_host, tiny_motion
from .test_resume import assert_same, run_script


SCRIPT = Path(__file__).with_name("small_compression.py")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    tiny_host(folder / "model", num_blocks=5)
    data = tiny_motion(folder / "data")
    # checkpoints within the recovery, a moving average, and clips that are drawn anew in every epoch
    args = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.9}
    return {"model": str(folder / "model"), "data": str(data), "drop": 2, "args": args, "augmentation": "light"}


@pytest.fixture(scope="module")
def straight(given, tmp_path_factory):
    torch.set_num_threads(1)
    return compress(output_dir=tmp_path_factory.mktemp("straight") / "out", **given)


def without_times(step):
    document = step.to_dict()
    document.pop("seconds")
    return document


@pytest.mark.slow
class TestKilled:
    @pytest.mark.parametrize(
        "flags",
        [("--kill", 1, 3), ("--kill", 2, 1), ("--kill-at-save", 2, 4)],
        ids=["within_the_first_step", "before_the_second_step_saved", "while_the_second_step_saves"],
    )
    def test_ends_as_if_it_had_not_been(self, given, straight, tmp_path, flags):
        killed = run_script(tmp_path / "out", given, *flags, script=SCRIPT)
        assert killed.returncode == -9, killed.stderr[-2000:]
        step = flags[1]
        assert not (tmp_path / "out" / f"step-{step}" / "model").exists()
        assert len(CompressionOutcome.load(tmp_path / "out").steps) == step
        resumed = compress(output_dir=tmp_path / "out", resume=True, **given)
        for number in (1, 2):
            assert_same(*(load_file(Path(one.folder) / f"step-{number}/model/model.safetensors") for one in (resumed, straight)))  # fmt: skip
        assert [without_times(step) for step in resumed.steps] == [without_times(step) for step in straight.steps]
        assert resumed.final == straight.final == 2

    def test_scores_are_not_computed_again(self, given, straight, tmp_path, monkeypatch):
        killed = run_script(tmp_path / "out", given, "--kill", 1, 1, script=SCRIPT)
        assert killed.returncode == -9, killed.stderr[-2000:]
        progress = json.loads((tmp_path / "out" / "step-1" / "progress.json").read_text())
        assert {int(block): score for block, score in progress["scores"].items()} == straight.steps[1].scores
        progress["scores"] = {block: 0.5 for block in progress["scores"]}
        (tmp_path / "out" / "step-1" / "progress.json").write_text(json.dumps(progress))
        resumed = compress(output_dir=tmp_path / "out", resume=True, **given)
        assert set(resumed.steps[1].scores.values()) == {0.5}


@pytest.mark.slow
def test_two_processes_drop_what_one_does(given, straight, tmp_path):
    # two clips per device are the batch of four that one process has
    options = {**given, "args": given["args"] | {"per_device_train_batch_size": 2}}
    done = run_script(tmp_path / "out", options, processes=2, script=SCRIPT)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = CompressionOutcome.load(tmp_path / "out")
    assert outcome.final == 2 and (tmp_path / "out" / "model" / "model.safetensors").is_file()
    for ours, theirs in zip(outcome.steps, straight.steps, strict=True):
        assert ours.dropped == theirs.dropped and ours.kept == theirs.kept
    first, whole = outcome.steps[1], straight.steps[1]
    assert first.scores == pytest.approx(whole.scores) and first.after.loss == pytest.approx(
        whole.after.loss, abs=1e-3
    )
