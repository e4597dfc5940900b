"""What a budget per clip is compared with, on arrays whose answers are known."""

import numpy as np
import pytest

from hf_effvid.evaluation import current_provenance
from hf_effvid.evaluation.adaptive_budget import (
    BudgetMeasurement,
    assess_adaptive_budget,
    calibration_curve,
    right_videos,
)


COSTS = {"easy_gmacs": 46.0, "base_gmacs": 80.0, "easy_keep_ratio": 0.3, "base_keep_ratio": 0.5}


def logits_of(right, labels, num_classes=4, views=1):
    """Logits (n, V, K) that name the label where `right` says so, and the next class elsewhere."""
    named = np.where(right, labels, (labels + 1) % num_classes)
    return np.repeat(np.eye(num_classes)[named][:, None] * 5, views, axis=1)


def perfect_gauge(n=200, seed=0, **fields):
    """The base budget is right everywhere, the small one on half of the videos, and the gauge knows which."""
    rng = np.random.default_rng(seed)
    labels, easy = rng.integers(0, 4, n), rng.random(n) < 0.5
    return BudgetMeasurement(
        labels=labels,
        confidence=np.where(easy, 0.95, 0.35)[:, None],
        is_easy=easy[:, None],
        easy_logits=logits_of(easy, labels),
        base_logits=logits_of(np.ones(n, bool), labels),
        gauge_correct=easy[:, None],
        **COSTS | fields,
    )


def test_a_perfect_gauge_beats_chance_and_costs_what_it_costs():
    measured = perfect_gauge(gauge_gmacs=2.0)
    report = assess_adaptive_budget(measured)
    share = measured.is_easy.mean()
    assert report.accuracy["adaptive"] == report.accuracy["base"] == 1.0 and report.accuracy["easy"] == share
    assert report.mean_gmacs == pytest.approx(2 + 46 * share + 80 * (1 - share))
    assert report.mean_keep_ratio == pytest.approx(0.3 * share + 0.5 * (1 - share))
    # dealt at random, a clip is right unless it is hard (half) and got the small budget (half)
    assert report.accuracy["random"] == pytest.approx(1 - share * (1 - share), abs=0.03)
    assert len(report.random_draws) == 20 and np.ptp(report.random_draws) > 0
    assert report.differences["random"]["interval"][0] > 0 and report.differences["base"]["difference"] == 0
    assert report.gmacs["random"] == pytest.approx(report.mean_gmacs - 2)
    assert "better" in report.summary() and "no difference to be seen" in report.summary()


def test_a_gauge_that_knows_nothing_is_no_better_than_chance():
    rng = np.random.default_rng(1)
    measured = perfect_gauge()
    blind = rng.permutation(measured.is_easy.ravel())[:, None]
    report = assess_adaptive_budget(BudgetMeasurement(**vars(measured) | {"is_easy": blind}))
    low, high = report.differences["random"]["interval"]
    assert low <= 0 <= high
    assert report.differences["base"]["interval"][1] < 0 and "worse" in report.summary()


def test_a_cascade_pays_twice_for_what_it_is_unsure_of():
    measured = perfect_gauge(cascade=True)
    share = measured.is_easy.mean()
    assert measured.mean_gmacs == pytest.approx(46 + (1 - share) * 80)
    assert assess_adaptive_budget(measured).mean_gmacs == measured.mean_gmacs


def test_the_fixed_keep_ratio_of_equal_cost():
    measured = perfect_gauge()
    right = np.zeros(200, bool)
    right[:150] = True
    fixed = {"fixed_logits": logits_of(right, measured.labels), "fixed_keep_ratio": 0.4, "fixed_gmacs": 62.5}
    report = assess_adaptive_budget(BudgetMeasurement(**vars(measured) | fixed))
    assert report.accuracy["fixed"] == 0.75 and report.fixed_keep_ratio == 0.4
    found = report.differences["fixed"]
    assert found["difference"] == pytest.approx(0.25) and found["only_a"] == 50 and found["only_b"] == 0
    assert found["interval"][0] > 0.15
    provenance = current_provenance("effvid select calibrate", seed=0)
    entries = report.result_entries("host", "motion", "validation", provenance, {"num_frames": 8})
    assert [entry.variant for entry in entries] == [
        "LITE++",
        "LITE, keep ratio of equal cost",
        "LITE++, budgets at random",
    ]
    assert entries[0].metric("difference_to_fixed").interval == tuple(found["interval"])
    assert entries[0].cost.gmacs == pytest.approx(report.mean_gmacs) and entries[1].cost.gmacs == 62.5
    assert len({entry.key for entry in entries}) == 3
    top1 = entries[0].metric("top1")
    assert top1.value == 1.0 and 0.9 < top1.interval[0] < 1.0 and entries[1].metric("top1").interval is not None
    assert entries[0].metric("share on the small budget").value == pytest.approx(report.easy_share)
    assert entries[1].notes == ("keep ratio 0.4 for all",) and "20 draws" in entries[2].notes[0]
    elsewhere = report.result_entries("host", "motion", "validation", provenance, setting="probe")
    assert elsewhere[0].variant == "LITE++ (probe)" and not {e.key for e in elsewhere} & {e.key for e in entries}


def test_budgets_belong_to_views_and_answers_to_videos():
    """Two views of one video: the one at the base budget is surer, and decides."""
    labels = np.array([0])
    easy = np.array([[[0.0, 1.0], [0.0, 1.0]]])
    base = np.array([[[6.0, 0.0], [6.0, 0.0]]])
    measured = BudgetMeasurement(labels, np.array([[0.9, 0.5]]), np.array([[True, False]]), easy, base, **COSTS)
    assert assess_adaptive_budget(measured).accuracy["adaptive"] == 1.0
    assert right_videos(easy, labels).tolist() == [False]
    assert measured.mean_keep_ratio == pytest.approx(0.4)


def test_the_calibration_curve():
    labels = np.zeros(6, int)
    confidence = np.array([0.05, 0.15, 0.15, 0.95, 1.0, 0.95])[:, None]
    gauge = np.array([0, 0, 1, 1, 1, 0], bool)
    easy, base = np.array([0, 0, 1, 1, 1, 1], bool), np.ones(6, bool)
    measured = BudgetMeasurement(
        labels, confidence, confidence > 0.9, logits_of(easy, labels), logits_of(base, labels),
        gauge_correct=gauge[:, None], **COSTS,
    )  # fmt: skip
    curve, error = calibration_curve(measured)
    assert [(row.low, row.n) for row in curve] == [(0.0, 1), (0.1, 2), (0.9, 3)]
    assert [row.gauge for row in curve] == pytest.approx([0, 0.5, 2 / 3])
    assert [row.easy for row in curve] == pytest.approx([0, 0.5, 1]) and all(row.base == 1 for row in curve)
    assert error == pytest.approx((0.05 + 2 * 0.35 + 3 * abs(2 / 3 - 2.9 / 3)) / 6)
    without = BudgetMeasurement(**vars(measured) | {"gauge_correct": None})
    assert calibration_curve(without)[1] is None and calibration_curve(without)[0][0].gauge is None


def test_arrays_that_do_not_fit():
    measured = perfect_gauge()
    with pytest.raises(ValueError, match=r"expected confidence of shape \(200, 1\), got \(200,\)"):
        BudgetMeasurement(**vars(measured) | {"confidence": measured.confidence[:, 0]})
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        assess_adaptive_budget(measured, num_draws=0)
