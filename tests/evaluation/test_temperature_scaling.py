"""One number that makes a classifier as sure as it is right."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.evaluation.temperature_scaling import (
    HIGHEST,
    LOWEST,
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
)


def drawn(temperature, n=4000, classes=5, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    labels = (np.exp(log_probabilities(logits, temperature)).cumsum(-1) < rng.random((n, 1))).sum(-1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_that_the_labels_were_drawn_at_is_found(temperature):
    found = fit_temperature(*drawn(temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.08) and not found.at_bound
    assert found.nll_after <= found.nll_before and found.n == 4000
    assert found.ece_after < 0.03
    if temperature > 2:
        assert found.ece_before > 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(5, 60), scale=st.floats(0.2, 5.0))
def test_no_other_temperature_is_better(seed, n, scale):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, scale, (n, 4)), rng.integers(0, 4, n)
    found = fit_temperature(logits, labels)

    def nll(temperature):
        return -log_probabilities(logits, temperature)[np.arange(n), labels].mean()

    assert found.nll_after == pytest.approx(nll(found.temperature))
    for factor in (0.97, 1.03):
        other = min(max(found.temperature * factor, LOWEST), HIGHEST)
        assert nll(other) >= found.nll_after - 1e-9
    # the classes keep their order
    assert found.accuracy == (logits.argmax(-1) == labels).mean()


def test_the_error_is_that_of_the_bins():
    confidence, correct = [0.95, 0.95, 0.95, 0.55], [True, True, False, False]
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.75 * (0.95 - 2 / 3) + 0.25 * 0.55)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0


def test_what_has_no_temperature_inside_of_the_bounds():
    logits = np.eye(3) * 4
    assert fit_temperature(logits, [0, 1, 2]).temperature == pytest.approx(LOWEST)  # all right
    assert fit_temperature(logits, [1, 2, 0]).temperature == pytest.approx(HIGHEST)  # all wrong
    assert fit_temperature(logits, [1, 2, 0]).at_bound


def test_samples_that_say_nothing():
    for logits, labels in (
        (np.zeros((0, 3)), []),
        (np.zeros((2, 3)), [0]),
        (np.zeros((2, 3)), [0, 3]),
        (np.full((1, 3), np.nan), [0]),
    ):
        with pytest.raises(ValueError):
            fit_temperature(logits, np.asarray(labels, dtype=int))


def test_probabilities_as_torch_has_them():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).double() * 300
    np.testing.assert_allclose(log_probabilities(logits, 2.0), (logits / 2).log_softmax(-1).numpy(), atol=1e-9)
