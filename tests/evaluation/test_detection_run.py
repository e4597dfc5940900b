"""Evaluations of detectors over annotated videos: resumed, with errors, with classes that do not fit, with scores from elsewhere."""

import json

import pytest
import torch

from hf_effvid.evaluation import detection_run as module
from hf_effvid.evaluation import evaluate_detections, evaluate_detector
from hf_effvid.evaluation.prediction_log import PredictionLogError
from hf_effvid.evaluation.video_scores import read_video_scores
from tests.training.small_detection import CLASSES, MemoryStore, make_features, tiny_detector, tiny_processor


@pytest.fixture(scope="module")
def data():
    return make_features(5)


@pytest.fixture
def detector():
    model = tiny_detector(seed=1)
    with torch.no_grad():  # scores that are worth sorting, and segments that have a length
        model.classification_head.output.bias.zero_()
        model.regression_head.output.bias.fill_(3.0)
    return model


def run(detector, data, **options):
    annotations, store = data
    options = {"features": store, "processor": tiny_processor(window_length=32), "progress": False} | options
    return evaluate_detections(detector, annotations, **options)


def test_the_predictions_file_gives_the_same_numbers(detector, data, tmp_path):
    path = tmp_path / "found.json"
    found = run(detector, data, predictions_file=path)
    assert not found.errors and sorted(found.predictions) == [f"video_{number}" for number in range(5)]
    again = evaluate_detector(data[0].to_activitynet(), path, (0.3, 0.4, 0.5, 0.6, 0.7))
    assert again.average_mAP == found.report.average_mAP > 0
    entry = found.to_result_entry()
    assert entry.metrics[0].name == "average_mAP" and entry.metrics[0].n == 5 and entry.metrics[0].interval
    assert entry.protocol["recipe"]["window_length"] == 32 and entry.provenance.versions["torch"]


def test_an_interrupted_evaluation_goes_on(detector, data, tmp_path, monkeypatch):
    path = tmp_path / "found.json"
    expected = run(detector, data)
    add = module.PredictionLog.add

    def add_or_die(self, record):
        if record.index == 3:
            raise KeyboardInterrupt
        add(self, record)

    monkeypatch.setattr(module.PredictionLog, "add", add_or_die)
    with pytest.raises(KeyboardInterrupt):
        run(detector, data, predictions_file=path)
    monkeypatch.undo()
    assert (tmp_path / "found.json.partial").exists() and not path.exists()
    annotations, store = data

    class Counting(MemoryStore):
        read = 0

        def __getitem__(self, name):
            Counting.read += 1
            return super().__getitem__(name)

    resumed = run(detector, (annotations, Counting(store)), predictions_file=path)
    assert Counting.read == 2, "three of five videos were done"
    assert resumed.predictions == expected.predictions and path.exists()
    assert not (tmp_path / "found.json.partial").exists()

    monkeypatch.setattr(module.PredictionLog, "add", add_or_die)
    with pytest.raises(KeyboardInterrupt):
        run(detector, data, predictions_file=path)
    monkeypatch.undo()
    with pytest.raises(PredictionLogError, match="weights"):
        run(tiny_detector(seed=2), data, predictions_file=path)


def test_videos_that_cannot_be_read_are_not_in_the_numbers(detector, data):
    annotations, store = data
    broken = MemoryStore(store)
    broken["video_1"] = type(store["video_1"])(torch.full((20, 8), float("nan")), 4, 8, 20.0, 4.0)
    del broken["video_3"]
    found = run(detector, (annotations, broken))
    assert sorted(found.errors) == ["video_1", "video_3"] and "not finite" in found.errors["video_1"]
    assert found.report.data.num_ground_truth_videos == 3 and "2 videos could not be read" in found.to_text()
    with pytest.raises(KeyError, match="video_3"):
        run(detector, (annotations, MemoryStore({k: v for k, v in store.items() if k != "video_3"})), on_error="raise")
    with pytest.raises(ValueError, match="not one of 5 videos could be read"):
        run(detector, (annotations, MemoryStore()))


def test_scores_of_a_classifier(detector, data, tmp_path):
    annotations, store = data
    names = [video.name for video in annotations.videos]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"class": CLASSES, "results": {name: [0.9, 0.1, 0.4] for name in names}}))
    scores = read_video_scores(path)
    assert scores["video_0"] == {"clap": 0.9, "jump": 0.1, "wave": 0.4}
    plain, fused = run(detector, data), run(detector, data, video_scores=scores)
    best = max(one["score"] for one in fused.predictions["video_0"] if one["label"] == "jump")
    alone = max(one["score"] for one in plain.predictions["video_0"] if one["label"] == "jump")
    assert best == pytest.approx((alone * 0.1) ** 0.5, rel=1e-6)
    path.write_text(json.dumps({"video_0": {"clap": 3.0}}))
    with pytest.raises(ValueError, match="expected {label: probability}"):
        read_video_scores(path)


def test_classes_that_do_not_fit(data):
    detector = tiny_detector(id2label={0: "run", 1: "sit"}, label2id={"run": 0, "sit": 1})
    with pytest.raises(ValueError, match=r"run, sit.*clap, jump, wave.*none in common"):
        run(detector, data)


def test_detectors_of_features_need_features(detector, data):
    with pytest.raises(ValueError, match="reads features: pass `features`"):
        run(detector, data, features=None)
