"""From the labels of a training set to class counts, loss weights, priors and sampling weights."""

import torch


def label_matrix(labels, num_labels):
    """Labels of a whole data set -> (N, K) float tensor of 0/1.

    Args:
        labels: class indices, lists of class indices, or 0/1 rows of width `num_labels`.
        num_labels: number of classes K.
    """
    matrix = torch.zeros(len(labels), num_labels)
    for row, label in enumerate(labels):
        values = torch.as_tensor(label)
        if values.ndim == 1 and len(values) == num_labels and values.is_floating_point():
            matrix[row] = values.float()
            continue
        indices = values.reshape(-1).long()
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= num_labels):
            raise ValueError(f"Label {label!r} of item {row} is outside [0, {num_labels}).")
        matrix[row, indices] = 1.0
    return matrix


def class_weights(counts, kind, beta=0.999):
    """Weights (K,) whose mean over the training set is 1; classes without a sample get the largest weight in use.

    Args:
        counts: clips per class (K,).
        kind: `none` (returns None), `balanced`, or `effective_number` (Cui et al., 2019).
        beta: overlap of samples for `effective_number`.
    """
    if kind == "none":
        return None
    counts = counts.double()
    if kind == "balanced":
        raw = 1.0 / counts
    elif kind == "effective_number":
        raw = (1.0 - beta) / (1.0 - beta**counts)
    else:
        raise ValueError(f"class_weights must be none, balanced or effective_number, got {kind!r}.")
    present = counts > 0
    if not bool(present.any()):
        raise ValueError("Class weights need at least one labelled clip, got none.")
    raw = torch.where(present, raw, raw[present].max())
    return (raw * counts.sum() / (raw * counts).sum()).float()


def log_prior(counts):
    """Log class frequencies (K,), with one imagined clip per class so that an absent class stays finite."""
    smoothed = counts.double() + 1.0
    return (smoothed / smoothed.sum()).log().float()


def sampling_weights(matrix):
    """Weight of each clip (N,) such that classes are drawn equally often; a multi-label clip takes its rarest class."""
    counts = matrix.sum(0).clamp_min(1.0)
    weights = (matrix / counts).max(dim=1).values
    # a clip without any label would otherwise never be drawn
    floor = weights[weights > 0].min() if bool((weights > 0).any()) else torch.tensor(1.0)
    return torch.where(weights > 0, weights, floor)
