"""What a gauge takes and what it saves: everything in turns, and a verdict that follows the clock."""

import time

import pytest
import torch

from hf_effvid.evaluation.gauge_timing import GaugeTiming, time_gauge
from hf_effvid.models.token_budget import BudgetPolicy
from tests.models.test_adaptive_lite_videomae import tiny_model


class SlowGauge:
    """As sure as told, after some milliseconds per clip."""

    def __init__(self, milliseconds):
        self.milliseconds, self.calls = milliseconds, 0

    def __call__(self, clips):
        self.calls += 1
        time.sleep(self.milliseconds * len(clips) / 1e3)
        return torch.linspace(0.2, 0.9, len(clips))


def clips(count=6):
    return torch.randn(count, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_gauge_that_costs_more_than_it_saves():
    model, gauge = tiny_model(), SlowGauge(15)
    model.set_budget_policy(BudgetPolicy(0.0, 0.5, gauge="model"), gauge=gauge)
    found = time_gauge(model, clips(), batch_size=4, rounds=6)
    assert found.gauge_ms >= 15 and found.policy_ms > found.base_ms
    assert found.speedup < 1 and found.net_saving_ms < 0
    assert (found.easy_share, found.batch_size, found.rounds) == (0.5, 4, 6)
    assert found.to_dict()["net_saving_ms"] == found.net_saving_ms
    names = [metric.name for metric in found.metrics()]
    assert names == ["gauge_ms", "base_ms", "mixed_ms", "policy_ms", "time at the base budget / time of the policy"]


def test_a_gauge_that_is_free_saves_what_the_tokens_save():
    model = tiny_model()
    # the host waits per token: the small budget is four times as quick
    encode = model.videomae.encoder.forward

    def waiting(hidden_states, **kwargs):
        time.sleep(hidden_states.shape[0] * hidden_states.shape[1] * 5e-4)
        return encode(hidden_states, **kwargs)

    model.videomae.encoder.forward = waiting
    model.config.keep_ratio = 1.0
    policy = BudgetPolicy(0.0, 0.3, easy_keep_ratio=0.25, gauge="model")
    model.set_budget_policy(policy, gauge=SlowGauge(0.0))
    found = time_gauge(model, clips(), batch_size=6, rounds=5)
    assert found.easy_share == pytest.approx(5 / 6)
    assert found.speedup > 1.3 and found.net_saving_ms > 0


def test_a_cascade_is_its_own_gauge():
    model = tiny_model()
    model.set_budget_policy(BudgetPolicy(0.0, 1.0, gauge="cascade"))
    found = time_gauge(model, clips(3), rounds=2, clock="processor")
    assert found.gauge_ms is None and found.easy_share == 0 and found.clock == "processor"
    assert found.policy_ms > found.mixed_ms
    model.set_budget_policy(None)
    with pytest.raises(ValueError, match="no budget policy"):
        time_gauge(model, clips(3))


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.1, 1.3), "the policy saves time"),
        ((0.7, 0.9), "costs more time than it saves"),
        ((0.9, 1.2), "no saving to be seen"),
    ],
)
def test_the_verdict_follows_the_interval(interval, verdict):
    found = GaugeTiming(2.0, 10.0, 7.0, 9.0, 1.0, interval, "stated", 0.5, 8, 7, "wall", 1, "cpu")
    assert verdict in found.summary() and "net +1 ms saved" in found.summary()
