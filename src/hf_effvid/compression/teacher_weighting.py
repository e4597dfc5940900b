"""Which teacher counts for how much, sample by sample (https://huggingface.co/papers/2511.09469).

The paper's equation is z_target = sum_k w_k z_k, with weights that rise with a teacher's confidence and with its discrepancy from the
student. How both are measured and joined is our definition: the paper's full text was not at hand, and it has no public code.
"""

import torch
from torch.nn import functional as F

from .distillation import standardise_logits
from .full_precision import in_full_precision


MODES = ("discrepancy_aware", "uniform", "confidence", "discrepancy", "ebkd", "ca_mkd")


@torch.no_grad()
@in_full_precision
def teacher_weights(
    student_logits,
    teacher_logits,
    labels=None,
    mode="discrepancy_aware",
    *,
    combine="product",
    discrepancy_weight=1.0,
    normalise="ratio",
    weight_temperature=1.0,
    confidence_temperature=1.0,
    center_logits=False,
    label_gate=False,
    eps=1e-6,
):
    """Weights of K teachers for every sample, (B, K): rows sum to 1, and no gradient goes through them.

    A student that could steer the weights would lower its loss that way. With the defaults a uniform teacher gets next to nothing, and
    teachers that the student agrees with share equally.

    Args:
        student_logits: (B, N).
        teacher_logits: K tensors (B, N), or (K, B, N).
        labels: (B,), class numbers; needed by `"ca_mkd"` and `label_gate`.
        mode: `"discrepancy_aware"` joins confidence C and discrepancy D; `"confidence"` and `"discrepancy"` take one of them;
            `"uniform"` is 1 / K. `"ebkd"`, (1 - H_k / sum H) / (K - 1), weighs by entropy, `"ca_mkd"`,
            (1 - softmax_k CE_k) / (K - 1), by the cross-entropy with the labels (https://huggingface.co/papers/2201.00007).
        combine: scores E of `"discrepancy_aware"`: `"product"`, C D, or `"sum"`, C + discrepancy_weight D.
        discrepancy_weight: see `combine`.
        normalise: scores to weights: `"ratio"`, (E_k + eps) / sum, or `"softmax"` of E / weight_temperature.
        weight_temperature: see `normalise`.
        confidence_temperature: of the softmax whose entropy is the confidence.
        center_logits: the discrepancy ignores a constant added to all logits, as softmax does.
        label_gate: teachers that are wrong count nothing where another one is right.
        eps: see `normalise`.

    Raises:
        ValueError: an unknown mode, logits that do not fit, or labels that are needed and absent.
    """
    teachers = stack_teachers(student_logits, teacher_logits)
    _check_choices(mode, combine, normalise)
    if labels is None and (mode == "ca_mkd" or label_gate):
        raise ValueError("mode='ca_mkd' and label_gate=True judge teachers by labels: pass labels=(B,).")
    if mode == "uniform":
        weights = torch.full_like(teachers[..., 0], 1 / len(teachers))
    elif mode in ("ebkd", "ca_mkd"):
        weights = _share_of_the_others(_entropy_share(teachers) if mode == "ebkd" else _loss_share(teachers, labels))
    else:
        confidence = teacher_confidence(teachers, confidence_temperature)
        discrepancy = teacher_discrepancy(student_logits, teachers, center_logits)
        joint = confidence * discrepancy if combine == "product" else confidence + discrepancy_weight * discrepancy
        scores = {"discrepancy_aware": joint, "confidence": confidence, "discrepancy": discrepancy}[mode]
        weights = scores + eps if normalise == "ratio" else (scores / weight_temperature).softmax(0)
    if label_gate:
        right = teachers.argmax(-1) == labels
        weights = (weights + eps) * (right | ~right.any(0))
    return (weights / weights.sum(0)).T


@in_full_precision
def teacher_confidence(teacher_logits, temperature=1.0):
    """C = 1 - H(softmax(z / temperature)) / log N, in [0, 1], of logits (..., N)."""
    return (1 - _entropy(teacher_logits / temperature) / _log_classes(teacher_logits)).clamp(0, 1)


@in_full_precision
def teacher_discrepancy(student_logits, teacher_logits, center_logits=False):
    """D = 1 - cos(z_k, z_s), in [0, 2], of (B, N) and (..., B, N); 1 where either is all zero. No gradient goes to the student."""
    student, teacher = student_logits.detach(), teacher_logits
    if center_logits:
        student, teacher = (logits - logits.mean(-1, keepdim=True) for logits in (student, teacher))
    student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    # half the squared chord: exactly 0 where both are equal, which 1 - cos is not
    chord = (teacher - student).square().sum(-1) / 2
    absent = (student == 0).all(-1) | (teacher == 0).all(-1)
    return torch.where(absent, 1.0, chord)


@in_full_precision
def mix_teachers(weights, teacher_logits, logit_norm="none"):
    """z_target = sum_k w_k z_k, (B, N), without gradient.

    Args:
        weights: (B, K), of `teacher_weights`.
        teacher_logits: K tensors (B, N), or (K, B, N).
        logit_norm: `"none"`, as in the paper: a teacher with larger logits says more than its weight. `"zscore"`: each row
            standardised first; do the same to the student (`standardise_logits`).

    Raises:
        ValueError: an unknown `logit_norm`, or logits that do not fit the weights.
    """
    if logit_norm not in ("none", "zscore"):
        raise ValueError(f"logit_norm must be none or zscore, got {logit_norm!r}.")
    teachers = _stack(teacher_logits)
    if teachers.shape[:2] != weights.T.shape:
        raise ValueError(
            f"Weights {tuple(weights.shape)} (B, K) do not fit teachers {tuple(teachers.shape)} (K, B, N)."
        )
    teachers = standardise_logits(teachers) if logit_norm == "zscore" else teachers
    return (weights.T[..., None] * teachers).sum(0).detach()


def stack_teachers(student_logits, teacher_logits):
    """(K, B, N) of a list or a tensor, checked against the student's (B, N)."""
    teachers = _stack(teacher_logits)
    if teachers.dim() != 3 or teachers.shape[1:] != student_logits.shape:
        raise ValueError(
            f"Teachers need logits of the student's samples and classes {tuple(student_logits.shape)}, got {tuple(teachers.shape)}."
        )
    return teachers


def _stack(teacher_logits):
    teachers = teacher_logits if isinstance(teacher_logits, torch.Tensor) else list(teacher_logits)
    if len(teachers) == 0:
        raise ValueError("At least one teacher is needed, got none.")
    if len({tuple(logits.shape) for logits in teachers}) > 1:
        raise ValueError(f"Teachers need the same classes, got logits {[tuple(logits.shape) for logits in teachers]}.")
    teachers = (
        teachers if isinstance(teachers, torch.Tensor) else torch.stack([logits.detach() for logits in teachers])
    )
    # bfloat16 in a list is out of reach of the decorator
    return teachers.detach().to(torch.promote_types(teachers.dtype, torch.float32))


def _entropy(logits):
    log_probabilities = logits.log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def _log_classes(logits):
    return torch.tensor(float(max(logits.shape[-1], 2)), dtype=logits.dtype, device=logits.device).log()


def _entropy_share(teachers):
    entropy = _entropy(teachers)
    total = entropy.sum(0)
    return torch.where(total > 0, entropy / total, 1 / len(teachers))


def _loss_share(teachers, labels):
    losses = [F.cross_entropy(logits, labels, reduction="none") for logits in teachers]
    return torch.stack(losses).softmax(0)


def _share_of_the_others(shares):
    """(1 - share) / (K - 1): sums to 1 as the shares do."""
    return torch.ones_like(shares) if len(shares) == 1 else (1 - shares) / (len(shares) - 1)


def _check_choices(mode, combine, normalise):
    for name, value, choices in (
        ("mode", mode, MODES),
        ("combine", combine, ("product", "sum")),
        ("normalise", normalise, ("ratio", "softmax")),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
