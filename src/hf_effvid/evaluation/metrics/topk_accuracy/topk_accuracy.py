"""Top-k accuracy as an `evaluate` module. Load it by path, no network needed:

>>> import evaluate
>>> from hf_effvid.evaluation.metrics import metric_path
>>> metric = evaluate.load(metric_path("topk_accuracy"))
>>> metric.compute(predictions=[[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], references=[1, 1], k=1)
{'top1_accuracy': 0.5, 'n': 2, 'interval': [0.09453120573423074, 0.9054687942657693]}
"""

import datasets
import evaluate
import numpy as np

from hf_effvid.evaluation.intervals import wilson_interval
from hf_effvid.evaluation.scores import topk_hits


_DESCRIPTION = "Share of examples whose right class is among the k best scores, with its Wilson 95 % interval."
_INPUTS = """
Args:
    predictions: one list of scores per example, one score per class; larger is better.
    references: the right class numbers.
    k: how many guesses count.
Returns:
    top{k}_accuracy: the share. n: number of examples. interval: Wilson 95 % interval. Ties count against the prediction.
"""


class TopkAccuracy(evaluate.Metric):
    """Top-k accuracy of score lists."""

    def _info(self):
        features = {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions, references, k=1):
        hits = int(topk_hits(np.asarray(predictions, dtype=float), np.asarray(references), k).sum())
        n = len(references)
        return {f"top{k}_accuracy": hits / n, "n": n, "interval": list(wilson_interval(hits, n))}
