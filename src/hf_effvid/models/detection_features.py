# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Features of one video as somebody may have them: an array, an array with its frame rate, a file. Checked against the detector."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import load_state_dict_from_file

from .detection_frames import DetectorInputError
from .pipeline_inputs import name_of
from .video_errors import VideoNotFound


FEATURE_FILES = (".npy", ".npz", ".safetensors")
# what files and rows of data sets call the features; the last is the name in the released THUMOS14 features
_NAMES = ("input_features", "features", "feats")


class VideoFeatures(NamedTuple):
    """Features of one video.

    Attributes:
        values: (T, C) float tensor.
        fps: frames per second of the video, None where nobody said.
        duration: its seconds, None where nobody said.
    """

    values: torch.Tensor
    fps: float | None = None
    duration: float | None = None


def are_features(source):
    """Whether something holds features of a video, and is no video itself."""
    if isinstance(source, Mapping):
        return any(name in source for name in _NAMES)
    if isinstance(source, (str, os.PathLike)):
        return Path(os.fsdecode(source)).suffix.lower() in FEATURE_FILES
    if hasattr(source, "features"):
        return True
    return getattr(source, "ndim", None) == 2 and not isinstance(source, (list, tuple))


def read_features(source, recipe, channels, fps=None):
    """Features of one video, checked.

    Args:
        source: (T, C) array or tensor; a mapping or object with them as `input_features` or `features` and maybe `fps`, `duration`,
            `stride` and `num_frames`; or a file of them (.npy, .npz, .safetensors).
        recipe: of the processor; what the source says of stride, length and rate is compared with it.
        channels: C of the detector.
        fps: frames per second of the video, where the source does not say.

    Returns:
        `VideoFeatures`.

    Raises:
        DetectorInputError, VideoNotFound: naming the source, what was found and what to do.
    """
    name = name_of(source)
    if not are_features(source):
        raise DetectorInputError(
            name,
            "no features",
            f"This detector has no backbone: give it features (T, {channels}) as an array, {{'input_features': ..., 'fps': ...}} or a "
            f"file {', '.join(FEATURE_FILES)} (`effvid cache --features` makes them of videos), or a detector with a backbone_config",
        )
    values, said = _parts(source, name)
    values = _checked(values, name, channels)
    for field, value in (("feature_stride", said.get("stride")), ("feature_num_frames", said.get("num_frames"))):
        if value is not None and not math.isclose(value, recipe[field]):
            raise DetectorInputError(
                name,
                f"features with {field}={value:g}",
                f"The detector was made for {recipe[field]:g}: extract features so, or change the processor's {field}",
            )
    rate = said.get("fps") or fps
    if (
        rate is not None
        and recipe["feature_fps"] is not None
        and not math.isclose(rate, recipe["feature_fps"], rel_tol=1e-3)
    ):
        raise DetectorInputError(
            name,
            f"features that count {rate:g} frames per second",
            f"The detector was made for {recipe['feature_fps']:g}: leave fps out if these are features of a resampled video",
        )
    if rate is None and recipe["feature_fps"] is None:
        raise DetectorInputError(
            name,
            "features without a frame rate",
            "Pass fps=..., that of the video, or set feature_fps in the processor",
        )
    return VideoFeatures(values, rate, said.get("duration"))


def _parts(source, name):
    """The array, and the numbers that came with it."""
    if isinstance(source, (str, os.PathLike)):
        source = _load(Path(os.fsdecode(source)), name)
    if not isinstance(source, Mapping) and hasattr(source, "features"):
        source = {
            field: getattr(source, field, None) for field in ("features", "fps", "duration", "stride", "num_frames")
        }
    if not isinstance(source, Mapping):
        return source, {}
    found = next((source[field] for field in _NAMES if field in source), None)
    if found is None:  # a file with one array under a name of its own
        arrays = [value for value in source.values() if getattr(value, "ndim", 0) == 2]
        if len(arrays) != 1:
            raise DetectorInputError(
                name, f"the entries {sorted(map(str, source))}", f"Call the features one of {', '.join(_NAMES)}"
            )
        found = arrays[0]
    said = {field: source.get(field) for field in ("fps", "duration", "stride", "num_frames")}
    return found, {field: float(value) for field, value in said.items() if value is not None}


def _load(path, name):
    if not path.is_file():
        raise VideoNotFound(name, "no such file", "Check the path")
    try:
        if path.suffix.lower() == ".safetensors":
            return load_state_dict_from_file(path)
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # damage shows in many ways
        raise DetectorInputError(
            name, f"cannot be read as features ({type(error).__name__}: {error})", "Check that the file is whole"
        ) from None


def _checked(values, name, channels):
    values = torch.as_tensor(values)
    shape = tuple(values.shape)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != channels:
        turned = " (these look transposed)" if len(shape) == 2 and shape[0] == channels else ""
        raise DetectorInputError(name, f"features of shape {shape}{turned}", f"Give (T, {channels}), one row per step")
    values = values.float()
    if not bool(values.isfinite().all()):
        raise DetectorInputError(name, "features that are not finite", "Extract them again")
    return values


__all__ = ["VideoFeatures", "are_features", "read_features"]
