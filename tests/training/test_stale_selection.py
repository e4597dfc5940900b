"""Training a host on says that what chose its tokens is out of date."""

import pytest

from hf_effvid.models.token_budget import BudgetPolicy
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.classification import prepare_model

from .test_random_budget import tiny_lite, tiny_model


@pytest.fixture
def said(caplog):
    return lambda: [one.getMessage() for one in caplog.records if one.name == "hf_effvid.training.stale_selection"]


def prepared(model, tmp_path, **options):
    return prepare_model(model, EffVidTrainingArguments(output_dir=str(tmp_path), report_to="none", **options))


def test_a_trained_selector_is_out_of_date(said, tmp_path):
    prepared(tiny_lite(selector_trained=True), tmp_path)
    (message,) = said()
    assert "effvid select train" in message and "calibrate" not in message


def test_so_are_thresholds_also_under_random_budgets_and_lora(said, tmp_path):
    model = tiny_lite(selector_trained=True, keep_ratio=0.5)
    model.set_budget_policy(BudgetPolicy(low=0.1, high=0.6, gauge="cascade"))
    prepared(model, tmp_path, random_keep_ratios=[0.5, 1.0], lora_r=2)
    (message,) = said()
    assert "effvid select train" in message and "effvid select calibrate" in message


def test_a_host_that_brings_neither_is_trained_in_silence(said, tmp_path):
    prepared(tiny_lite(), tmp_path)
    prepared(tiny_model(), tmp_path)
    assert said() == []
