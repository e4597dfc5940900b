"""The detector and the processor that a run starts from: a checkpoint with a new head, a classifier's trunk, a configuration, or defaults."""

import os

from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, set_seed

from ..auto import register
from ..data import labels_forbid_flips
from ..host_loading import one_line_errors
from ..host_processing import frame_size, holds_recipe, load_processor, with_recipe
from ..models.configuration_actionformer import ActionFormerConfig, frames_of
from ..models.modeling_actionformer import ActionFormerForTemporalActionDetection
from ..models.video_processing_actionformer import ActionFormerProcessor
from .detection_defaults import ActionLengths, feature_sizes, pixel_sizes, small_backbone
from .freezing import freeze
from .lora import add_lora, lora_target_modules
from .model_setup import named_preset, processor_for


DETECTOR = "actionformer"
_FRAMES_PER_STEP = 2
_PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json")
_SPATIAL_FIELDS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std", "num_frames", "horizontal_flip_safe",
)  # fmt: skip


def open_detector(model, annotations, store=None, fields=None, processor=None, seed=0, trust_remote_code=False):
    """A detector for the classes of annotations, and its processor.

    Args:
        model: a detector, its folder or Hub id; a video classifier whose trunk turns frames into features, its folder, Hub id or
            `"<model_type>:<preset>"`; a configuration of either; None: a small one.
        annotations: `DetectionAnnotations` of the training videos.
        store: the stored features; None: frames.
        fields: of `ActionFormerConfig`, over the defaults that follow from the data.
        processor: an `ActionFormerProcessor`, its folder, or a dictionary of its fields over the defaults.
        seed: seed of everything that is initialised anew.
        trust_remote_code: run model code that comes with a checkpoint.

    Returns:
        (`ActionFormerForTemporalActionDetection`, `ActionFormerProcessor`).

    Raises:
        ValueError: a detector on features without features, one on frames with them, or a model that is no source of either.
    """
    register()
    set_seed(seed)
    if isinstance(model, (str, os.PathLike)):
        source, model = os.fspath(model), _opened(os.fspath(model), trust_remote_code)
    else:  # a model that was loaded from a folder has its processor there
        source = getattr(model, "name_or_path", None)
        if not source or not any(os.path.isfile(os.path.join(source, name)) for name in _PROCESSOR_FILES):
            source = None
    fields = dict(fields or {})
    is_config = isinstance(model, PreTrainedConfig)
    found = model if is_config or model is None else model.config
    if found is not None and found.model_type == DETECTOR:
        detector, recipe = _as_detector(model, annotations.class_names, fields), {}
        derived = _recipe_of(source, trust_remote_code, detector.config.backbone_config)
        if "feature_stride" not in derived:
            recipe = _recipe_for(detector.config, annotations, store)
    elif store is not None:
        if model is not None:
            raise ValueError(
                f"{type(model).__name__} is no detector: on stored features a detector has no backbone; leave the model out."
            )
        sizes, recipe = _for_features(annotations, store)
        detector = _new(sizes | fields, annotations.class_names)
        derived = {}
    else:
        detector, recipe, derived = _for_pixels(model, source, annotations, fields, trust_remote_code)
    if (detector.config.backbone_config is None) != (store is not None):
        raise ValueError(
            "This detector takes stored features: pass `features`, a folder of them."
            if store is None
            else "This detector has a backbone and takes videos: leave `features` out."
        )
    return detector, _processor(
        processor, recipe, derived, detector.config, annotations.class_names, trust_remote_code
    )


def prepare_backbone(detector, arguments):
    """Freezes the backbone, or gives it LoRA adapters, as the arguments say.

    Args:
        detector: the detector; edited in place.
        arguments: `freeze` (`backbone`: the trunk) and `lora_*`, which adapt the trunk and train all else in full.

    Returns:
        the detector, wrapped by PEFT with LoRA.

    Raises:
        ValueError: both are asked for, or there is no backbone.
    """
    if arguments.lora_r and arguments.freeze:
        raise ValueError("lora_r already freezes the backbone but the adapters; leave freeze unset.")
    trunk = detector.actionformer.backbone
    if trunk is None and (arguments.lora_r or "backbone" in (arguments.freeze or ())):
        raise ValueError(
            "A detector on stored features has no backbone to freeze or adapt: leave freeze and lora_r out."
        )
    if arguments.freeze:
        others = [pattern for pattern in arguments.freeze if pattern != "backbone"]
        if len(others) < len(arguments.freeze):
            detector.config.freeze_backbone = trunk.frozen = True
            trunk.freeze()
        if others:
            freeze(detector, others)
    if not arguments.lora_r:
        return detector
    if trunk.adapters is not None or trunk.frozen:
        raise ValueError("lora_r needs a plain backbone: set temporal_adapters and freeze_backbone to false.")
    inside = "actionformer.backbone.trunk."
    targets = [inside + name for name in lora_target_modules(trunk.trunk, arguments.lora_targets)]
    trained = [f"actionformer.{name}" for name in ("embeddings", "encoder", "neck")]
    trained += ["classification_head", "regression_head"]
    wrapped = add_lora(detector, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, targets, trained)
    detector.level_scales.requires_grad_(True)  # a parameter by itself, which PEFT has no word for
    return wrapped


def _opened(source, trust_remote_code):
    preset = named_preset(source)
    if preset is not None:
        return preset
    with one_line_errors(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        if config.model_type == DETECTOR:
            return ActionFormerForTemporalActionDetection.from_pretrained(source)
        return AutoModel.from_pretrained(source, trust_remote_code=trust_remote_code)


def _labels(class_names):
    return {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: number for number, name in enumerate(class_names)},
    }


def _new(fields, class_names):
    return ActionFormerForTemporalActionDetection(ActionFormerConfig(**fields | _labels(class_names)))


def _as_detector(model, class_names, fields):
    """A detector that says these classes; a head for others starts anew."""
    if isinstance(model, PreTrainedConfig):
        changed = model.to_dict() | fields | _labels(class_names)
        return ActionFormerForTemporalActionDetection(ActionFormerConfig(**changed))
    known = [model.config.id2label[number] for number in sorted(model.config.id2label)]
    if fields:
        raise ValueError(
            f"The architecture of a trained detector stays as it is: leave {', '.join(sorted(fields))} out, or start from its backbone."
        )
    if known == list(class_names):
        return model
    changed = model.config.to_dict() | _labels(class_names)
    changed.pop("operating_points", None)  # thresholds of the old classes
    renewed = ActionFormerForTemporalActionDetection(ActionFormerConfig(**changed))
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("classification_head.output.")
    }
    renewed.load_state_dict(kept, strict=False)
    return renewed


def _for_features(annotations, store):
    """Fields of the configuration and of the recipe for the features of a store."""
    infos = [store.info(video.name) for video in annotations.videos]
    rates = {info.fps or video.fps for info, video in zip(infos, annotations.videos, strict=True)}
    fps = next(iter(rates)) if len(rates) == 1 else None
    known = [rate for rate in rates if rate]
    if len(known) < len(rates):
        raise ValueError(
            f"{annotations.name}: nobody knows the frame rate of some features, neither their store nor the annotations ('fps')."
        )
    seconds = infos[0].stride / min(known)
    sizes = feature_sizes(ActionLengths.of(annotations), seconds, max(info.num_steps for info in infos))
    recipe = {"feature_stride": infos[0].stride, "feature_num_frames": infos[0].num_frames}
    return {"input_size": infos[0].channels, **sizes}, recipe | ({"feature_fps": fps} if fps else {})


def _for_pixels(model, source, annotations, fields, trust_remote_code):
    """A detector on a trunk, the fields of its recipe that follow from the data, and those of the trunk's own processor."""
    given = fields.pop("backbone_config", None)
    if model is None:
        model = small_backbone() if given is None else ActionFormerConfig(backbone_config=given).backbone_config
    trunk_config = model if isinstance(model, PreTrainedConfig) else model.config
    derived = _recipe_of(source, trust_remote_code, trunk_config)
    clip_frames = fields.get("clip_frames") or frames_of(trunk_config)
    per_step = fields.get("frames_per_step", _FRAMES_PER_STEP)
    sizes, recipe = pixel_sizes(ActionLengths.of(annotations), per_step, clip_frames)
    recipe |= {"feature_stride": per_step, "feature_num_frames": per_step}
    if "max_sequence_length" in fields:
        recipe["window_length"] = fields["max_sequence_length"]
    sizes |= fields
    if isinstance(model, PreTrainedModel):
        return (
            ActionFormerForTemporalActionDetection.from_backbone(model, **sizes | _labels(annotations.class_names)),
            recipe,
            derived,
        )
    detector = _new(sizes | {"backbone_config": trunk_config}, annotations.class_names)
    return detector, recipe, derived


def _recipe_for(config, annotations, store):
    """Fields of the recipe of a detector that comes without one."""
    if store is not None:
        return _for_features(annotations, store)[1]
    if config.backbone_config is None:
        return {}
    per_step = config.frames_per_step
    recipe = pixel_sizes(ActionLengths.of(annotations), per_step, config.clip_frames)[1]
    window = {"window_length": config.max_sequence_length}
    return recipe | window | {"feature_stride": per_step, "feature_num_frames": per_step}


def _recipe_of(source, trust_remote_code, config=None):
    """Fields of the processor beside a checkpoint, or of one that fits a trunk."""
    if source is not None and (os.path.isdir(source) or ":" not in source):
        processor = load_processor(source, trust_remote_code=trust_remote_code)
        if not holds_recipe(processor):
            processor = with_recipe(processor, config)
        if hasattr(processor, "feature_stride"):
            return {name: value for name, value in processor.recipe().items() if value is not None}
    elif config is not None and frame_size(config):
        processor = processor_for(config)
    else:
        return {}
    return {name: getattr(processor, name) for name in _SPATIAL_FIELDS}


def _processor(given, recipe, derived, config, class_names, trust_remote_code):
    """The processor: what was given over what follows from the data over what lies beside the model."""
    if isinstance(given, (str, os.PathLike)):
        given = load_processor(os.fspath(given), trust_remote_code=trust_remote_code)
    if hasattr(given, "feature_stride"):
        processor = given
    else:
        if given is not None and not isinstance(given, dict):
            raise ValueError(
                f"A detector needs an ActionFormerProcessor, or a dictionary of its fields, got {type(given).__name__}."
            )
        processor = ActionFormerProcessor(**derived | recipe | dict(given or {}))
    if config.backbone_config is not None:
        for name in ("feature_stride", "feature_num_frames"):
            if getattr(processor, name) != config.frames_per_step:
                raise ValueError(
                    f"{name}={getattr(processor, name)} is not frames_per_step={config.frames_per_step}: the steps of a backbone lie side "
                    "by side."
                )
    if labels_forbid_flips(class_names):
        # whoever trains on from this checkpoint must not flip either
        processor.horizontal_flip_safe = False
    return processor
