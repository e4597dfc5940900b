"""The command line: every command has help with an example, prints JSON, and fails with one line and the right exit code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_effvid.cli import app, main
from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry, ResultsFile
from hf_effvid.version import __version__


COMMANDS = (
    "predict",
    "explain",
    "check",
    "detect",
    "cache",
    "train",
    "evaluate",
    "bench",
    "select calibrate",
    "select train",
    "select study",
    "compress",
    "distill",
    "search",
    "convert",
    "export",
    "stage",
    "verify",
    "push",
)
RECIPE = """
model:
  model_type: video_focalnet
  num_frames: 4
  image_size: 32
  embed_dim: 8
  depths: [1, 1]
  focal_levels: [1, 1]
  focal_windows: [3, 3]
  initialization: fan_in
augmentation: none
training:
  max_steps: 2
  per_device_train_batch_size: 4
  report_to: none
"""

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("cli") / "motion")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli_run")
    (folder / "recipe.yaml").write_text(RECIPE)
    result = call("train", data, "-o", folder / "run", "-c", folder / "recipe.yaml", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return folder / "run" / "model", json.loads(result.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert "Example:" in text and f"effvid {command}" in text


def test_every_command_is_listed_here():
    found = [command.name or command.callback.__name__ for command in app.registered_commands]
    for group in app.registered_groups:
        named = group.typer_instance
        found += [f"{named.info.name} {c.name or c.callback.__name__}" for c in named.registered_commands]
    assert sorted(found) == sorted(COMMANDS)


def test_train_reports_the_outcome(trained):
    folder, outcome = trained
    assert outcome["steps"] == 2 and Path(outcome["model_dir"]) == folder
    assert {"config.json", "model.safetensors", "video_preprocessor_config.json"} <= {p.name for p in folder.iterdir()}


def test_train_sets_single_values(data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    result = call(
        "train", data, "-o", tmp_path / "run", "-c", tmp_path / "recipe.yaml", "--json", "--quiet",
        "--set", "training.max_steps=1", "--set", "model.embed_dim=12", "--lr", "1e-3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 1
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["embed_dim"] == 12


def test_evaluate_writes_results_picture_and_json(trained, data, tmp_path):
    result = call(
        "evaluate", trained[0], data, "--split", "test", "--num-clips", 2, "--num-crops", 1, "--json", "--quiet",
        "--results", tmp_path / "results.json", "--confusion", tmp_path / "confusion.png", "--model-name", "org/tiny",
        "--variant", "a variant", "--seed", 3,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (entry,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert entry["model"] == "org/tiny" and entry["variant"] == "a variant" and entry["provenance"]["seed"] == 3
    assert entry["protocol"]["num_clips"] == 2 and entry["metrics"][0]["n"] == 4
    assert (tmp_path / "confusion.png").stat().st_size > 5000


def test_numbers_survive_a_results_file_that_cannot_be_written(trained, data, tmp_path):
    (tmp_path / "results.json").write_text("{ broken")
    result = call("evaluate", trained[0], data, "--num-clips", 1, "--quiet", "--results", tmp_path / "results.json")
    assert result.exit_code == 1 and "top1" in result.stdout


def test_a_list_with_several_labels_and_videos_elsewhere(data, tmp_path):
    clips = [path.relative_to(data).as_posix() for path in sorted(data.glob("train/*/*.mp4"))[:4]]
    labels = ["a|b", "b", "a", "a|b"]
    (tmp_path / "list.csv").write_text("".join(f"{clip},{label}\n" for clip, label in zip(clips, labels, strict=True)))
    assert call("check", tmp_path / "list.csv", "--quiet").exit_code == 1
    options = ["--root", data, "--multi-label", "--quiet", "--json"]
    checked = call("check", tmp_path / "list.csv", *options)
    assert json.loads(checked.stdout)["class_counts"]["train"] == {"a": 3, "b": 3}
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    result = call(
        "train", tmp_path / "list.csv", "-o", tmp_path / "run", "-c", tmp_path / "recipe.yaml", *options,
        "--validation-share", 0,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["class_names"] == ["a", "b"]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


def test_predict_a_folder_with_a_bad_file(trained, data, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in sorted(data.glob("test/*/*.mp4"))[:2]:
        (videos / path.name).write_bytes(path.read_bytes())
    (videos / "zz_broken.mp4").write_bytes(b"not a video at all")
    result = call("predict", videos, "-m", trained[0], "-o", tmp_path / "out.jsonl", "--json", "--quiet", "--top-k", 2)
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    assert [("error" in record) for record in records] == [False, False, True]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_explain_writes_pictures_and_says_where(trained, data, tmp_path):
    video = next(data.glob("test/*/*.mp4"))
    result = call("explain", video, "-m", trained[0], "-o", tmp_path / "out", "--block", 0)
    assert result.exit_code == 0, result.output
    files = [Path(line.strip()) for line in result.stdout.splitlines()[1:]]
    assert {path.name for path in files} == {"overlay.mp4", "contact_sheet.png", "gates.png", "explanation.json"}
    assert all(path.parent == tmp_path / "out" / video.stem and path.is_file() for path in files)


def test_check_fails_on_a_data_set_that_spoils_training(data, tmp_path):
    assert call("check", data, "--quiet").exit_code == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "x.mp4").write_bytes(b"nonsense")
    (tmp_path / "b" / "y.mp4").write_bytes(next(data.glob("test/*/*.mp4")).read_bytes())
    result = call("check", tmp_path, "--quiet", "--picture", tmp_path / "report.png")
    assert result.exit_code == 1
    assert "x.mp4" in result.output and (tmp_path / "report.png").stat().st_size > 5000


def test_stage_then_a_dry_push(trained, tmp_path, monkeypatch):
    (tmp_path / "card.yaml").write_text("license: apache-2.0\nsummary: A test.\n")
    result = call(
        "stage", trained[0], tmp_path / "staged", "--card", tmp_path / "card.yaml", "--repo-id", "me/tiny", "--json"
    )
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    assert {"README.md", "config.json", "model.safetensors", "modeling_video_focalnet.py"} <= set(files)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = call("push", tmp_path / "staged", "me/tiny")
    assert result.exit_code == 0, result.output
    assert "model.safetensors" in result.output


def test_bench_prints_costs(trained, tmp_path):
    result = call(
        "bench", trained[0], "--rounds", 2, "--no-memory", "--threads", 1, "--json", "--quiet",
        "--results", tmp_path / "results.json", "--budget-ms", 1000,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)["results"]
    assert entry["cost"]["parameters"] == trained[1]["num_parameters"] and entry["cost"]["latency_ms"] > 0
    assert json.loads((tmp_path / "results.json").read_text())["results"] == [entry]


def test_bench_of_several_forms_draws_the_chart_of_known_accuracies(trained, tmp_path):
    name = Path(trained[0]).name
    provenance = Provenance("effvid evaluate", date="2026-11-20")
    accuracy = ResultEntry(
        "video-classification", name, "motions", "test", (Metric.proportion("top1", 4, 5),), provenance
    )
    ResultsFile([accuracy]).save(tmp_path / "known.json")
    options = ["--rounds", 2, "--no-memory", "--threads", 1, "--json", "--quiet", "--dtype", "float32,bfloat16"]
    chart = ["--accuracies", tmp_path / "known.json", "--chart", tmp_path / "pareto"]
    result = call("bench", trained[0], *options, *chart)
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)["results"]
    assert [entry["model"] for entry in entries] == [name, f"{name} (bfloat16)"]
    assert [entry["cost"]["dtype"] for entry in entries] == ["float32", "bfloat16"]
    assert (tmp_path / "pareto.png").is_file() and (tmp_path / "pareto.svg").is_file()
    assert call("bench", trained[0], *options, *chart, "--dataset", "others").exit_code == 1
    assert call("bench", trained[0], *options, "--chart", tmp_path / "pareto").exit_code == 2


@pytest.mark.slow
def test_verify_runs_a_fresh_interpreter(trained, tmp_path):
    assert call("stage", trained[0], tmp_path / "staged", "--repo-id", "me/tiny").exit_code == 0
    result = call("verify", tmp_path / "staged", "--quiet", "--json")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("asked", "expected"), [([], "cuda:0"), (["--device", "cpu"], "cpu")])
def test_evaluate_takes_a_gpu_where_there_is_one(asked, expected, trained, data, monkeypatch):
    seen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr(
        "hf_effvid.evaluation.classification.evaluate_classifier",
        lambda *arguments, device, **options: seen.append(str(device)) or exit(0),
    )
    call("evaluate", trained[0], data, "--quiet", *asked)
    assert seen == [expected]


def test_an_adapter_is_evaluated_under_its_own_name(trained, data, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = ["train", data, "-o", tmp_path / "run", "-c", tmp_path / "recipe.yaml", "-m", trained[0], "--lora", 2]
    assert call(*run, "--json", "--quiet").exit_code == 0
    result = call("evaluate", tmp_path / "run" / "adapter", data, "--json", "--quiet", "--num-clips", 1)
    assert result.exit_code == 0, result.output
    entry = json.loads(result.stdout)["result"]
    assert (entry["model"], entry["dataset"], entry["split"]) == ("adapter", data.name, "test")
    refused = call("train", data, "-o", tmp_path / "again", "-m", tmp_path / "run" / "adapter", "--quiet")
    assert refused.exit_code == 1 and "is an adapter" in str(refused.exception)


def test_code_of_a_checkpoint_needs_a_flag(trained, data, tmp_path):
    folder = tmp_path / "stranger"
    shutil.copytree(trained[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "somebody_elses"}))
    for arguments in (["evaluate", folder, data], ["stage", folder, tmp_path / "staged"]):
        refused = call(*arguments)
        assert refused.exit_code == 1 and "--trust-remote-code" in str(refused.exception)
    assert call("stage", trained[0], tmp_path / "own").exit_code == 0  # installed: needs none


def test_names_that_are_not_utf8_are_json(trained, data, tmp_path):
    videos = tmp_path / "a b"
    videos.mkdir()
    clip = next(data.glob("test/*/*.mp4")).read_bytes()
    for name in (b"a b.mp4", "\u65e5\u672c.mp4".encode(), b"new\nline.mp4", b"bad\xff.mp4"):
        (videos / os.fsdecode(name)).write_bytes(clip)
    command = [Path(sys.executable).with_name("effvid"), "predict", videos, "-m", trained[0], "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    names = {os.path.basename(os.fsencode(record["source"])) for record in json.loads(done.stdout)}
    assert names == {b"a b.mp4", "\u65e5\u672c.mp4".encode(), b"new\nline.mp4", b"bad\xff.mp4"}
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([part for part in command if part != "--json"], capture_output=True, env=ascii_only)
    assert done.returncode == 0 and b"Traceback" not in done.stderr and b"a b.mp4" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (
            ["predict", "nowhere.mp4", "--model", "no/such/folder"],
            1,
            "'no/such/folder' is neither a folder nor a Hub id",
        ),
        (["predict", "", "--model", "no/such/folder"], 1, "effvid: "),
        (["evaluate", "no such folder", "."], 1, "effvid: "),
        (["stage", "no such folder", "staged"], 1, "'no such folder' is neither a folder nor a Hub id"),
        (["train", "nolist.csv", "-o", "out", "-m", "video_focalnet:tiny"], 1, "nolist.csv: no such file or folder"),
        (["check", "nolist.csv"], 1, "nolist.csv: no such file or folder"),
        (["check", ""], 1, "an empty path"),
        (["check", ".", "--min-frames", "0"], 1, "effvid: "),
        (["train", ".", "-o", "out", "--epochs", "-1"], 2, "not greater than 0"),
        (["train", ".", "-o", "out", "--lr", "0"], 2, "not greater than 0"),
        (["train", ".", "-o", "out", "--batch-size", "0"], 2, "--batch-size"),
        (["bench", "m", "--batch-sizes", "x"], 2, "such as 1,8"),
        (["cache", ".", "-m", "m", "-o", "out"], 2, "say what to cache"),
        (["cache", "nowhere/", "-m", "m", "-o", "out", "--features"], 1, "neither a folder"),
        (["train", ".", "-o", "out", "--set", "nonsense"], 1, "section.key=value"),
        (["train", ".", "-o", "out", "--set", "training.no_such_field=1"], 1, "no_such_field"),
        (["train", ".", "-o", "out", "--set", "model={model_type: video_focalnet, depths: [0]}"], 1, "depths"),
        (["convert", "missing.pth", "out"], 1, "missing.pth"),
        (["predict", "x.mp4"], 2, "--model"),
        (["predict", "x.mp4", "-m", "m", "--device", "toaster"], 2, "toaster"),
        (["check", ".", "--picture", "report.docx"], 2, "report.docx"),
        (["evaluate", "m", ".", "--confusion", "matrix.docx"], 2, "matrix.docx"),
        (["nonsense"], 2, "nonsense"),
        (["select", "nonsense"], 2, "nonsense"),
        (["select", "train", "-m", "no/such", "-d", ".", "-o", "out", "--epochs", "0"], 2, "not greater than 0"),
        (["select", "calibrate", "-m", "m", "-d", ".", "-o", "out", "--gauge", "movinet"], 2, "probe or cascade"),
        (["select", "calibrate", "-m", "m", "-d", ".", "-o", "out", "--results", "r.json"], 2, "needs --evaluate-on"),
        (["select", "calibrate", "-m", "no/such", "-d", ".", "-o", "out"], 1, "'no/such' is neither a folder"),
        (
            ["select", "study", "-m", "no/such/folder", "-d", "."],
            1,
            "'no/such/folder' is neither a folder nor a Hub id",
        ),
        (["search", "m", "-d", ".", "--keep-ratios", "half"], 2, "such as 0.5,0.3"),
        (["select", "study", "-m", "m", "-d", ".", "--keep-ratios", "half"], 2, "such as 0.5,0.3"),
        (["select", "study", "-m", "m", "-d", ".", "--keep-ratios", "1.5"], 1, "below 1"),
        (["select", "study", "-m", "m", "-d", ".", "--variant", "nonsense"], 1, "variants are"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(arguments, exit_code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["effvid", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == exit_code
    said_on_stderr = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    assert said in said_on_stderr and "Traceback" not in said_on_stderr
    if exit_code == 1:
        assert sum(line.startswith("effvid: ") for line in said_on_stderr.splitlines()) == 1


def test_the_installed_command_runs():
    command = Path(sys.executable).with_name("effvid")
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == __version__
