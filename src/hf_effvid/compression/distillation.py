"""Distillation on class scores: what a student's logits owe to a teacher's, on plain tensors.

Half precision is computed in single with autocast off. No gradient goes to the teacher.
"""

import torch
from torch.nn import functional as F

from .full_precision import in_full_precision


@in_full_precision
def kd_loss(student_logits, teacher_logits, temperature=4.0):
    """tau^2 times the mean over the batch of KL(softmax(z_t / tau) || softmax(z_s / tau)), https://huggingface.co/papers/1503.02531.

    Args:
        student_logits: (B, N).
        teacher_logits: (B, N).
        temperature: tau > 0.

    Returns:
        Scalar, 0 where both agree.

    Raises:
        ValueError: logits of different shapes, or a temperature that is not above 0.
    """
    _check_logits(student_logits, teacher_logits, temperature)
    return temperature**2 * _divergence(student_logits / temperature, teacher_logits.detach() / temperature)


@in_full_precision
def dkd_loss(student_logits, teacher_logits, labels, alpha=1.0, beta=8.0, temperature=4.0):
    """Decoupled distillation, https://huggingface.co/papers/2203.08679: tau^2 (alpha TCKD + beta NCKD), mean over the batch.

    TCKD is the KL of (the target class, all others together), NCKD that among the other classes alone.

    Args:
        student_logits: (B, N), N of 2 or more.
        teacher_logits: (B, N).
        labels: (B,), class numbers.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: tau > 0.

    Raises:
        ValueError: shapes that do not fit, or one class only.
    """
    _check_logits(student_logits, teacher_logits, temperature)
    target = _target_mask(labels, student_logits)
    batch, classes = student_logits.shape
    if classes < 2:
        raise ValueError("dkd_loss tells the target class from the others and needs 2 or more classes, got 1.")
    student, teacher = student_logits / temperature, teacher_logits.detach() / temperature
    # the other classes are taken out, not masked: no infinity to multiply by zero
    student_others, teacher_others = (logits[~target].view(batch, classes - 1) for logits in (student, teacher))
    student_split, teacher_split = (
        torch.stack([logits[target], others.logsumexp(-1)], dim=-1)
        for logits, others in ((student, student_others), (teacher, teacher_others))
    )
    target_term = _divergence(student_split, teacher_split)
    return temperature**2 * (alpha * target_term + beta * _divergence(student_others, teacher_others))


@in_full_precision
def dist_loss(student_logits, teacher_logits, beta=1.0, gamma=1.0, temperature=1.0):
    """Relations instead of values, https://huggingface.co/papers/2205.10536: tau^2 (beta inter + gamma intra).

    Inter is 1 - Pearson correlation of both predictions of a sample, the mean over samples; intra the same of a class over the batch.
    The published code adds 1e-8 to the product of norms, so classes that no sample is likely to have count as uncorrelated. Over a
    batch of one no class varies: intra is left out.

    Args:
        student_logits: (B, N).
        teacher_logits: (B, N).
        beta: weight of inter.
        gamma: weight of intra.
        temperature: tau > 0.
    """
    _check_logits(student_logits, teacher_logits, temperature)
    student = (student_logits / temperature).softmax(-1)
    teacher = (teacher_logits.detach() / temperature).softmax(-1)
    loss = beta * (1 - _pearson(student, teacher)).mean()
    if len(student) > 1:
        loss = loss + gamma * (1 - _pearson(student.T, teacher.T)).mean()
    return temperature**2 * loss


@in_full_precision
def ofa_loss(student_logits, teacher_logits, labels, eps=1.0, temperature=1.0):
    """Adaptive target enhancement, https://huggingface.co/papers/2310.19444: cross-entropy with (p_t + 1_y)^eps - 1_y.

    A cross-entropy, and so not 0 where both agree; there is no factor tau^2.

    Args:
        student_logits: (B, N).
        teacher_logits: (B, N).
        labels: (B,), class numbers.
        eps: exponent; above 1 the target class counts for more.
        temperature: tau > 0.
    """
    _check_logits(student_logits, teacher_logits, temperature)
    target = _target_mask(labels, student_logits).to(student_logits.dtype)
    teacher = (teacher_logits.detach() / temperature).softmax(-1)
    enhanced = (teacher + target) ** eps - target
    return -(enhanced * (student_logits / temperature).log_softmax(-1)).sum(-1).mean()


@in_full_precision
def standardise_logits(logits):
    """Each row less its mean, over its standard deviation, (B, N): logits of different scales on one (https://huggingface.co/papers/2403.01427)."""
    return (logits - logits.mean(-1, keepdim=True)) / (logits.std(-1, keepdim=True) + 1e-7)


def _divergence(student, teacher):
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)


def _pearson(student, teacher):
    student, teacher = (values - values.mean(-1, keepdim=True) for values in (student, teacher))
    return (student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1) + 1e-8)


def _check_logits(student, teacher, temperature):
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"Student and teacher need logits (B, N) of the same classes, got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}.")


def _target_mask(labels, logits):
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be one class number per sample ({len(logits)},), got {tuple(labels.shape)} of {labels.dtype}."
        )
    return F.one_hot(labels.long(), logits.shape[-1]).bool()
