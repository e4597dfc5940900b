"""The detector in examples/checkpoints: it really detects, it opens as every published one does, and its recipe runs."""

import json
import re

import pytest
from transformers import pipeline

import hf_effvid
from hf_effvid.data import load_detection_annotations
from hf_effvid.evaluation.detection import THUMOS_TIOUS
from hf_effvid.evaluation.detection_baselines import evaluate_without_pixels
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from .hub.tiny_checkpoint import tiny_model, tiny_processor
from .test_examples import EXAMPLES, run


CHECKPOINT = EXAMPLES / "checkpoints" / "stream-detector"
RESULTS = EXAMPLES.parent / "model_cards" / "results"


def test_the_folder_is_small_and_holds_no_code():
    files = {path.name: path.stat().st_size for path in CHECKPOINT.iterdir()}
    assert set(files) == {
        "config.json",
        "model.safetensors",
        "video_preprocessor_config.json",
        "preprocessor_config.json",
    }
    assert sum(files.values()) < 3_000_000
    assert "auto_map" not in json.loads((CHECKPOINT / "config.json").read_text())


def test_it_finds_actions_in_streams_that_nobody_has_seen(tmp_path):
    data = hf_effvid.make_action_streams(tmp_path, {"train": 4, "test": 4}, seconds=(12, 16), seed=77, progress=False)
    annotations = load_detection_annotations(data / "annotations.json")
    test, training = annotations.in_split("test"), annotations.in_split("train").to_activitynet()
    detections = hf_effvid.evaluate_detections(str(CHECKPOINT), test, progress=False).report
    blind = evaluate_without_pixels("per-class-prior segments", training, test.to_activitynet(), seeds=range(2))
    assert detections.average_mAP > max(0.5, 3 * max(report.average_mAP for report in blind))


def test_its_operating_points_are_those_of_its_classes():
    detect = pipeline("temporal-action-detection", model=str(CHECKPOINT))
    assert type(detect) is hf_effvid.TemporalActionDetectionPipeline
    assert set(detect.model.config.operating_points) == set(detect.model.config.id2label.values())


def test_its_numbers_stand_beside_those_of_nobody_looking():
    (own,) = ResultsFile.load(RESULTS / "stream-detector.json").results
    blind = ResultsFile.load(RESULTS / "detection-streams.json").results
    assert {(entry.dataset, entry.split) for entry in [own, *blind]} == {("generated streams", "test")}
    assert tuple(own.protocol["tious"]) == THUMOS_TIOUS
    assert len(blind) == 4 and {entry.metric("average_mAP").n for entry in [own, *blind]} == {40}
    best = max(entry.metric("average_mAP").value for entry in blind)
    assert own.metric("average_mAP").interval[0] > 3 * best


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_staged_it_opens_without_the_package(tmp_path):
    report = verify_checkpoint(stage_checkpoint(str(CHECKPOINT), tmp_path / "stream-detector"))
    assert report.ok and all(check.ok for check in report.checks), report.to_text()


@pytest.mark.slow
def test_the_example_finds_what_happens_and_draws_it(tmp_path):
    printed = run(EXAMPLES / "02_detect_actions.py", tmp_path)
    found, truth = printed.split(" really happened")
    line = r"^ +([\d.]+) s to +([\d.]+) s .* (\w+)$"
    found, truth = (re.findall(line, part, re.MULTILINE) for part in (found, truth))
    assert len(truth) == 4

    def overlap(one, other):
        (a, b), (c, d) = (map(float, part[:2]) for part in (one, other))
        return max(min(b, d) - max(a, c), 0.0) / (max(b, d) - min(a, c)) if one[2] == other[2] else 0.0

    hits = sum(any(overlap(one, other) >= 0.5 for other in found) for one in truth)
    assert hits > 0.5 * len(truth) and hits > 0.5 * len(found)
    assert (tmp_path / "actions.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_runs(tmp_path):
    for name in ("results", "cards"):
        (tmp_path / name).mkdir()
    classifier, recipe = tiny_model(), tiny_processor()
    for part in (classifier, recipe):
        part.save_pretrained(tmp_path / "classifier")
    printed = run(
        EXAMPLES / "make_stream_detector.py",
        tmp_path,
        *("--smoke", "--classifier", "classifier"),
        *("--work", "work", "--output", "made/tiny", "--results", "results", "--card", "cards"),
    )
    assert "verified" in printed and "NOT verified" not in printed
    (entry,) = ResultsFile.load(tmp_path / "results" / "tiny.json").results
    assert entry.metric("average_mAP").n == 2
    assert (tmp_path / "cards" / "tiny.md").is_file() and (tmp_path / "made" / "tiny" / "model.safetensors").is_file()
