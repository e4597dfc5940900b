"""Detectors as repositories: staged, opened by a stranger, checked; what is different from classifiers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_effvid.data.synthetic_streams import tiny_action_streams
from hf_effvid.evaluation.detection import THUMOS_TIOUS
from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry
from hf_effvid.hub.card_check import card_problems, split_card
from hf_effvid.hub.reference import ReferenceLogits, reference_path
from hf_effvid.hub.stage_files import StageError, list_staged_files
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from .tiny_detector import DETECTORS, LABELS


pytestmark = pytest.mark.timeout(1800)  # some open a new interpreter


def result(**changes):
    values = {
        "task": "temporal-action-detection",
        "model": "pixels",
        "dataset": "generated streams",
        "split": "test",
        "metrics": (
            Metric("average_mAP", 0.412, 24, (0.36, 0.46), "bootstrap 95%"),
            *(Metric(f"mAP@{tiou:g}", 0.8 - tiou, 24) for tiou in THUMOS_TIOUS),
        ),
        "provenance": Provenance("effvid evaluate", commit="abc", date="2026-11-20"),
        "protocol": {"evaluator": "default", "tious": list(THUMOS_TIOUS), "n_annotations": 300},
    }
    return ResultEntry(**{**values, **changes})


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """Folder of a detector of pixels (with results) and of one of features."""
    root = tmp_path_factory.mktemp("detectors")
    results = {"pixels": [result()], "features": None}
    return {
        name: stage_checkpoint(make()[0], root / name, make()[1], results[name]) for name, make in DETECTORS.items()
    }


@pytest.fixture
def copy(staged, tmp_path):
    """A copy of the detector of pixels, to be spoilt."""
    shutil.copy(reference_path(staged["pixels"]), tmp_path / "pixels.reference.json")
    return shutil.copytree(staged["pixels"], tmp_path / "pixels")


def failed(report) -> set[str]:
    return {check.name for check in report.checks if check.ok is False}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_folder_says_how_it_opens(staged, name):
    files = {file.path for file in list_staged_files(staged[name])}
    config = json.loads((staged[name] / "config.json").read_text())
    assert not (config.get("backbone_config") or {}).get("_name_or_path")
    entry = config["custom_pipelines"]["temporal-action-detection"]
    assert entry["impl"] == "pipeline_temporal_action_detection.TemporalActionDetectionPipeline"
    assert entry["pt"] == ["AutoModel"]
    assert config["auto_map"]["AutoModel"] == "modeling_actionformer.ActionFormerForTemporalActionDetection"
    needed = {"pipeline_temporal_action_detection.py", "modeling_actionformer.py", "video_processing_actionformer.py"}
    assert needed | {"model.safetensors", "video_preprocessor_config.json", "README.md"} <= files


@pytest.mark.parametrize("name", DETECTORS)
def test_the_reference_holds_scores_and_offsets(staged, name):
    model, _ = DETECTORS[name]()
    reference = ReferenceLogits.load(reference_path(staged[name]))
    assert reference.outputs == ("logits", "offsets")
    inputs = {reference.input_name: torch.zeros(reference.shape)}
    with torch.no_grad():
        points = model(**inputs).logits.shape[1]
    assert len(reference.logits) == points and len(reference.logits[0]) == len(LABELS) + 2


def test_the_card_of_a_detector_of_pixels(staged):
    text = (staged["pixels"] / "README.md").read_text()
    data, body = split_card(text)
    assert card_problems(text, [result()]) == []
    assert data["pipeline_tag"] == "temporal-action-detection" and "temporal-action-detection" in data["tags"]
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert {"type": "mean_average_precision", "value": 0.412, "name": "average mAP"} in metrics
    row = "| generated streams (test) | 0.3 to 0.7 | average mAP | 41.2% | 36.0% to 46.0% | 24 | measured |"
    assert row in body and "overlap (tIoU)" in body
    for words in (
        'pipeline("temporal-action-detection", model="pixels", trust_remote_code=True)',
        "pipeline_class=hf_effvid.TemporalActionDetectionPipeline",
        "At 5 frames per second",
        "windows of 8 steps (3.2 seconds), which share 50%",
        "seconds from the beginning of the file",
        "GMACs per window",
        "ActionFormer",
    ):
        assert words in text, words
    assert "<b>" not in text  # classes are text of strangers
    assert "always answers with one of its classes" not in text and "classifier" not in text.lower()


def test_the_card_of_a_detector_of_features(staged):
    text = (staged["features"] / "README.md").read_text()
    assert card_problems(text, []) == []
    assert "features of 6 + 4 channels, 4 frames apart, each computed from 8" in text
    assert '"input_features": np.load("features.npy")' in text and "video.mp4" not in text


def test_a_card_that_claims_more_than_was_measured(staged):
    text = (staged["pixels"] / "README.md").read_text()
    problems = card_problems(text, [result(metrics=(Metric("average_mAP", 0.3, 24, (0.2, 0.4), "bootstrap 95%"),))])
    assert any("41.2%" in problem for problem in problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_a_stranger_finds_the_same(staged, name):
    report = verify_checkpoint(staged[name])
    assert report.ok, report.to_text()
    assert all(check.ok for check in report.checks), report.to_text()
    checks = {check.name: check.detail for check in report.checks}
    assert {'pipeline("temporal-action-detection")', "logits equal the original's", "AutoModel"} <= set(checks)
    count = int(checks["detections equal the package's"].split()[0])
    assert count > 10


@pytest.mark.slow
def test_changed_weights_are_found(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    weights["level_scales"] = weights["level_scales"] * 1.01  # moves the ends of segments and no score
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    assert failed(verify_checkpoint(copy)) == {"logits equal the original's"}


@pytest.mark.slow
def test_a_pipeline_that_answers_otherwise_is_found(copy):
    path = copy / "pipeline_temporal_action_detection.py"
    code = path.read_text()
    assert code.count('"start": start + video.offset') == 1
    path.write_text(code.replace('"start": start + video.offset', '"start": start * 0.9'))
    assert failed(verify_checkpoint(copy)) == {"detections equal the package's"}


def test_a_pipeline_without_its_code_is_refused(copy):
    (copy / "detection_windows.py").unlink()
    with pytest.raises(StageError, match=r"detection_windows\.py.*missing"):
        list_staged_files(copy)


@pytest.mark.slow
def test_the_claimed_average_precision_is_measured_again(copy, tmp_path):
    """Nobody trained this detector: its card's 41 % are refuted on one video."""
    annotations = tiny_action_streams(tmp_path / "streams") / "annotations.csv"
    annotations.write_text(annotations.read_text().replace("moves_right", LABELS[0]).replace("grows", LABELS[2]))
    report = verify_checkpoint(copy, annotations, split="test", progress=False)
    assert failed(report) == {"recorded accuracy"}
    assert report.measured["metric"] == "average_mAP" and report.measured["claimed"] == 0.412
    assert report.measured["n"] == 1 and report.measured["measured"] < 0.2
