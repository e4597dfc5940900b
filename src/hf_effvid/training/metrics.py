"""Metrics shown while training, from the logits and labels of a whole evaluation.

The published numbers, with intervals and per class, come from `hf_effvid.evaluation`.
"""

import torch


def single_label_metrics(logits, labels):
    """Top-1, top-5 (with more than five classes) and mean per-class accuracy.

    Args:
        logits: (N, K).
        labels: class indices (N,), or soft targets (N, K) whose largest entry counts.
    """
    if labels.ndim == 2:
        labels = labels.argmax(-1)
    correct = logits.argmax(-1) == labels
    per_class = [correct[labels == label].double().mean() for label in labels.unique()]
    metrics = {
        "top1": correct.double().mean().item(),
        "mean_class_accuracy": torch.stack(per_class).mean().item(),
    }
    if logits.shape[-1] > 5:
        top5 = logits.topk(5, dim=-1).indices
        metrics["top5"] = (top5 == labels.unsqueeze(-1)).any(-1).double().mean().item()
    return metrics


def multi_label_metrics(logits, labels, threshold=0.5):
    """Mean average precision over the classes that occur, and micro F1 at a threshold.

    Args:
        logits: (N, K).
        labels: 0/1 (N, K).
        threshold: probability above which a class counts as predicted.
    """
    targets = labels > 0.5
    predicted = logits.sigmoid() > threshold
    true_positives = (predicted & targets).sum().item()
    mistakes = (predicted ^ targets).sum().item()
    precisions = [
        average_precision(logits[:, k], targets[:, k]) for k in range(logits.shape[-1]) if bool(targets[:, k].any())
    ]
    return {
        "mAP": sum(precisions) / len(precisions) if precisions else 0.0,
        # F1 = 2 TP / (2 TP + FP + FN); without any label and any prediction nothing was missed
        "micro_f1": 2 * true_positives / (2 * true_positives + mistakes) if true_positives + mistakes else 1.0,
    }


def average_precision(scores, targets):
    """Area under the precision-recall steps; clips with equal scores count as one threshold.

    Args:
        scores: (N,).
        targets: boolean (N,), at least one True.
    """
    order = scores.argsort(descending=True)
    scores, hits = scores[order].double(), targets[order].double()
    # the last position of every group of equal scores
    last = torch.cat([scores[1:] != scores[:-1], torch.tensor([True])])
    true_positives = hits.cumsum(0)[last]
    precision = true_positives / torch.arange(1, len(scores) + 1)[last]
    recall = true_positives / hits.sum()
    return (precision * torch.diff(recall, prepend=torch.zeros(1, dtype=torch.float64))).sum().item()
