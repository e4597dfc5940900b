"""Which models a distillation names: one that stands in two places is a slip of the hand, and is told before anything is opened."""

import os

from .distillation_settings import DistillationError


def check_sources(student, teacher_vit=None, teacher_cnn=None):
    """Refuses one model as both teachers, or as student and teacher.

    Args:
        student, teacher_vit, teacher_cnn: folders, Hub ids, presets or models; None: there is no such teacher.

    Raises:
        DistillationError: two of them are the same.
    """
    if _are_same(teacher_vit, teacher_cnn):
        raise DistillationError(
            f"The ViT teacher and the CNN teacher are both {_name(teacher_vit)}: they have nothing to differ in. Name two models, or "
            "leave one out and let the other teach alone."
        )
    for role, teacher in (("ViT", teacher_vit), ("CNN", teacher_cnn)):
        if _are_same(student, teacher):
            raise DistillationError(
                f"The student {_name(student)} is also its {role} teacher: from the first step on it has nothing to learn there. Name "
                "another model as one of them."
            )


def _are_same(first, second) -> bool:
    if first is None or second is None:
        return False
    if not all(isinstance(source, (str, os.PathLike)) for source in (first, second)):
        return first is second
    if os.path.exists(first) and os.path.exists(second):
        return os.path.samefile(first, second)
    return os.fspath(first) == os.fspath(second)


def _name(source) -> str:
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else f"one {type(source).__name__}"
