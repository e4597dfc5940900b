"""What a model with dropped blocks is pulled towards: features, classes and boundaries of the model that it came from.

Equations 3 to 5 of https://huggingface.co/papers/2503.16916, on plain tensors. Half precision is lifted to single, so that autocast
changes nothing. Gradients stop at nothing here: a teacher's tensors come without any.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..models.temporal_losses import SEGMENT_LOSSES
from .full_precision import lifted


@dataclass(frozen=True)
class AlignmentSettings:
    """How a student is aligned.

    Attributes:
        boundary: `"giou"` or `"diou"`.
        temperature: tau of the classification term.
        dynamic_teacher: the teacher is the model before the last drop, and not the uncompressed one.
        feature_weight, classification_weight, boundary_weight: factors of the terms.
    """

    boundary: str = "giou"
    temperature: float = 1.0
    dynamic_teacher: bool = False
    feature_weight: float = 1.0
    classification_weight: float = 1.0
    boundary_weight: float = 1.0

    def __post_init__(self):
        if self.boundary not in SEGMENT_LOSSES:
            raise ValueError(f"boundary must be one of {', '.join(sorted(SEGMENT_LOSSES))}, got {self.boundary!r}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}.")


# "released" is the authors' code as it is set up for ActivityNet; for THUMOS14 it keeps the teacher static
ALIGNMENT_PRESETS = {
    "paper": AlignmentSettings(),
    "released": AlignmentSettings(boundary="diou", temperature=3.5, dynamic_teacher=True),
}


def feature_alignment_loss(student, teacher, masks=None):
    """Equation 3: the mean over retained blocks of the mean squared difference to the teacher's block of the same original number.

    Args:
        student: original index -> output of the block, (N, L, D); or a list of them, one per pass of clips.
        teacher: the same for at least these blocks.
        masks: original index -> (N, L), false at padding, which is left out; None: there is none.

    Returns:
        Scalar.

    Raises:
        ValueError: no block, one that the teacher lacks, or outputs of other shapes.
    """
    errors = feature_errors(student, teacher, masks)
    return torch.stack(list(errors.values())).mean()


def feature_errors(student, teacher, masks=None):
    """Original index -> mean squared difference of that block; see `feature_alignment_loss`."""
    if not student:
        raise ValueError("Features of at least one block are needed to align, got none.")
    lacking = sorted(set(student) - set(teacher))
    if lacking:
        raise ValueError(f"The teacher lacks the blocks {lacking} (original numbers) that the student still has.")
    return {
        index: _mean_squared_error(
            _passes(own), _passes(teacher[index]), None if masks is None else masks[index], index
        )
        for index, own in student.items()
    }


def _passes(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def _mean_squared_error(student, teacher, mask, index):
    if len(student) != len(teacher):  # the same clips in passes of other sizes
        student, teacher = [torch.cat(student)], [torch.cat(teacher)]
    shapes = [[tuple(output.shape) for output in outputs] for outputs in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Block {index} gives features {shapes[0]}, that of the teacher {shapes[1]}: both need the same clips, tokens and width."
        )
    squares = [(lifted(own) - lifted(other)) ** 2 for own, other in zip(student, teacher, strict=True)]
    if mask is None:
        return sum(square.sum() for square in squares) / sum(square.numel() for square in squares)
    square = torch.cat(squares)
    return (square * mask[..., None]).sum() / (mask.sum().clamp(min=1) * square.shape[-1])


def classification_alignment_loss(student_logits, teacher_logits, temperature=1.0, exclusive=None):
    """Equation 4 per point: tau^2 KL(sigma(z_teacher / tau) || sigma(z_student / tau)), (...) of logits (..., K).

    Softmax over one class is 1 whatever the logit, and its KL identically 0. There, and for classes that do not exclude each other,
    sigma is the sigmoid and the KL that of a Bernoulli variable, the mean over classes.

    Args:
        student_logits: (..., K).
        teacher_logits: the same shape.
        temperature: tau > 0.
        exclusive: softmax over classes (True), or each class by itself (False). None: softmax for more than one class.
    """
    exclusive = student_logits.shape[-1] > 1 if exclusive is None else exclusive
    student, teacher = lifted(student_logits) / temperature, lifted(teacher_logits) / temperature
    if exclusive:
        known = teacher.log_softmax(-1)
        divergence = (known.exp() * (known - student.log_softmax(-1))).sum(-1)
    else:
        yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        divergence = (yes + no).mean(-1)
    return temperature**2 * divergence


def boundary_alignment_loss(student_offsets, teacher_offsets, boundary="giou"):
    """Equation 5 per point: 1 - GIoU (or 1 - DIoU) of the segments that student and teacher see from the same point, (N,).

    Args:
        student_offsets: (N, 2), distances from the point to start and end, 0 or more, in steps or in strides of its level: both give
            the same.
        teacher_offsets: the same shape.
        boundary: `"giou"` or `"diou"`.
    """
    return SEGMENT_LOSSES[boundary](lifted(student_offsets), lifted(teacher_offsets))
