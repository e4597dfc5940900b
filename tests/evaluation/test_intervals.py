import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_mean_interval,
    paired_bootstrap_difference,
    wilson_interval,
)


# textbook values: Wilson (1927) bounds as printed by statsmodels' proportion_confint(method="wilson")
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775328), (5, 10, 0.2365931, 0.7634069), (10, 10, 0.7224672, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_known_values(successes, n, low, high):
    found = wilson_interval(successes, n)
    assert found == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500), st.floats(0.5, 0.999))
def test_wilson_contains_the_share_and_stays_inside(successes, extra, confidence):
    n = successes + extra
    low, high = wilson_interval(successes, n, confidence)
    assert 0 <= low <= successes / n <= high <= 1
    mirrored = wilson_interval(n - successes, n, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)
    wider = wilson_interval(successes, n, 0.5 + confidence / 2)
    assert wider[0] <= low + 1e-12 and wider[1] >= high - 1e-12


def test_wilson_covers_at_the_nominal_rate():
    # 40 trials at p = 0.9, exact coverage by the binomial distribution
    n, p = 40, 0.9
    weights = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    covered = sum(w for k, w in enumerate(weights) if wilson_interval(k, n)[0] <= p <= wilson_interval(k, n)[1])
    assert 0.93 <= covered <= 0.98


@pytest.mark.parametrize("arguments", [(-1, 3), (4, 3), (1, 3, 0.0), (1, 3, 1.0), (0, -1)])
def test_wilson_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match="expected|confidence"):
        wilson_interval(*arguments)


def test_no_videos_know_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_paired_difference_is_tighter_than_unpaired():
    # B fails exactly where A fails, and on 10 videos more
    a = [True] * 80 + [False] * 20
    b = [True] * 70 + [False] * 30
    outcome = paired_bootstrap_difference(a, b, seed=1)
    assert outcome["difference"] == pytest.approx(0.1)
    assert (outcome["only_a"], outcome["only_b"], outcome["n"]) == (10, 0, 100)
    low, high = outcome["interval"]
    assert 0 < low < 0.1 < high < 0.2
    separate = wilson_interval(80, 100)[0] - wilson_interval(70, 100)[1]
    assert separate < 0  # the unpaired intervals overlap: the pairing is what finds the difference
    assert outcome == paired_bootstrap_difference(a, b, seed=1)
    assert outcome["interval"] != paired_bootstrap_difference(a, b, seed=2, num_resamples=500)["interval"]


def test_paired_difference_is_antisymmetric():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 60)) < [[0.7], [0.5]]
    assert paired_bootstrap_difference(a, b)["difference"] == -paired_bootstrap_difference(b, a)["difference"]


def test_paired_difference_needs_pairs():
    with pytest.raises(ValueError, match="same videos"):
        paired_bootstrap_difference([True], [True, False])
    with pytest.raises(ValueError, match="at least one"):
        paired_bootstrap_difference([], [])


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(3).normal(5.0, 1.0, size=400)
    low, high = bootstrap_interval(lambda rows: values[rows].mean(), 400, seed=0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert low < values.mean() < high


def test_the_interval_of_a_mean_is_that_of_the_plain_bootstrap():
    values = np.random.default_rng(1).normal(size=3000)  # several portions of resamples
    found = bootstrap_mean_interval(values)
    assert found == bootstrap_mean_interval(values) and found[0] < values.mean() < found[1]
    plain = bootstrap_interval(lambda rows: values[rows].mean(), len(values), num_resamples=2000)
    assert found == pytest.approx(plain, abs=3e-3)
    assert bootstrap_mean_interval([0.25] * 7) == (0.25, 0.25)
    for nothing in ([], [[1.0]]):
        with pytest.raises(ValueError, match="one value per video"):
            bootstrap_mean_interval(nothing)


def test_a_bias_of_resampling_is_removed():
    # the number of values that are there more than once
    values = np.random.default_rng(0).normal(size=60)

    def repeated(rows):
        return float(len(values[rows]) - len(np.unique(values[rows])))

    value = repeated(np.arange(60))
    low, high = bootstrap_interval(repeated, 60)
    assert value < low, "on the values themselves nothing is there twice; on every resample something is"
    moved = bootstrap_interval(repeated, 60, estimate=value)
    assert moved[0] < value < moved[1] and moved[1] - moved[0] == pytest.approx(high - low)


def test_bootstrap_interval_leaves_undefined_resamples_out():
    low, high = bootstrap_interval(lambda rows: float("nan") if rows[0] == 0 else 1.0, 3, seed=0)
    assert (low, high) == (1.0, 1.0)
    with pytest.raises(ValueError, match="every resample"):
        bootstrap_interval(lambda rows: float("nan"), 3)
