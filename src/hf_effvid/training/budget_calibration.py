"""`calibrate_budget`: from a Lite classifier and videos to LITE++, a budget per clip.

Thresholds come from held-out videos, never from those that the result is reported on. The probe is fitted on training videos.
"""

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ..compression.budget_calibration import (
    BudgetCosts,
    BudgetThresholds,
    CalibrationError,
    calibrate_thresholds,
    choose_split,
)
from ..compression.token_faithfulness import REPORT_NAME, TokenFaithfulness
from ..data import load_video_dataset
from ..evaluation.adaptive_budget import assess_adaptive_budget
from ..evaluation.gauge_timing import GaugeTiming, time_gauge
from ..evaluation.opening import load_classifier
from ..evaluation.temperature_scaling import TemperatureFit, fit_temperature
from ..models.budget_gauges import confidence_of
from ..models.difficulty_gauge import VideoDifficultyGauge
from ..models.token_budget import BudgetPolicy
from .budget_measuring import ClipReading, as_measurement, budget_costs, gauge_of, measure_clips
from .budget_probe import fit_budget_probe
from .data_splits import training_splits
from .model_setup import save_classifier


# What the costs of the paper's table imply; the paper does not state it.
PUBLISHED_EASY_SHARE = 0.49
CALIBRATION_NAME = "budget_calibration.json"
TIMED_CLIPS = 32


@dataclass
class BudgetCalibration:
    """What a calibration found; the model carries the policy already.

    Attributes:
        model: the Lite classifier, with `config.budget_policy` and, for the probe, `budget_probe` set.
        processor: its processor.
        policy: the `BudgetPolicy`.
        thresholds: how they came about.
        costs: of one view, in GMACs.
        split: the split that they were found on; `train (held out)` for a part of the training split.
        held_out: accuracy on the calibration videos, by `adaptive`, `base` and `easy`. Optimistic: the thresholds were chosen on them.
        gauge_accuracy: share of views whose class the gauge itself named right; None without classes.
        temperature: of a `VideoDifficultyGauge` that has the model's classes, fitted here; None for others.
        timing: what the gauge takes and what it saves, in milliseconds; None where it was not asked for.
        failed: videos that could not be read.
    """

    model: object
    processor: object
    policy: BudgetPolicy
    thresholds: BudgetThresholds
    costs: BudgetCosts
    split: str
    held_out: dict
    gauge_accuracy: float | None = None
    temperature: TemperatureFit | None = None
    timing: GaugeTiming | None = None
    failed: list = field(default_factory=list)

    def to_dict(self):
        """JSON-ready, without the model."""
        return {
            "policy": self.policy.to_dict(),
            "keep_ratio": self.model.config.keep_ratio,
            "thresholds": self.thresholds.to_dict(),
            "gmacs": asdict(self.costs),
            "mean_gmacs": self.costs.mean(self.thresholds.easy_share),
            "split": self.split,
            "held_out_accuracy": self.held_out,
            "gauge_accuracy": self.gauge_accuracy,
            "temperature": self.temperature.to_dict() if self.temperature else None,
            "timing": self.timing.to_dict() if self.timing else None,
            "failed": self.failed,
        }

    def summary(self):
        """A few lines for people."""
        found, costs = self.thresholds, self.costs
        easy = self.policy.easy_ratio(self.model.config.keep_ratio)
        lines = [
            f"easy below {found.low:.4f} and above {found.high:.4f}: {found.easy_share:.0%} of {found.n} held-out views "
            f"({found.hopeless_share:.0%} below, {found.wanted_share:.0%} wanted), gauge {self.policy.gauge}",
            f"keep {easy:g} there and {self.model.config.keep_ratio:g} elsewhere: {costs.mean(found.easy_share):.4g} GMACs per view on "
            f"average instead of {costs.base:.4g}"
            + (f", {costs.gauge:.3g} of them for the gauge" if costs.gauge else ""),
        ]
        if self.temperature is not None:
            fit = self.temperature
            lines.append(
                f"gauge: {fit.accuracy:.0%} of the views right; temperature {fit.temperature:.3g} takes its negative log-likelihood from "
                f"{fit.nll_before:.3f} to {fit.nll_after:.3f} and its calibration error from {fit.ece_before:.3f} to {fit.ece_after:.3f}"
            )
        elif self.policy.gauge == "model" and self.policy.gauge_temperature is not None:
            lines.append(
                f"gauge: its classes are not the model's, so no label says how sure it should be: temperature {self.policy.gauge_temperature:g}"
            )
        if self.timing is not None:
            lines.append(self.timing.summary())
        if costs.mean(found.easy_share) >= costs.base:
            lines.append(
                "this costs no less than the base budget for all views: ask for a larger share, or use another gauge"
            )
        return "\n".join(lines)

    def save(self, folder):
        """Writes a Hub folder of the model, and beside it the calibration and what is known of the selector's oracle, as JSON."""
        save_classifier(self.model, self.processor, str(folder))
        source = self.model.name_or_path
        if source and (Path(source) / REPORT_NAME).is_file():
            TokenFaithfulness.load(source).save(folder)
        path = Path(folder) / CALIBRATION_NAME
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def calibrate_budget(
    model,
    data,
    *,
    gauge="probe",
    share=None,
    mean_gmacs=None,
    keep_ratio=None,
    easy_keep_ratio=None,
    hopeless_share=None,
    split=None,
    force=False,
    processor=None,
    reading=None,
    probe_pooling="mean_std",
    max_probe_videos=None,
    time_rounds=0,
    time_clock="wall",
    validation_share=0.2,
    seed=42,
    trust_remote_code=False,
    **load_kwargs,
) -> BudgetCalibration:
    """Gives a Lite classifier a budget per clip.

    Args:
        model: a Lite classifier, or a folder or Hub id of one.
        data: anything `load_video_dataset` takes.
        gauge: `"probe"` (a linear classifier on patch embeddings, fitted here on the training split), `"cascade"` (the host at the small
            budget), or another classifier: a folder or Hub id, a `VideoDifficultyGauge`, or any callable that gives the confidence (B,)
            of clips (B, T, C, H, W). A `VideoDifficultyGauge` that has the model's classes (in any order) gets its temperature here.
        share: wanted share of views on the small budget; default .49, what the paper's costs imply.
        mean_gmacs: wanted mean cost of a view instead, the gauge's included.
        keep_ratio: the base budget; default: the model's. It becomes the model's.
        easy_keep_ratio: the small budget; default: what the paper pairs with the base budget.
        hopeless_share: share of views that are easy because the gauge is least sure of them. Default: what gets most held-out videos right.
        split: where the thresholds come from; default: `validation`, or else a part of `train` that is held out as `train_classifier` does
            it with this `seed` and `validation_share`, so that the host did not train on it either.
        force: allow `split="test"`.
        processor, trust_remote_code: as in `evaluate_classifier`.
        reading: a `ClipReading`.
        probe_pooling: see `pool_embeddings`.
        max_probe_videos: fit the probe on the first so many training videos.
        time_rounds: also time the gauge against what it saves, in so many rounds (15 take some seconds for small models).
        time_clock: `wall`, or `processor`, see `time_gauge`.
        validation_share, seed: see `split`.
        load_kwargs: passed to `load_video_dataset`.

    Raises:
        CalibrationError: no such split, the test split without `force`, a share or a cost that cannot be reached, a model without token
            selection, or several labels per video.
        GaugeNotAvailableError: the classifier that is to be the gauge does not open.
    """
    if share is not None and mean_gmacs is not None:
        raise CalibrationError("give share or mean_gmacs, not both: one follows from the other.")
    reading = reading or ClipReading()
    model, processor = open_lite_classifier(model, processor, trust_remote_code)
    rows, train, name = _calibration_rows(data, split, force, validation_share, seed, load_kwargs)
    base = model.config.keep_ratio if keep_ratio is None else keep_ratio
    gauge = open_gauge(gauge, processor, trust_remote_code, reading.device or model.device)
    kind = gauge if isinstance(gauge, str) else "model"
    draft = BudgetPolicy(0.0, 1.0, easy_keep_ratio, kind, probe_pooling)
    easy = draft.easy_ratio(base)
    probe = None
    if kind == "probe":
        probe = _fit_probe(model, train, processor, probe_pooling, replace(reading, max_videos=max_probe_videos))
    answers = measure_clips(
        model,
        rows,
        processor,
        reading,
        keep_ratios=(easy, base),
        gauge=gauge_of(model, gauge, probe, easy),
        num_examples=TIMED_CLIPS if time_rounds else 0,
        description="calibrating",
    )
    gauge, temperature = _at_its_temperature(gauge, answers)
    model.config.keep_ratio = base
    own = gauge if kind == "model" else None
    model.set_budget_policy(draft, probe=probe, gauge=own)
    costs = budget_costs(model, answers.views_shape, draft)
    wanted = PUBLISHED_EASY_SHARE if share is None else share
    if mean_gmacs is not None:
        wanted = costs.share_for(mean_gmacs)
    right = [(answers.logits[budget].argmax(-1) == answers.labels[:, None]).ravel() for budget in (easy, base)]
    thresholds = calibrate_thresholds(answers.confidence.ravel(), wanted, hopeless_share, *right)
    model.set_budget_policy(replace(draft, low=thresholds.low, high=thresholds.high, easy_keep_ratio=easy), probe, own)
    policy = BudgetPolicy(**model.config.budget_policy)
    timing = time_gauge(model, answers.examples, rounds=time_rounds, clock=time_clock) if time_rounds else None
    return BudgetCalibration(
        model=model,
        processor=processor,
        policy=policy,
        thresholds=thresholds,
        costs=costs,
        split=name,
        held_out=assess_adaptive_budget(as_measurement(model, answers, policy, costs), num_draws=1).accuracy,
        gauge_accuracy=None if answers.gauge_correct is None else float(answers.gauge_correct.mean()),
        temperature=temperature,
        timing=timing,
        failed=answers.failed,
    )


def open_gauge(gauge, processor, trust_remote_code, device):
    """A gauge, with what it has to know of the model's clips.

    Args:
        gauge: as in `calibrate_budget`.
        processor: the model's.
        trust_remote_code: run code that comes with the gauge's checkpoint.
        device: where a gauge that is opened here runs.
    """
    host = getattr(processor, "processor", processor)  # the stock processor behind its adapter
    if gauge in ("probe", "cascade"):
        return gauge
    if isinstance(gauge, (str, os.PathLike)):
        opened = VideoDifficultyGauge.from_pretrained(gauge, host, trust_remote_code=trust_remote_code)
        return opened.to(device)
    return gauge.for_host(host) if hasattr(gauge, "for_host") else gauge


def _at_its_temperature(gauge, answers):
    """The gauge at the temperature that its answers ask for, and the `TemperatureFit`; (gauge, None) where labels cannot say it.

    The confidences of the answers become those at that temperature.
    """
    if not hasattr(gauge, "with_temperature") or answers.gauge_logits is None:
        return gauge, None
    logits, views = answers.gauge_logits, answers.gauge_logits.shape[1]
    found = fit_temperature(logits.reshape(-1, logits.shape[-1]), answers.labels.repeat(views))
    answers.confidence = confidence_of(torch.from_numpy(logits), found.temperature).numpy()
    return gauge.with_temperature(found.temperature), found


def _fit_probe(model, train, processor, pooling, reading):
    """One view of every training video through the patch embedding, and a probe fitted on what comes out."""
    if train is None:
        raise CalibrationError("the probe is fitted on the training split, and there is none: choose another gauge.")
    reading = replace(reading, multi_view=False)
    seen = measure_clips(model, train, processor, reading, pooling=pooling, description="fitting the probe")
    probe = fit_budget_probe(seen.features, seen.labels, model.config.num_labels, pooling)
    return probe.to(model.device, model.dtype)


def open_lite_classifier(model, processor, trust_remote_code):
    """A classifier with token selection, and its processor.

    Raises:
        CalibrationError: it has no token selection, or several labels per video.
    """
    model, processor = load_classifier(model, processor, trust_remote_code)
    if not hasattr(model, "set_budget_policy"):
        raise CalibrationError(
            f"budgets per clip need a model with token selection, got {type(model).__name__}: open the checkpoint with one of the Lite "
            "classes, or turn it into one with select_tokens."
        )
    if model.config.problem_type == "multi_label_classification":
        raise CalibrationError(
            "a confidence is the largest of probabilities that exclude each other; this model has several labels."
        )
    return model, processor


def _calibration_rows(data, split, force, validation_share, seed, load_kwargs):
    """Rows to calibrate on, rows to fit a probe on (None where there are none), and what the former are called."""
    splits = load_video_dataset(data, **load_kwargs)
    if not isinstance(splits, dict):
        splits = {"train": splits}
    name = choose_split(splits, split, force)
    if name is not None:
        return splits[name], splits.get("train"), name
    parts = training_splits(splits, validation_share, seed)
    if parts.validation is None:
        raise CalibrationError("no video can be held out of the training split: add a validation split.")
    return parts.validation, parts.train, "train (held out)"
