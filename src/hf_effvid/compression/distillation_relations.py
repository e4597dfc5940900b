"""Relational distillation (https://huggingface.co/papers/1904.05068): the geometry of a batch of embeddings, not their values.

Student and teacher may have different widths. Distances are computed from differences and not from |a|^2 + |b|^2 - 2ab, so that those
of samples that coincide are exact in single precision too.
"""

import torch
from torch.nn import functional as F

from .full_precision import in_full_precision


# Squared; what lies closer is this far apart and passes no gradient, which would be boundless.
_CLOSEST = 1e-12


def rkd_loss(student, teacher, distance_weight=1.0, angle_weight=2.0):
    """distance_weight L_D + angle_weight L_A; 25 and 50 are common for classifiers trained from nothing. See both for arguments."""
    return distance_weight * rkd_distance_loss(student, teacher) + angle_weight * rkd_angle_loss(student, teacher)


@in_full_precision
def rkd_distance_loss(student, teacher):
    """L_D: smooth-L1 of |g_i - g_j| / mu, mean over all B^2 pairs; mu is the mean over i != j, coincident ones included.

    Args:
        student: (B, D), embeddings.
        teacher: (B, E), without gradient.

    Returns:
        Scalar; 0 with a gradient path for batches smaller than 2, which have no pair.

    Raises:
        ValueError: embeddings that are not two-dimensional, or of different batches.
    """
    _check_embeddings(student, teacher)
    if len(student) < 2:
        return _zero(student)
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher.detach()))


@in_full_precision
def rkd_angle_loss(student, teacher):
    """L_A: smooth-L1 of the cosine of the angle i-j-k with vertex j, mean over all B^3 triplets. Memory grows with B^2 (D + B).

    Args:
        student: (B, D), embeddings.
        teacher: (B, E), without gradient.

    Returns:
        Scalar; 0 with a gradient path for batches smaller than 3, which have no angle.

    Raises:
        ValueError: embeddings that are not two-dimensional, or of different batches.
    """
    _check_embeddings(student, teacher)
    if len(student) < 3:
        return _zero(student)
    return F.smooth_l1_loss(_angle_cosines(student), _angle_cosines(teacher.detach()))


def _relative_distances(embeddings):
    squared = _differences(embeddings).square().sum(-1)
    distinct = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    distances = squared.clamp(min=_CLOSEST).sqrt() * distinct
    return distances / (distances.sum() / distinct.sum())


def _angle_cosines(embeddings):
    differences = _differences(embeddings)
    squared = differences.square().sum(-1, keepdim=True)
    apart = squared > _CLOSEST
    directions = torch.where(apart, differences / torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return directions @ directions.transpose(1, 2)


def _differences(embeddings):
    """(j, i): from j to i."""
    return embeddings[None] - embeddings[:, None]


def _zero(student):
    return student.sum() * 0.0


def _check_embeddings(student, teacher):
    if student.dim() != 2 or teacher.dim() != 2 or len(student) != len(teacher):
        raise ValueError(
            "Relations need embeddings (B, D) and (B, E) of the same samples, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}; pool feature maps first."
        )
