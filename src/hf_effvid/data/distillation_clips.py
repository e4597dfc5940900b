"""Clips for a student and its teachers: every model's own pixels of one view, or a teacher's stored answers to it.

```python
clips = DistillationClipDataset(rows, {"student": small, "vit": large}, train=True, augmentation="light")
clips[0].keys()  # pixel_values, vit_pixel_values, labels, index, epoch
```
"""

import logging
from collections.abc import Mapping

from .clip_reader import why_no_flip
from .clips import ClipDataset, StreamingClipDataset
from .row_keys import row_key
from .shared_views import SharedViewReader, ViewSettings


logger = logging.getLogger(__name__)

STUDENT = "student"


class DistillationViews:
    """What an item of distillation holds beside its labels: read for all models at once, completed by stored answers.

    Args:
        processors: "student" and the roles of the teachers that are asked live -> their `EffVidVideoProcessor`.
        settings: of the views.
        teacher_outputs: role -> `TeacherOutputStore`, of teachers that have answered before.
        class_names: the classes, in the order of the student.
        limits: what one file may cost.

    Raises:
        ValueError: roles that contradict each other, or stored answers without a number of views, or with mixed clips.
        TeacherCacheError: the stored answers are about other views or classes.
    """

    def __init__(self, processors: Mapping, settings: ViewSettings, teacher_outputs=None, class_names=(), limits=None):
        self.settings, self.stores = settings, dict(teacher_outputs or {})
        both = sorted(set(processors) & set(self.stores))
        if both:
            raise ValueError(f"{', '.join(both)}: give either a processor, to ask the teacher, or its stored answers")
        if self.stores and settings.views is None:
            raise ValueError(
                "stored answers are about a number of views: pass `views`, at most as many as were stored"
            )
        if self.stores and settings.augmentation.mixes:
            raise ValueError(
                "mixup and cutmix make clips that no teacher has answered: use the teachers live, or set mixup_alpha=0 "
                "and cutmix_alpha=0"
            )
        for store in self.stores.values():
            store.check_views(settings, class_names)
        self.reader = SharedViewReader(processors, settings, limits)

    def __call__(self, row: dict, seed: int, epoch: int, cache=None, key=None) -> dict:
        """The pixels and answers of a row.

        Args:
            row: with "video", and "start" / "end" in seconds where only a part is meant.
            seed: of the view, where the number of views has no bound.
            epoch: which says the view, where it has.
            cache: where decoded videos are kept.
            key: the row's name in the cache.
        """
        clip = view = None
        if self.settings.views is not None:
            clip, view = row_key(row), self.settings.view_of_epoch(epoch)
            seed = self.settings.seed_of_view(clip, view)
        pixels = self.reader(row, seed, cache, key)
        content = {"pixel_values": pixels.pop(STUDENT)}
        content |= {f"{role}_pixel_values": values for role, values in pixels.items()}
        for role, store in self.stores.items():
            content |= {f"{role}_{name}": values for name, values in store.answers(clip, view).items()}
        return content


class DistillationClipDataset(ClipDataset):
    """Labelled clips for a student and its teachers, one per row of a data set from `load_video_dataset`.

    For training, one decoding serves all models: see `shared_views`. Without `views`, what item i is depends on
    (seed, epoch, i) alone; with them, on (view_seed, epoch modulo `views`, the video) alone. For testing, items are those
    of `ClipDataset` by the student's recipe.

    Args:
        dataset: see `ClipDataset`, likewise `train`, `seed`, `on_error`, `multi_view`, `cache`, `cache_bytes`,
            `class_names`, `limits`.
        processors: "student" and the roles of the teachers that are asked live ("vit", "cnn") -> their
            `EffVidVideoProcessor`.
        augmentation: an `AugmentationConfig` or the name of a preset, for all models alike; None changes nothing, and every
            model looks at the part of the picture that its own recipe says.
        views: only so many random views of each clip exist, so that answers to them can be stored.
        view_seed: the seed of these.
        decode_size, horizontal_flips: see `ViewSettings.make`.
        teacher_outputs: role -> `TeacherOutputStore`, instead of a processor.

    Attributes:
        view_settings: the `ViewSettings`.

    Raises:
        ValueError, TeacherCacheError: see `DistillationViews`. TeacherCacheError also where answers are missing.
    """

    def __init__(
        self,
        dataset,
        processors: Mapping,
        train: bool = False,
        augmentation=None,
        seed: int = 0,
        on_error: str = "raise",
        multi_view: bool = False,
        cache: str | None = None,
        cache_bytes: int = 2 * 2**30,
        class_names=None,
        limits=None,
        views: int | None = None,
        view_seed: int = 0,
        decode_size: int | None = None,
        horizontal_flips: bool | None = None,
        teacher_outputs=None,
    ):
        super().__init__(
            dataset,
            _student(processors),
            train=train,
            augmentation=augmentation,
            seed=seed,
            on_error=on_error,
            multi_view=multi_view,
            cache=cache,
            cache_bytes=cache_bytes,
            class_names=class_names,
            limits=limits,
        )
        how = (augmentation, self.class_names, views, view_seed, decode_size, horizontal_flips)
        self.view_settings = _settings(processors, *how, teacher_outputs)
        self.views = None
        if train:
            stored = teacher_outputs or {}
            self.views = DistillationViews(processors, self.view_settings, stored, self.class_names, limits)
            for store in stored.values():
                store.check_complete(dataset, views)

    def _content(self, row: dict, seed: int, index: int) -> dict:
        if self.views is None:
            return super()._content(row, seed, index)
        return self.views(row, seed, self.epoch, self.cache, index)


class StreamingDistillationClipDataset(StreamingClipDataset):
    """Labelled clips of a stream for a student and its teachers.

    Whether stored answers are complete cannot be seen beforehand: a clip without one ends the run when it comes.

    Args:
        dataset: see `StreamingClipDataset`, likewise `train`, `seed`, `on_error`, `multi_view`, `shuffle_buffer`,
            `class_names`, `limits`.
        processors: see `DistillationClipDataset`, likewise the others.
    """

    def __init__(
        self,
        dataset,
        processors: Mapping,
        train: bool = False,
        augmentation=None,
        seed: int = 0,
        on_error: str = "raise",
        multi_view: bool = False,
        shuffle_buffer: int = 0,
        class_names=None,
        limits=None,
        views: int | None = None,
        view_seed: int = 0,
        decode_size: int | None = None,
        horizontal_flips: bool | None = None,
        teacher_outputs=None,
    ):
        super().__init__(
            dataset,
            _student(processors),
            train=train,
            augmentation=augmentation,
            seed=seed,
            on_error=on_error,
            multi_view=multi_view,
            shuffle_buffer=shuffle_buffer,
            class_names=class_names,
            limits=limits,
        )
        how = (augmentation, self.class_names, views, view_seed, decode_size, horizontal_flips)
        self.view_settings = _settings(processors, *how, teacher_outputs)
        self.views = None
        if train:
            self.views = DistillationViews(processors, self.view_settings, teacher_outputs, self.class_names, limits)

    def _content(self, row: dict, seed: int, epoch: int) -> dict:
        if self.views is None:
            return super()._content(row, seed, epoch)
        return self.views(row, seed, epoch)


def _student(processors: Mapping):
    if STUDENT not in processors:
        raise ValueError(f"`processors` must name the student's, {STUDENT!r}, got {sorted(processors)}")
    return processors[STUDENT]


def _settings(processors, augmentation, class_names, views, view_seed, decode_size, horizontal_flips, stored):
    for store in (stored or {}).values():  # what was not said follows the answers, where they allow it
        decode_size = store.decode_size if decode_size is None else decode_size
        if horizontal_flips is None and not store.horizontal_flips:
            horizontal_flips = False
    if horizontal_flips is None:
        for role, processor in processors.items():
            reason = why_no_flip(processor, class_names)
            if reason and role != STUDENT:
                logger.info("no horizontal flips, for %s: %s", role, reason)
    return ViewSettings.make(
        processors.values(), augmentation, class_names, views, view_seed, decode_size, horizontal_flips
    )
