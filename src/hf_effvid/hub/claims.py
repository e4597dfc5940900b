"""What a checkpoint claims about its accuracy: from its results, or from its card alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import ModelCardData

from ..evaluation.results import Metric, ResultEntry, wilson_interval
from .card_check import card_rows, split_card
from .card_info import CardError
from .escaping import escape_markdown
from .result_table import metric_label


# one number says whether a checkpoint is the one that was measured: top-1, mAP where videos have several labels, average mAP of detectors
CHECKED_METRICS = ("top1", "mAP", "average_mAP")


@dataclass(frozen=True)
class Claim:
    """One claimed accuracy.

    Attributes:
        dataset, split: what it was measured on.
        metric: `"top1"`, `"mAP"` or `"average_mAP"`.
        value: a fraction in [0, 1].
        n: number of videos, None where the claim does not say.
        interval: `(low, high)` around the value, None where there is none.
        num_clips, num_crops: the views it was measured with, None where the claim does not say.
        tious: the overlaps of an average mAP, None where the claim does not say.
    """

    dataset: str
    split: str | None
    metric: str
    value: float
    n: int | None = None
    interval: tuple[float, float] | None = None
    num_clips: int | None = None
    num_crops: int | None = None
    tious: tuple[float, ...] | None = None

    def __str__(self):
        return f"{metric_label(self.metric)} {self.value:.1%} on {self.dataset!r} ({self.split or 'no split named'})"


def claims_of_results(results: Sequence[ResultEntry]) -> list[Claim]:
    """Our own plain measurements; quoted numbers and runs that differ from the plain one are not the checkpoint's claim."""
    return [
        Claim(
            dataset=entry.dataset,
            split=entry.split,
            metric=metric.name,
            value=metric.value,
            n=metric.n,
            interval=_interval(metric),
            num_clips=entry.protocol.get("num_clips"),
            num_crops=entry.protocol.get("num_crops"),
            tious=tuple(entry.protocol["tious"]) if "tious" in entry.protocol else None,
        )
        for entry in results
        if not entry.quoted and not entry.variant
        for metric in entry.metrics
        if metric.name in CHECKED_METRICS
    ]


def claims_of_card(text: str) -> list[Claim]:
    """The claims in a card's front matter (`model-index`), completed with n, interval and views from its result table.

    A card that has no front matter, or one the Hub refuses, claims nothing: `card_problems` reports it.
    """
    try:
        data, body = split_card(text)
        claimed = ModelCardData(**data).eval_results or []
    except (CardError, ValueError, TypeError):
        return []
    names = {metric_label(metric): metric for metric in CHECKED_METRICS}
    rows = card_rows(body)
    return [
        Claim(
            dataset=claim.dataset_name,
            split=claim.dataset_split,
            metric=names[claim.metric_name],
            value=float(claim.metric_value),
            tious=_tious_beside(claim, claimed),
            **_row_facts(rows, claim.dataset_name, claim.dataset_split, claim.metric_name),
        )
        for claim in claimed
        if claim.metric_name in names
    ]


def find_claim(claims: Sequence[Claim], dataset_name: str | None = None, split: str | None = None) -> Claim:
    """The one claim that a measurement can be held against.

    Args:
        claims: what the checkpoint claims; at least one.
        dataset_name, split: what is measured on; None leaves it open.

    Raises:
        LookupError: no claim fits, or several do; names what is claimed.
    """
    fitting = [
        claim
        for claim in claims
        if (split is None or claim.split in (None, split)) and (dataset_name is None or claim.dataset == dataset_name)
    ]
    if len(fitting) == 1:
        return fitting[0]
    wanted = repr(dataset_name) if dataset_name is not None else "these videos"
    wanted += f", split {split!r}" if split is not None else ""
    found = "; ".join(map(str, claims))
    if not fitting:
        raise LookupError(f"nothing is claimed for {wanted}. Claimed: {found}")
    raise LookupError(f"{len(fitting)} claims fit {wanted}; name the data set and the split of one. Claimed: {found}")


def _interval(metric: Metric) -> tuple[float, float] | None:
    if metric.interval is not None or metric.name != "top1":
        return metric.interval
    return wilson_interval(round(metric.value * metric.n), metric.n)


def _tious_beside(claim, claimed) -> tuple[float, ...] | None:
    """The overlaps of the single values that stand beside an average mAP."""
    place = (claim.dataset_name, claim.dataset_split)
    beside = [one.metric_name for one in claimed if (one.dataset_name, one.dataset_split) == place]
    found = sorted(float(name.removeprefix("mAP@")) for name in beside if re.fullmatch(r"mAP@[0-9.]+", name))
    return tuple(found) or None


def _row_facts(rows: list[str], dataset: str, split: str | None, metric_name: str) -> dict:
    """n, interval and views of the table's row for a claim; empty where the table has no such row."""
    start = f"| {escape_markdown(dataset)} ({escape_markdown(split)}) | "
    row = next((row for row in rows if row.startswith(start) and f" | {metric_name} | " in row), None)
    if row is None:
        return {}
    # the first cell may hold anything; the last six are ours
    views, _, _, interval, n, _ = [cell.strip() for cell in row.removesuffix("|").split(" | ")[-6:]]
    parts = [int(part) if part.isdigit() else None for part in views.split(" x ")]
    _, num_clips, num_crops = parts if len(parts) == 3 else (None, None, None)  # detectors have overlaps there
    ends = [float(end.strip(" %")) / 100 for end in interval.split(" to ")] if " to " in interval else None
    return {
        "n": int(n) if n.isdigit() else None,
        "interval": (ends[0], ends[1]) if ends else None,
        "num_clips": num_clips,
        "num_crops": num_crops,
    }
