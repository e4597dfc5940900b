"""What calibration and evaluation of LITE++ measure: the answers of a Lite model at several budgets and its gauge, on the same clips."""

import copy
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ..compression.budget_calibration import BudgetCosts
from ..evaluation.adaptive_budget import BudgetMeasurement
from ..evaluation.classification import NothingEvaluatedError
from ..evaluation.clips import RowLoader, load_videos
from ..evaluation.labels import LabelMap
from ..evaluation.macs import count_macs
from ..evaluation.opening import evaluation_mode, open_rows
from ..models.budget_gauges import confidence_of, pool_embeddings
from ..models.token_budget import BudgetPolicy


@dataclass(frozen=True)
class ClipReading:
    """How the videos of a split are read and run; the names are those of `evaluate_classifier`.

    Attributes:
        multi_view: all views of the recipe instead of one per video.
        batch_size: views per forward pass.
        max_videos: look at the first so many videos only.
        num_workers: worker processes that decode.
        device: torch device; None: where the model is.
        progress: show a progress bar.
    """

    multi_view: bool = False
    batch_size: int = 8
    max_videos: int | None = None
    num_workers: int = 0
    device: str | torch.device | None = None
    progress: bool = True


@dataclass
class ClipAnswers:
    """Of n videos with V views each.

    Attributes:
        labels: (n,) class numbers of the model.
        sources: n paths.
        logits: keep ratio -> (n, V, K).
        realised: keep ratio -> share of tokens that was really kept, k / N.
        confidence: (n, V) of the gauge; None where none was asked.
        features: (n * V, F) pooled embeddings; None where they were not wanted.
        gauge_logits: (n, V, K) of the gauge in the model's numbering, None for a gauge without its classes.
        views_shape: (V, T, C, H, W).
        examples: (k, T, C, H, W), single views of videos all over the split; None where none were wanted.
        failed: sources of the videos that could not be read, with the reason.
    """

    labels: np.ndarray
    sources: list
    logits: dict
    realised: dict
    confidence: np.ndarray | None
    features: torch.Tensor | None
    gauge_logits: np.ndarray | None
    views_shape: tuple
    examples: torch.Tensor | None = None
    failed: list = field(default_factory=list)

    @property
    def gauge_correct(self):
        """(n, V) bools, None for a gauge without classes of this model."""
        return None if self.gauge_logits is None else self.gauge_logits.argmax(-1) == self.labels[:, None]


def measure_clips(
    model,
    rows,
    processor,
    reading,
    *,
    keep_ratios=(),
    gauge=None,
    pooling=None,
    num_examples=0,
    description="measuring",
) -> ClipAnswers:
    """Runs a Lite model on every view of every video, decoded once.

    Args:
        model: a Lite classifier.
        rows: videos with labels, a split as `load_video_dataset` gives it.
        processor: with a recipe.
        reading: a `ClipReading`.
        keep_ratios: budgets to answer at.
        gauge: `clips (B, T, C, H, W) -> (confidence (B,), logits (B, K) in the model's numbering or None)`.
        pooling: also collect embeddings pooled like this.
        num_examples: also keep so many clips.
        description: of the progress bar.

    Raises:
        NothingEvaluatedError: not one video could be read.
        LabelMismatchError: the labels do not fit the model.
    """
    rows, class_names = open_rows(rows, "video", "label")
    to_class = LabelMap(model.config.id2label, class_names)
    device = torch.device(reading.device) if reading.device is not None else model.device
    loader = RowLoader(processor, {"multi_view": reading.multi_view}, "video", "label")
    total = min(len(rows), reading.max_videos or len(rows)) if hasattr(rows, "__len__") else reading.max_videos
    videos = load_videos(rows, loader, skip=set(), max_videos=reading.max_videos, num_workers=reading.num_workers)
    labels, sources, failed, columns, realised, shape, examples = [], [], [], defaultdict(list), {}, None, []
    apart = max(1, (total or num_examples) // num_examples) if num_examples else 0
    with evaluation_mode(model, device), torch.inference_mode():
        for video in tqdm(videos, total=total, desc=description, disable=not reading.progress):
            if video.error is not None:
                failed.append({"source": video.source, "error": str(video.error)})
                continue
            shape = tuple(video.pixel_values.shape)
            if len(examples) < num_examples and len(labels) % apart == 0:
                examples.append(video.pixel_values[0])
            labels.append(int(to_class(video.label)))
            sources.append(video.source)
            for clips in video.pixel_values.split(reading.batch_size):
                clips = clips.to(device=device, dtype=model.dtype)
                for ratio in keep_ratios:
                    output = model(pixel_values=clips, keep_ratio=ratio)
                    columns[ratio].append(output.logits.float().cpu())
                    realised[ratio] = float(output.realised_keep_ratio[0])
                if pooling is not None:
                    columns["features"].append(pool_embeddings(model.embed_patches(clips), pooling).cpu())
                if gauge is not None:
                    confidence, logits = gauge(clips)
                    columns["confidence"].append(confidence.float().cpu())
                    columns["gauge_logits"] += [] if logits is None else [logits.float().cpu()]
    if shape is None:
        first = failed[0]["error"] if failed else "the split is empty"
        raise NothingEvaluatedError(f"not one video could be read; the first error: {first}")
    labels = np.asarray(labels)

    def stacked(name):
        return torch.cat(columns[name]).unflatten(0, (len(labels), shape[0])).numpy() if columns.get(name) else None

    return ClipAnswers(
        labels=labels,
        sources=sources,
        logits={ratio: stacked(ratio) for ratio in keep_ratios},
        realised=realised,
        confidence=stacked("confidence"),
        features=torch.cat(columns["features"]) if "features" in columns else None,
        gauge_logits=stacked("gauge_logits"),
        views_shape=shape,
        examples=torch.stack(examples) if examples else None,
        failed=failed,
    )


def gauge_of(model, gauge, probe=None, easy_keep_ratio=None):
    """A gauge as `measure_clips` asks it.

    Args:
        model: the Lite classifier.
        gauge: "probe", "cascade", a `VideoDifficultyGauge`, or another callable that gives the confidence (B,) of clips.
        probe: for "probe".
        easy_keep_ratio: for "cascade".
    """
    order = class_order(gauge, model.config) if hasattr(gauge, "logits") else None

    def ask(clips):
        if gauge == "probe":
            logits = probe(model.embed_patches(clips))
        elif gauge == "cascade":
            logits = model(pixel_values=clips, keep_ratio=easy_keep_ratio).logits
        elif not hasattr(gauge, "logits"):
            return torch.as_tensor(gauge(clips)), None
        else:
            logits = gauge.logits(clips)
            return confidence_of(logits, gauge.temperature), None if order is None else logits[:, order]
        return confidence_of(logits), logits

    return ask


def class_order(gauge, config):
    """Where a gauge has the model's classes: a list of K numbers, None where its classes are others.

    Args:
        gauge: a `VideoDifficultyGauge`.
        config: the model's configuration.
    """
    mine, other = (
        [str(names.get(index, names.get(str(index)))) for index in range(len(names))]
        for names in (config.id2label, gauge.model.config.id2label)
    )
    return (
        [other.index(name) for name in mine] if sorted(mine) == sorted(other) and len(set(mine)) == len(mine) else None
    )


def as_measurement(model, answers, policy, costs, **fixed) -> BudgetMeasurement:
    """The answers at both budgets, mixed as a policy says.

    Args:
        model: the Lite classifier.
        answers: `ClipAnswers` at the small and at the base budget, with the confidence of the gauge.
        policy: the `BudgetPolicy`.
        costs: the `BudgetCosts` of a view.
        fixed: what `BudgetMeasurement` takes of the fixed keep ratio.
    """
    easy, base = policy.easy_ratio(model.config.keep_ratio), model.config.keep_ratio
    return BudgetMeasurement(
        labels=answers.labels,
        confidence=answers.confidence,
        is_easy=policy.is_easy(answers.confidence).numpy(),
        easy_logits=answers.logits[easy],
        base_logits=answers.logits[base],
        easy_keep_ratio=answers.realised[easy],
        base_keep_ratio=answers.realised[base],
        easy_gmacs=costs.easy,
        base_gmacs=costs.base,
        gauge_gmacs=costs.gauge,
        cascade=costs.cascade,
        gauge_correct=answers.gauge_correct,
        **fixed,
    )


# ---- cost -------------------------------------------------------------------------------------------------------------


def gmacs_at(model, views_shape, keep_ratio):
    """Multiply-accumulates of one view at a keep ratio, in 1e9."""
    return _count(model, views_shape, keep_ratio, None)


def budget_costs(model, views_shape, policy) -> BudgetCosts:
    """What a view costs under a policy, counted."""
    base = model.config.keep_ratio
    return BudgetCosts(
        base=gmacs_at(model, views_shape, base),
        easy=gmacs_at(model, views_shape, policy.easy_ratio(base)),
        gauge=gauge_gmacs(model, views_shape, policy, base),
        cascade=policy.gauge == "cascade",
    )


def gauge_gmacs(model, views_shape, policy: BudgetPolicy, keep_ratio):
    """What a gauge adds to every view, in 1e9: an easy view of the policy minus a view at that budget without one.

    A cascade adds nothing to easy views, whose answer it is; others cost both passes.
    """
    every_clip_easy = BudgetPolicy(**policy.to_dict() | {"low": 1.0, "high": 1.0, "bucket_multiple": 1})
    with_gauge = _count(model, views_shape, keep_ratio, every_clip_easy)
    return max(with_gauge - gmacs_at(model, views_shape, policy.easy_ratio(keep_ratio)), 0.0)


def keep_ratio_of_cost(model, views_shape, gmacs):
    """The keep ratio, to 1/1000, whose cost is about `gmacs`, and what it really costs.

    The cost of a transformer is a polynomial of degree 2 in the number of tokens: three counts give it.
    """
    ratios = (0.2, 0.6, 1.0)
    square, linear, constant = np.polyfit(ratios, [gmacs_at(model, views_shape, ratio) for ratio in ratios], 2)
    # of the two roots the one on the rising branch; real and above 0 where the cost is one that the model can have
    ratio = max(np.roots([square, linear, constant - gmacs]).real)
    ratio = round(float(np.clip(ratio, 0.001, 1.0)), 3)
    return ratio, gmacs_at(model, views_shape, ratio)


class _AtOneBudget(nn.Module):
    """A model as the counter calls it: pixels in, the budget fixed."""

    def __init__(self, model, keep_ratio):
        super().__init__()
        self.model, self.keep_ratio = model, keep_ratio

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values, keep_ratio=self.keep_ratio)


def _count(model, views_shape, keep_ratio, policy):
    pixels = torch.zeros(1, *views_shape[1:], dtype=model.dtype)
    config = model.config
    kept = copy.deepcopy((config.budget_policy, config.keep_ratio))
    try:
        config.budget_policy, config.keep_ratio = policy.to_dict() if policy else None, keep_ratio
        return count_macs(_AtOneBudget(model, None if policy else keep_ratio), {"pixel_values": pixels}).gmacs
    finally:
        config.budget_policy, config.keep_ratio = kept
