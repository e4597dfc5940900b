"""The part of a classifier or of a detector that makes features of clips, with what it needs to read a video."""

import json
import os
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..host_loading import checkpoint_model_type, is_adapter, load_video_classifier, one_line_errors
from ..host_processing import NO_PROCESSOR, holds_recipe, load_processor, required_frames_per_clip
from ..models.clip_trunks import TRUNKS
from ..models.modeling_actionformer import ActionFormerForTemporalActionDetection
from ..weights_fingerprint import weights_fingerprint
from .host_inputs import HostInputs


# what frames look like to the model; the rest of a processor's fields do not change features
_SPATIAL_FIELDS = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std"
).split()


class FeatureModelError(ValueError):
    """The model cannot give features of clips; the message says why and what to do."""


@dataclass
class FeatureTrunk:
    """A trunk, its processor, and how the model that it was taken from reads videos.

    Attributes:
        name: folder, Hub id or class of the model.
        module: the trunk; `run_trunk` takes it.
        processor: of the model.
        clip_frames: frames of a clip.
        frames_per_step: of the detector that it was taken from, None for a classifier.
        fps: rate that the recipe samples frames at, None where it says nothing.
    """

    name: str
    module: nn.Module
    processor: Any
    clip_frames: int
    frames_per_step: int | None
    fps: float | None

    def inputs(self) -> HostInputs:
        """From decoded frames to what the trunk takes."""
        return HostInputs(self.module, self.processor)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any weight."""
        return weights_fingerprint(self.module)

    def spatial_recipe(self) -> dict:
        """How frames become pixels, in terms of JSON."""
        fields = json.loads(self.processor.to_json_string())
        return {name: fields[name] for name in _SPATIAL_FIELDS if fields.get(name) is not None}


def open_trunk(model, processor=None, trust_remote_code=False) -> FeatureTrunk:
    """The trunk of a video classifier, or of a detector with a backbone.

    Args:
        model: the model, or its folder or Hub id.
        processor: its processor, or folder or Hub id of one; None: the one saved with the model.
        trust_remote_code: run model code that comes with the checkpoint.

    Raises:
        FeatureModelError: it is of a type that no trunk is known of, a detector without backbone or with temporal adapters, or comes
            without a processor.
    """
    source = model if isinstance(model, (str, os.PathLike)) else None
    if source is not None:
        model = _load(os.fspath(source), trust_remote_code)
    name = os.fspath(source) if source is not None else type(model).__name__
    if is_adapter(model):
        model = model.merge_and_unload()
    if model.config.model_type == "actionformer":
        module, clip_frames, frames_per_step = _trunk_of_detector(model, name)
    else:
        module, frames_per_step = model.base_model, None
        if module.config.model_type not in TRUNKS:
            raise FeatureModelError(
                f"{name} is of model_type {module.config.model_type!r}; features can be taken of {', '.join(TRUNKS)}, and of detectors "
                "on these."
            )
        clip_frames = required_frames_per_clip(module.config)
    processor = _processor(source if processor is None else processor, name, trust_remote_code)
    return FeatureTrunk(name, module.eval(), processor, clip_frames, frames_per_step, _rate(processor))


def _load(name: str, trust_remote_code: bool):
    if checkpoint_model_type(name) == "actionformer":
        with one_line_errors(name):
            return ActionFormerForTemporalActionDetection.from_pretrained(name)
    return load_video_classifier(name, trust_remote_code)


def _trunk_of_detector(model, name: str):
    backbone = getattr(getattr(model, "actionformer", model), "backbone", None)
    if backbone is None:
        raise FeatureModelError(
            f"{name} is a detector that takes features itself: name the classifier, or a detector with a backbone, that makes them."
        )
    if backbone.adapters is not None:
        raise FeatureModelError(
            f"{name} has temporal adapters, through which the clips of a window see each other: its features cannot be kept clip by "
            "clip. Detect end to end, or take the features of a detector without adapters."
        )
    return backbone.trunk, backbone.clip_frames, backbone.frames_per_step


def _processor(source, name: str, trust_remote_code: bool):
    if source is None:
        raise FeatureModelError(f"{name} was given as an object: pass its processor as well.")
    if not isinstance(source, (str, os.PathLike)):
        return source
    try:
        return load_processor(os.fspath(source), trust_remote_code=trust_remote_code)
    except NO_PROCESSOR as error:
        raise FeatureModelError(f"{os.fspath(source)} holds no processor ({error}): pass one.") from error


def _rate(processor) -> float | None:
    """Frames per second of the clips that a recipe samples."""
    if not holds_recipe(processor):
        return None
    if hasattr(processor, "feature_fps"):
        return processor.feature_fps
    return processor.target_fps / processor.frame_stride if processor.target_fps else None
