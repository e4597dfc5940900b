# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""X3D: from the checkpoints of pytorchvideo to ours. Only names differ."""

import math
import re

from ..models.channel_counts import round_to_eight
from ..models.configuration_x3d import PRESETS, X3DConfig
from .checkpoints import with_batch_counters


REFERENCE = "https://github.com/facebookresearch/pytorchvideo, models/x3d.py"

# upstream's normalisation, which knows no channels
PIXELS = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
# short side that the released sizes resize to before they crop
_SHORT_SIDES = {160: 182, 224: 256, 312: 356}

_ENDS = {
    "blocks.0.conv.conv_t": "x3d.stem.spatial",
    "blocks.0.conv.conv_xy": "x3d.stem.temporal",
    "blocks.0.norm": "x3d.stem.norm",
    "blocks.5.pool.pre_conv": "head.conv",
    "blocks.5.pool.pre_norm": "head.norm",
    "blocks.5.pool.post_conv": "head.hidden",
    "blocks.5.proj": "classifier",
}
_BLOCK = {
    "branch1_conv": "shortcut",
    "branch1_norm": "shortcut_norm",
    "branch2.conv_a": "expand",
    "branch2.norm_a": "expand_norm",
    "branch2.conv_b": "depthwise",
    "branch2.norm_b.0": "depthwise_norm",
    "branch2.norm_b.1.block.0": "squeeze_excitation.reduce",
    "branch2.norm_b.1.block.2": "squeeze_excitation.expand",
    "branch2.conv_c": "project",
    "branch2.norm_c": "project_norm",
}
# what tells released sizes apart
_OF_A_SIZE = ("num_frames", "image_size", "depths", "hidden_sizes")
_IN_BLOCK = re.compile(r"blocks\.(\d+)\.res_blocks\.(\d+)\.(.+)")

# arguments of upstream's `create_x3d` that we have under other names or derive from
_ARGUMENTS = {
    "input_channel": "num_channels",
    "input_clip_length": "num_frames",
    "input_crop_size": "image_size",
    "model_num_class": "num_labels",
    "dropout_rate": "classifier_dropout",
    "norm_eps": "batch_norm_eps",
    "norm_momentum": "batch_norm_momentum",
    "bottleneck_factor": "bottleneck_factor",
    "se_ratio": "se_ratio",
    "head_dim_out": "head_size",
    "num_classes": "num_labels",
}
_GROWTH = {"width_factor": 2.0, "depth_factor": 2.2}
# blocks per stage before they are multiplied by the depth factor; channels of the stem before the width factor
_BASE_DEPTHS, _BASE_WIDTH = (1, 2, 5, 3), 12


def build_config(upstream):
    """Makes our configuration from the arguments of upstream's `create_x3d`, under their upstream names.

    Raises:
        ValueError: An argument is not one of the upstream constructor, or is one that we have no counterpart of.
    """
    unknown = sorted(set(upstream) - set(_ARGUMENTS) - set(_GROWTH))
    if unknown:
        raise ValueError(
            f"X3D's constructor has no argument {', '.join(map(repr, unknown))} that we know; we know "
            f"{', '.join([*_ARGUMENTS, *_GROWTH])}."
        )
    growth = {name: upstream.get(name, value) for name, value in _GROWTH.items()}
    width = round_to_eight(_BASE_WIDTH * growth["width_factor"])
    fields = {_ARGUMENTS[name]: value for name, value in upstream.items() if name in _ARGUMENTS}
    return X3DConfig(
        **fields,
        stem_size=width,
        hidden_sizes=[width * 2**stage for stage in range(len(_BASE_DEPTHS))],
        depths=[math.ceil(growth["depth_factor"] * depth) for depth in _BASE_DEPTHS],
    )


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that upstream weights need.

    Depths and classes show in the weights. XS, S and M have the same: without a preset or arguments, S is taken.

    Args:
        state_dict: Upstream weights.
        preset: `"xs"`, `"s"`, `"m"` or `"l"`.
        arguments: Upstream constructor arguments, such as `{"input_crop_size": 182}`.

    Raises:
        KeyError: These are no weights of an X3D.
        ValueError: The preset does not exist, or the weights are not of that depth.
    """
    if any(key.startswith("x3d.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    for key in ("blocks.0.conv.conv_t.weight", "blocks.5.pool.pre_conv.weight", "blocks.5.proj.weight"):
        if key not in state_dict:
            raise KeyError(f"it has no {key}.")
    depths = [
        len({match[2] for key in state_dict if (match := _IN_BLOCK.match(key)) and match[1] == str(stage)})
        for stage in range(1, 5)
    ]
    name = preset or ("l" if depths == PRESETS["l"]["depths"] else "s")
    config = X3DConfig.from_preset(name, num_labels=len(state_dict["blocks.5.proj.weight"]))
    if preset is not None and list(config.depths) != depths:
        raise ValueError(f"The weights are not of preset {preset!r}: they have {depths} blocks per stage.")
    config.depths = depths
    for theirs, value in (arguments or {}).items():
        if theirs not in _ARGUMENTS:
            raise ValueError(f"X3D's constructor has no argument {theirs!r} that leaves no trace in the weights.")
        setattr(config, _ARGUMENTS[theirs], value)
    return config


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor that goes with converted weights: the published test, 10 clips of 3 crops."""
    size = config.image_size
    return {
        "sampling": "dense",
        "frame_stride": config.frame_stride,
        "num_frames": config.num_frames,
        "size": {"shortest_edge": _SHORT_SIDES.get(size, size)},
        "crop_size": {"height": size, "width": size},
        **PIXELS,
        "num_clips": 10,
        "num_crops": 3,
        "horizontal_flip_safe": horizontal_flip_safe,
    }


def preset_of(config):
    """Name of the released size with these clips and depths, or None."""
    for name in PRESETS:
        released = X3DConfig.from_preset(name)
        if all(_plain(getattr(released, field)) == _plain(getattr(config, field)) for field in _OF_A_SIZE):
            return name
    return None


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def convert_state_dict(state_dict):
    """Upstream weights under our names; weights that are ours already come back as they are. Pure; tensors are not copied.

    Raises:
        KeyError: A name belongs to neither.
    """
    if any(key.startswith("x3d.") for key in state_dict):
        return dict(state_dict)
    return {convert_key(key): value for key, value in state_dict.items()}


def convert_key(key):
    """Our name of an upstream parameter, as in `X3DForVideoClassification.state_dict()`.

    Raises:
        KeyError: The name is not one of an upstream model.
    """
    module, _, leaf = key.rpartition(".")
    match = _IN_BLOCK.match(module)
    if module in _ENDS:
        return f"{_ENDS[module]}.{leaf}"
    if match and match[3] in _BLOCK:
        return f"x3d.stages.{int(match[1]) - 1}.{match[2]}.{_BLOCK[match[3]]}.{leaf}"
    raise KeyError(f"{key!r} is not a parameter of an upstream X3D.")


def fill_state_dict(state_dict, config):
    """Adds the counters of batch norms where a checkpoint has none; nothing at inference reads them."""
    return with_batch_counters(state_dict)
