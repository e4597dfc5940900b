"""Do easy classes need fewer tokens? Classes, not videos, are what is drawn here: tokens and clips of a class resemble each other.

A class is *easy* when the full model is good at it. Which classes are easy is decided on one half of the videos and what they lose on
the other, then the other way round: decided and measured on the same videos, a class that was lucky would seem easy and would then
fall back by itself.
"""

from dataclasses import dataclass

import numpy as np

from .results import Metric


INTERVAL = "bootstrap over classes 95%"
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class ClassOutcome:
    """One class.

    Attributes:
        name: its name.
        n: its videos.
        full: accuracy with all tokens.
        selected: accuracy with the selection that is looked at.
    """

    name: str
    n: int
    full: float
    selected: float

    @property
    def loss(self) -> float:
        """What the selection costs."""
        return self.full - self.selected


def class_outcomes(labels, full, selected, names) -> list[ClassOutcome]:
    """Accuracy per class, of the classes that have videos.

    Args:
        labels: (n,) class numbers.
        full: (n,) 1 where the full model is right.
        selected: (n,) the same with the selection; fractions for a mean over draws.
        names: class names by number.
    """
    labels, full, selected = np.asarray(labels), np.asarray(full, float), np.asarray(selected, float)
    return [
        ClassOutcome(names[c], int((labels == c).sum()), full[labels == c].mean(), selected[labels == c].mean())
        for c in np.unique(labels)
    ]


def easy_against_hard(labels, full, values, name: str, seed: int = 0) -> Metric | None:
    """Mean of a quantity over the easy half of the classes minus that over the hard half, with an interval over classes.

    Args:
        labels: (n,) class numbers.
        full: (n,) 1 where the full model is right; decides which classes are easy.
        values: (n,) the quantity, such as what a selection costs; NaN where a video has none.
        name: of the metric.
        seed: of the resampling.

    Returns:
        The metric, whose `n` is the number of classes; None with fewer than four classes of at least two videos.
    """
    labels, full, values = np.asarray(labels), np.asarray(full, float), np.asarray(values, float)
    halves = _halves(labels)
    classes = [c for c in np.unique(labels) if all(_measurable(labels, half, values, c) for half in (halves, ~halves))]
    if len(classes) < 4:
        return None
    differences = []
    for decides, measures in ((halves, ~halves), (~halves, halves)):
        accuracy = np.array([full[decides & (labels == c)].mean() for c in classes])
        mean = np.array([np.nanmean(values[measures & (labels == c)]) for c in classes])
        # ties in accuracy are common with few videos: the order of the classes then decides
        order = np.argsort(-accuracy, kind="stable")
        middle = len(classes) // 2
        differences.append((mean[order[:middle]], mean[order[-middle:]]))
    value = float(np.mean([easy.mean() - hard.mean() for easy, hard in differences]))
    generator = np.random.default_rng(seed)
    drawn = np.zeros(NUM_RESAMPLES)
    for easy, hard in differences:
        picks = generator.integers(0, len(easy), size=(2, NUM_RESAMPLES, len(easy)))
        drawn += (easy[picks[0]].mean(1) - hard[picks[1]].mean(1)) / 2
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Metric(name, value, len(classes), (float(low), float(high)), INTERVAL)


def _halves(labels: np.ndarray) -> np.ndarray:
    """(n,) True for every other video of each class."""
    first = np.zeros(len(labels), dtype=bool)
    for c in np.unique(labels):
        first[np.flatnonzero(labels == c)[::2]] = True
    return first


def _measurable(labels, half, values, c) -> bool:
    return bool((~np.isnan(values[half & (labels == c)])).any())
