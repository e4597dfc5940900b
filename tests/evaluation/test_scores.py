import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.evaluation.scores import (
    average_precision,
    confusion_matrix,
    mean_average_precision,
    micro_f1,
    topk_hits,
)


def test_topk_by_hand():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    assert topk_hits(scores, np.array([1, 1, 0]), 1).tolist() == [True, False, False]
    assert topk_hits(scores, np.array([1, 1, 0]), 2).tolist() == [True, True, False]
    assert topk_hits(scores, np.array([1, 1, 0]), 9).all()


def test_ties_give_no_credit():
    assert not topk_hits(np.zeros((4, 3)), np.array([0, 1, 2, 0]), 2).any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 8))
def test_topk_grows_with_k_and_agrees_with_sorting(seed, rows, classes):
    generator = np.random.default_rng(seed)
    scores, labels = generator.random((rows, classes)), generator.integers(0, classes, rows)
    before = np.zeros(rows, dtype=bool)
    for k in range(1, classes + 1):
        hits = topk_hits(scores, labels, k)
        expected = [label in np.argsort(-row)[:k] for row, label in zip(scores, labels, strict=True)]
        assert hits.tolist() == expected
        assert (hits >= before).all()
        before = hits
    assert before.all()


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), "expected scores"),
        (np.zeros((2, 3)), np.array([0, 3]), "classes"),
        (np.zeros((2, 3)), np.array([0, -1]), "classes"),
        (np.full((1, 3), np.nan), np.array([0]), "not a number"),
        (np.zeros((1, 3)), np.array([0.5]), "integers"),
    ],
)
def test_topk_refuses(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        topk_hits(scores, labels, 1)


def test_confusion_counts():
    matrix = confusion_matrix([0, 1, 1, 2], [0, 0, 1, 2], 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_average_precision_by_hand():
    # ranked: hit, miss, hit -> 1/2 * 1 + 1/2 * 2/3
    assert average_precision(np.array([0.9, 0.5, 0.4]), np.array([1, 0, 1])) == pytest.approx(5 / 6)
    assert np.isnan(average_precision(np.array([0.9]), np.array([0])))
    # all scores equal: precision is the base rate, in any order of the rows
    assert average_precision(np.zeros(4), np.array([1, 0, 0, 0])) == pytest.approx(0.25)
    assert average_precision(np.zeros(4), np.array([0, 0, 0, 1])) == pytest.approx(0.25)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_average_precision_against_the_definition(seed, rows):
    generator = np.random.default_rng(seed)
    scores, positives = np.round(generator.random(rows), 1), generator.random(rows) < 0.5
    expected = 0.0
    for threshold in np.unique(scores)[::-1]:
        chosen = scores >= threshold
        step = (positives & (scores == threshold)).sum()
        expected += step * (positives & chosen).sum() / chosen.sum()
    if positives.any():
        assert average_precision(scores, positives) == pytest.approx(expected / positives.sum())


def test_mean_average_precision_skips_classes_without_positives():
    scores = np.array([[0.9, 0.2], [0.1, 0.8]])
    assert mean_average_precision(scores, np.array([[True, False], [False, False]])) == 1.0
    assert np.isnan(mean_average_precision(scores, np.zeros((2, 2), dtype=bool)))


def test_micro_f1_by_hand():
    decisions = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    targets = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    assert micro_f1(decisions, targets) == pytest.approx(2 * 2 / (3 + 3))
    assert np.isnan(micro_f1(np.zeros((1, 2)), np.zeros((1, 2))))
