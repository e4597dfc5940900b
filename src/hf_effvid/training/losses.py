"""Classification losses, one value per clip.

Every function takes `logits` (B, K) and returns (B,): the trainer averages over the batch, and because nothing is divided
by a per-batch sum of weights, the mean over accumulated or distributed batches equals the mean over one large batch.
Targets of the single-label losses are class indices (B,) or soft targets (B, K) from mixup; those of the multi-label
losses are 0/1 (or mixed) values (B, K).
"""

import torch
import torch.nn.functional as F


def soft_targets(labels, num_labels, label_smoothing=0.0):
    """Class indices (B,) or soft targets (B, K) -> smoothed soft targets (B, K), float32.

    Raises:
        ValueError: an index outside [0, K), or soft targets of another width.
    """
    if labels.ndim == 1 and not labels.is_floating_point():
        if labels.numel() and (int(labels.min()) < 0 or int(labels.max()) >= num_labels):
            raise ValueError(
                f"Labels must be in [0, {num_labels}) for a model with {num_labels} classes, got "
                f"{int(labels.min())} to {int(labels.max())}. Build the model with the data set's number of classes."
            )
        targets = F.one_hot(labels.long(), num_labels).float()
    elif labels.ndim == 2 and labels.shape[1] == num_labels:
        targets = labels.float()
    else:
        raise ValueError(
            f"Expected class indices (B,) or soft targets (B, {num_labels}), got {tuple(labels.shape)} {labels.dtype}."
        )
    return targets * (1 - label_smoothing) + label_smoothing / num_labels


def cross_entropy(logits, labels, label_smoothing=0.0, class_weights=None):
    """Cross-entropy with soft targets; `class_weights` (K,) scale each class's share of the target."""
    targets = soft_targets(labels, logits.shape[-1], label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum(-1)


def focal_loss(logits, labels, gamma=2.0, label_smoothing=0.0, class_weights=None):
    """Cross-entropy whose terms are scaled by (1 - p)^gamma: easy clips count less."""
    targets = soft_targets(labels, logits.shape[-1], label_smoothing)
    if class_weights is not None:
        targets = targets * class_weights
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    # 1 - p from log p without cancellation when p is close to 1
    modulation = (-torch.expm1(log_probabilities)).clamp_min(0) ** gamma
    return -(targets * modulation * log_probabilities).sum(-1)


def logit_adjusted_cross_entropy(logits, labels, log_prior, tau=1.0, label_smoothing=0.0, class_weights=None):
    """Cross-entropy on logits shifted by `tau` times the log class prior (K,), so that rare classes are not drowned.

    The shift belongs to training only: at test time the plain logits are the balanced ones.
    """
    return cross_entropy(logits.float() + tau * log_prior, labels, label_smoothing, class_weights)


def binary_cross_entropy(logits, labels, class_weights=None):
    """Mean over classes of the binary cross-entropy; `class_weights` (K,) scale the positive terms."""
    targets = _multi_hot(labels, logits.shape[-1])
    return F.binary_cross_entropy_with_logits(
        logits.float(), targets, pos_weight=class_weights, reduction="none"
    ).mean(-1)


def asymmetric_loss(logits, labels, gamma_negative=4.0, gamma_positive=0.0, margin=0.05, class_weights=None):
    """Binary loss that plays down the many easy negatives of multi-label data (Ridnik et al., 2021), mean over classes.

    Args:
        margin: probability below which a negative costs nothing.
    """
    targets = _multi_hot(labels, logits.shape[-1])
    logits = logits.float()
    probabilities = logits.sigmoid()
    shifted = (probabilities - margin).clamp_min(0)
    positive = (1 - probabilities) ** gamma_positive * F.logsigmoid(logits)
    negative = shifted**gamma_negative * torch.log1p(-shifted.clamp_max(1 - 1e-6))
    if class_weights is not None:
        positive = positive * class_weights
    return -(targets * positive + (1 - targets) * negative).mean(-1)


def _multi_hot(labels, num_labels):
    if labels.ndim != 2 or labels.shape[1] != num_labels:
        raise ValueError(
            f"Multi-label targets must be (B, {num_labels}) with one value per class, got {tuple(labels.shape)}."
        )
    return labels.float()
