"""Training and validation rows: the splits of the data set, or a share of each class held out."""

import random
from dataclasses import dataclass

from ..data import is_multi_label, label_names, load_video_dataset


@dataclass(frozen=True)
class TrainingSplits:
    """Rows of a run.

    Attributes:
        train: rows to train on.
        validation: rows to choose the best checkpoint by, or None.
        held_out: whether the latter were split off the training rows.
    """

    train: object
    validation: object
    held_out: bool


def training_splits(data, validation_share, seed, load_kwargs=None):
    """Rows to train and to validate on.

    The `test` split is never touched: choosing checkpoints on it would make its accuracy meaningless.

    Args:
        data: anything `load_video_dataset` takes.
        validation_share: share of each class to hold out when there is no `validation` split; 0 holds out nothing.
        seed: seed of that choice.
        load_kwargs: passed to `load_video_dataset`.

    Returns:
        the `TrainingSplits`.

    Raises:
        ValueError: no training split, or splits with different classes.
    """
    splits = load_video_dataset(data, **(load_kwargs or {}))
    if not isinstance(splits, dict):
        splits = {"train": splits}
    if "train" not in splits:
        raise ValueError(f"Training needs a split 'train'; the data set has {', '.join(splits) or 'none'}.")
    train, validation = splits["train"], splits.get("validation")
    if validation is not None:
        if label_names(validation) != label_names(train):
            raise ValueError(
                f"The validation split has other classes than the training split: {label_names(validation)} instead of "
                f"{label_names(train)}."
            )
        return TrainingSplits(train, validation, False)
    if validation_share == 0 or not hasattr(train, "select"):
        return TrainingSplits(train, None, False)
    train_indices, validation_indices = hold_out(label_keys(train), validation_share, seed)
    return TrainingSplits(train.select(train_indices), train.select(validation_indices), True)


def hold_out(keys, share, seed):
    """Splits rows into two, the same share of every class.

    Args:
        keys: the class of each row, anything hashable.
        share: part of each class to hold out, rounded; a class of one row stays in training.
        seed: seed of the choice.

    Returns:
        (indices that stay, indices held out), both sorted.

    Raises:
        ValueError: a share outside [0, 1), or nothing to hold out.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation_share must be in [0, 1), got {share}.")
    rows_of = {}
    for index, key in enumerate(keys):
        rows_of.setdefault(key, []).append(index)
    held = []
    for key in sorted(rows_of, key=repr):
        rows = rows_of[key]
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held += random.Random(f"{seed}/{key!r}").sample(rows, count)
    if not held:
        raise ValueError(
            f"No class has two clips, so none can be held out of {len(keys)}. Add a validation split, or set "
            "validation_share=0 to train without one."
        )
    chosen = set(held)
    return [index for index in range(len(keys)) if index not in chosen], sorted(held)


def label_keys(rows):
    """The class of every row without opening a video; a tuple of classes for several labels."""
    labels = list(rows["label"])
    return [tuple(sorted(label)) for label in labels] if is_multi_label(rows) else labels
