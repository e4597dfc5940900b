"""How sure a number is: Wilson intervals for proportions, bootstrap intervals for the rest, paired differences."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Unlike the normal approximation it stays inside [0, 1] and is sensible at 0 %, at 100 % and for a handful of videos.

    Args:
        successes: number of hits, `0 <= successes <= n`.
        n: number of trials; `0` gives the interval that knows nothing, `(0.0, 1.0)`.
        confidence: two-sided coverage, strictly between 0 and 1.

    Returns:
        `(low, high)`, both in [0, 1].

    Raises:
        ValueError: counts that are no counts, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, got {confidence!r}.")
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got successes={successes!r}, n={n!r}.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # exact at the ends: rounding may leave 1e-17 where the formula gives 0 or 1
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    estimate: float | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic over `n` videos.

    Args:
        statistic: called with an index array of shape (n,) drawn with replacement; returns a number (NaN resamples, for
            example without a single positive, are left out).
        n: number of videos.
        confidence: two-sided coverage.
        num_resamples: resamples drawn.
        seed: seed of the resampling; the interval is a function of it.
        estimate: the statistic on the videos themselves, for statistics of ranks: a resample holds some videos several times, whose
            hits then stand in clumps, and average precision is higher on it. Its percentiles are moved by what the resamples
            lie above the estimate on average; without it they may leave out the value that they belong to.

    Returns:
        `(low, high)`.

    Raises:
        ValueError: `n` is not positive, or the statistic is NaN on every resample.
    """
    if n <= 0:
        raise ValueError(f"a bootstrap interval needs at least one video, got n={n!r}.")
    generator = np.random.default_rng(seed)
    values = np.array([statistic(generator.integers(0, n, size=n)) for _ in range(num_resamples)], dtype=float)
    values = values[~np.isnan(values)]
    if not values.size:
        raise ValueError("the statistic is not a number on every resample: nothing to put an interval around.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    bias = 0.0 if estimate is None else values.mean() - estimate
    return float(low - bias), float(high - bias)


def bootstrap_mean_interval(
    values: Sequence[float], *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """`bootstrap_interval` of a mean, many resamples at a time: a study has hundreds of them.

    Args:
        values: (n,) one per video, such as paired differences.
        confidence, num_resamples, seed: see `bootstrap_interval`.

    Returns:
        `(low, high)`.

    Raises:
        ValueError: there is no value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"a bootstrap interval needs one value per video, got shape {values.shape}.")
    generator, means = np.random.default_rng(seed), []
    at_once = max(1, 2**21 // values.size)
    for done in range(0, num_resamples, at_once):
        count = min(at_once, num_resamples - done)
        means.append(values[generator.integers(0, values.size, size=(count, values.size))].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap_difference(
    correct_a: Sequence[bool],
    correct_b: Sequence[bool],
    seed: int = 0,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
) -> dict:
    """Difference of two accuracies measured on the *same* videos, with its interval.

    Resampling videos, not answers, keeps the pairing: two models that fail on the same hard clips differ with far more
    certainty than their two separate intervals suggest.

    Args:
        correct_a: one bool per video, was model A right.
        correct_b: the same videos in the same order for model B.
        seed: seed of the resampling.
        confidence: two-sided coverage.
        num_resamples: resamples drawn.

    Returns:
        `{"difference": accuracy A - accuracy B, "interval": [low, high], "n", "only_a", "only_b", "confidence",
        "num_resamples", "seed"}`; `only_a` counts the videos that A alone got right.

    Raises:
        ValueError: lengths differ, or there is no video.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"expected two lists over the same videos, got shapes {a.shape} and {b.shape}. "
            "Evaluate both models on one dataset and pass their per-video results in the same order."
        )
    if not a.size:
        raise ValueError("expected at least one video, got none.")
    # a pair is worth -1, 0 or +1, so that a resample is a multinomial draw over three cells
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = int(a.size)
    cells = [only_a / n, only_b / n, max(0.0, 1 - (only_a + only_b) / n)]
    draws = np.random.default_rng(seed).multinomial(n, cells, size=num_resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [tail, 1 - tail])
    return {
        "difference": (only_a - only_b) / n,
        "interval": [float(low), float(high)],
        "n": n,
        "only_a": only_a,
        "only_b": only_b,
        "confidence": confidence,
        "num_resamples": num_resamples,
        "seed": seed,
    }
