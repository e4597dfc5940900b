"""Several runs on the same videos, such as seeds of a training or draws of a baseline: their mean, and how two such groups differ.

Intervals resample videos, the same ones for all runs, and average over the runs inside each resample. They do not cover the luck of the
seeds: the value of each run stands beside them.
"""

from collections.abc import Sequence

import numpy as np

from .detection import NUM_RESAMPLES, DetectionReport
from .intervals import bootstrap_interval
from .results import Metric


def average_runs(
    reports: Sequence[DetectionReport], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Metric]:
    """Mean over runs of average mAP, with its interval, and of mAP at every threshold.

    Raises:
        ValueError: no run, or runs on other videos, annotations or thresholds.
    """
    _check_same(reports)
    n = reports[0].data.num_ground_truth_videos
    value = float(np.mean([report.average_mAP for report in reports]))
    low, high = bootstrap_interval(_mean_of(reports), n, num_resamples=num_resamples, seed=seed, estimate=value)
    interval = (max(low, 0.0), min(high, 1.0))
    metrics = [Metric("average_mAP", value, n, interval, _method(num_resamples, len(reports)))]
    means = np.mean([report.mAP for report in reports], axis=0)
    return metrics + [
        Metric(f"mAP@{tiou:g}", float(mean), n) for tiou, mean in zip(reports[0].tious, means, strict=True)
    ]


def compare_runs(
    first: Sequence[DetectionReport],
    second: Sequence[DetectionReport],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Metric:
    """Mean average mAP of the first group minus that of the second, on the same resampled videos.

    Raises:
        ValueError: no run, or runs on other videos, annotations or thresholds.
    """
    _check_same([*first, *second])
    if not first or not second:
        raise ValueError("expected at least one run on either side.")
    n = first[0].data.num_ground_truth_videos
    left, right = _mean_of(first), _mean_of(second)
    means = [np.mean([report.average_mAP for report in side]) for side in (first, second)]
    value = float(means[0] - means[1])
    interval = bootstrap_interval(
        lambda draw: left(draw) - right(draw), n, num_resamples=num_resamples, seed=seed, estimate=value
    )
    method = f"paired {_method(num_resamples, len(first))} against {len(second)}"
    return Metric("average_mAP difference", value, n, interval, method)


def _mean_of(reports):
    statistics = [report.average_mAP_of() for report in reports]
    return lambda draw: float(np.mean([statistic(draw) for statistic in statistics]))


def _method(num_resamples: int, num_runs: int) -> str:
    return f"bootstrap over videos 95%, {num_resamples} resamples, bias removed, mean of {num_runs} run{'s'[: num_runs != 1]}"


def _check_same(reports):
    if not reports:
        raise ValueError("expected at least one run.")
    described = {(tuple(r.data.videos[: r.data.num_ground_truth_videos]), len(r.data.truth), r.tious) for r in reports}
    if len(described) > 1:
        raise ValueError("runs are compared on the same videos, annotations and thresholds; these differ.")
