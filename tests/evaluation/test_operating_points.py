"""Operating points: the threshold of the best F1, found by trying them all."""

import numpy as np
import pytest

from hf_effvid.evaluation import choose_operating_points, evaluate_detector


def random_run(seed, levels=1000):
    """Annotations and predictions of three classes in five videos; scores on a grid, so that some are equal."""
    generator = np.random.default_rng(seed)
    truth, found = {}, {}
    for video in map(str, range(5)):
        starts = np.cumsum(generator.uniform(3, 8, 6))
        annotations = [{"label": f"c{generator.integers(3)}", "segment": [s, s + 2.0]} for s in starts.tolist()]
        truth[video] = {"annotations": annotations}
        found[video] = [
            {
                "label": one["label"],
                "segment": [one["segment"][0] + shift, one["segment"][1] + shift],
                "score": float(np.clip(round((0.8 - abs(shift) / 4 + noise) * levels) / levels, 0.01, 0.99)),
            }
            for one in annotations
            for shift, noise in zip(generator.normal(0, 1.0, 4), generator.normal(0, 0.1, 4), strict=True)
        ]
    return truth, found


def f1_at(truth, found, label, threshold):
    kept = {name: [p for p in many if p["label"] == label and p["score"] >= threshold] for name, many in found.items()}
    count = sum(one["label"] == label for entry in truth.values() for one in entry["annotations"])
    predicted = sum(map(len, kept.values()))
    report = evaluate_detector(truth, kept, [0.5])
    right = int((report.matches.found[:, 0] >= 0).sum())
    return 2 * right / (predicted + count)


@pytest.mark.parametrize(("seed", "levels"), [(0, 1000), (1, 1000), (2, 10)])
def test_no_other_threshold_is_better(seed, levels):
    truth, found = random_run(seed, levels)
    chosen = choose_operating_points(evaluate_detector(truth, found, [0.3, 0.5]))
    assert sorted(chosen) == ["c0", "c1", "c2"]
    scores = sorted({p["score"] for many in found.values() for p in many})
    for label, threshold in chosen.items():
        best = max(f1_at(truth, found, label, score) for score in scores)
        assert f1_at(truth, found, label, threshold) == pytest.approx(best) and best > 0.4


def test_classes_that_nothing_was_found_of_have_none():
    truth = {"v": {"annotations": [{"label": "a", "segment": [0, 2]}, {"label": "b", "segment": [5, 7]}]}}
    found = {"v": [{"label": "a", "segment": [0, 2], "score": 0.3}, {"label": "b", "segment": [50, 70], "score": 0.9}]}
    assert choose_operating_points(evaluate_detector(truth, found, [0.5])) == {"a": 0.3}


def test_the_overlap_has_to_be_measured():
    truth, found = random_run(0)
    with pytest.raises(ValueError, match="evaluate at it, too"):
        choose_operating_points(evaluate_detector(truth, found, [0.3, 0.7]))
