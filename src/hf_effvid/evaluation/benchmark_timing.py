"""Interleaved timing: A B C A B C ..., so that a machine that is slow for a while is slow for everybody.

Milliseconds of a busy machine mean little; the ratio of two models that took turns within one round means something.
A *visit* is one model's turn within a round; its time is the median over its calls.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


# a turn shorter than this is lost in the noise of the clock and of caches that the model before it has filled
MIN_VISIT_MS = 100.0
MAX_CALLS_PER_VISIT = 50


class WallTimer:
    """Times one call by the clock of the wall.

    Args:
        clock: seconds as a float, only differences count.
        synchronize: called before both readings, so that work in flight on an accelerator is neither missed nor charged to
            the wrong call.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter, synchronize: Callable[[], None] | None = None):
        self.clock, self.synchronize = clock, synchronize or (lambda: None)

    def __call__(self, step: Callable[[], object]) -> float:
        """Milliseconds of `step()`."""
        self.synchronize()
        start = self.clock()
        step()
        self.synchronize()
        return (self.clock() - start) * 1e3


def warm_up(step: Callable[[], object], timer: Callable, calls: int = 2) -> int:
    """Calls `step` so often before anything counts, and decides how many calls a visit needs.

    Args:
        step: what will be timed.
        timer: `step -> milliseconds`.
        calls: warm-up calls; the first may compile or fill caches, the last is taken as the typical one.

    Returns:
        Calls per visit, such that a visit lasts about `MIN_VISIT_MS`.
    """
    last = [timer(step) for _ in range(max(1, calls))][-1]
    return calls_per_visit(last)


def calls_per_visit(milliseconds: float) -> int:
    """Number of calls, each of `milliseconds`, that fill a visit."""
    if milliseconds <= 0:
        return MAX_CALLS_PER_VISIT
    return max(1, min(MAX_CALLS_PER_VISIT, math.ceil(MIN_VISIT_MS / milliseconds)))


def time_interleaved(
    steps: Mapping[str, Callable[[], object]],
    timer: Callable[[Callable], float],
    rounds: int,
    calls: Mapping[str, int],
    on_round: Callable[[], None] | None = None,
) -> dict[str, list[list[float]]]:
    """Times every step once per round, in the order given, and starts over.

    A visit of several calls begins with one that does not count: it refills the caches that the model before has used. A
    visit of one call lasts longer than that takes, and does without.

    Args:
        steps: name -> what to time.
        timer: `step -> milliseconds`.
        rounds: how many rounds.
        calls: calls per visit of each step.
        on_round: called between rounds, never while something is timed.

    Returns:
        name -> per round -> milliseconds of each call.
    """
    times = {name: [] for name in steps}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would be charged to whoever happens to run
    try:
        for _ in range(rounds):
            for name, step in steps.items():
                if calls[name] > 1:
                    step()
                times[name].append([timer(step) for _ in range(calls[name])])
            if on_round is not None:
                on_round()
    finally:
        if collecting:
            gc.enable()
    return times


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks; `percent` from 0 to 100.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a percentile needs at least one value.")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class PairedRatio:
    """How many times faster than the baseline, from rounds that both took part in.

    Attributes:
        per_round: baseline's time / own time, one per round; above 1 is faster.
        median: their median.
        interval: `(low, high)` around the median.
        coverage: how often such an interval holds the true median; below the usual 0.95 when there are few rounds.
    """

    per_round: tuple[float, ...]
    median: float
    interval: tuple[float, float]
    coverage: float

    @property
    def method(self) -> str:
        """In words, for the result file."""
        return f"order statistics of {len(self.per_round)} paired rounds, {self.coverage:.1%}"


def paired_ratio(baseline: Sequence[Sequence[float]], own: Sequence[Sequence[float]]) -> PairedRatio:
    """Ratio of two models round by round.

    Args:
        baseline: per round, the baseline's times.
        own: per round, the other model's times.

    Raises:
        ValueError: the numbers of rounds differ, or there is no round.
    """
    if len(baseline) != len(own) or not own:
        raise ValueError(f"expected two lists over the same rounds, got {len(baseline)} and {len(own)} rounds.")
    ratios = tuple(statistics.median(b) / statistics.median(o) for b, o in zip(baseline, own, strict=True))
    low, high, coverage = median_interval(ratios)
    return PairedRatio(ratios, statistics.median(ratios), (low, high), coverage)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Interval for a median between two order statistics: exact for any distribution, nothing is assumed to be normal.

    Args:
        values: independent measurements.
        confidence: coverage aimed at.

    Returns:
        `(low, high, coverage)`: the narrowest pair of symmetric ranks that reaches `confidence`; where there are too few
        values for that, the smallest and the largest with the coverage they do have.
    """
    ordered, n = sorted(values), len(values)
    best = (ordered[0], ordered[-1], 1 - 2 * 0.5**n if n > 1 else 0.0)
    tail = 0.5**n  # probability that fewer than `rank + 1` of n fall below the median
    for rank in range(1, (n + 1) // 2):
        tail += math.comb(n, rank) * 0.5**n
        if 1 - 2 * tail < confidence:
            break
        best = (ordered[rank], ordered[n - 1 - rank], 1 - 2 * tail)
    return best
