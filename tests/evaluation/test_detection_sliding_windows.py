"""Sliding windows with nearest class means find what is easy, at the right time, and need nothing else."""

import numpy as np
import pytest

from hf_effvid.evaluation.detection import evaluate_detector
from hf_effvid.evaluation.detection_sliding_windows import NearestMeanDetector, TimedFeatures
from hf_effvid.models.time_grid import TimeGrid


GRID = TimeGrid.from_frames(2, 2, 10)  # five steps per second, step 0 at 0.1 s
DIRECTIONS = {"a": 0, "b": 1}


def video(seed, noise=0.3):
    """Twelve seconds: noise, with two actions of 2 s that each move one channel."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, noise, (60, 4))
    starts = [generator.uniform(0, 4), generator.uniform(6.5, 10)]
    segments = [
        (label, start, start + 2) for label, start in zip(generator.permutation(["a", "b"]), starts, strict=True)
    ]
    seconds = GRID.to_seconds(np.arange(60))
    for label, start, end in segments:
        features[(seconds >= start) & (seconds < end), DIRECTIONS[str(label)]] += 2
    return TimedFeatures(features, GRID, [(str(label), *ends) for label, *ends in segments], 12.0)


def measured(videos, detector):
    truth = {
        f"v{n}": {"annotations": [{"label": c, "segment": [s, e]} for c, s, e in one.segments]}
        for n, one in enumerate(videos)
    }
    return evaluate_detector(truth, {f"v{n}": detector.detect(one) for n, one in enumerate(videos)}, [0.5])


def test_easy_actions_are_found():
    detector = NearestMeanDetector().fit([video(seed) for seed in range(6)])
    tests = [video(seed) for seed in range(100, 106)]
    assert measured(tests, detector).average_mAP > 0.9
    # the same detector on features that say nothing: no better than chance
    blind = [TimedFeatures(one.features[::-1] * 0, one.grid, one.segments, one.duration) for one in tests]
    assert measured(blind, detector).average_mAP < 0.6
    best = detector.detect(tests[0])[0]
    assert best["label"] in DIRECTIONS and 0 <= best["segment"][0] < best["segment"][1] <= 12
    assert detector.lengths == pytest.approx([2.0], abs=1e-9)


def test_scores_are_a_distribution_over_classes_and_background():
    detector = NearestMeanDetector().fit([video(0)])
    found = detector.detect(video(1), max_segments=5)
    assert len(found) == 5 and all(0 <= one["score"] <= 1 for one in found)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)


def test_a_video_shorter_than_every_window_and_none_at_all():
    detector = NearestMeanDetector().fit([video(0)])
    (start, end) = detector.detect(TimedFeatures(video(1).features[:3], GRID, (), 0.6))[0]["segment"]
    assert (start, end) == (0.0, 0.6)
    with pytest.raises(ValueError, match="no annotated action covers a step"):
        NearestMeanDetector().fit([TimedFeatures(np.zeros((4, 2)), GRID)])
