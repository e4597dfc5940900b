"""Which setting to use when an answer has to be there within so many milliseconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .benchmark_execution import BenchmarkError
from .results import Metric, ResultEntry


@dataclass(frozen=True)
class Accuracy:
    """An accuracy to put beside a time.

    Attributes:
        value: a fraction in [0, 1].
        interval: `(low, high)`, None when unknown.
        name: what kind, for example `"top1"`.
    """

    value: float
    interval: tuple[float, float] | None = None
    name: str = "accuracy"

    def __post_init__(self):
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not 0 <= self.value <= 1:
            raise BenchmarkError(f"an accuracy is a fraction between 0 and 1, got {self.value!r}.")


def as_accuracies(accuracies: Mapping | None, names: Iterable[str]) -> dict[str, Accuracy]:
    """Reads what `benchmark(accuracies=...)` accepts.

    Args:
        accuracies: name of a model -> fraction, `Metric`, or `ResultEntry` (its `top1`, else its first metric).
        names: the models there are.

    Raises:
        BenchmarkError: no fraction, no metric, or a model that is not there.
    """
    accuracies, names = dict(accuracies or {}), list(names)
    unknown = sorted(set(accuracies) - set(names))
    if unknown:
        raise BenchmarkError(f"accuracies name {unknown}, but the models are called {names}.")
    return {name: _as_accuracy(name, value) for name, value in accuracies.items()}


def recorded_accuracies(
    entries: Iterable[ResultEntry], names: Iterable[str], dataset: str | None = None
) -> dict[str, ResultEntry]:
    """The accuracies that results record for some of the models, for `benchmark(accuracies=...)`.

    Args:
        entries: results; quoted ones, runs that differ from the plain one and those of other models are passed over.
        names: the models there are.
        dataset: name of the data set to take accuracies from; None where all are on one.

    Raises:
        BenchmarkError: there is none, or accuracies on several data sets or of several runs would be mixed.
    """
    names = set(names)
    plain = [entry for entry in entries if entry.metrics and not entry.quoted and not entry.variant]
    mine = [entry for entry in plain if entry.model in names and dataset in (None, entry.dataset)]
    if not mine:
        on = f" on {dataset!r}" if dataset is not None else ""
        known = sorted({f"{entry.model!r} on {entry.dataset!r}" for entry in plain})
        raise BenchmarkError(
            f"the results hold no accuracy of {sorted(names)}{on}; they hold {', '.join(known) or 'none'}."
        )
    measured_on = sorted({f"{entry.dataset} ({entry.split})" for entry in mine})
    if len(measured_on) > 1:
        raise BenchmarkError(f"accuracies on {', '.join(measured_on)} cannot share a chart: name one data set.")
    found = {entry.model: entry for entry in mine}
    if len(found) < len(mine):
        raise BenchmarkError(f"the results hold several runs of {sorted(found)}: give a file with one of each.")
    return found


def _as_accuracy(name: str, value) -> Accuracy:
    if isinstance(value, Accuracy):
        return value
    if isinstance(value, ResultEntry):
        if not value.metrics:
            raise BenchmarkError(f"the result given as accuracy of {name!r} has no metric.")
        value = value.metric("top1") or value.metrics[0]
    if isinstance(value, Metric):
        return Accuracy(value.value, value.interval, value.name)
    return Accuracy(value)


def check_budget(budget_ms) -> None:
    """Raises `BenchmarkError` unless it is a positive number."""
    if isinstance(budget_ms, bool) or not isinstance(budget_ms, (int, float)) or not budget_ms > 0:
        raise BenchmarkError(f"budget_ms must be a positive number of milliseconds, got {budget_ms!r}.")


@dataclass(frozen=True)
class BudgetChoice:
    """The best setting under a budget.

    Attributes:
        budget_ms: milliseconds allowed.
        setting: the measurement chosen; None when nothing is fast enough.
        reason: why, in one or two sentences, to be printed with it.
    """

    budget_ms: float
    setting: object | None
    reason: str


def best_under_budget(measurements: Iterable, budget_ms: float, accuracies: Mapping[str, Accuracy]) -> BudgetChoice:
    """The best setting (model and batch size) whose answer takes at most `budget_ms`.

    A setting is *within* the budget when the median time of one pass over its whole batch is: every clip of a batch waits
    for all of it. Among those within, the most accurate model wins where accuracies are known (models without one are
    passed over, and named); of equally accurate settings, and where nothing is known, the one with most clips per second.

    Args:
        measurements: objects with `name`, `batch_size`, `latency_ms`, `latency_p90_ms`, `throughput_clips_per_s`.
        budget_ms: milliseconds of model time, decoding not included.
        accuracies: name -> accuracy of the models for which it is known.

    Raises:
        BenchmarkError: the budget is not positive, or there is no measurement.
    """
    check_budget(budget_ms)
    measurements = list(measurements)
    if not measurements:
        raise BenchmarkError("there is nothing to choose from: no measurement succeeded.")
    within = [m for m in measurements if m.latency_ms <= budget_ms]
    if not within:
        fastest = min(measurements, key=lambda m: m.latency_ms)
        return BudgetChoice(
            budget_ms,
            None,
            f"Nothing takes at most {budget_ms:g} ms: the fastest is {_called(fastest)} with {fastest.latency_ms:.1f} ms.",
        )
    rated = [m for m in within if m.name in accuracies]
    candidates = rated or within
    best = max(candidates, key=lambda m: (_value(accuracies, m), m.throughput_clips_per_s, -m.latency_ms))
    return BudgetChoice(budget_ms, best, _explain(best, within, candidates, accuracies, budget_ms))


def _explain(best, within, candidates, accuracies, budget_ms: float) -> str:
    sentence = f"{_called(best)} takes {best.latency_ms:.1f} ms of {budget_ms:g} ms (median, model alone)"
    if best.name in accuracies:
        sentence += f" and is the most accurate within the budget ({accuracies[best.name].value:.1%})"
    else:
        sentence += f" and has most clips per second within the budget ({best.throughput_clips_per_s:.1f}); accuracies are unknown"
    sentence += "."
    passed_over = sorted({m.name for m in within} - {m.name for m in candidates})
    if passed_over:
        sentence += f" Passed over, for want of an accuracy: {', '.join(passed_over)}."
    if best.latency_p90_ms > budget_ms:
        sentence += f" One pass in ten takes longer than {best.latency_p90_ms:.1f} ms, which is over the budget."
    return sentence


def _value(accuracies: Mapping[str, Accuracy], measurement) -> float:
    return accuracies[measurement.name].value if measurement.name in accuracies else 0.0


def _called(measurement) -> str:
    return f"{measurement.name} at batch {measurement.batch_size}"
