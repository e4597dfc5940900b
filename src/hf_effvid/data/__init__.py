"""Data sets: loading labelled videos, clips for training and testing, augmentation, generated data, the data set doctor.

Names are resolved on first use, because some of them need `datasets` or torch.
"""

import importlib


_PUBLIC_NAMES = {
    "AnnotationError": "annotations",
    "AugmentationConfig": "transforms",
    "ClipCollator": "collator",
    "ClipDataset": "clips",
    "DatasetReport": "doctor",
    "MOTION_CLASSES": "synthetic",
    "StreamingClipDataset": "clips",
    "TrainTransform": "transforms",
    "check_dataset": "doctor",
    "is_multi_label": "loading",
    "label_names": "loading",
    "labels_forbid_flips": "label_directions",
    "load_video_dataset": "loading",
    "make_motion_dataset": "synthetic",
    "tiny_motion_dataset": "synthetic",
}

__all__ = list(_PUBLIC_NAMES)


def __getattr__(name):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_PUBLIC_NAMES})
