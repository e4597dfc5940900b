"""Thresholds of LITE++ from held-out clips: for a wanted share of clips on the small budget, or for a wanted mean cost.

The paper prints neither its thresholds nor how they were found; its costs imply that about 49 % of the videos were on the small budget.
Pure arithmetic on confidences; who runs the model is `training.budget_calibration`.
"""

from dataclasses import asdict, dataclass

import numpy as np


class CalibrationError(ValueError):
    """The thresholds cannot be found as asked; the message says what is possible."""


@dataclass(frozen=True)
class BudgetCosts:
    """What one clip costs, in GMACs.

    Attributes:
        base: at the base budget.
        easy: at the small budget.
        gauge: of asking the gauge, for every clip; 0 for a cascade.
        cascade: the gauge is the host itself at the small budget: unsure clips cost both passes.
    """

    base: float
    easy: float
    gauge: float = 0.0
    cascade: bool = False

    def __post_init__(self):
        if not 0 < self.easy < self.base or self.gauge < 0:
            raise CalibrationError(
                f"expected 0 < easy < base and a gauge of at least 0 GMACs, got easy {self.easy}, base {self.base}, gauge {self.gauge}."
            )

    def mean(self, easy_share):
        """Mean GMACs of a clip when `easy_share` of the clips is on the small budget; also of an array of shares."""
        if self.cascade:
            return self.gauge + self.easy + (1 - easy_share) * self.base
        return self.gauge + easy_share * self.easy + (1 - easy_share) * self.base

    def share_for(self, mean_gmacs):
        """The inverse of `mean`.

        Raises:
            CalibrationError: no share gives that cost.
        """
        lowest, highest = self.mean(1.0), self.mean(0.0)
        if not lowest < mean_gmacs < highest:
            raise CalibrationError(
                f"a mean of {mean_gmacs:g} GMACs per clip cannot be reached: with these budgets and this gauge it lies between "
                f"{lowest:g} (every clip easy) and {highest:g} (none)."
            )
        return (highest - mean_gmacs) / (highest - lowest)


@dataclass(frozen=True)
class BudgetThresholds:
    """Thresholds on the confidence, and what they do to the clips that they were found on.

    Attributes:
        low, high: a clip is easy below `low` and above `high`.
        wanted_share: share of easy clips that was asked for.
        easy_share: share that the thresholds give.
        hopeless_share: the part of it that lies below `low`.
        n: number of clips.
    """

    low: float
    high: float
    wanted_share: float
    easy_share: float
    hopeless_share: float
    n: int

    def to_dict(self):
        return asdict(self)


def calibrate_thresholds(confidence, easy_share, hopeless_share=None, correct_easy=None, correct_base=None):
    """The thresholds that put a share of the clips on the small budget.

    One share leaves one of the two thresholds open: how many of the easy clips are the unsure ones. It is said (`hopeless_share`), or
    chosen so that most clips are right, when it is known which clips each budget gets right, or 0.

    Args:
        confidence: (n,) of held-out clips, from 0 to 1.
        easy_share: wanted share of easy clips, in (0, 1).
        hopeless_share: share of all clips below `low`, in [0, easy_share].
        correct_easy, correct_base: (n,) bools, which clips the host gets right at the small and at the base budget.

    Returns:
        the `BudgetThresholds`. They lie midway between neighbouring confidences. Clips of equal confidence are never parted, so that
        the share may miss the wanted one; `easy_share` of the result tells.

    Raises:
        CalibrationError: shares out of range, confidences that are none, or arrays of different lengths.
    """
    confidence = _confidences(confidence)
    order = np.argsort(confidence, kind="stable")
    confidence, n = confidence[order], len(confidence)
    if not 0 < easy_share < 1:
        raise CalibrationError(
            f"easy_share must lie between 0 and 1, got {easy_share}: else one keep_ratio does for all clips."
        )
    if hopeless_share is not None and not 0 <= hopeless_share <= easy_share:
        raise CalibrationError(f"hopeless_share must lie in [0, easy_share={easy_share}], got {hopeless_share}.")
    cuts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(confidence)), [n]])
    if len(cuts) == 2:
        raise CalibrationError(
            f"all {n} clips have the same confidence {confidence[0]:g}: this gauge tells nothing apart."
        )
    wanted = easy_share * n
    if hopeless_share is None and correct_easy is not None and correct_base is not None:
        pair = _most_correct(cuts, wanted, *(_flags(flags, order) for flags in (correct_easy, correct_base)))
    else:
        below = _nearest(cuts, (hopeless_share or 0.0) * n)
        pair = below, max(below, _nearest(cuts, n - (wanted - below)))
    below, until = pair
    return BudgetThresholds(
        low=_between(confidence, below, 0.0),
        high=_between(confidence, until, 1.0),
        wanted_share=float(easy_share),
        easy_share=float((below + n - until) / n),
        hopeless_share=float(below / n),
        n=n,
    )


def _most_correct(cuts, wanted, correct_easy, correct_base):
    """Of all pairs of cuts with about the wanted share, the one with most clips right; the fewest hopeless ones among equals."""
    n = len(correct_easy)
    right_easy, right_base = (np.concatenate([[0], np.cumsum(flags)]) for flags in (correct_easy, correct_base))
    best = None
    for below in cuts[cuts <= wanted + 0.5]:
        until = max(below, _nearest(cuts, n - (wanted - below)))
        right = right_easy[below] + (right_base[until] - right_base[below]) + (right_easy[n] - right_easy[until])
        miss = abs(below + n - until - wanted)
        rank = (miss <= 0.5, int(right) if miss <= 0.5 else -miss)
        if best is None or rank > best[0]:
            best = rank, (below, until)
    return best[1]


def _nearest(cuts, place):
    return int(cuts[np.argmin(np.abs(cuts - place))])


def _between(confidence, count, end):
    """The threshold with `count` sorted confidences below it; `end` where it would part nothing."""
    if count in (0, len(confidence)):
        # nothing is below 0 and nothing above 1; a threshold at the other end of the scale would call everything easy
        return end if (count == 0) == (end == 0.0) else 1.0 - end
    return float((confidence[count - 1] + confidence[count]) / 2)


def _confidences(values):
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all():
        raise CalibrationError(
            "expected one confidence from 0 to 1 per clip, a list that is not empty and without NaN."
        )
    return values


def _flags(flags, order):
    flags = np.asarray(flags, dtype=bool)
    if flags.shape != order.shape:
        raise CalibrationError(f"expected one bool per clip, {order.shape}, got {flags.shape}.")
    return flags[order]


def choose_split(splits, split=None, force=False):
    """The name of the split to calibrate on: held-out, and not the one that the result is reported on.

    Args:
        splits: names of the splits that there are.
        split: the wanted one; None takes `validation`, or None, a part of `train`, where there is none.
        force: allow `test` all the same.

    Returns:
        a name, or None for a part of `train` that is held out.

    Raises:
        CalibrationError: `test` without `force`, or a split that is not there.
    """
    splits = list(splits)
    if split is None:
        if "validation" not in splits and "train" not in splits:
            raise CalibrationError(
                f"there is no validation or train split to calibrate on, only {', '.join(splits)}: name one."
            )
        return "validation" if "validation" in splits else None
    if split not in splits:
        raise CalibrationError(f"there is no split {split!r}, only {', '.join(splits)}.")
    if split == "test" and not force:
        instead = "validation" if "validation" in splits else "a part of train (leave the split unset)"
        raise CalibrationError(
            f"thresholds that were found on the test split make its accuracy meaningless: calibrate on {instead}, or force it and say so."
        )
    return split
