"""The choice under a budget: accuracy first where it is known, then clips per second; and the reason given for it."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.evaluation.benchmark_budget import Accuracy, as_accuracies, best_under_budget, recorded_accuracies
from hf_effvid.evaluation.benchmark_execution import BenchmarkError
from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry


def setting(name, batch, latency, p90=None):
    return SimpleNamespace(
        name=name,
        batch_size=batch,
        latency_ms=latency,
        latency_p90_ms=p90 or latency,
        throughput_clips_per_s=batch / latency * 1e3,
    )


GRID = [
    setting("small", 1, 5.0),
    setting("small", 4, 12.0),
    setting("middle", 1, 15.0),
    setting("middle", 4, 40.0),
    setting("large", 1, 60.0),
]


def chosen(budget, accuracies=None):
    accuracies = {name: Accuracy(value) for name, value in (accuracies or {}).items()}
    choice = best_under_budget(GRID, budget, accuracies)
    return (choice.setting and (choice.setting.name, choice.setting.batch_size)), choice.reason


def test_the_most_accurate_model_that_fits():
    known = {"small": 0.6, "middle": 0.7, "large": 0.8}
    assert chosen(20, known)[0] == ("middle", 1)
    assert chosen(100, known)[0] == ("large", 1)
    # of one model, the setting with most clips per second
    assert chosen(14, known)[0] == ("small", 4)
    assert "most accurate within the budget (70.0%)" in chosen(20, known)[1]


def test_without_accuracies_most_clips_per_second():
    best, reason = chosen(20)
    assert best == ("small", 4)
    assert "most clips per second" in reason and "accuracies are unknown" in reason


def test_models_without_accuracy_are_passed_over_and_named():
    best, reason = chosen(20, {"middle": 0.1})
    assert best == ("middle", 1)
    assert reason.endswith("Passed over, for want of an accuracy: small.")
    # unless none that fits has one
    assert chosen(6, {"large": 0.9})[0] == ("small", 1)


def test_nothing_fits():
    best, reason = chosen(1)
    assert best is None
    assert reason == "Nothing takes at most 1 ms: the fastest is small at batch 1 with 5.0 ms."


def test_a_tail_over_the_budget_is_mentioned():
    choice = best_under_budget([setting("m", 1, 18.0, p90=25.0)], 20, {})
    assert "One pass in ten takes longer than 25.0 ms, which is over the budget." in choice.reason


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 8), st.floats(0.1, 100)), min_size=1, max_size=12),
    st.floats(0.5, 120),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1)),
)
def test_nothing_that_fits_is_better_than_the_choice(rows, budget, known):
    settings = [setting(*row) for row in rows]
    accuracies = {name: Accuracy(value) for name, value in known.items()}
    best = best_under_budget(settings, budget, accuracies).setting
    within = [s for s in settings if s.latency_ms <= budget]
    assert (best is None) == (not within)
    if best is None:
        return
    assert best in within
    rated = [s for s in within if s.name in known]
    if rated:
        assert known[best.name] == max(known[s.name] for s in rated)
        within = [s for s in rated if known[s.name] == known[best.name]]
    assert best.throughput_clips_per_s == max(s.throughput_clips_per_s for s in within)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "20", True])
def test_a_budget_is_a_positive_number(budget):
    with pytest.raises(BenchmarkError, match="budget_ms must be a positive number"):
        best_under_budget(GRID, budget, {})


def test_no_measurement():
    with pytest.raises(BenchmarkError, match="nothing to choose from"):
        best_under_budget([], 20, {})


def test_accuracies_in_every_form():
    metric = Metric.proportion("top1", 7, 10)
    entry = ResultEntry(
        "video-classification", "m", "d", "test", (Metric("mAP", 0.4, 10), metric), Provenance("c", date="2026-01-01"),
        Cost(),
    )  # fmt: skip
    read = as_accuracies({"a": 0.5, "b": metric, "c": entry}, ["a", "b", "c", "d"])
    assert read == {
        "a": Accuracy(0.5),
        "b": Accuracy(0.7, metric.interval, "top1"),
        "c": Accuracy(0.7, metric.interval, "top1"),
    }
    assert as_accuracies(None, ["a"]) == {}


@pytest.mark.parametrize(
    ("accuracies", "message"),
    [
        ({"x": 0.5}, r"name \['x'\], but the models are called \['a'\]"),
        ({"a": 81.2}, "fraction between 0 and 1, got 81.2"),
    ],
)
def test_wrong_accuracies(accuracies, message):
    with pytest.raises(BenchmarkError, match=message):
        as_accuracies(accuracies, ["a"])


def recorded(model: str, right: int, **changes) -> ResultEntry:
    values = {"dataset": "clips", "split": "test", "provenance": Provenance("effvid evaluate", date="2026-11-20")}
    metrics = (Metric.proportion("top1", right, 100),)
    return ResultEntry("video-classification", model, metrics=metrics, **{**values, **changes})


def test_accuracies_come_from_results():
    a, b = recorded("a", 80), recorded("b", 70)
    noise = [recorded("a", 1, variant="frames shuffled"), recorded("b", 99, quoted=True), recorded("c", 50)]
    assert recorded_accuracies([*noise, a, b], ["a", "b", "a (bfloat16)"]) == {"a": a, "b": b}
    other = recorded("a", 60, dataset="others")
    assert recorded_accuracies([a, other], ["a"], "others") == {"a": other}
    with pytest.raises(BenchmarkError, match=r"clips \(test\), others \(test\) cannot share a chart"):
        recorded_accuracies([a, other], ["a"])
    with pytest.raises(BenchmarkError, match="they hold 'a' on 'clips'"):
        recorded_accuracies([a], ["z"])
    seeds = [recorded("a", 80, provenance=Provenance("x", date="2026-11-20", seed=seed)) for seed in (0, 1)]
    with pytest.raises(BenchmarkError, match="several runs"):
        recorded_accuracies(seeds, ["a"])
