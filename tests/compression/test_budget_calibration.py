"""Thresholds of LITE++: the share or the cost that was asked for is what the rule does with them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VideoMAEConfig

from hf_effvid.compression.budget_calibration import (
    BudgetCosts,
    CalibrationError,
    calibrate_thresholds,
    choose_split,
)
from hf_effvid.models.token_budget import PUBLISHED_EASY_KEEP_RATIOS, BudgetPolicy
from hf_effvid.models.token_merging_cost import selection_gmacs
from hf_effvid.training.budget_calibration import PUBLISHED_EASY_SHARE


def rule(thresholds, confidence):
    """Which clips a model with these thresholds calls easy, from confidences as it computes them."""
    return BudgetPolicy(low=thresholds.low, high=thresholds.high).is_easy(torch.tensor(confidence)).numpy()


CONFIDENCES = st.lists(st.floats(2**-6, 1 - 2**-6, width=32), min_size=2, max_size=60).filter(
    lambda c: len(set(c)) > 1
)


@settings(max_examples=200, deadline=None)
@given(CONFIDENCES, st.floats(0.02, 0.98), st.floats(0, 1))
def test_the_rule_gives_the_share_that_is_reported(values, share, part):
    confidence = np.array(values, dtype=np.float32)
    found = calibrate_thresholds(confidence, share, hopeless_share=part * share)
    easy = rule(found, confidence)
    assert easy.mean() == pytest.approx(found.easy_share)
    assert (confidence.astype(float) < found.low).mean() == pytest.approx(found.hopeless_share)
    assert found.n == len(values) and 0 <= found.low <= found.high <= 1
    if len(set(values)) == len(values):
        # both thresholds may round by half a clip
        assert abs(found.easy_share - share) * len(values) <= 1.0 + 1e-9


def test_the_published_share_of_a_hundred_clips():
    confidence = np.linspace(0.005, 0.995, 100)
    found = calibrate_thresholds(confidence, 0.49)
    assert (found.low, found.easy_share, found.hopeless_share) == (0.0, 0.49, 0.0)
    assert found.high == pytest.approx(0.51)
    found = calibrate_thresholds(confidence, 0.49, hopeless_share=0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.61))
    assert (found.easy_share, found.hopeless_share) == (0.49, 0.1)


def test_the_hopeless_share_that_gets_most_clips_right():
    """The three least sure clips are lost at any budget, and the three surest ones need the large one."""
    confidence = np.linspace(0.1, 0.9, 9)
    base = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1], dtype=bool)
    easy = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=bool)
    shuffled = np.random.default_rng(0).permutation(9)
    found = calibrate_thresholds(confidence[shuffled], 3 / 9, correct_easy=easy[shuffled], correct_base=base[shuffled])
    assert found.hopeless_share == pytest.approx(3 / 9) and found.easy_share == pytest.approx(3 / 9)
    # where both budgets are right everywhere, nobody is given up
    found = calibrate_thresholds(confidence, 3 / 9, correct_easy=np.ones(9), correct_base=np.ones(9))
    assert found.hopeless_share == 0 and found.high == pytest.approx(0.65)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 12), st.floats(0.1, 0.9), st.integers(0, 999))
def test_no_other_pair_of_thresholds_gets_more_right(n, share, seed):
    rng = np.random.default_rng(seed)
    confidence, easy, base = np.sort(rng.random(n)), rng.random(n) < 0.5, rng.random(n) < 0.7
    found = calibrate_thresholds(confidence, share, correct_easy=easy, correct_base=base)
    count = round(found.easy_share * n)
    assert abs(count - share * n) <= 0.5 + 1e-9

    def right(below):
        small = np.zeros(n, dtype=bool)
        small[:below] = True
        small[n - (count - below) :] = True if count > below else small[n - (count - below) :]
        return np.where(small, easy, base).sum()

    best = max(right(below) for below in range(count + 1))
    small = rule(found, confidence)
    assert np.where(small, easy, base).sum() == best


def test_clips_of_equal_confidence_stay_together():
    confidence = [0.2] * 3 + [0.9] * 7
    found = calibrate_thresholds(confidence, 0.5)
    assert found.wanted_share == 0.5 and found.easy_share == 0.7 and rule(found, confidence).sum() == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.6], 1.0), "easy_share must lie between 0 and 1"),
        (([0.5, 0.6], 0.0), "easy_share must lie between 0 and 1"),
        (([0.5, 0.6], 0.4, 0.5), "hopeless_share must lie in"),
        (([], 0.4), "one confidence from 0 to 1 per clip"),
        (([0.5, float("nan")], 0.4), "one confidence from 0 to 1 per clip"),
        (([50.0, 60.0], 0.4), "one confidence from 0 to 1 per clip"),
        (([0.5, 0.5], 0.4), "tells nothing apart"),
        (([0.5, 0.6], 0.4, None, [True], [True, False]), "expected one bool per clip"),
    ],
)
def test_what_cannot_be_calibrated(arguments, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate_thresholds(*arguments)


# ---- cost -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 0.99), st.booleans(), st.floats(0, 5))
def test_cost_and_share_are_inverses(share, cascade, gauge):
    costs = BudgetCosts(base=79.768, easy=45.841, gauge=gauge, cascade=cascade)
    assert costs.share_for(costs.mean(share)) == pytest.approx(share)


def test_costs_of_the_published_table():
    """LITE++ at .5 in the paper: 65 GMACs, which is 49 % easy clips and a gauge of 1 to 2 GMACs."""
    costs = BudgetCosts(base=79.768, easy=45.841, gauge=1.8)
    assert costs.mean(0.49) == pytest.approx(65, abs=0.5)
    assert costs.share_for(65.0) == pytest.approx(0.49, abs=0.02)
    # asking the host itself costs the small budget: it pays from a share of easy/base on
    cascade = BudgetCosts(base=79.768, easy=45.841, cascade=True)
    assert cascade.mean(0.49) > 79.768
    assert cascade.mean(45.841 / 79.768) == pytest.approx(79.768)


def test_the_table_of_the_documentation():
    """Mean GMACs of LITE++ on VideoMAE-B: base budget, probe, cascade, and the paper's numbers beside them."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "token_selection.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if re.match(r"\| \.\d, ", line)
    ]
    assert len(rows) == len(PUBLISHED_EASY_KEEP_RATIOS)
    config = VideoMAEConfig(num_labels=174)
    for budgets, *shown in rows:
        keep_ratio, easy = (float(part) for part in budgets.split(","))
        assert PUBLISHED_EASY_KEEP_RATIOS[keep_ratio] == easy
        base, small = selection_gmacs(config, keep_ratio), selection_gmacs(config, easy)
        probe = BudgetCosts(base, small).mean(PUBLISHED_EASY_SHARE)
        cascade = BudgetCosts(base, small, cascade=True).mean(PUBLISHED_EASY_SHARE)
        assert [f"{value:.1f}" for value in (base, probe, cascade)] == shown[:3]
        # what the paper prints leaves a MoViNet of 1 to 2 GMACs
        assert 0.5 < float(shown[3]) - probe < 2.5


def test_costs_out_of_reach():
    costs = BudgetCosts(base=80, easy=46, gauge=2)
    with pytest.raises(CalibrationError, match=r"between 48 \(every clip easy\) and 82 \(none\)"):
        costs.share_for(47)
    with pytest.raises(CalibrationError, match="expected 0 < easy < base"):
        BudgetCosts(base=46, easy=80)


# ---- splits -----------------------------------------------------------------------------------------------------------


def test_the_test_split_is_refused():
    assert choose_split(["train", "validation", "test"]) == "validation"
    assert choose_split(["train", "test"]) is None
    assert choose_split(["train", "validation"], "train") == "train"
    with pytest.raises(CalibrationError, match="calibrate on validation, or force it"):
        choose_split(["train", "validation", "test"], "test")
    with pytest.raises(CalibrationError, match="a part of train"):
        choose_split(["train", "test"], "test")
    assert choose_split(["train", "validation", "test"], "test", force=True) == "test"
    with pytest.raises(CalibrationError, match="no split 'dev', only train"):
        choose_split(["train"], "dev")
    with pytest.raises(CalibrationError, match="no validation or train split"):
        choose_split(["test"])
