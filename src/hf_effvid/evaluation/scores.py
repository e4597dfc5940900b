"""Accuracy arithmetic on score arrays: top-k, confusion, average precision, F1. NumPy only, no video, no model."""

import numpy as np


def topk_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """For every row, is the right class among the `k` best scores?

    Ties are broken against the model: a class counts as ranked before the right one when its score is equal, so that a
    model that gives every class the same score gets no credit for the order of its labels.

    Args:
        scores: (N, K) array; larger is better.
        labels: (N,) right classes.
        k: how many guesses count; more than K means K.

    Returns:
        (N,) bools.

    Raises:
        ValueError: shapes do not fit, a label is outside [0, K), a score is NaN, or k is not positive.
    """
    scores, labels = _checked(scores, labels)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k!r}.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    return (scores >= own).sum(axis=1) <= min(k, scores.shape[1])


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) counts; row = right class, column = predicted class."""
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)), 1)
    return matrix


def average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Area under the precision-recall steps of one class; NaN without a positive.

    Equal scores form one step: their order, which is arbitrary, does not change the value.

    Args:
        scores: (N,) scores of the class.
        positives: (N,) bools.
    """
    positives = np.asarray(positives, dtype=bool)
    total = int(positives.sum())
    if total == 0:
        return float("nan")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked, hits = np.asarray(scores)[order], positives[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    found = np.cumsum(hits)[last_of_tie]
    seen = np.flatnonzero(last_of_tie) + 1
    recall_steps = np.diff(np.append(0, found)) / total
    return float(np.sum(recall_steps * found / seen))


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean of the classes' average precision over the classes that have a positive; NaN when none has.

    Args:
        scores: (N, K) scores.
        targets: (N, K) bools.
    """
    values = [average_precision(scores[:, k], targets[:, k]) for k in range(scores.shape[1]) if targets[:, k].any()]
    return float(np.mean(values)) if values else float("nan")


def micro_f1(decisions: np.ndarray, targets: np.ndarray) -> float:
    """F1 over all (video, class) decisions together; NaN when nothing is there and nothing is predicted.

    Args:
        decisions: (N, K) bools, the classes said to be present.
        targets: (N, K) bools.
    """
    decisions, targets = np.asarray(decisions, dtype=bool), np.asarray(targets, dtype=bool)
    both = 2 * int((decisions & targets).sum())
    total = int(decisions.sum()) + int(targets.sum())
    return both / total if total else float("nan")


def _checked(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"expected scores (N, K) and labels (N,), got {scores.shape} and {labels.shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}.")
    if labels.size and not (0 <= labels.min() and labels.max() < scores.shape[1]):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}, but there are {scores.shape[1]} classes.")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number; the model is broken on that video.")
    return scores, labels
