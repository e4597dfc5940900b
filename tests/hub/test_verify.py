import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import hf_effvid.hub.fresh_process
from hf_effvid.evaluation.classification import evaluate_classifier
from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry
from hf_effvid.host_loading import CheckpointNotFound
from hf_effvid.hub.probe_clips import write_probe_clips
from hf_effvid.hub.reference import reference_path
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from .tiny_checkpoint import tiny_model, tiny_processor


# each opens a checkpoint in a new interpreter, which takes minutes on a machine that is busy
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def copy(staged, tmp_path):
    shutil.copy(reference_path(staged), tmp_path / "checkpoint.reference.json")
    return shutil.copytree(staged, tmp_path / "checkpoint")


def failed(report) -> set[str]:
    return {check.name for check in report.checks if check.ok is False}


def test_a_staged_checkpoint_is_verified(staged):
    report = verify_checkpoint(staged)
    assert report.ok, report.to_text()
    names = [check.name for check in report.checks]
    assert "fresh interpreter without hf_effvid" in names and "logits equal the original's" in names
    assert all(check.ok for check in report.checks)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert report.to_text().endswith("verified")


def test_the_fresh_interpreter_really_lacks_the_package(tmp_path):
    (tmp_path / "request.json").write_text(json.dumps({"steps": ["package_is_absent"]}))
    # an importable hf_effvid right beside the program, and on PYTHONPATH
    shutil.copy(hf_effvid.hub.fresh_process.__file__, tmp_path / "fresh_process.py")
    (tmp_path / "hf_effvid").mkdir()
    (tmp_path / "hf_effvid" / "__init__.py").write_text("")
    code = "import fresh_process as f; f.main('request.json', 'answer.json'); import hf_effvid.models"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert json.loads((tmp_path / "answer.json").read_text())["steps"]["package_is_absent"]["ok"]
    assert done.returncode == 1 and "blocked" in done.stderr


@pytest.mark.slow
def test_changed_weights_are_found(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if "classifier" in name and name.endswith("weight"))
    weights[name] = weights[name] * 1.01
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    assert failed(verify_checkpoint(copy)) == {"logits equal the original's"}


@pytest.mark.slow
def test_a_missing_weight_is_found(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    weights.pop(next(name for name in weights if "classifier" in name and name.endswith("weight")))
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    report = verify_checkpoint(copy)
    assert "AutoModelForVideoClassification" in failed(report)
    assert "missing_keys" in report.to_text()


@pytest.mark.slow
def test_code_that_needs_the_package_is_found(copy):
    path = copy / "layers.py"
    path.write_text("from hf_effvid.models import focal_ops\n" + path.read_text())
    report = verify_checkpoint(copy)
    assert "AutoModelForVideoClassification" in failed(report)
    assert "hf_effvid" in report.to_text()


@pytest.mark.slow
def test_an_interpreter_that_dies_is_reported(copy):
    path = copy / "layers.py"
    path.write_text("import os\nos._exit(7)\n" + path.read_text())
    report = verify_checkpoint(copy)
    assert "exit status 7" in report.to_text()
    assert "AutoVideoProcessor" in failed(report)


@pytest.mark.slow
def test_without_trust_the_code_does_not_run(copy):
    report = verify_checkpoint(copy, trust_remote_code=False)
    assert "AutoModelForVideoClassification" in failed(report)
    assert "trust_remote_code" in report.to_text()


@pytest.mark.slow
def test_files_and_card_are_part_of_it(copy):
    (copy / "optimizer.pt").write_bytes(b"")
    (copy / "README.md").write_text((copy / "README.md").read_text() + "\nTODO\n")
    report = verify_checkpoint(copy)
    assert failed(report) == {"files", "card"}


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointNotFound, match="neither a folder nor"):
        verify_checkpoint(tmp_path / "no such folder")


def claim(successes: int, n: int) -> ResultEntry:
    return ResultEntry(
        task="video-classification",
        model="tiny",
        dataset="probe",
        split="test",
        metrics=(Metric.proportion("top1", successes, n),),
        provenance=Provenance("effvid evaluate", date="2026-11-20"),
    )


@pytest.fixture
def always_move_2():
    model = tiny_model()
    with torch.no_grad():
        model.classifier.bias[2] += 100.0
    return model


@pytest.fixture
def half_of_them(tmp_path):
    """12 rows of which "move 2" is right for half, sorted by class as the folders of a data set are."""
    clips = [str(path) for path in write_probe_clips(tmp_path)]
    return [{"video": clips[index // 6], "label": "move 2" if index >= 6 else "move 1"} for index in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False], ids=["results", "card alone"])
def test_the_recorded_accuracy_is_measured_again(always_move_2, half_of_them, tmp_path, given):
    for name, recorded in {"honest": claim(30, 60), "inflated": claim(60, 60)}.items():
        folder = stage_checkpoint(always_move_2, tmp_path / name, tiny_processor(), results=[recorded])
        results = [recorded] if given else None
        report = verify_checkpoint(folder, half_of_them, results=results, split="test", progress=False)
        assert report.measured["measured"] == 0.5 and report.measured["n"] == 12
        assert report.ok is (name == "honest"), report.to_text()
        if name == "inflated":
            assert failed(report) == {"recorded accuracy"}
            assert "claimed 100.0% (n = 60), measured 50.0%" in report.to_text()


@pytest.mark.slow
def test_fewer_videos_are_spread_over_the_data_set(always_move_2, half_of_them, tmp_path):
    folder = stage_checkpoint(always_move_2, tmp_path / "honest", tiny_processor(), results=[claim(30, 60)])
    report = verify_checkpoint(folder, half_of_them, max_videos=4, progress=False)
    assert report.measured["n"] == 4 and report.measured["measured"] == 0.5


@pytest.mark.slow
def test_a_measurement_that_no_claim_fits_is_not_verified(always_move_2, half_of_them, tmp_path):
    folder = stage_checkpoint(always_move_2, tmp_path / "honest", tiny_processor(), results=[claim(30, 60)])
    report = verify_checkpoint(folder, half_of_them, split="validation", progress=False)
    assert failed(report) == {"recorded accuracy"}
    assert "nothing is claimed for these videos, split 'validation'" in report.to_text()
    report = verify_checkpoint(folder, half_of_them, dataset_name="another", progress=False)
    assert failed(report) == {"recorded accuracy"} and "for 'another'" in report.to_text()


@pytest.mark.slow
def test_a_card_without_numbers_says_that_nothing_was_compared(always_move_2, half_of_them, tmp_path):
    folder = stage_checkpoint(always_move_2, tmp_path / "silent", tiny_processor())
    report = verify_checkpoint(folder, half_of_them, progress=False)
    assert report.ok and report.to_text().endswith("verified (1 check skipped)")
    assert "the card claims none" in report.to_text()


@pytest.mark.slow
def test_multi_label_accuracy_is_measured_again(half_of_them, tmp_path):
    model = tiny_model()
    model.config.problem_type = "multi_label_classification"
    rows = [{"video": row["video"], "label": [row["label"]]} for row in half_of_them]
    measured = evaluate_classifier(model, rows, tiny_processor(), dataset_name="probe", split="test", progress=False)
    honest = measured.to_result_entry()
    folder = stage_checkpoint(model, tmp_path / "honest", tiny_processor(), results=[honest])
    report = verify_checkpoint(folder, rows, split="test", progress=False)
    assert report.ok, report.to_text()
    assert report.measured["metric"] == "mAP" and report.measured["claimed"] == pytest.approx(
        report.measured["measured"], abs=1e-4
    )
    # each class is half of the videos, so that no order of them gives an mAP as low
    wrong = dataclasses.replace(honest, metrics=(Metric("mAP", 0.01, 60, (0.005, 0.02), "bootstrap"),))
    folder = stage_checkpoint(model, tmp_path / "wrong", tiny_processor(), results=[wrong])
    assert failed(verify_checkpoint(folder, rows, split="test", progress=False)) == {"recorded accuracy"}
