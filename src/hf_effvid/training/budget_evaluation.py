"""`evaluate_budget`: what LITE++ brings on a data set, against a fixed keep ratio of equal cost and against chance."""

import numpy as np

from ..compression.budget_calibration import CalibrationError, choose_split
from ..data import load_video_dataset
from ..evaluation.adaptive_budget import AdaptiveBudgetReport, assess_adaptive_budget
from ..evaluation.opening import model_name
from ..evaluation.protocol import describe_protocol
from ..evaluation.provenance import current_provenance
from ..evaluation.temperature_scaling import expected_calibration_error, log_probabilities
from ..models.token_budget import BudgetPolicy
from .budget_calibration import open_gauge, open_lite_classifier
from .budget_measuring import (
    ClipReading,
    as_measurement,
    budget_costs,
    gauge_of,
    keep_ratio_of_cost,
    measure_clips,
)


def evaluate_budget(
    model,
    data,
    *,
    split="test",
    gauge=None,
    processor=None,
    reading=None,
    compare_fixed=True,
    num_draws=20,
    seed=0,
    command=None,
    trust_remote_code=False,
    **load_kwargs,
) -> tuple[AdaptiveBudgetReport, list]:
    """A calibrated model against the base and the small budget, the fixed keep ratio of equal cost, and budgets dealt at random.

    Args:
        model: a Lite classifier with a budget policy, or a folder or Hub id of one.
        data: anything `load_video_dataset` takes.
        split: the split to report on.
        gauge: the user's classifier as in `calibrate_budget`, where the policy asks one.
        processor, command, trust_remote_code: as in `evaluate_classifier`.
        reading: a `ClipReading`.
        compare_fixed: also measure the fixed keep ratio of equal mean cost, one more pass over the videos.
        num_draws, seed: see `assess_adaptive_budget`.
        load_kwargs: passed to `load_video_dataset`.

    Returns:
        the report, and its entries in the one results format.

    Raises:
        CalibrationError: the model has no budget policy or no token selection, or there is no such split.
    """
    reading = reading or ClipReading()
    model, processor = open_lite_classifier(model, processor, trust_remote_code)
    if model.config.budget_policy is None:
        raise CalibrationError("this model has no budget policy: calibrate it first (calibrate_budget).")
    policy, base = BudgetPolicy(**model.config.budget_policy), model.config.keep_ratio
    easy = policy.easy_ratio(base)
    if gauge is not None:
        model.set_budget_policy(
            policy, gauge=open_gauge(gauge, processor, trust_remote_code, reading.device or model.device)
        )
    elif policy.gauge == "model" and policy.gauge_model is not None and model._budget_gauge is None:
        model.load_budget_gauge(trust_remote_code=trust_remote_code)
    splits = load_video_dataset(data, **load_kwargs)
    splits = splits if isinstance(splits, dict) else {split: splits}
    rows = splits[choose_split(splits, split, force=True)]
    asked = policy.gauge
    if asked == "model":
        asked = model.gauge_confidence if model._budget_gauge is None else model._budget_gauge
    ask = gauge_of(model, asked, model.budget_probe, easy)
    answers = measure_clips(
        model, rows, processor, reading, keep_ratios=(easy, base), gauge=ask, description="evaluating"
    )
    costs = budget_costs(model, answers.views_shape, policy)
    measured = as_measurement(model, answers, policy, costs)
    if compare_fixed:
        ratio, gmacs = keep_ratio_of_cost(model, answers.views_shape, measured.mean_gmacs)
        again = measure_clips(
            model, rows, processor, reading, keep_ratios=(ratio,), description=f"keep ratio {ratio:g}"
        )
        fixed = {"fixed_logits": again.logits[ratio], "fixed_keep_ratio": ratio, "fixed_gmacs": gmacs}
        measured = as_measurement(model, answers, policy, costs, **fixed)
    report = assess_adaptive_budget(measured, num_draws=num_draws, seed=seed)
    if answers.gauge_logits is not None and policy.gauge_temperature is not None:
        untempered = np.exp(log_probabilities(answers.gauge_logits)).max(-1)
        report.calibration_error_before = expected_calibration_error(untempered.ravel(), answers.gauge_correct.ravel())
    dataset = getattr(getattr(rows, "info", None), "dataset_name", None) or "unnamed"
    protocol = describe_protocol(processor, reading.multi_view)
    protocol |= {"budget_policy": policy.to_dict(), "keep_ratio": base}
    provenance = current_provenance(
        command, seed=seed, dtype=str(model.dtype).removeprefix("torch."), device=model.device
    )
    setting = f"{policy.gauge}, keep {easy:g} or {base:g}"
    return report, report.result_entries(model_name(model), dataset, split, provenance, protocol, setting)
