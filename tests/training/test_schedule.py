"""Learning rates: exact at the ends of warm-up and run, scaled by the batch, and those of timm where that is what is asked for."""

import math

import pytest
import torch
from transformers import TrainerCallback

from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.schedule import learning_rate_at, make_schedule
from tests.training.small_run import build_trainer, weights


RATES = {"peak": 0.1, "minimum": 0.001, "start": 0.002, "warmup_steps": 20, "num_steps": 120}


def rate(step, schedule):
    return learning_rate_at(step, schedule, **RATES)


class RecordRates(TrainerCallback):
    """The learning rate that each optimiser step really used."""

    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def test_cosine_after_the_warm_up():
    assert rate(0, "cosine") == 0.002
    assert rate(10, "cosine") == pytest.approx((0.002 + 0.1) / 2)
    assert rate(20, "cosine") == 0.1
    assert rate(70, "cosine") == pytest.approx((0.1 + 0.001) / 2)
    assert rate(120, "cosine") == rate(500, "cosine") == 0.001
    rates = [rate(step, "cosine") for step in range(20, 121)]
    assert rates == sorted(rates, reverse=True)


def test_cosine_of_timm_is_late_by_a_step_and_drops_where_the_warm_up_ends():
    assert rate(0, "cosine_timm") == rate(1, "cosine_timm") == 0.002
    assert rate(20, "cosine_timm") == pytest.approx(0.002 + 0.098 * 19 / 20)
    after = 0.001 + 0.099 / 2 * (1 + math.cos(math.pi / 6))
    assert rate(21, "cosine_timm") == pytest.approx(after) and (0.1 - after) / 0.099 == pytest.approx(0.067, abs=1e-4)
    assert rate(120, "cosine_timm") > rate(121, "cosine_timm") == 0.001


@pytest.mark.parametrize("warmup", [0, 3, 20])
def test_it_is_timms_scheduler_set_after_each_step(warmup):
    scheduler = pytest.importorskip("timm.scheduler.cosine_lr")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    timm = scheduler.CosineLRScheduler(
        optimizer, t_initial=60, lr_min=0.001, warmup_lr_init=0.002, warmup_t=warmup, cycle_limit=1, t_in_epochs=False
    )
    rates = dict(RATES, warmup_steps=warmup, num_steps=60)
    for step in range(60):
        assert learning_rate_at(step, "cosine_timm", **rates) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-12
        )
        optimizer.step()
        timm.step_update(step)


def run(tmp_path, **fields):
    record = RecordRates()
    options = {"max_steps": 6, "num_train_epochs": 6, "lr_schedule": "cosine", "save_strategy": "no", "optim": "sgd"}
    trainer = build_trainer(tmp_path, callbacks=[record], **options | fields)
    trainer.train()
    return trainer, record.rates


def test_the_rates_of_a_run_are_the_stated_ones(tmp_path):
    fields = {"learning_rate": 0.1, "min_learning_rate": 0.01, "warmup_learning_rate": 0.02, "warmup_epochs": 2}
    trainer, rates = run(
        tmp_path, **fields, lr_batch_size=32, optim_args="momentum=0.9,nesterov=True", weight_decay=1e-4
    )
    scale = 2 / 32  # two clips per step
    wanted = [0.02, 0.06, 0.1, *(0.01 + 0.09 / 2 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3))]
    assert torch.allclose(torch.tensor(rates), scale * torch.tensor(wanted)[:, None].expand(6, 2))
    assert trainer.optimizer.defaults["momentum"] == 0.9 and trainer.optimizer.defaults["nesterov"] is True
    assert sorted(group["weight_decay"] for group in trainer.optimizer.param_groups) == [0.0, 1e-4]


def test_accumulated_batches_count_and_layer_rates_keep_their_proportion(tmp_path):
    fields = {"learning_rate": 0.1, "lr_batch_size": 8, "gradient_accumulation_steps": 2, "layer_decay": 0.5}
    _, rates = run(tmp_path, **fields, lr_schedule="cosine_timm", warmup_steps=2, max_steps=4)
    peaks = sorted({round(group / (0.1 * 4 / 8), 6) for group in rates[2]})
    assert len(peaks) >= 3
    wanted = [learning_rate_at(step, "cosine_timm", 0.05, 0.0, 0.0, 2, 4) for step in range(4)]
    assert [max(groups) for groups in rates] == pytest.approx(wanted)


def test_a_resumed_run_goes_on_with_the_same_rates(tmp_path):
    fields = {
        "learning_rate": 0.01,
        "min_learning_rate": 0.001,
        "warmup_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole, rates = run(tmp_path / "a", **fields)
    record = RecordRates()
    options = {"max_steps": 6, "num_train_epochs": 6, "lr_schedule": "cosine", "optim": "sgd"} | fields
    resumed = build_trainer(tmp_path / "b", callbacks=[record], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert record.rates == rates[3:]
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(resumed).items())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lr_schedule": "linear"}, "lr_schedule must be one of"),
        ({"min_learning_rate": 0.1}, "min_learning_rate belong to"),
        ({"warmup_epochs": -1, "lr_schedule": "cosine"}, "warmup_epochs"),
        ({"learning_rate": 0, "lr_schedule": "cosine"}, "learning_rate above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, fields, said):
    with pytest.raises(ValueError, match=said):
        EffVidTrainingArguments(output_dir=str(tmp_path), **fields)


def test_optimisers_with_groups_of_their_own_cannot_be_scaled(tmp_path):
    trainer = build_trainer(tmp_path, optim="adafactor", lr_batch_size=8)
    trainer.optimizer_cls_and_kwargs = (torch.optim.SGD, {"params": []})
    with pytest.raises(ValueError, match="lr_batch_size"):
        trainer.create_optimizer()


def test_a_run_may_end_before_its_cosine():
    """As detectors are trained end to end: 60 epochs of a cosine over 100, with a warm-up counted in epochs of the run."""
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    args = EffVidTrainingArguments(
        output_dir="unused", use_cpu=True, lr_schedule="cosine", learning_rate=0.1, num_train_epochs=60, warmup_epochs=5, schedule_epochs=100
    )  # fmt: skip
    schedule = make_schedule(optimizer, args, num_steps=600)
    rates = []
    for _ in range(600):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = {"schedule": "cosine", "peak": 0.1, "minimum": 0.0, "start": 0.0, "warmup_steps": 50, "num_steps": 1000}
    assert rates == pytest.approx([learning_rate_at(step, **expected) for step in range(600)])
    assert rates[50] == pytest.approx(0.1) and rates[599] > 0.03
    with pytest.raises(ValueError, match="schedule_epochs belong to lr_schedule"):
        EffVidTrainingArguments(output_dir="unused", use_cpu=True, schedule_epochs=100)
