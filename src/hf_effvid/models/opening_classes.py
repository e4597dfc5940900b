# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""What a saved checkpoint says about the classes that open it."""


class OpeningClassesMixin:
    """Comes before `PreTrainedModel` among the bases of an architecture's base class, which defines `auto_classes`.

    Attributes:
        auto_classes: names of auto classes and of the classes, all of one file, that they open a checkpoint with.
    """

    auto_classes: dict[str, str] = {}

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves as transformers does, and names every class that can open the folder, not only the one that saved it."""
        if self._auto_class is not None:
            # a subclass may stand in another file
            family = next(cls for cls in type(self).__mro__ if "auto_classes" in vars(cls))
            module = family.__module__.rsplit(".", 1)[-1]
            self.config.auto_map = {auto: f"{module}.{name}" for auto, name in self.auto_classes.items()}
        super().save_pretrained(save_directory, *args, **kwargs)
