"""Detections without looking: they know lengths, classes and durations, nothing else; and means over several runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.evaluation.detection import evaluate_detector
from hf_effvid.evaluation.detection_baselines import (
    BASELINES,
    draw_segments,
    evaluate_without_pixels,
    tile_segments,
    training_lengths,
)
from hf_effvid.evaluation.detection_protocol import DetectionError
from hf_effvid.evaluation.detection_runs import average_runs, compare_runs


def video(duration, *segments, subset="training"):
    annotations = [{"label": label, "segment": [start, end]} for label, start, end in segments]
    return {"duration": duration, "subset": subset, "annotations": annotations}


TRAINING = {
    "a": video(20.0, ("jump", 1, 3), ("jump", 5, 7.2), ("run", 8, 16)),
    "b": video(10.0, ("jump", 0, 1.8), ("run", 2, 10), ("run", 4, 4)),
    "held out": video(9.0, ("jump", 0, 9), subset="validation"),
}


def test_lengths_are_those_of_the_training_subset():
    lengths = training_lengths(TRAINING, "training")
    assert sorted(lengths["jump"]) == pytest.approx([1.8, 2.0, 2.2])
    assert lengths["run"].tolist() == [8.0, 8.0], "an annotation without length says nothing"
    with pytest.raises(DetectionError, match="no training annotation has a length"):
        training_lengths({"a": video(4.0, ("jump", 2, 2))})


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(BASELINES)), duration=st.floats(0.2, 100), seed=st.integers(0, 99))
def test_segments_lie_in_their_video_and_depend_on_the_seed_alone(name, duration, seed):
    lengths = training_lengths(TRAINING, "training")
    found = BASELINES[name](lengths, {"x": duration}, seed=seed)["x"]
    assert {one["label"] for one in found} == {"jump", "run"}
    for one in found:
        start, end = one["segment"]
        assert 0 <= start < end <= duration * (1 + 1e-12) and 0 <= one["score"] <= 1
    assert BASELINES[name](lengths, {"x": duration}, seed=seed)["x"] == found
    assert BASELINES[name](lengths, {"x": duration}, seed=seed + 1)["x"] != found


def test_tiles_cover_the_video_in_typical_lengths():
    lengths = training_lengths(TRAINING, "training")
    for own_length, expected in ((False, {"jump": 2.2, "run": 2.2}), (True, {"jump": 2.0, "run": 8.0})):
        found = tile_segments(lengths, {"x": 40.0}, seed=3, own_length=own_length)["x"]
        for label, length in expected.items():
            tiles = sorted(one["segment"] for one in found if one["label"] == label)
            assert np.median([end - start for start, end in tiles]) == pytest.approx(length)
            gaps = [after[0] - before[1] for before, after in zip(tiles, tiles[1:], strict=False)]
            assert np.abs(gaps).max() < 1e-9 and tiles[0][0] < length and tiles[-1][1] > 40 - length


def test_drawn_segments_have_lengths_of_their_class():
    found = draw_segments(training_lengths(TRAINING, "training"), {"x": 40.0}, per_class=30)["x"]
    assert len(found) == 60
    for one in found:
        length = one["segment"][1] - one["segment"][0]
        assert np.abs(length - np.array({"jump": [1.8, 2.0, 2.2], "run": [8.0]}[one["label"]])).min() < 1e-9


def test_a_video_that_is_one_tile_long_is_found_and_elsewhere_it_is_luck():
    """Actions that fill their video are found by the baseline for that; short ones at unknown places are not."""
    truth = {f"v{number}": video(8.0, ("run", 0, 8)) for number in range(4)}
    (whole,) = evaluate_without_pixels("whole video", TRAINING, truth, [0.5], training_subset="training", seeds=[0])
    assert whole.average_mAP == 1.0 and whole.model_name == "baseline: whole video"
    assert whole.data.num_unknown == 4, "the other training class is not in the ground truth"
    hidden = {f"v{number}": video(400.0, ("jump", 50.0 * number, 50.0 * number + 2)) for number in range(8)}
    reports = evaluate_without_pixels("drawn segments", TRAINING, hidden, [0.5], training_subset="training")
    values = [report.average_mAP for report in reports]
    assert len(values) == 10 and 0 < np.mean(values) < 0.1 and np.std(values) > 0


def test_what_is_missing_is_named():
    truth = {"v": {"annotations": [{"label": "run", "segment": [0, 8]}]}}
    with pytest.raises(DetectionError, match="1 videos have no duration, such as 'v'"):
        evaluate_without_pixels("whole video", TRAINING, truth)
    with pytest.raises(ValueError, match="`name` must be one of whole video, uniform segments"):
        evaluate_without_pixels("best", TRAINING, TRAINING)


def shifted_run(seed, noise):
    """Eight videos with three actions each, and predictions whose ends are off by normal noise."""
    generator = np.random.default_rng(0)
    truth = {f"v{n}": video(60.0, *(("run", s, s + 4) for s in generator.uniform(0, 50, 3))) for n in range(8)}
    generator = np.random.default_rng(seed)
    found = {
        name: [
            {"segment": np.sort(np.array(a["segment"]) + generator.normal(0, noise, 2)).tolist(), "label": "run", "score": generator.random()}
            for a in entry["annotations"]
        ]
        for name, entry in truth.items()
    }  # fmt: skip
    return evaluate_detector(truth, found, [0.3, 0.5, 0.7])


def test_runs_are_averaged_on_the_same_videos():
    reports = [shifted_run(seed, 1.0) for seed in (1, 2, 3)]
    average, *single = average_runs(reports, num_resamples=50)
    assert average.value == pytest.approx(np.mean([report.average_mAP for report in reports]))
    assert average.n == 8 and average.interval[0] < average.value < average.interval[1]
    assert average.interval_method == "bootstrap over videos 95%, 50 resamples, bias removed, mean of 3 runs"
    assert [metric.name for metric in single] == ["mAP@0.3", "mAP@0.5", "mAP@0.7"]
    # one run alone has the interval that its report gives
    assert average_runs(reports[:1], num_resamples=50)[0].interval == reports[0].interval(50)


def test_differences_are_paired():
    good, bad = [shifted_run(seed, 0.6) for seed in (1, 2)], [shifted_run(seed, 1.5) for seed in (3, 4)]
    difference = compare_runs(good, bad, num_resamples=50)
    assert difference.value > 0.2 and difference.interval[0] > 0
    assert compare_runs(good, good, num_resamples=50).interval == (0.0, 0.0), "the same runs never differ"
    with pytest.raises(ValueError, match="the same videos"):
        compare_runs(good, [evaluate_detector({"v": video(9.0, ("run", 0, 8))}, {}, [0.3, 0.5, 0.7])])
    with pytest.raises(ValueError, match="at least one run"):
        average_runs([])
