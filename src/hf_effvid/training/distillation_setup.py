"""What a distillation opens before it trains: student, recipes, teachers, settings; clips for all of them, and stored answers."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..compression.feature_taps import feature_spec, record_features
from ..compression.teachers import Teacher
from ..data import DistillationClipDataset, StreamingDistillationClipDataset, TeacherOutputStore, ViewSettings
from ..data.teacher_output_files import read_description
from .classifier_run import ClassifierRun, open_run
from .distillation_record import DistillationRecord
from .distillation_settings import ROLES, DistillationError, DistillationSettings
from .distillation_sources import check_sources
from .model_setup import processor_for
from .teacher_cache import cache_teacher_outputs


@dataclass(frozen=True)
class Distillation:
    """What is open before a student is taught.

    Attributes:
        run: the `ClassifierRun` of the student.
        teachers: role -> `Teacher`, of those that something is read of.
        settings: `DistillationSettings` without the terms for which a teacher is missing.
        views: random views of each clip; None: new ones in every epoch.
        view_seed: seed of these.
    """

    run: ClassifierRun
    teachers: dict[str, Teacher]
    settings: DistillationSettings
    views: int | None = None
    view_seed: int = 0

    def training_clips(self, on_error="skip", cache=None, stores=None):
        """Training clips: pixels for the student and for every teacher without stored answers.

        Args:
            on_error, cache: see `ClipDataset`.
            stores: role -> `TeacherOutputStore`.
        """
        run, stores = self.run, stores or {}
        processors = {role: teacher.processor for role, teacher in self.teachers.items() if role not in stores}
        options = {"augmentation": run.augmentation, "seed": run.arguments.seed, "on_error": on_error}
        options |= {"views": self.views, "view_seed": self.view_seed, "teacher_outputs": stores or None}
        kind, more = DistillationClipDataset, {"cache": cache}
        if not hasattr(run.rows.train, "__len__"):
            kind, more = StreamingDistillationClipDataset, {"shuffle_buffer": 256}
        return kind(run.rows.train, {"student": run.processor, **processors}, train=True, **options, **more)

    def store_answers(self, folder, on_error="skip", progress=True):
        """Asks every teacher about every view once, but for what it was asked before.

        Features are averaged to the grid of the student's last map where the terms would do so themselves. Answers of an earlier run serve
        where they hold all that is read now, whatever they hold besides.

        Args:
            folder: one folder of answers in it for each role.
            on_error, progress: see `cache_teacher_outputs`.

        Returns:
            role -> `TeacherOutputStore`.

        Raises:
            TeacherCacheError: a folder holds answers to something else.
            ValueError: a stream, or mixed clips.
        """
        run, stores = self.run, {}
        found = {role: (read_description(Path(folder, role)) or {}).get("recipe") for role in self.teachers}
        decode_size, horizontal_flips = self._how_views_were_stored([recipe for recipe in found.values() if recipe])
        # the other processes of a run find everything answered
        with run.arguments.main_process_first(desc="asking teachers"):
            for role, teacher in self.teachers.items():
                needed = self.settings.needed_of(role, self.teachers)
                outputs, grid = self._what_to_store(needed, found[role])
                store = cache_teacher_outputs(
                    teacher.to(run.arguments.device),
                    run.rows.train,
                    Path(folder) / role,
                    role=role,
                    views=self.views,
                    view_seed=self.view_seed,
                    augmentation=run.augmentation,
                    class_names=run.class_names,
                    horizontal_flips=horizontal_flips,
                    decode_size=decode_size,
                    outputs=outputs,
                    grid=grid,
                    batch_size=run.arguments.per_device_eval_batch_size,
                    num_workers=run.arguments.dataloader_num_workers,
                    on_error=on_error,
                    progress=progress,
                )
                stores[role] = TeacherOutputStore.open(store.folder, outputs=needed)
        return stores

    def _how_views_were_stored(self, recipes):
        """(decode_size, horizontal_flips) of stored answers, or what suits all models of this run where there are none."""
        processors = [self.run.processor, *(teacher.processor for teacher in self.teachers.values())]
        names = self.run.class_names
        settings = ViewSettings.make(processors, self.run.augmentation, names, self.views, self.view_seed)
        stored = [recipe["views"] for recipe in recipes]
        decode_size = stored[0]["decode_size"] if stored else settings.decode_size
        return decode_size, settings.horizontal_flips and all(views["horizontal_flips"] for views in stored)

    def _what_to_store(self, needed, recipe):
        """(outputs, grid): those of the answers that are there if nothing that is needed is missing, else what is needed."""
        grid = None
        if "features" in needed and self.settings.feature_loss != "attention":
            grid = self._student_grid()
        if recipe is None or not needed <= set(recipe["outputs"]):
            return needed, grid
        return recipe["outputs"], grid if "features" in needed else recipe["grid"]

    def record(self, data=None):
        """Who teaches, and how, as a `DistillationRecord`.

        Args:
            data: what the rows were loaded from; told where it is a name.
        """
        about = {"views": self.views, "view_seed": self.view_seed, "terms": list(self.settings.terms)}
        if isinstance(data, (str, os.PathLike)):
            about["name"] = os.path.basename(os.path.normpath(data)) if os.path.exists(data) else os.fspath(data)
        return DistillationRecord.of(list(self.teachers.values()), self.settings, about, self.run.arguments.seed)

    def _student_grid(self):
        """(T, H, W) of the student's last map of one of its clips."""
        model, recipe = self.run.model, self.run.processor
        size = (recipe.crop_size["height"], recipe.crop_size["width"])
        clip = torch.zeros(1, recipe.num_frames, 3, *size, dtype=model.dtype, device=model.device)
        was_training = model.training
        with torch.no_grad(), record_features(model.eval(), feature_spec(model)) as recorded:
            model(pixel_values=clip)
        model.train(was_training)
        return tuple(recorded.map.shape[2:])


def open_distillation(
    student,
    data,
    *,
    teacher_vit=None,
    teacher_cnn=None,
    output_dir,
    settings=None,
    views=None,
    view_seed=0,
    label_map=None,
    trust_remote_code=False,
    **options,
):
    """Opens student, rows, recipes and teachers, and checks that they fit. See `distill_classifier` for the arguments.

    Returns:
        a `Distillation`.

    Raises:
        DistillationError: no teacher although terms need one, several labels, or options that distillation does not have.
        ValueError: `output_dir` holds another run, data and model do not fit, or a teacher has other classes.
    """
    settings = DistillationSettings.of(settings)
    sources = {"vit": teacher_vit, "cnn": teacher_cnn}
    check_sources(student, **{f"teacher_{role}": source for role, source in sources.items()})
    given = [role for role in ROLES if sources[role] is not None]
    if not given and settings.terms:
        raise DistillationError(
            f"The terms {', '.join(settings.terms)} need a teacher: give teacher_vit, teacher_cnn or both. A student alone, on the same "
            "views of the clips: kd_weight=0, residual='none', relation_weight=0."
        )
    run = open_run(student, data, output_dir=output_dir, trust_remote_code=trust_remote_code, **options)
    if run.multi_label:
        raise DistillationError(
            "Distillation compares softmax predictions; these clips have several labels. Use train_classifier."
        )
    if run.arguments.random_keep_ratios:
        raise DistillationError("random_keep_ratios are not part of distillation: select tokens before or after it.")
    settings = settings.for_teachers(given)
    if run.augmentation.mixes and settings.needs_class_numbers:
        raise DistillationError(
            f"kd_loss={settings.kd_loss!r}, weighting={settings.weighting!r}, label_gate={settings.label_gate} need one class per clip; "
            "mixup and cutmix give shares of two. Set mixup_alpha=0 and cutmix_alpha=0."
        )
    teachers = {
        role: _open_teacher(sources[role], role, run.class_names, label_map, trust_remote_code)
        for role in given
        if settings.needed_of(role, given)
    }
    return Distillation(run, teachers, settings, views, view_seed)


def _open_teacher(source, role, class_names, label_map, trust_remote_code):
    if isinstance(source, Teacher):
        return source
    teacher = Teacher.open(source, role, class_names, label_map=label_map, trust_remote_code=trust_remote_code)
    if teacher.processor is None:  # a model, of which only its own shape is known
        teacher.processor = processor_for(teacher.model.config)
    return teacher
