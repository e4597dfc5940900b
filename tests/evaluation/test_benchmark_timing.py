"""Interleaved rounds and their statistics, on a clock that the test turns itself."""

import gc
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.evaluation.benchmark_timing import (
    MAX_CALLS_PER_VISIT,
    WallTimer,
    calls_per_visit,
    median_interval,
    paired_ratio,
    percentile,
    time_interleaved,
    warm_up,
)


class World:
    """A machine with a clock of its own: running a step takes the step's cost times the machine's present slowness."""

    def __init__(self):
        self.now, self.slowness, self.log = 0.0, 1.0, []

    def step(self, name, milliseconds):
        def run():
            self.log.append(name)
            self.now += milliseconds * self.slowness / 1e3

        return run


def test_models_take_turns_and_the_first_call_of_a_longer_visit_does_not_count():
    world = World()
    steps = {"a": world.step("a", 200), "b": world.step("b", 10), "c": world.step("c", 50)}
    rounds_done = []
    times = time_interleaved(
        steps, WallTimer(lambda: world.now), 3, {"a": 1, "b": 2, "c": 1}, lambda: rounds_done.append(len(world.log))
    )
    assert "".join(world.log) == "abbbc" * 3
    assert rounds_done == [5, 10, 15]
    assert {name: [len(visit) for visit in visits] for name, visits in times.items()} == {
        "a": [1, 1, 1],
        "b": [2, 2, 2],
        "c": [1, 1, 1],
    }
    assert times["b"][1] == pytest.approx([10, 10])


def test_a_machine_that_is_slow_for_a_while_does_not_change_the_ratio():
    world, slow = World(), random.Random(0)
    steps = {"baseline": world.step("baseline", 60), "ours": world.step("ours", 20)}

    def other_people_come_and_go():
        world.slowness = slow.choice([1, 1, 3, 20])

    times = time_interleaved(
        steps, WallTimer(lambda: world.now), 12, dict.fromkeys(steps, 1), other_people_come_and_go
    )
    spread = [visit[0] for visit in times["ours"]]
    assert max(spread) > 10 * min(spread)
    ratio = paired_ratio(times["baseline"], times["ours"])
    assert ratio.median == pytest.approx(3) and ratio.interval == pytest.approx((3, 3))
    assert len(ratio.per_round) == 12 and ratio.coverage >= 0.95
    assert ratio.method == f"order statistics of 12 paired rounds, {ratio.coverage:.1%}"


def test_a_visit_is_its_median_and_not_its_mean():
    ratio = paired_ratio([[10, 10, 1000]], [[5, 5, 5]])
    assert ratio.median == 2


def test_rounds_have_to_match():
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        paired_ratio([[1.0], [1.0]], [[1.0]])
    with pytest.raises(ValueError, match="0 and 0"):
        paired_ratio([], [])


def test_the_garbage_collector_rests_meanwhile_and_comes_back_even_after_an_error():
    assert gc.isenabled()
    seen = []
    time_interleaved({"a": lambda: seen.append(gc.isenabled())}, WallTimer(), 1, {"a": 1})
    assert seen == [False] and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        time_interleaved({"a": lambda: 1 / 0}, WallTimer(), 1, {"a": 1})
    assert gc.isenabled()


def test_the_device_is_waited_for_before_both_readings():
    log = []
    clock = iter([1.0, 1.5])
    timer = WallTimer(lambda: log.append("clock") or next(clock), lambda: log.append("synchronize"))
    assert timer(lambda: log.append("step")) == pytest.approx(500)
    assert log == ["synchronize", "clock", "step", "synchronize", "clock"]


@pytest.mark.parametrize(
    ("milliseconds", "calls"), [(500, 1), (100, 1), (99, 2), (10, 10), (0.001, MAX_CALLS_PER_VISIT), (0, 50)]
)
def test_short_passes_are_repeated_within_a_visit(milliseconds, calls):
    assert calls_per_visit(milliseconds) == calls


def test_warm_up_judges_by_the_last_call():
    costs = iter([30_000, 10])  # the first compiles
    assert warm_up(lambda: None, lambda step: next(costs), calls=2) == 10


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 100))
def test_percentile_lies_within_and_grows(values, percent):
    assert min(values) <= percentile(values, percent) <= max(values)
    assert percentile(values, 50) == pytest.approx(statistics.median(values), abs=1e-6)
    assert percentile(values, 0) == min(values) and percentile(values, 100) == max(values)


def test_percentile_of_ten():
    assert percentile(range(1, 11), 90) == pytest.approx(9.1)
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


@pytest.mark.parametrize(
    # ranks from the binomial table: for n = 10 the 2nd and the 9th value hold the median in 97.9 % of the cases
    ("n", "low", "high", "coverage"),
    [(1, 0, 0, 0.0), (5, 0, 4, 0.9375), (6, 0, 5, 0.96875), (10, 1, 8, 0.978515625), (20, 5, 14, 0.9586105346679688)],
)
def test_interval_of_a_median_is_exact(n, low, high, coverage):
    values = list(range(n))
    random.Random(1).shuffle(values)
    assert median_interval(values) == (low, high, pytest.approx(coverage))


def test_interval_covers_as_often_as_it_says():
    generator, hits, trials, coverage = random.Random(0), 0, 2000, None
    for _ in range(trials):
        low, high, coverage = median_interval([generator.expovariate(math.log(2)) for _ in range(9)])  # median 1
        hits += low <= 1 <= high
    assert abs(hits / trials - coverage) < 4 * math.sqrt(coverage * (1 - coverage) / trials)
