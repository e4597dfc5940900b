"""`distill_classifier`: from labelled videos, a student and its teachers to a Hub folder of the student alone, in one call."""

from dataclasses import dataclass, replace

from ..data import ClipCollator
from .classification import classification_task, prepare_model
from .distillation_settings import DistillationError
from .distillation_setup import open_distillation
from .dual_teacher_distiller import DualTeacherDistiller
from .run_setup import clip_datasets


def distill_classifier(
    student,
    data,
    *,
    teacher_vit=None,
    teacher_cnn=None,
    output_dir,
    settings=None,
    processor=None,
    args=None,
    augmentation="light",
    validation_share=0.2,
    on_error="skip",
    cache=None,
    views=None,
    view_seed=0,
    cache_teachers=None,
    label_map=None,
    resume=False,
    overwrite=False,
    trust_remote_code=False,
    callbacks=None,
    progress=True,
    **load_kwargs,
):
    """Teaches a small video classifier with labels, a ViT teacher and a CNN teacher (https://huggingface.co/papers/2511.09469).

    Every clip is decoded once; student and teachers see the same moment and crop, each in its own number of frames, size and normalisation.
    Teachers are frozen; the saved model is the student alone.

    Args:
        student: see `train_classifier`'s `model`, likewise `data`, `processor`, `args`, `validation_share`, `on_error`, `cache`, `resume`,
            `overwrite`, `trust_remote_code`, `callbacks`, `progress`, `load_kwargs`.
        teacher_vit, teacher_cnn: a folder, Hub id or model, or a `Teacher`; one of them may be left out, with the terms that need it. Both may,
            where the settings leave no term: the student alone, on the same views.
        output_dir: folder of the run: checkpoints, `training.json`, and the final Hub folder `model`.
        settings: `DistillationSettings`, or a dictionary of its fields.
        augmentation: an `AugmentationConfig` or the name of a preset, for all models alike.
        views: only so many random views of each clip exist, taken in turn by the epochs.
        view_seed: the seed of these, whatever the run's own.
        cache_teachers: a folder: each teacher answers to every view once, before training, and its answers are read from there in this and in
            later runs; needs `views`.
        label_map: a teacher's class name -> the student's, where they are called otherwise.

    Returns:
        a `TrainOutcome`, whose `distillation` names teachers, settings and terms.

    Raises:
        DistillationError, ValueError: see `open_distillation`.
        NonFiniteError: training diverged, with the block where it began.
    """
    if cache_teachers is not None and views is None:
        raise DistillationError(
            "cache_teachers stores the answers to a number of random views of each clip: set views, such as views=4."
        )
    distillation = open_distillation(
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
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        load_kwargs=load_kwargs,
    )
    run, arguments = distillation.run, distillation.run.arguments
    record = distillation.record(data)
    teachers, stores = distillation.teachers, None
    if cache_teachers is not None and teachers:
        stores = distillation.store_answers(cache_teachers, on_error, progress)
        # nobody is asked again: their memory is free
        teachers = {role: AnsweredTeacher(teacher.channels) for role, teacher in teachers.items()}
    train = distillation.training_clips(on_error, cache, stores)
    without_training = replace(run.rows, train=None)
    _, validation = clip_datasets(without_training, run.processor, run.augmentation, arguments, on_error, cache)
    task, weights = classification_task(
        prepare_model(run.model, arguments),
        run.rows.train,
        len(run.class_names),
        run.processor,
        arguments,
        make=DualTeacherDistiller,
        teachers=teachers,
        settings=distillation.settings,
        seed=arguments.seed,
    )
    del distillation, teachers
    collator = ClipCollator(run.augmentation, len(run.class_names), arguments.seed, keep_index=True)
    outcome = run.train(task, train, validation, collator, weights, callbacks, progress, distillation=record.to_dict())
    if arguments.should_save:
        record.save(outcome.model_dir)
    return outcome


@dataclass(frozen=True)
class AnsweredTeacher:
    """Stands for a teacher whose answers are stored.

    Attributes:
        channels: of its features.
    """

    channels: int
