"""Labels of a data set, in the model's numbering.

A data set numbers its classes alphabetically, a checkpoint as its author liked. Where both have names, names decide;
comparing the raw numbers gives a plausible, wrong accuracy.
"""

import re
from collections.abc import Sequence

import numpy as np


class LabelMismatchError(ValueError):
    """The data set's labels cannot be expressed in the model's classes."""


def _in_order(id2label: dict) -> list[str]:
    """The names by number; a configuration that was read as plain JSON has the numbers as text."""
    by_number = {int(key): str(name) for key, name in id2label.items() if str(key).isdigit()}
    if sorted(by_number) != list(range(len(id2label))):
        raise LabelMismatchError(
            f"the model's classes are numbered {list(id2label)[:10]}: expected 0 to K - 1 in its configuration's id2label."
        )
    return [by_number[number] for number in range(len(by_number))]


class LabelMap:
    """Turns a data set's label values into the model's class numbers.

    Args:
        id2label: the model's classes, number -> name.
        dataset_names: the data set's class names in its own numbering, None when it has none.
        multi_label: whether a video carries several labels.

    Raises:
        LabelMismatchError: the data set names classes that the model does not have, or the model's are not numbered.
    """

    def __init__(
        self, id2label: dict[int, str], dataset_names: Sequence[str] | None = None, multi_label: bool = False
    ):
        self.names = _in_order(id2label)
        self.multi_label = multi_label
        self._by_name = {name: index for index, name in enumerate(self.names)}
        self._from_dataset = None
        if dataset_names is None:
            return
        anonymous = all(re.fullmatch(r"LABEL_\d+", name) for name in self.names)
        if anonymous:
            if len(dataset_names) > len(self.names):
                raise LabelMismatchError(
                    f"the data set has {len(dataset_names)} classes, the model {len(self.names)} (without names)."
                )
            return
        missing = [name for name in dataset_names if name not in self._by_name]
        if missing:
            raise LabelMismatchError(
                f"the data set's classes {missing[:10]} are unknown to the model, which has {self.names[:10]}"
                f"{' ...' if len(self.names) > 10 else ''}. Fine-tune the model on this data set first, or rename the "
                "classes to the model's names."
            )
        self._from_dataset = [self._by_name[name] for name in dataset_names]

    def __call__(self, label) -> int | list[int]:
        """The class number of one video, or its sorted class numbers for a multi-label model.

        Raises:
            LabelMismatchError: an unknown name, a number out of range, or one label where several are expected.
        """
        if not self.multi_label:
            if isinstance(label, (list, tuple)):
                raise LabelMismatchError(
                    f"the video has the labels {label!r}, but the model gives one class per video. For multi-label models "
                    'set config.problem_type = "multi_label_classification".'
                )
            return self._class_number(label)
        if not isinstance(label, (list, tuple, np.ndarray)):
            raise LabelMismatchError(f"a multi-label model needs a list of labels per video, got {label!r}.")
        values = list(label)
        if self._is_multi_hot(values):
            numbers = [index for index, flag in enumerate(values) if flag]
            values = numbers
        return sorted({self._class_number(value) for value in values})

    def _is_multi_hot(self, values: list) -> bool:
        """`[0.0, 1.0, 0.0]`, or integers of that form: class numbers do not repeat, so a repeated 0 or 1 gives it away."""
        if len(values) != len(self._from_dataset or self.names) or any(isinstance(value, str) for value in values):
            return False
        if all(isinstance(v, (float, bool, np.floating, np.bool_)) for v in values):
            return True
        if any(value not in (0, 1) for value in values):
            return False
        if len(set(values)) == len(values) and self._from_dataset is None and len(values) > 1:
            raise LabelMismatchError(
                f"the labels {values!r} could be class numbers or flags: pass flags as floats, or class names."
            )
        return len(set(values)) < len(values)

    def _class_number(self, value) -> int:
        if isinstance(value, str):
            if value not in self._by_name:
                raise LabelMismatchError(f"label {value!r} is none of the model's classes {self.names[:10]}.")
            return self._by_name[value]
        number = int(value)
        table = self._from_dataset
        if not 0 <= number < len(table if table is not None else self.names):
            raise LabelMismatchError(
                f"label {value!r} is out of range for {len(table or self.names)} classes; unlabelled videos (-1) cannot be "
                "evaluated, leave them out."
            )
        return table[number] if table is not None else number
