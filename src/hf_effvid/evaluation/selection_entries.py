"""A study of token selection in the one results format, and its numbers beyond accuracy: leak, spread of value, easy and hard classes."""

from dataclasses import replace

import numpy as np

from .intervals import bootstrap_mean_interval
from .results import Metric, ResultEntry
from .selection_classes import easy_against_hard
from .selection_report import (
    FULL,
    ORACLE_PREDICTED,
    ORACLE_TRUE,
    ORACLE_WRONG,
    OVER_VIDEOS,
    RANDOM,
    ArmResult,
    SelectionReport,
)
from .selection_values import TOP_SHARES, null_gini, null_top_share


TASK = "token-selection"
ALL_TOKENS = "all tokens"
"""Variant of the entry of the full model."""
_PROTOCOL = ("num_frames", "sampling", "num_clips", "num_crops", "draws")
CLASS_RATIO = 0.5
"""Budget at which classes are compared, as in the paper's figure 5."""


def result_entries(report: SelectionReport) -> list[ResultEntry]:
    """One entry per arm and budget, then one each for the oracle's leak, the spread of value, and easy against hard classes."""
    entries = [_arm_entry(report, result) for result in report.results]
    for variant, metrics, notes in (
        ("leak of the oracle's label", leak_metrics(report), ()),
        ("values of tokens", value_metrics(report), (null_note(report),)),
        (f"easy against hard classes, keep {CLASS_RATIO:g}", class_metrics(report), ()),
    ):
        if metrics:
            entries.append(_entry(report, variant, metrics, notes=notes))
    return entries


def variant_name(result: ArmResult) -> str:
    """What an arm at a budget is called in results files."""
    return ALL_TOKENS if result.arm == FULL else f"{result.arm}, keep {result.keep_ratio:g}"


def _arm_entry(report: SelectionReport, result: ArmResult) -> ResultEntry:
    metrics = [report.top1(result), Metric("top5", float(result.top5.mean()), report.n)]
    if result.key in report.against_random:
        metrics.append(report.against_random[result.key])
    notes = []
    if len(result.draws) > 1:
        what = "training seeds" if report.num_models > 1 else "draws"
        notes.append(f"mean over {len(result.draws)} {what}: " + ", ".join(f"{value:.1%}" for value in result.draws))
    if result.kind == "analysis":
        notes.append("the cost leaves out the score, which needs the whole model")
    return _entry(report, variant_name(result), metrics, result.cost, notes)


def _entry(report: SelectionReport, variant: str, metrics, cost=None, notes=()) -> ResultEntry:
    # of a hundred entries each says the same: what a reader of one needs, in few words
    protocol = {name: report.protocol[name] for name in _PROTOCOL if name in report.protocol}
    if "oracle" in report.protocol:
        protocol["oracle"] = "{oracle_tensor}, block {oracle_block}".format(**report.protocol["oracle"])
    return ResultEntry(
        task=TASK,
        model=report.model_name,
        dataset=report.dataset_name,
        split=report.split,
        metrics=tuple(_rounded(metric) for metric in metrics),
        provenance=report.provenance,
        protocol=protocol,
        variant=variant,
        num_failed=report.num_failed,
        notes=tuple(notes),
        **({"cost": cost} if cost is not None else {}),
    )


def _rounded(metric: Metric) -> Metric:
    """Six digits: more than any number of videos supports."""
    interval = tuple(round(end, 6) for end in metric.interval) if metric.interval else None
    return replace(metric, value=round(metric.value, 6), interval=interval)


# ---- leak of the label ---------------------------------------------------------------------------------------------------


def leak_metrics(report: SelectionReport) -> list[Metric]:
    """What knowing the label adds, per budget: accuracy with the true minus with the predicted label, over all videos and over those
    that the full model gets wrong; and how often a wrong label given to the oracle comes out of the model."""
    metrics = []
    wrong = report.full.top1 < 0.5
    for ratio in report.keep_ratios:
        true, predicted, other = (report.get(arm, ratio) for arm in (ORACLE_TRUE, ORACLE_PREDICTED, ORACLE_WRONG))
        if true is not None and predicted is not None:
            metrics.append(report.difference(true, predicted, f"true minus predicted label, keep {ratio:g}"))
            if wrong.any():
                gap = (true.top1 - predicted.top1)[wrong]
                metrics.append(_mean(f"the same where the full model is wrong, keep {ratio:g}", gap))
        if other is not None and other.label_hits is not None:
            metrics.append(Metric(f"says the wrong label it was given, keep {ratio:g}", other.label_hits, report.n))
    return metrics


# ---- spread of value -----------------------------------------------------------------------------------------------------


def value_metrics(report: SelectionReport) -> list[Metric]:
    """Gini index, share of exact zeros, and what the most valuable tokens hold: means over clips."""
    known = [one for one in report.values if not one.is_flat]
    if not known:
        return []
    metrics = [
        _mean("gini", np.array([one.gini for one in known])),
        _mean("share of exact zeros", np.array([one.zero_share for one in report.values])),
    ]
    for place, share in enumerate(TOP_SHARES):
        metrics.append(_mean(f"value in the top {share:.0%} of tokens", np.array([one.top[place] for one in known])))
    return metrics


def null_note(report: SelectionReport) -> str:
    """What chance alone gives, in words: a Gaussian projection cut at 0, and one cut where as many are zero as here."""
    zeros = float(np.mean([one.zero_share for one in report.values])) if report.values else 0.5
    parts = []
    for name, cut in (("of which half are zero", 0.5), (f"of which {zeros:.0%} are zero", zeros)):
        if not 0 < cut < 1:
            continue
        held = ", ".join(f"{null_top_share(share, cut):.2f} in the top {share:.0%}" for share in TOP_SHARES)
        parts.append(f"Gaussian values {name}: Gini {null_gini(cut):.2f}, {held}")
    return "null: " + "; ".join(dict.fromkeys(parts))


# ---- easy and hard classes -----------------------------------------------------------------------------------------------


def class_metrics(report: SelectionReport) -> list[Metric]:
    """Easy minus hard classes: what random tokens cost at `CLASS_RATIO`, and how unevenly value is spread."""
    metrics = []
    full = report.full.top1
    drawn = report.get(RANDOM, CLASS_RATIO)
    if drawn is not None:
        metrics.append(
            easy_against_hard(report.labels, full, full - drawn.top1, f"loss with random tokens, keep {CLASS_RATIO:g}")
        )
    if report.values:
        # several training seeds follow each other, each with all videos
        gini = np.array([one.gini for one in report.values]).reshape(-1, report.n).mean(0)
        held = np.array([one.top[TOP_SHARES.index(0.1)] for one in report.values]).reshape(-1, report.n).mean(0)
        metrics.append(easy_against_hard(report.labels, full, gini, "gini"))
        metrics.append(easy_against_hard(report.labels, full, held, "value in the top 10% of tokens"))
    return [metric for metric in metrics if metric is not None]


def _mean(name: str, values: np.ndarray) -> Metric:
    return Metric(name, float(values.mean()), len(values), bootstrap_mean_interval(values), OVER_VIDEOS)
