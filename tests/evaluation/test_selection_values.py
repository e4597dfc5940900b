"""How unevenly value is spread: against definitions, sampling and the null's closed form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hf_effvid.evaluation.selection_values import (
    CURVE_POINTS,
    TOP_SHARES,
    TokenValues,
    gini_index,
    lorenz_curve,
    null_gini,
    null_lorenz,
    null_top_share,
)


VALUES = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1e3).map(lambda x: round(x, 3)))


@given(VALUES)
def test_gini_is_the_mean_difference_over_twice_the_mean(values):
    if values.sum() == 0:
        assert math.isnan(gini_index(values))
        return
    expected = np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())
    assert gini_index(values) == pytest.approx(expected, abs=1e-9)


@given(VALUES.filter(lambda values: values.sum() > 0))
def test_the_curve_rises_below_the_diagonal_and_ignores_order_and_scale(values):
    curve = lorenz_curve(values)
    assert curve[0] == 0 and curve[-1] == pytest.approx(1)
    assert (np.diff(curve) >= -1e-12).all() and (curve <= np.linspace(0, 1, len(curve)) + 1e-9).all()
    np.testing.assert_allclose(lorenz_curve(3.5 * values[::-1]), curve, atol=1e-9)


def test_the_null_is_what_projections_of_gaussian_tokens_give():
    values = np.maximum(np.random.default_rng(0).standard_normal(2_000_000), 0)
    found = TokenValues.of(0, values)
    assert found.gini == pytest.approx(1 / math.sqrt(2), abs=2e-3) and null_gini() == pytest.approx(
        1 / math.sqrt(2), abs=1e-4
    )
    assert found.zero_share == pytest.approx(0.5, abs=2e-3)
    for share, held in zip(TOP_SHARES, found.top, strict=True):
        assert held == pytest.approx(null_top_share(share), abs=3e-3)
    # as the literature has it: share(q) = phi(Phi^-1(1 - q)) / phi(0)
    assert [round(null_top_share(q), 2) for q in TOP_SHARES] == [0.26, 0.44, 0.7, 1.0]


@pytest.mark.parametrize("zero_share", [0.2, 0.9])
def test_the_null_with_other_shares_of_zeros(zero_share):
    from statistics import NormalDist

    normal = np.random.default_rng(1).standard_normal(2_000_000)
    found = TokenValues.of(0, np.maximum(normal - NormalDist().inv_cdf(zero_share), 0))
    assert found.gini == pytest.approx(null_gini(zero_share), abs=3e-3)
    np.testing.assert_allclose(found.lorenz, null_lorenz(zero_share=zero_share), atol=3e-3)
    assert null_top_share(1.0, zero_share) == pytest.approx(1) and null_top_share(0.0, zero_share) == 0


def test_one_token_worth_everything_and_all_worth_the_same():
    one = TokenValues.of(3, np.eye(1, 100)[0])
    assert (
        (one.index, one.zero_share) == (3, 0.99)
        and one.gini == pytest.approx(0.99)
        and one.top == pytest.approx([1.0] * 4)
    )
    same = TokenValues.of(0, np.full(100, 7.0))
    assert same.gini == pytest.approx(0, abs=1e-9) and same.top == pytest.approx(list(TOP_SHARES))
    assert len(same.lorenz) == CURVE_POINTS and sum(same.histogram) == pytest.approx(1)
    nothing = TokenValues.of(0, np.zeros(10))
    assert nothing.is_flat and nothing.zero_share == 1 and not one.is_flat


@pytest.mark.parametrize("values", [[], [-1.0, 2.0], [math.nan], [[1.0]]])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="expected values|zero-size"):
        TokenValues.of(0, np.array(values))
    with pytest.raises(ValueError, match="zero_share"):
        null_top_share(0.1, 1.0)
