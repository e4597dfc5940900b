"""Temperature scaling: one number T that logits are divided by, so that a classifier is as sure as it is right.

T minimises the negative log-likelihood of the labels on held-out samples, -mean log softmax(z / T)_y (Guo et al., ICML 2017). It is convex
in 1 / T, so its derivative has one zero, which is found by bisection. Ranks of classes, and so accuracy, stay.
"""

from dataclasses import asdict, dataclass

import numpy as np


LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are looked for


def log_probabilities(logits, temperature=1.0) -> np.ndarray:
    """log softmax of (..., K) logits at a temperature, in double precision."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def expected_calibration_error(confidence, correct, num_bins: int = 10) -> float:
    """Mean of |accuracy - confidence| over samples, by bins of equal width.

    Args:
        confidence: (n,) from 0 to 1.
        correct: (n,) bools.
        num_bins: number of bins.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=bool)
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    masks = [mask for mask in (bins == number for number in range(num_bins)) if mask.any()]
    return float(sum(mask.mean() * abs(correct[mask].mean() - confidence[mask].mean()) for mask in masks))


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature and what it does to the samples that it was found on.

    Attributes:
        temperature: T.
        nll_before, nll_after: mean negative log-likelihood of the labels, in nats.
        ece_before, ece_after: expected calibration error, 10 bins.
        accuracy: share of the samples whose label has the largest logit.
        n: number of samples.
        at_bound: the likelihood still rose at the lowest or highest temperature looked at: every sample right, or logits that know nothing.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    accuracy: float
    n: int
    at_bound: bool

    def to_dict(self):
        return asdict(self)


def fit_temperature(logits, labels) -> TemperatureFit:
    """The temperature under which the labels are most likely.

    Args:
        logits: (n, K) of held-out samples.
        labels: (n,) class numbers.

    Raises:
        ValueError: no samples, labels that are no classes, or logits that are not finite.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or not len(logits) or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits (n, K) and n labels, got {logits.shape} and {labels.shape}.")
    if not np.isfinite(logits).all() or labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"expected finite logits and labels from 0 to {logits.shape[1] - 1}.")
    true = logits[np.arange(len(labels)), labels]

    def slope(inverse):
        """Derivative of the negative log-likelihood to 1 / T: the mean logit that is expected minus that of the label."""
        probabilities = np.exp(log_probabilities(logits, 1.0 / inverse))
        return float(((probabilities * logits).sum(-1) - true).mean())

    low, high = 1.0 / HIGHEST, 1.0 / LOWEST
    at_bound = slope(low) >= 0 or slope(high) <= 0
    if at_bound:
        inverse = low if slope(low) >= 0 else high
    else:
        for _ in range(60):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        inverse = (low * high) ** 0.5
    correct = logits.argmax(-1) == labels
    before, after = log_probabilities(logits), log_probabilities(logits, 1.0 / inverse)
    rows = np.arange(len(labels))
    return TemperatureFit(
        temperature=1.0 / inverse,
        nll_before=float(-before[rows, labels].mean()),
        nll_after=float(-after[rows, labels].mean()),
        ece_before=expected_calibration_error(np.exp(before).max(-1), correct),
        ece_after=expected_calibration_error(np.exp(after).max(-1), correct),
        accuracy=float(correct.mean()),
        n=len(labels),
        at_bound=at_bound,
    )
