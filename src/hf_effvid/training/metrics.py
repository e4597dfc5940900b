"""Metrics shown while training, from the logits and labels of a whole evaluation.

The published numbers, with intervals and per class, come from `hf_effvid.evaluation`, whose arithmetic this uses.
"""

import math

import numpy as np

from ..evaluation.scores import mean_average_precision, micro_f1, topk_hits


def single_label_metrics(logits, labels):
    """Top-1, top-5 (with more than five classes) and mean per-class accuracy.

    Args:
        logits: (N, K) tensor.
        labels: class indices (N,), or soft targets (N, K) whose largest entry counts.
    """
    scores, labels = logits.numpy(), (labels.argmax(-1) if labels.ndim == 2 else labels).numpy()
    if not np.isfinite(scores).all():
        # a broken model is worth no accuracy, and the run should say so rather than crash in its evaluation
        return {"top1": 0.0, "mean_class_accuracy": 0.0}
    hits = topk_hits(scores, labels, 1)
    metrics = {
        "top1": float(hits.mean()),
        "mean_class_accuracy": float(np.mean([hits[labels == label].mean() for label in np.unique(labels)])),
    }
    if scores.shape[1] > 5:
        metrics["top5"] = float(topk_hits(scores, labels, 5).mean())
    return metrics


def multi_label_metrics(logits, labels, threshold=0.5):
    """Mean average precision over the classes that occur, and micro F1 at a threshold.

    Args:
        logits: (N, K) tensor.
        labels: 0/1 tensor (N, K).
        threshold: probability above which a class counts as predicted.
    """
    scores, targets = logits.sigmoid().numpy(), labels.numpy() > 0.5
    if not np.isfinite(scores).all():
        return {"mAP": 0.0, "micro_f1": 0.0}
    metrics = {"mAP": mean_average_precision(scores, targets), "micro_f1": micro_f1(scores > threshold, targets)}
    return {name: 0.0 if math.isnan(value) else value for name, value in metrics.items()}
