"""`effvid compress`: the plan, a run, what is refused before anything is trained, and a detector of the repository."""

import json

import pytest
import torch
from typer.testing import CliRunner

from hf_effvid.cli import app, main
from hf_effvid.evaluation.results import ResultsFile

from .training.small_compression import tiny_host, tiny_motion


QUIET = ("--timing-rounds", "0", "--quiet", "--batch-size", "4")
ON_CPU = ("--set", "training.use_cpu=true", "--set", "training.dataloader_pin_memory=false")


def call(*arguments):
    torch.set_num_threads(1)
    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    tiny_host(folder / "model")
    return folder / "model", tiny_motion(folder / "data")


def test_dry_run_trains_nothing(given, tmp_path):
    model, data = given
    done = call(model, "--data", data, "-o", tmp_path, "--drop", 2, "--dry-run", "--json", *QUIET, *ON_CPU)
    plan = json.loads(done.stdout)
    assert done.exit_code == 0 and not list(tmp_path.glob("step-*")) and not (tmp_path / "model").exists()
    assert [block["index"] for block in plan["blocks"]] == list(range(6)) and not plan["known"]
    whole, one, two = plan["models"]
    gone = plan["blocks"][one["assumed"][0]]
    assert one["parameters"] == whole["parameters"] - gone["parameters"]
    assert one["gmacs"] == pytest.approx(whole["gmacs"] - gone["gmacs"]) and two["num_dropped"] == 2
    assert plan["data"] == {"name": "data", "items": "clips", "recovery": 16, "scoring": 16, "held_out": 8}


def test_dry_run_names_blocks_that_are_known_and_times_them(given, tmp_path):
    model, data = given
    options = ("--blocks", "4,1", "--timing-rounds", 1, "--dry-run", "--quiet", *ON_CPU)
    done = call(model, "--data", data, "-o", tmp_path, *options)
    assert "after each drop:" in done.stdout and "ms (1.00x)" in done.stdout
    assert done.stdout.rstrip().endswith("4, 1")


def test_a_run(given, tmp_path):
    model, data = given
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "compression: {drop: 3, order: random, tuning: full}\ntraining: {max_steps: 1, learning_rate: 1e-3}\n"
    )
    options = ("--config", recipe, "--drop", 1, "--json", "--results", tmp_path / "results.json", *QUIET, *ON_CPU)
    done = call(model, "--data", data, "-o", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert len(outcome["steps"]) == 2, "what was typed wins over the recipe"
    assert outcome["settings"]["tuning"] == "full" and outcome["training"]["learning_rate"] == 1e-3
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    entries = ResultsFile.load(tmp_path / "results.json").results
    assert [entry.variant.partition(":")[0] for entry in entries] == ["step 0", "step 1"]
    assert {entry.model for entry in entries} == {"out"}
    again = call(model, "--data", data, "-o", tmp_path / "out", *options)
    assert again.exit_code == 1 and "already holds" in str(again.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--align", "features"), "'features' is none of feature"),
        (("--features", "."), "for detectors"),
        (("--blocks", "a,b"), "expected numbers"),
        (("--drop", "-1"), "--drop"),
        (("--target-ms", "0"), "not greater than 0"),
    ],
)
def test_wrong_usage(given, tmp_path, options, message):
    done = call(given[0], "--data", given[1], "-o", tmp_path / "out", *options)
    assert done.exit_code == 2 and message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--criterion", "mse"), "criterion must be one of"),
        (("--drop", "6"), "at least one is left"),
        (("--metric", "mAP"), "metric must be one of top1"),
        (("--part", "detector"), "stem and branch of an ActionFormer"),
        (("--validation-share", "0.2", "--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(given, tmp_path, monkeypatch, capsys, options, message):
    arguments = ["effvid", "compress", str(given[0]), "--data", str(given[1]), "-o", str(tmp_path / "out"), *options]
    monkeypatch.setattr("sys.argv", [*arguments, *ON_CPU, "--quiet"])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and message in error and "Traceback" not in error
    assert not (tmp_path / "out" / "step-0").exists()
