"""`effvid distill`: the plan, a run with its comparison, ablations by flags, and what is refused before anything is trained."""

import json

import pytest
import torch
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

from hf_effvid.cli import app, main
from hf_effvid.training.distillation_plan import plan_distillation
from hf_effvid.training.distillation_settings import DistillationSettings

from .training.small_compression import CLASSES, tiny_motion
from .training.small_distillation import STUDENT, tiny_cnn, tiny_teachers


def call(*arguments):
    torch.set_num_threads(1)
    return CliRunner().invoke(app, ["distill", *map(str, arguments)])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Flags of a run of two steps, and the folder that everything lies in."""
    folder = tmp_path_factory.mktemp("given")
    vit, cnn = tiny_teachers(folder)
    recipe = {
        "model": STUDENT,
        "augmentation": "none",
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "per_device_eval_batch_size": 4,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "report_to": "none",
            "eval_strategy": "no",
            "logging_steps": 1,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    data = tiny_motion(folder / "data")
    return folder, [
        "--config",
        folder / "recipe.yaml",
        "--teacher-vit",
        vit,
        "--teacher-cnn",
        cnn,
        "--data",
        data,
        "--quiet",
    ]


def test_dry_run_trains_nothing(given, tmp_path):
    folder, flags = given
    done = call(*flags, "-o", tmp_path / "out", "--dry-run", "--json")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert not (tmp_path / "out").exists()
    assert plan["data"] == {"classes": 4, "train": 16, "validation": 8, "held_out": False}
    assert (plan["steps"], plan["batch_size"], plan["cached_clips"]) == (2, 4, None)
    assert set(plan["terms"]) == {"labels", "kd", "residual", "relation"}
    student, (vit, cnn) = plan["student"], plan["teachers"]
    assert (student["name"], student["clip"]) == ("x3d", [4, 3, 32, 32])
    assert (vit["name"], vit["clip"], cnn["clip"]) == (str(folder / "vit"), [8, 3, 32, 32], [4, 3, 32, 32])
    assert (vit["read"], cnn["read"]) == (["logits", "features", "embeddings"], ["logits", "features"])
    expected = {"student": 12 * student["gmacs"], "vit": 4 * vit["gmacs"], "cnn": 4 * cnn["gmacs"]}
    assert plan["step_gmacs"] == pytest.approx(expected) and min(expected.values()) > 0
    # 1 x 1 x 1 projections of 16 and 12 channels to 8, two heads of 8 to 4 classes, and the branch of 8 channels
    projections, heads = (16 + 12) * 8, 2 * (8 * 4 + 4)
    non_local = 3 * (8 * 4 + 4) + (4 * 8 + 8) + 2 * 8
    squeeze, project = (8 * 2 + 2) + (2 * 8 + 8), 8 * 8 + 8
    assert plan["auxiliaries"] == {"discrepancy": projections + heads + non_local + squeeze + project}


def test_dry_run_in_words_and_with_stored_answers(given, tmp_path):
    flags = [*given[1], "-o", tmp_path / "out", "--dry-run", "--views", 3, "--cache-teachers", tmp_path / "answers"]
    done = call(*flags, "--residual", "none", "--no-relations", "--kd-loss", "dist")
    assert done.exit_code == 0, done.output
    said = done.stdout
    assert "16 clips to train on, 8 to validate on, 4 classes; 2 steps of 4" in said
    assert "1, dist at temperature 1, teachers weighted by discrepancy_aware" in said and "residual" not in said
    assert "left behind: nothing" in said and "each teacher answers to 48 clips once, before" in said
    assert "logits are read" in said and not (tmp_path / "answers").exists()


def test_the_plan_of_a_stream(given, tmp_path):
    folder, _ = given
    arguments = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True}
    plan = plan_distillation(
        tiny_cnn(),
        str(folder / "data"),
        teacher_cnn=folder / "cnn",
        output_dir=tmp_path,
        args=arguments,
        streaming=True,
    )
    assert plan.data == {"classes": 4, "train": None, "validation": None, "held_out": False} and plan.steps == 2
    assert "streamed clips to train on, streamed to validate on" in plan.to_text()
    assert (plan.student.name, set(plan.terms)) == ("X3DForVideoClassification", {"labels", "kd"})


def test_a_run_and_its_comparison(given, tmp_path):
    _, flags = given
    flags = [*flags, "-o", tmp_path / "out"]
    done = call(*flags, "--compare", "--json")
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert outcome["steps"] == 2 and "history" not in outcome
    told = json.loads((tmp_path / "out" / "training.json").read_text())["distillation"]
    assert told == outcome["distillation"] and told["settings"]["weighting"] == "discrepancy_aware"
    compared = outcome["comparison"]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == compared
    assert compared["n"] == 8 and not compared["held_out"] and compared["student"]["gmacs"] > 0
    assert compared["student"]["top1"] == pytest.approx(outcome["metrics"]["top1"])
    for teacher, role in zip(compared["teachers"], ("vit", "cnn"), strict=True):
        low, high = teacher["difference_interval"]
        assert teacher["role"] == role and low <= teacher["difference"] <= high
        assert teacher["difference"] == pytest.approx(compared["student"]["top1"] - teacher["top1"])
        told_apart = low > 0 or high < 0
        assert (teacher["verdict"] == "they cannot be told apart") is not told_apart
    with safe_open(str(tmp_path / "out" / "model" / "model.safetensors"), "pt") as file:
        assert set(file.keys()) == set(tiny_cnn().state_dict())
    again = call(*flags)
    assert again.exit_code == 1 and "already holds" in str(again.exception)
    resumed = call(*flags, "--resume", "--max-steps", 3, "--json")
    assert resumed.exit_code == 0 and json.loads(resumed.stdout)["steps"] == 3


@pytest.mark.parametrize(
    ("options", "terms", "settings"),
    [
        (("--weighting", "uniform"), ["kd", "residual", "relation"], {"weighting": "uniform"}),
        (("--residual", "vit", "--projection", "orthogonal"), ["kd", "residual", "relation"], {"projection": "orthogonal"}),
        (("--no-kd", "--residual", "none", "--no-relations", "--feature-loss", "fitnet"), ["feature"], {"kd_weight": 0}),
        (("--kd-loss", "dkd", "--temperature", "2", "--logit-norm", "zscore"), ["kd", "residual", "relation"], {"temperature": 2}),
        (("--gather-relations",), ["kd", "residual", "relation"], {"gather_relations": True}),
    ],
)  # fmt: skip
def test_ablations_are_flags(given, tmp_path, options, terms, settings):
    done = call(*given[1], "-o", tmp_path / "out", "--max-steps", 1, "--json", *options)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["distillation"]["settings"]
    assert list(DistillationSettings(**told).terms) == terms and settings.items() <= told.items()


@pytest.mark.parametrize("role", ["vit", "cnn", None])
def test_fewer_teachers(given, tmp_path, role):
    folder, flags = given
    alone = [
        "--config",
        folder / "recipe.yaml",
        "--data",
        folder / "data",
        "--quiet",
        "-o",
        tmp_path,
        "--max-steps",
        1,
    ]
    alone += [f"--teacher-{role}", folder / role] if role else ["--no-kd", "--residual", "none", "--no-relations"]
    done = call(*alone, "--views", 2, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["distillation"]["settings"]
    assert list(DistillationSettings(**told).terms) == {"vit": ["kd", "relation"], "cnn": ["kd"], None: []}[role]


def test_classes_that_are_called_otherwise(given, tmp_path):
    folder, _ = given
    renamed = {f"to {name}": name for name in CLASSES}
    tiny_cnn(tmp_path / "cnn", list(renamed))
    (tmp_path / "map.json").write_text(json.dumps(renamed))
    # the ViT calls them as the data set does
    flags = ["--config", folder / "recipe.yaml", "--data", folder / "data", "--quiet"]
    flags += ["--teacher-cnn", tmp_path / "cnn", "--teacher-vit", folder / "vit"]
    done = call(*flags, "-o", tmp_path / "out", "--label-map", tmp_path / "map.json", "--compare", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["comparison"]["n"] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--views", "0"), "--views"),
        (("--temperature", "0"), "not greater than 0"),
        (("--cache-teachers", "answers"), "--views"),
    ],
)
def test_wrong_usage(given, tmp_path, options, message):
    done = call(*given[1], "-o", tmp_path / "out", *options)
    assert done.exit_code == 2 and message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_student_has_to_be_named(given, tmp_path):
    done = call("--data", given[0] / "data", "--teacher-vit", given[0] / "vit", "-o", tmp_path)
    assert done.exit_code == 2 and "--student" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--teacher-cnn", "{folder}/vit"), "both '{folder}/vit': they have nothing to differ in"),
        (("--student", "{folder}/cnn/"), "also its CNN teacher"),
        (("--teacher-cnn", "{folder}/other"), "has besides 'falls'"),
        (("--teacher-vit", "nobody/nothing"), "nobody/nothing"),
        (("--weighting", "loudest"), "weighting must be one of"),
        (("--kd-loss", "mse"), "kd_loss must be one of"),
        (("--label-map", "{folder}/recipe.yaml"), "not JSON"),
        (("--data", "nowhere.csv"), "no such file"),
    ],
)
def test_bad_input_is_one_line(given, tmp_path, monkeypatch, capsys, options, message):
    folder, flags = given
    if not (folder / "other").exists():
        tiny_cnn(folder / "other", [*CLASSES[:-1], "falls"])
    options = [option.format(folder=folder) for option in options]
    monkeypatch.setattr("sys.argv", ["effvid", "distill", *map(str, flags), "-o", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and message.format(folder=folder) in error and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith("effvid: ") and not (tmp_path / "out" / "model").exists()
