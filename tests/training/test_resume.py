"""Killed and resumed equals uninterrupted, bit for bit; leftovers of a killed save are ignored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_effvid.training import IncompleteCheckpointError, checkpointing, last_complete_checkpoint

from .small_run import RandomClips, build_trainer, tiny_model, weights
from .test_trainer_steps import tiny_videomae


SCRIPT = Path(__file__).with_name("small_run.py")


def run_script(output_dir, options, *flags, processes=None, script=SCRIPT):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPT.parents[2]), environment.get("PYTHONPATH")]))
    launcher = [sys.executable]
    if processes:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, str(script), str(output_dir), json.dumps(options), *map(str, flags)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def uninterrupted(tmp_path, **options):
    torch.set_num_threads(1)
    trainer = build_trainer(tmp_path / "uninterrupted", **options)
    trainer.train()
    return weights(trainer), trainer


class TestKilled:
    def test_killed_during_a_save_in_mid_epoch(self, tmp_path):
        # 8 clips in batches of 2: the saves at steps 3 and 6 both lie within an epoch
        options = {"max_steps": 8, "ema_decay": 0.9}
        expected, _ = uninterrupted(tmp_path, **options)
        killed = run_script(tmp_path / "run", options, "--kill-at-save", 6)
        assert killed.returncode == -9, killed.stderr[-2000:]
        half_written = tmp_path / "run" / "checkpoint-6"
        assert (half_written / "trainer_state.json").is_file() and (half_written / "model.safetensors").is_file()
        assert last_complete_checkpoint(tmp_path / "run").name == "checkpoint-3"
        resumed = build_trainer(tmp_path / "run", tiny_model(seed=123), **options)
        resumed.train(resume_from_checkpoint=True)
        assert_same(weights(resumed), expected)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("step", "options"),
        [
            (5, {"max_steps": 8}),
            (5, {"max_steps": 8, "save_steps": 4, "eval_strategy": "steps", "eval_steps": 1}),
            (4, {"max_steps": 6, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}),
            (5, {"max_steps": 8, "dataloader_num_workers": 2, "dataloader_persistent_workers": True}),
        ],
        ids=["mid_epoch", "epoch_boundary_after_evaluations", "accumulation", "persistent_workers"],
    )
    def test_killed_between_saves(self, tmp_path, step, options):
        script_options = {**options, "validation": {"num_clips": 5}} if "eval_strategy" in options else options
        validation = {"validation": RandomClips(5)} if "eval_strategy" in options else {}
        expected, _ = uninterrupted(tmp_path, **options, **validation)
        killed = run_script(tmp_path / "run", script_options, "--kill-at-step", step)
        assert killed.returncode == -9, killed.stderr[-2000:]
        resumed = build_trainer(tmp_path / "run", tiny_model(seed=123), **options, **validation)
        resumed.train(resume_from_checkpoint=True)
        assert_same(weights(resumed), expected)

    @pytest.mark.slow
    def test_killed_on_two_processes(self, tmp_path):
        options = {"max_steps": 8, "per_device_train_batch_size": 1, "save_steps": 3}
        straight = run_script(tmp_path / "a", options, "--weights", tmp_path / "a.pt", processes=2)
        assert straight.returncode == 0, straight.stderr[-3000:]
        killed = run_script(tmp_path / "b", options, "--kill-at-save", 6, processes=2)
        assert killed.returncode != 0
        assert last_complete_checkpoint(tmp_path / "b").name == "checkpoint-3"
        resumed = run_script(tmp_path / "b", options, "--resume", "--weights", tmp_path / "b.pt", processes=2)
        assert resumed.returncode == 0, resumed.stderr[-3000:]
        assert_same(torch.load(tmp_path / "a.pt")["weights"], torch.load(tmp_path / "b.pt")["weights"])


class TestResumed:
    @pytest.mark.parametrize("stop", [3, 4], ids=["mid_epoch", "epoch_boundary"])
    def test_equals_uninterrupted_with_evaluation_and_drop_path(self, tmp_path, stop):
        options = {"max_steps": 8, "save_steps": stop, "ema_decay": 0.9, "eval_strategy": "steps", "eval_steps": 2}
        options |= {"load_best_model_at_end": False, "save_total_limit": None}
        expected, straight = uninterrupted(tmp_path, **options, validation=RandomClips(5))
        resumed = build_trainer(tmp_path / "b", tiny_model(seed=9), **options, validation=RandomClips(5))
        resumed.train(resume_from_checkpoint=tmp_path / "uninterrupted" / f"checkpoint-{stop}")
        assert_same(weights(resumed), expected)
        assert_same(resumed.average.shadow, straight.average.shadow)
        assert resumed.average.num_updates == straight.average.num_updates == 8

    def test_weights_that_save_under_other_names_are_restored(self, tmp_path):
        # VideoMAE's files hold q_bias and v_bias where the module has query.bias and value.bias
        options = {"max_steps": 6, "learning_rate": 0.05}
        torch.set_num_threads(1)
        model = tiny_videomae()
        straight = build_trainer(tmp_path / "a", model, **options)
        straight.train()
        folder = tmp_path / "a" / "checkpoint-3"
        assert any(name.endswith("q_bias") for name in load_file(folder / "model.safetensors"))
        resumed = build_trainer(tmp_path / "b", tiny_videomae(), **options)
        resumed.train(resume_from_checkpoint=folder)
        biases = [name for name in weights(resumed) if name.endswith("query.bias")]
        assert biases and all(weights(resumed)[name].abs().max() > 1e-3 for name in biases)
        assert_same(weights(resumed), weights(straight))

    def test_early_stopping_remembers_how_long_it_waited(self, tmp_path):
        options = {
            "max_steps": 40,
            "learning_rate": 1e-12,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_steps": 1,
            "save_total_limit": None,
            "early_stopping_patience": 4,
            "metric_for_best_model": "top1",
        }
        _, straight = uninterrupted(tmp_path, **options, validation=RandomClips(5))
        assert straight.state.global_step == 5
        resumed = build_trainer(tmp_path / "b", **options, validation=RandomClips(5))
        resumed.train(resume_from_checkpoint=tmp_path / "uninterrupted" / "checkpoint-3")
        assert resumed.state.global_step == 5


class TestCheckpointFolders:
    @pytest.fixture(scope="class")
    def run(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("run")
        trainer = build_trainer(folder, save_steps=2, max_steps=4, ema_decay=0.9)
        trainer.train()
        return folder

    def test_contents(self, run):
        folder = run / "checkpoint-4"
        present = {path.name for path in folder.iterdir()}
        assert {"config.json", "model.safetensors", "modeling_video_focalnet.py"} <= present
        assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= present
        assert {"task_state.safetensors", "checkpoint_complete.json"} <= present
        assert "training_args.bin" not in present, "a pickle does not belong into a Hub folder"
        spaces = {name.split(".")[0] for name in load_file(folder / "task_state.safetensors")}
        assert spaces == {"training"}

    @pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "scheduler.pt", "model.safetensors"])
    @pytest.mark.parametrize("damage", ["removed", "cut"])
    def test_damaged_folder_is_ignored(self, run, tmp_path, name, damage):
        import shutil

        copy = tmp_path / "run"
        shutil.copytree(run, copy)
        victim = copy / "checkpoint-4" / name
        if damage == "removed":
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[:-1])
        assert last_complete_checkpoint(copy).name == "checkpoint-2"
        with pytest.raises(IncompleteCheckpointError, match=rf"{name}.*Resume from .*checkpoint-2"):
            build_trainer(copy).train(resume_from_checkpoint=copy / "checkpoint-4")

    def test_no_complete_checkpoint_is_an_error(self, tmp_path):
        (tmp_path / "checkpoint-3").mkdir()
        with pytest.raises(IncompleteCheckpointError, match="holds no complete checkpoint"):
            build_trainer(tmp_path).train(resume_from_checkpoint=True)
        with pytest.raises(IncompleteCheckpointError, match="there is no such folder"):
            build_trainer(tmp_path).train(resume_from_checkpoint=tmp_path / "checkpoint-9")

    def test_other_options_are_refused(self, run, tmp_path):
        trainer = build_trainer(tmp_path, tiny_model(embed_dim=16))
        with pytest.raises(IncompleteCheckpointError, match="of shape"):
            trainer.train(resume_from_checkpoint=run / "checkpoint-4")

    def test_rotation_keeps_newest_and_best_and_drops_leftovers(self, tmp_path):
        for step in (1, 2, 3, 4, 10):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            (folder / "model.safetensors").write_bytes(b"weights")
            if step != 3:
                checkpointing.write_marker(folder, step)
        checkpointing.rotate_checkpoints(tmp_path, 2, tmp_path / "checkpoint-10", tmp_path / "checkpoint-1")
        assert [path.name for path in checkpointing.checkpoint_folders(tmp_path)] == ["checkpoint-1", "checkpoint-10"]

    def test_incomplete_weights_are_never_saved(self, tmp_path):
        trainer = build_trainer(tmp_path)
        with pytest.raises(RuntimeError, match="gathered weights are incomplete"):
            trainer._save(str(tmp_path / "out"), state_dict={"model.classifier.weight": torch.zeros(3, 16)})
        assert not (tmp_path / "out" / "model.safetensors").exists()

    def test_model_folder_is_what_was_evaluated(self, run):
        saved = load_file(run / "checkpoint-4" / "model.safetensors")
        live = load_file(run / "checkpoint-4" / "task_state.safetensors")
        differing = [
            n for n, t in saved.items() if f"training.{n}" in live and not torch.equal(t, live[f"training.{n}"])
        ]
        assert differing, "the folder holds the moving average, task_state the live weights"
