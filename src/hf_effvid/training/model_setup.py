"""The model and the processor a run starts from: a checkpoint with a new head, a configuration, or a preset."""

import os

from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from ..auto import complete_auto_map, find_architecture, register
from ..convert import video_from_image_focalnet
from ..host_loading import ADAPTER_CONFIG, one_line_errors
from ..host_processing import frame_size, holds_recipe, load_processor, required_frames_per_clip, with_recipe
from ..models.video_processing_effvid import EffVidVideoProcessor
from .lora import head_modules
from .tasks import MULTI_LABEL


SINGLE_LABEL = "single_label_classification"
# what stands before the colon of a model's name -> how the temporal branch starts
IMAGE_STARTS = {"image": "published", "image-preserve": "preserve"}


def open_classifier(model, class_names, multi_label=False, seed=0, trust_remote_code=False):
    """A classifier for the given classes.

    Args:
        model: a classifier; a configuration, or `"<model_type>:<preset>"` such as `"video_focalnet:tiny"`, to start from
            random weights; `"image:"` or `"image-preserve:"` and an image FocalNet's folder or Hub id, see
            `convert.image_initialization`; otherwise a folder or Hub id, whose head is replaced unless it has exactly
            these classes.
        class_names: names of the classes in the order of the labels.
        multi_label: whether a video carries several labels.
        seed: seed of everything that is initialised anew.
        trust_remote_code: run model code that comes with a checkpoint and is not in transformers or this package.

    Raises:
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
        ValueError: a model of another number of classes, an adapter, or an unknown preset.
    """
    register()
    labels = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: index for index, name in enumerate(class_names)},
        "problem_type": MULTI_LABEL if multi_label else SINGLE_LABEL,
    }
    set_seed(seed)
    if isinstance(model, PreTrainedModel):
        if model.config.num_labels != len(class_names):
            raise ValueError(
                f"The model has {model.config.num_labels} classes, the data set {len(class_names)}. Pass the model's "
                "folder or configuration instead, then it gets a head of the right size."
            )
        _set_labels(model.config, labels)
        return model
    if isinstance(model, (str, os.PathLike)) and not os.path.isdir(model) and ":" in str(model):
        kind, _, name = str(model).partition(":")
        if kind in IMAGE_STARTS:
            opened = video_from_image_focalnet(name, IMAGE_STARTS[kind], id2label=labels["id2label"], seed=seed)
            _set_labels(opened.config, labels)
            return opened
        model = named_preset(str(model))
    if isinstance(model, PreTrainedConfig):
        _set_labels(model, labels)
        return AutoModelForVideoClassification.from_config(model, trust_remote_code=trust_remote_code)
    model = os.fspath(model)
    if os.path.isfile(os.path.join(model, ADAPTER_CONFIG)):
        raise ValueError(f"{model!r} is an adapter: train on from its merged model, or from its base.")
    with one_line_errors(model):
        before = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        opened = AutoModelForVideoClassification.from_pretrained(
            model, ignore_mismatched_sizes=True, trust_remote_code=trust_remote_code, **labels
        )
    _set_labels(opened.config, labels)
    known = [before.id2label[index] for index in sorted(before.id2label)]
    if known != list(class_names):
        # a head of the same size for other classes would otherwise be kept without a word
        set_seed(seed)
        _initialize_head(opened)
        if getattr(opened.config, "budget_policy", None):
            # thresholds and probe of LITE++ belong to the old classes
            opened.set_budget_policy(None)
    return opened


def open_processor(processor, model, source, trust_remote_code=False):
    """The processor whose recipe the training clips follow and the checkpoint carries.

    Args:
        processor: a processor, a folder or Hub id of one, or None for the one beside the model.
        model: the classifier.
        source: what the classifier was opened from.
        trust_remote_code: see `open_classifier`.

    Returns:
        an `EffVidVideoProcessor`; a stock processor is turned into one with the same resizing and normalisation.
    """
    if (
        processor is None
        and isinstance(source, (str, os.PathLike))
        and (os.path.isdir(source) or ":" not in str(source))
    ):
        processor = source
    if processor is None:
        return processor_for(model.config)
    if isinstance(processor, (str, os.PathLike)):
        processor = load_processor(os.fspath(processor), trust_remote_code=trust_remote_code)
    return processor if holds_recipe(processor) else with_recipe(processor, model.config)


def processor_for(config):
    """A recipe for a model from scratch: clips of its own length and size, the whole short side, and what is usual for its family."""
    num_frames, size = required_frames_per_clip(config), frame_size(config) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    architecture = find_architecture(config.model_type)
    return EffVidVideoProcessor(
        num_frames=num_frames,
        size={"shortest_edge": min(height, width)} if height == width else {"height": height, "width": width},
        crop_size={"height": height, "width": width},
        **(architecture.recipe_for(config) if architecture else {}),
    )


def save_classifier(model, processor, folder):
    """Writes a self-contained Hub folder: configuration with a complete `auto_map`, code, weights, processor."""
    complete_auto_map(model.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _set_labels(config, labels):
    for name, value in labels.items():
        setattr(config, name, value)


def named_preset(name):
    """The configuration that `"<model_type>:<preset>"` names; None for a folder or a Hub id.

    Raises:
        ValueError: there is no such preset.
    """
    if os.path.isdir(name) or ":" not in name:
        return None
    model_type, _, preset = name.partition(":")
    architecture = find_architecture(model_type)
    if architecture is None or not hasattr(architecture.config, "from_preset"):
        raise ValueError(
            f"{name!r} is neither a folder nor a known <model_type>:<preset> such as 'video_focalnet:tiny'."
        )
    return architecture.config.from_preset(preset)


def _initialize_head(model):
    for name in head_modules(model):
        for module in model.get_submodule(name).modules():
            for parameter in module.parameters(recurse=False):
                # transformers' initialisers leave alone what came from a file
                parameter._is_hf_initialized = False
            model._init_weights(module)
