"""Which annotated videos a detector is trained on, and which ones its checkpoints are chosen by."""

import os
from dataclasses import dataclass, replace

from ..data import DetectionAnnotations, load_detection_annotations
from .data_splits import hold_out


ONE_CLASS = "action"
_DRAWS = 20


@dataclass(frozen=True)
class DetectionSplits:
    """Videos of a run.

    Attributes:
        train: to train on.
        validation: to choose the best checkpoint by, or None.
        held_out: whether the latter were split off the former.
        skipped: names of videos that have no features.
    """

    train: DetectionAnnotations
    validation: DetectionAnnotations | None
    held_out: bool
    skipped: list[str]


def detection_splits(
    data, store=None, *, train_split=None, validation_split=None, validation_share=0.2, one_class=False, seed=0, **load_kwargs
):  # fmt: skip
    """Videos to train and to validate on.

    The `test` split is never touched unless it is asked for: choosing checkpoints on it would make its numbers meaningless.

    Args:
        data: `DetectionAnnotations`, or what `load_detection_annotations` takes.
        store: stored features; videos that it lacks are left out. None: the videos themselves.
        train_split: default: `train`, or the only one.
        validation_split: default: `validation`, if that is another one and exists.
        validation_share: share of the training videos to hold out when there is no validation split; 0 for none.
        one_class: call every action "action", for a detector whose classes come from elsewhere.
        seed: seed of that choice.
        load_kwargs: passed to `load_detection_annotations`.

    Raises:
        ValueError: no such split, or nothing annotated to train on.
    """
    annotations = data
    if isinstance(data, (str, os.PathLike)):
        missing = {"missing": "keep"} if store is not None else {}
        annotations = load_detection_annotations(data, **missing | load_kwargs)
    if one_class:
        annotations = as_one_class(annotations)
    annotations, skipped = _with_features(annotations, store)
    splits = annotations.splits
    if train_split is None:
        train_split = "train" if "train" in splits else splits[0]
        if train_split != "train" and len(splits) > 1:
            raise ValueError(
                f"{annotations.name} has no split 'train', but {', '.join(splits)}: say train_split=... to choose."
            )
    train = annotations.in_split(train_split)
    if not any(video.usable() for video in train.videos):
        raise ValueError(f"{annotations.name}: no video of the split {train_split!r} has an annotation with a length.")
    if validation_split is None and "validation" in splits and train_split != "validation":
        validation_split = "validation"
    if validation_split is not None:
        validation = annotations.in_split(validation_split)
        return DetectionSplits(train, validation if _annotated(validation) else None, False, skipped)
    if validation_share == 0 or len(train.videos) < 2:
        return DetectionSplits(train, None, False, skipped)
    kept, held = _hold_out(train, validation_share, seed)
    if not _annotated(held):
        return DetectionSplits(train, None, False, skipped)
    return DetectionSplits(kept, held, True, skipped)


def as_one_class(annotations: DetectionAnnotations, name: str = ONE_CLASS) -> DetectionAnnotations:
    """The same annotations without their classes."""
    videos = [
        replace(video, segments=[replace(one, label=name) for one in video.segments]) for video in annotations.videos
    ]
    return DetectionAnnotations(annotations.name, videos, [name])


def _with_features(annotations, store):
    if store is None:
        return annotations, []
    there = [video for video in annotations.videos if video.name in store]
    skipped = [video.name for video in annotations.videos if video.name not in store]
    if not there:
        raise ValueError(
            f"{annotations.name}: none of its {len(skipped)} videos has features, such as {', '.join(skipped[:3])}. Are the names the "
            "same?"
        )
    return replace(annotations, videos=there), skipped


def _hold_out(train, share, seed):
    """A share of the videos, such that as few classes as possible are missing on either side."""
    best = None
    for draw in range(_DRAWS):
        kept, held = (
            replace(train, videos=[train.videos[index] for index in indices])
            for indices in hold_out(["video"] * len(train.videos), share, f"{seed}/{draw}")
        )
        quality = (_num_classes(kept), _num_classes(held))
        if best is None or quality > best[0]:
            best = (quality, kept, held)
    return best[1], best[2]


def _num_classes(annotations):
    return len({one.label for video in annotations.videos for one in video.usable()})


def _annotated(annotations):
    return _num_classes(annotations) > 0
