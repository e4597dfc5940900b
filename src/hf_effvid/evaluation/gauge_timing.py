"""What a gauge of LITE++ takes, and what it saves: milliseconds, with everything timed in turns on the same clips.

Multiply-accumulates flatter a small gauge: many small operations take longer than their count says. So the clock decides.
"""

import statistics
from dataclasses import asdict, dataclass

import torch

from ..models.budget_gauges import confidence_of
from ..models.token_budget import BudgetPolicy
from .benchmark_execution import make_timer
from .benchmark_timing import paired_ratio, time_interleaved, warm_up
from .opening import evaluation_mode
from .results import Metric


@dataclass(frozen=True)
class GaugeTiming:
    """Milliseconds per clip, medians over rounds.

    Attributes:
        gauge_ms: of the gauge alone; None for a cascade, which is the model itself.
        base_ms: of the model with the base budget for all clips.
        mixed_ms: of the model with the budgets that the gauge chose, the gauge not included.
        policy_ms: of gauge and model together, as they run.
        speedup: base_ms / policy_ms, the median of ratios round by round; above 1 the policy saves time.
        interval: around it.
        method: how the interval came about.
        easy_share: share of the timed clips on the small budget.
        batch_size, rounds: clips per forward pass, and rounds.
        clock: `wall` or `processor`.
        threads: of torch.
        device: where.
    """

    gauge_ms: float | None
    base_ms: float
    mixed_ms: float
    policy_ms: float
    speedup: float
    interval: tuple[float, float]
    method: str
    easy_share: float
    batch_size: int
    rounds: int
    clock: str
    threads: int
    device: str

    @property
    def net_saving_ms(self) -> float:
        """What the policy saves per clip, the gauge paid; below 0 it costs."""
        return self.base_ms - self.policy_ms

    def to_dict(self):
        return asdict(self) | {"net_saving_ms": self.net_saving_ms}

    def summary(self) -> str:
        """Two lines for people."""
        low, high = self.interval
        gauge = "" if self.gauge_ms is None else f"the gauge takes {self.gauge_ms:.3g} ms per clip, "
        verdict = (
            "the policy saves time"
            if low > 1
            else "the policy costs more time than it saves"
            if high < 1
            else "no saving to be seen"
        )
        return (
            f"{gauge}the model {self.base_ms:.3g} ms at the base budget and {self.mixed_ms:.3g} ms at the mean one: net "
            f"{self.net_saving_ms:+.3g} ms saved (batch {self.batch_size}, {self.threads} threads, {self.clock} time)\n"
            f"base / policy {self.speedup:.3f} [{low:.3f}, {high:.3f}]: {verdict}"
        )

    def metrics(self) -> tuple[Metric, ...]:
        """For a result entry."""
        times = {
            "gauge_ms": self.gauge_ms,
            "base_ms": self.base_ms,
            "mixed_ms": self.mixed_ms,
            "policy_ms": self.policy_ms,
        }
        found = [Metric(name, value, self.rounds) for name, value in times.items() if value is not None]
        found.append(
            Metric(
                "time at the base budget / time of the policy", self.speedup, self.rounds, self.interval, self.method
            )
        )
        return tuple(found)


def time_gauge(model, clips, *, batch_size=8, rounds=15, clock="wall") -> GaugeTiming:
    """Times a model with a budget policy on clips.

    Args:
        model: a Lite classifier with a policy, and its gauge at hand.
        clips: (B, T, C, H, W), pixels as the model takes them; real ones, since their confidence decides over their budgets.
        batch_size: clips per forward pass; one turn runs all B.
        rounds: turns of everybody.
        clock: `wall`, or `processor` for a machine that others use too.

    Raises:
        ValueError: the model has no policy.
        GaugeNotAvailableError: its gauge is not at hand.
    """
    if model.config.budget_policy is None:
        raise ValueError("this model has no budget policy: there is no gauge to be timed.")
    device, base, policy = model.device, model.config.keep_ratio, BudgetPolicy(**model.config.budget_policy)
    batches = clips.to(device, model.dtype).split(batch_size)
    timer = make_timer(device, clock)
    with evaluation_mode(model, device), torch.inference_mode():
        ratios = [budgets_of(model, policy, batch) for batch in batches]
        steps = {
            "base": lambda: [model(batch, keep_ratio=base) for batch in batches],
            "mixed": lambda: [model(batch, keep_ratio=one) for batch, one in zip(batches, ratios, strict=True)],
            "policy": lambda: [model(batch) for batch in batches],
        }
        if policy.gauge != "cascade":
            steps["gauge"] = lambda: [model.gauge_confidence(batch) for batch in batches]
        calls = {name: warm_up(step, timer) for name, step in steps.items()}
        times = time_interleaved(steps, timer, rounds, calls)
    per_clip = {
        name: statistics.median(statistics.median(visit) for visit in visits) / len(clips)
        for name, visits in times.items()
    }
    ratio = paired_ratio(times["base"], times["policy"])
    every = [one for part in ratios for one in part]
    return GaugeTiming(
        gauge_ms=per_clip.get("gauge"),
        base_ms=per_clip["base"],
        mixed_ms=per_clip["mixed"],
        policy_ms=per_clip["policy"],
        speedup=ratio.median,
        interval=ratio.interval,
        method=ratio.method,
        easy_share=sum(one != base for one in every) / len(every),
        batch_size=batch_size,
        rounds=rounds,
        clock=clock,
        threads=torch.get_num_threads(),
        device=str(device),
    )


def budgets_of(model, policy, clips):
    """The keep ratio that a policy gives each of some clips, as a list."""
    confidence = model.gauge_confidence(clips)
    if confidence is None:  # a cascade asks the model at the small budget
        confidence = confidence_of(model(clips, keep_ratio=policy.easy_ratio(model.config.keep_ratio)).logits)
    return policy.keep_ratios(confidence, model.config.keep_ratio)
