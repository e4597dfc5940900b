"""Which task a checkpoint is for. Everything that depends on it is in the classes named here, and nowhere else."""

from transformers import PreTrainedConfig

from .published_classifiers import VideoClassification
from .published_detectors import DetectionFromFeatures, DetectionFromPixels
from .published_task import PublishedTask


CLASSIFIER = VideoClassification()
# model_type -> what a model with a trunk of its own is, and one without
_DETECTORS = {"actionformer": (DetectionFromPixels(), DetectionFromFeatures())}


def task_of(config) -> PublishedTask:
    """The task of a model with this configuration (an object, or a dictionary as in `config.json`)."""
    document = config if isinstance(config, dict) else config.to_dict()
    from_pixels, from_features = _DETECTORS.get(document.get("model_type"), (CLASSIFIER, CLASSIFIER))
    return from_features if document.get("backbone_config") is None else from_pixels


def task_of_checkpoint(name: str) -> PublishedTask:
    """The task of a folder or Hub id, without opening the model."""
    try:
        document, _ = PreTrainedConfig.get_config_dict(name)
    except (OSError, ValueError):
        # an adapter, which is always a classifier's, or nothing at all: opening it says what is wrong
        return CLASSIFIER
    return task_of(document)
