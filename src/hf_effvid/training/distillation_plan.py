"""What a distillation would do, before it does it: models and clips that fit, terms, what is trained beside the student, and what a step costs."""

import os
from dataclasses import asdict, dataclass

from ..evaluation.cost import model_cost
from .classification import classification_task, prepare_model
from .distillation_setup import open_distillation
from .dual_teacher_distiller import DualTeacherDistiller


# forward, and twice as much for the gradients of values and of weights
_FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class PlannedModel:
    """The student or a teacher.

    Attributes:
        role: "student", "vit" or "cnn".
        name: folder or Hub id.
        license: of a teacher, where it is known.
        parameters: of it.
        gmacs: of one clip forward; None where they cannot be counted.
        clip: (T, C, H, W) of one clip.
        read: of a teacher: which of its outputs the terms read.
    """

    role: str
    name: str
    license: str | None
    parameters: int
    gmacs: float | None
    clip: tuple[int, ...]
    read: tuple[str, ...] = ()


@dataclass(frozen=True)
class DistillationPlan:
    """What would be done.

    Attributes:
        student, teachers: the models.
        terms: names of the terms -> what is said about each, its weight first.
        auxiliaries: what is trained beside the student and left behind: name -> parameters.
        data: `classes`, `train`, `validation` (clips) and `held_out`.
        steps, batch_size: of the run, and clips in a step over all devices.
        step_gmacs: of one step: `student` forward and backward (three times forward), and each teacher forward; None where not counted. The
            auxiliaries are not counted.
        cached_clips: clips that each teacher answers to before training, when its answers are stored; it has no part in the steps then.
    """

    student: PlannedModel
    teachers: tuple[PlannedModel, ...]
    terms: dict
    auxiliaries: dict
    data: dict
    steps: int | None
    batch_size: int
    step_gmacs: dict
    cached_clips: int | None

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """For a terminal."""
        lines = [_model_line(model) for model in (self.student, *self.teachers)]
        held_out = ", held out of the training split" if self.data["held_out"] else ""
        steps = "" if self.steps is None else f"; {self.steps:,} steps of {self.batch_size}"
        lines.append(
            f"{_count(self.data['train'])} clips to train on, {_count(self.data['validation'])} to validate on{held_out}, "
            f"{self.data['classes']} classes{steps}"
        )
        lines += [f"  {name:<12} {told}" for name, told in self.terms.items()]
        beside = ", ".join(f"{name} {count:,} parameters" for name, count in self.auxiliaries.items())
        lines.append(f"trained beside the student and left behind: {beside or 'nothing'}")
        lines.append(self._cost_line())
        return "\n".join(lines)

    def _cost_line(self) -> str:
        parts = ", ".join(
            f"{role} {'not counted' if gmacs is None else f'{gmacs:,.4g} GMACs'}"
            for role, gmacs in self.step_gmacs.items()
        )
        line = f"a step: {parts} (student: forward and backward)"
        known = [gmacs for gmacs in self.step_gmacs.values() if gmacs is not None]
        if len(known) == len(self.step_gmacs) > 1:
            line += f"; teachers take {100 * (1 - self.step_gmacs['student'] / sum(known)):.0f} %"
        if self.cached_clips is not None:
            line += f"; each teacher answers to {self.cached_clips:,} clips once, before"
        return line


def plan_distillation(
    student,
    data,
    *,
    output_dir,
    teacher_vit=None,
    teacher_cnn=None,
    settings=None,
    processor=None,
    args=None,
    augmentation="light",
    validation_share=0.2,
    cache=None,
    views=None,
    view_seed=0,
    cache_teachers=None,
    label_map=None,
    trust_remote_code=False,
    progress=True,
    **load_kwargs,
) -> DistillationPlan:
    """Opens all that `distill_classifier` would open, looks at one clip, and trains and writes nothing.

    Args: those of `distill_classifier`. An earlier run in `output_dir` is neither an error nor touched.

    Raises:
        DistillationError, ValueError: see `open_distillation`.
    """
    opened = open_distillation(
        student,
        data,
        teacher_vit=teacher_vit,
        teacher_cnn=teacher_cnn,
        output_dir=output_dir,
        settings=settings,
        views=views,
        view_seed=view_seed,
        label_map=label_map,
        trust_remote_code=trust_remote_code,
        processor=processor,
        args=args,
        augmentation=augmentation,
        validation_share=validation_share,
        resume=True,
        progress=progress,
        load_kwargs=load_kwargs,
    )
    run, settings = opened.run, opened.settings
    task, _ = classification_task(
        prepare_model(run.model, run.arguments),
        run.rows.train,
        len(run.class_names),
        run.processor,
        run.arguments,
        make=DualTeacherDistiller,
        teachers=opened.teachers,
        settings=settings,
        seed=run.arguments.seed,
    )
    clips = opened.training_clips()
    clip = clips[0] if hasattr(clips, "__len__") else next(iter(clips))
    planned = _planned("student", _name(student), None, run.model, clip["pixel_values"])
    teachers = tuple(
        _planned(role, teacher.name, teacher.license, teacher.model, clip[f"{role}_pixel_values"], task.needed[role])
        for role, teacher in opened.teachers.items()
    )
    batch_size = run.arguments.train_batch_size * run.arguments.world_size * run.arguments.gradient_accumulation_steps
    num_train = len(clips) if hasattr(clips, "__len__") else None
    validation = run.rows.validation
    return DistillationPlan(
        student=planned,
        teachers=teachers,
        terms=_terms(settings),
        auxiliaries=_auxiliaries(task),
        data={
            "classes": len(run.class_names),
            "train": num_train,
            "validation": 0 if validation is None else len(validation) if hasattr(validation, "__len__") else None,
            "held_out": run.rows.held_out,
        },
        steps=_steps(run.arguments, num_train, batch_size),
        batch_size=batch_size,
        step_gmacs=_step_gmacs(planned, teachers, batch_size, cache_teachers is not None),
        cached_clips=num_train * opened.views if cache_teachers is not None and num_train and opened.views else None,
    )


def _planned(role, name, license, model, pixels, read=()) -> PlannedModel:
    cost = model_cost(model, (1, *pixels.shape))
    return PlannedModel(
        role, name, license, cost.parameters, cost.gmacs, tuple(pixels.shape), tuple(sorted(read, reverse=True))
    )


def _name(student) -> str:
    """What the student is opened from; of a configuration or a model its kind."""
    if isinstance(student, (str, os.PathLike)):
        return os.fspath(student)
    return getattr(student, "model_type", type(student).__name__)


def _terms(settings) -> dict:
    said = {
        "kd": f"{settings.kd_weight:g}, {settings.kd_loss} at temperature {settings.kd_temperature:g}, teachers weighted by "
        f"{settings.weighting}",
        "residual": f"{settings.residual_weight:g}, of the {settings.residual}, projections {settings.projection}",
        "cnn_feature": f"{settings.cnn_feature_weight:g}",
        "relation": f"{settings.relation_weight:g}, of the {settings.relation_teacher}: distances {settings.rkd_distance_weight:g}, angles "
        f"{settings.rkd_angle_weight:g}",
        "feature": f"{settings.feature_weight:g}, {settings.feature_loss} with {settings.feature_teacher}",
    }
    return {"labels": f"{settings.ce_weight:g}"} | {name: said[name] for name in settings.terms}


def _auxiliaries(task) -> dict:
    """What the task has of its own, by the names of its children."""
    own = {id(parameter) for parameter in task.model.parameters()}
    counts = {}
    for name, child in task.named_children():
        count = sum(parameter.numel() for parameter in child.parameters() if id(parameter) not in own)
        if count:
            counts[name] = count
    return counts


def _steps(arguments, num_train, batch_size) -> int | None:
    if arguments.max_steps > 0:
        return arguments.max_steps
    if num_train is None:
        return None
    per_epoch = num_train // batch_size if arguments.dataloader_drop_last else -(-num_train // batch_size)
    return round(max(per_epoch, 1) * arguments.num_train_epochs)


def _step_gmacs(student, teachers, batch_size, is_cached) -> dict:
    per_clip = {"student": None if student.gmacs is None else _FORWARD_AND_BACKWARD * student.gmacs}
    per_clip |= {teacher.role: teacher.gmacs for teacher in teachers if not is_cached}
    return {role: None if gmacs is None else batch_size * gmacs for role, gmacs in per_clip.items()}


def _model_line(model: PlannedModel) -> str:
    frames, _, height, width = model.clip
    title = model.role if model.role == "student" else f"{model.role} teacher"
    license = f" ({model.license})" if model.license else ""
    macs = "" if model.gmacs is None else f", {model.gmacs:.4g} GMACs"
    read = f"; {', '.join(model.read)} are read" if model.read else ""
    return (
        f"{title} {model.name}{license}: {model.parameters / 1e6:.3f} M parameters{macs} per clip of {frames} x {height} x "
        f"{width}{read}"
    )


def _count(number) -> str:
    return "streamed" if number is None else f"{number:,}"
