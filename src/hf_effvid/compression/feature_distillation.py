"""Feature baselines of distillation: hidden values, projected values, and where the energy lies."""

from torch.nn import functional as F

from .full_precision import in_full_precision


@in_full_precision
def feature_mse_loss(student, teacher):
    """Mean squared difference of features of one shape, such as pooled embeddings (B, D)."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"feature_mse_loss compares features of one shape, got {tuple(student.shape)} and {tuple(teacher.shape)}; "
            "fitnet_loss projects the student first."
        )
    return F.mse_loss(student, teacher.detach())


@in_full_precision
def fitnet_loss(student, teacher, projection):
    """Mean squared difference to the teacher of the projected student (hints of https://huggingface.co/papers/1412.6550).

    Args:
        student: (B, C, T, H, W).
        teacher: (B, D, T', H', W'), averaged to the student's grid.
        projection: callable from C to D channels, such as `nn.Conv3d(C, D, 1)`; train it with the student.
    """
    return feature_mse_loss(projection(student), F.adaptive_avg_pool3d(teacher, student.shape[2:]))


@in_full_precision
def attention_transfer_loss(student, teacher):
    """Mean squared difference of |F|^2 averaged over channels, each map of unit length (https://huggingface.co/papers/1612.03928).

    Args:
        student: (B, C, T, H, W).
        teacher: (B, D, T', H', W'); its map is averaged to the student's grid.
    """
    own, other = (features.square().mean(1, keepdim=True) for features in (student, teacher.detach()))
    other = F.adaptive_avg_pool3d(other, student.shape[2:])
    own, other = (F.normalize(energy.flatten(1), dim=-1) for energy in (own, other))
    return F.mse_loss(own, other)
