"""Teachers and a student of a few thousand weights for tests of distillation commands: a VideoMAE and two X3Ds."""

import torch

from hf_effvid import X3DConfig, X3DForVideoClassification
from hf_effvid.training.model_setup import processor_for, save_classifier

from .small_compression import CLASSES, tiny_host


# the recipe of a student; sizes of the X3D are those of `tiny_cnn`
STUDENT = {
    "model_type": "x3d",
    "num_frames": 4,
    "image_size": 32,
    "frame_stride": 2,
    "stem_size": 4,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
    "head_size": 8,
}


def tiny_cnn(folder=None, classes=CLASSES, seed=1, **fields):
    """An X3D, saved with its processor where a folder is given."""
    torch.manual_seed(seed)
    sizes = {name: value for name, value in STUDENT.items() if name != "model_type"}
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    model = X3DForVideoClassification(X3DConfig(**sizes | labels | fields)).eval()
    if folder is not None:
        save_classifier(model, processor_for(model.config), str(folder))
    return model


def tiny_teachers(folder, classes=CLASSES):
    """Folders of a ViT and of a CNN that know these classes, in another order than the alphabet's."""
    reordered = list(reversed(classes))
    labels = {"id2label": dict(enumerate(reordered)), "label2id": {name: i for i, name in enumerate(reordered)}}
    tiny_host(folder / "vit", num_blocks=2, num_labels=len(classes), **labels)
    tiny_cnn(folder / "cnn", reordered, hidden_sizes=[6, 12])
    return folder / "vit", folder / "cnn"
