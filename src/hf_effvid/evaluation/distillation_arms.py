"""The arms of a distillation study as results: every seed, their mean, and paired differences to the student alone, the teachers and other arms."""

from collections.abc import Mapping, Sequence

import numpy as np

from .intervals import bootstrap_mean_interval
from .results import Cost, Metric, ResultEntry, current_provenance


TASK = "distillation"
# arms that tables and cards know by name; a study may have others
VIT_TEACHER, CNN_TEACHER = "ViT teacher", "CNN teacher"
ALONE, VIT_ONLY, CNN_ONLY, UNIFORM, FULL = "student alone", "ViT only", "CNN only", "uniform", "full"
_METHOD = "bootstrap over videos 95%, mean over seeds"


def arm_entries(
    arm: str,
    answers: Sequence[Sequence[bool]],
    references: Mapping[str, Sequence[Sequence[bool]]],
    *,
    model: str,
    dataset: str,
    split: str,
    seeds: Sequence[int],
    cost: Cost | None = None,
    protocol: Mapping | None = None,
    notes: Sequence[str] = (),
) -> list[ResultEntry]:
    """One entry per seed, then one of their mean with `top1 minus <reference>` for every reference.

    Of every video the share of seeds that are right is one number, and the intervals resample videos: clips that both models find hard cancel.
    They do not cover the luck of the seeds, whose accuracies stand beside.

    Args:
        arm: its name, such as `ALONE` or `FULL`.
        answers: per seed, per video: was the model right?
        references: name of another arm -> its answers on the same videos, of any number of seeds.
        model: name of the student; of a teacher its own.
        dataset, split: what was looked at.
        seeds: of training, one per list of answers.
        cost: of one clip.
        protocol: how the videos were seen.
        notes: remarks for the mean.

    Raises:
        ValueError: seeds and answers do not match, or answers are of different videos.
    """
    right = np.asarray(answers, dtype=float)
    if right.ndim != 2 or len(right) != len(seeds):
        raise ValueError(
            f"{arm}: expected one list of answers for each of {len(seeds)} seeds, got shape {right.shape}."
        )
    about = {"task": TASK, "model": model, "dataset": dataset, "split": split, "cost": cost or Cost()}
    about["protocol"] = {**(protocol or {}), "arm": arm, "seeds": len(seeds)}
    entries = [
        ResultEntry(
            **about,
            variant=arm,
            metrics=(Metric.proportion("top1", int(of_seed.sum()), len(of_seed)),),
            provenance=current_provenance(seed=seed, dtype="float32"),
        )
        for seed, of_seed in zip(seeds, right, strict=True)
    ]
    metrics = [_mean("top1", right.mean(0), _METHOD)]
    for name, others in references.items():
        other = np.asarray(others, dtype=float).mean(0)
        if other.shape != right.shape[1:]:
            raise ValueError(
                f"{arm} and {name} were asked about {right.shape[1]} and {len(other)} videos: use the same."
            )
        metrics.append(_mean(f"top1 minus {name}", right.mean(0) - other, f"paired {_METHOD}"))
    many = f"mean of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    mean = ResultEntry(
        **about,
        variant=f"{arm}, {many}",
        metrics=tuple(metrics),
        provenance=current_provenance(dtype="float32"),
        notes=tuple(notes),
    )
    return [*entries, mean]


def _mean(name: str, values: np.ndarray, method: str) -> Metric:
    return Metric(name, float(values.mean()), len(values), bootstrap_mean_interval(values), method)
