"""How unevenly the value of a clip is spread over its tokens: Lorenz curve, Gini index, and what chance alone would give.

With the values of a clip in falling order, share(q) is the part of their sum that the top q of the tokens holds. The Lorenz curve
counts from the other end, L(p) = 1 - share(1 - p), and the Gini index is 1 - 2 * integral of L: 0 when all tokens are worth the
same, near 1 when one token is worth everything.

**Null.** Values are often ReLU(a . z_i) for a direction a: of Gaussian tokens and a direction that means nothing, half are zero and

    share(q) = phi(Phi^-1(1 - q)) / phi(0),   Gini = 1 / sqrt(2)

so that 44 % of the value in 10 % of the tokens proves nothing. Where another share z0 is zero the threshold is a = Phi^-1(z0), and

    share(q) = (phi(t) - a q) / (phi(a) - a (1 - z0)),   t = Phi^-1(1 - q)
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


TOP_SHARES = (0.05, 0.1, 0.2, 0.5)
"""Shares of the tokens at which `TokenValues` states how much they hold."""

CURVE_POINTS = 51
HISTOGRAM_BINS = 20

_NORMAL = NormalDist()


@dataclass(frozen=True)
class TokenValues:
    """The values of one clip, summed up.

    Attributes:
        index: position of the video in the data set.
        gini: Gini index; NaN for a clip whose tokens are all worth nothing.
        zero_share: share of the tokens that are worth exactly nothing.
        lorenz: L at `CURVE_POINTS` even places from 0 to 1.
        top: what the top `TOP_SHARES` of the tokens hold.
        histogram: share of the tokens in each of `HISTOGRAM_BINS` even bins of their values stretched to [0, 1].
    """

    index: int
    gini: float
    zero_share: float
    lorenz: list[float]
    top: list[float]
    histogram: list[float]

    @classmethod
    def of(cls, index: int, values: np.ndarray) -> "TokenValues":
        """Sums up values (N,), none of them below 0.

        Raises:
            ValueError: no value, or one below 0 or not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(
                f"expected values (N,) of at least 0, got shape {values.shape}, least {values.min():.3g}."
            )
        lorenz = lorenz_curve(values)
        places = np.linspace(0, 1, CURVE_POINTS)
        spread = values.max() - values.min()
        stretched = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
        counts, _ = np.histogram(stretched, bins=HISTOGRAM_BINS, range=(0, 1))
        return cls(
            index=index,
            gini=gini_index(values),
            zero_share=float((values == 0).mean()),
            lorenz=np.interp(places, np.linspace(0, 1, len(lorenz)), lorenz).tolist(),
            top=[1 - float(np.interp(1 - share, np.linspace(0, 1, len(lorenz)), lorenz)) for share in TOP_SHARES],
            histogram=(counts / values.size).tolist(),
        )

    @property
    def is_flat(self) -> bool:
        """All tokens are worth nothing, so that no share can be stated."""
        return bool(np.isnan(self.gini))


def lorenz_curve(values: np.ndarray) -> np.ndarray:
    """L at 0, 1/N, ..., 1 of values (N,): the share of their sum that the least valuable tokens hold; NaN when the sum is 0."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    total = ordered.sum()
    held = np.concatenate([[0.0], np.cumsum(ordered)])
    return held / total if total > 0 else np.full(len(held), np.nan)


def gini_index(values: np.ndarray) -> float:
    """Gini index of values (N,); NaN when their sum is 0."""
    lorenz = lorenz_curve(values)
    return float(1 - (lorenz[1:] + lorenz[:-1]).mean())


def null_top_share(share: float, zero_share: float = 0.5) -> float:
    """What the top `share` of the tokens hold when values are a Gaussian projection cut at 0.

    Args:
        share: q in [0, 1].
        zero_share: z0 in (0, 1), the part that the cut removes; the default is a direction that means nothing.
    """
    if not 0 < zero_share < 1:
        raise ValueError(f"zero_share should be above 0 and below 1, got {zero_share!r}.")
    share = min(share, 1 - zero_share)
    if share <= 0:
        return 0.0
    cut, place = _NORMAL.inv_cdf(zero_share), _NORMAL.inv_cdf(1 - share)
    whole = _NORMAL.pdf(cut) - cut * (1 - zero_share)
    return (_NORMAL.pdf(place) - cut * share) / whole


def null_lorenz(points: int = CURVE_POINTS, zero_share: float = 0.5) -> np.ndarray:
    """The Lorenz curve of that null at even places."""
    return np.array([1 - null_top_share(1 - place, zero_share) for place in np.linspace(0, 1, points)])


def null_gini(zero_share: float = 0.5) -> float:
    """Its Gini index; 1 / sqrt(2) at the default."""
    lorenz = null_lorenz(4001, zero_share)
    return float(1 - (lorenz[1:] + lorenz[:-1]).mean())
