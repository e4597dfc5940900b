# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""MoViNet: from the checkpoints of Atze00/MoViNet-pytorch (themselves converted from TensorFlow's) to ours.

Names differ, and shapes of three kinds: convolutions in space or in time alone are 3-D here, and 1 x 1 x 1 convolutions of means are
linear layers.
"""

import re

from ..models.configuration_movinet import PRESETS, MoViNetConfig
from .checkpoints import with_batch_counters


REFERENCE = "https://github.com/Atze00/MoViNet-pytorch"

# plain pixels from 0 to 1
PIXELS = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}

_MODULES = {
    "conv1.conv_1": "movinet.stem",
    "conv7.conv_1": "movinet.projection",
    "classifier.0.conv_1": "hidden",
    "classifier.3.conv_1": "classifier",
}
_IN_BLOCK = {
    "expand.conv_1": "expand",
    "deep.conv_1": "depthwise",
    "deep.conv_2": "temporal",
    "project.conv_1": "project",
    "res.0.conv_1": "shortcut",
    "res.1.conv_1": "shortcut",
    "se.fc1.conv_1": "squeeze_excitation.reduce",
    "se.fc2.conv_1": "squeeze_excitation.expand",
}
_BLOCK = re.compile(r"blocks\.b(\d+)_l(\d+)\.(.+)")
_LINEAR = ("hidden", "classifier", "squeeze_excitation.reduce", "squeeze_excitation.expand")


def build_config(upstream):
    """Makes our configuration from the arguments of the upstream constructor, under their upstream names.

    `cfg` is the name of the size (`"A0"`); upstream gives an object with its numbers.

    Raises:
        ValueError: An argument is not one of the upstream constructor, or has a value that we have no counterpart of.
    """
    arguments = {"cfg": "A0", "causal": True, "num_classes": 600, "conv_type": "3d", "tf_like": True, **upstream}
    unknown = sorted(set(arguments) - {"cfg", "causal", "num_classes", "conv_type", "tf_like", "pretrained"})
    if unknown:
        raise ValueError(f"MoViNet's constructor has no argument {', '.join(map(repr, unknown))}.")
    if not arguments["tf_like"]:
        raise ValueError(
            "MoViNet with tf_like=False has no counterpart here: its released weights are for tf_like=True."
        )
    if arguments["conv_type"] != ("2plus1d" if arguments["causal"] else "3d"):
        raise ValueError(
            f"MoViNet with causal={arguments['causal']} and conv_type={arguments['conv_type']!r} has no counterpart here: the base form is "
            "causal=False with '3d', the stream form causal=True with '2plus1d'."
        )
    size = str(arguments["cfg"]).lower().removeprefix("movinet")
    return MoViNetConfig.from_preset(
        f"{size}-stream" if arguments["causal"] else size, num_labels=arguments["num_classes"]
    )


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that upstream weights need, read off their names and shapes.

    Args:
        state_dict: Upstream weights.
        preset: Released size to insist on, or None.
        arguments: Must be empty: everything leaves its trace in the weights.

    Raises:
        KeyError: These are no weights of a MoViNet.
        ValueError: The preset does not exist, or the weights are not of that size.
    """
    if any(key.startswith("movinet.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    if arguments:
        raise ValueError(f"a MoViNet's weights show all of its architecture; {', '.join(arguments)} cannot be set.")
    causal = "conv1.conv_1.conv2d.weight" in state_dict
    kind = "conv2d" if causal else "conv3d"
    for key in (f"conv1.conv_1.{kind}.weight", f"classifier.3.conv_1.{kind}.weight"):
        if key not in state_dict:
            raise KeyError(f"it has no {key}.")
    blocks = {(match[1], match[2]) for key in state_dict if (match := _BLOCK.match(key))}
    shown = (causal, len(state_dict[f"conv1.conv_1.{kind}.weight"]), len(blocks))
    for name in PRESETS:
        config = MoViNetConfig.from_preset(name, num_labels=len(state_dict[f"classifier.3.conv_1.{kind}.weight"]))
        if (config.causal, config.stem_size, config.num_hidden_layers) == shown:
            break
    else:
        raise KeyError(f"none of {', '.join(PRESETS)} has {len(blocks)} blocks and a stem of {shown[1]} channels.")
    if preset is not None and preset != name:
        MoViNetConfig.from_preset(preset)  # names the presets if there is no such one
        raise ValueError(f"The weights are not of preset {preset!r}: they are {name!r}.")
    return config


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor that goes with converted weights: the whole of a 10-second video in one clip."""
    size = {"height": config.image_size, "width": config.image_size}
    return {
        "sampling": "dense",
        "target_fps": config.num_frames / 10,
        "num_frames": config.num_frames,
        "size": {"shortest_edge": config.image_size},
        "crop_size": size,
        **PIXELS,
        "horizontal_flip_safe": horizontal_flip_safe,
    }


def preset_of(config):
    """Name of the released size with these widths and depths, or None."""
    for name in PRESETS:
        released = MoViNetConfig.from_preset(name)
        if all(
            _listed(getattr(released, field)) == _listed(getattr(config, field))
            for field in ("causal", "stem_size", "hidden_sizes", "expand_sizes", "kernel_sizes")
        ):
            return name
    return None


def _listed(value):
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def convert_key(key):
    """Our name of an upstream parameter, as in `MoViNetForVideoClassification.state_dict()`.

    Raises:
        KeyError: The name is not one of an upstream model.
    """
    match = _BLOCK.match(key)
    if match and match[3] == "alpha":
        return f"movinet.stages.{match[1]}.{match[2]}.alpha"
    name, prefix, modules = key, "", _MODULES
    if match:
        name, prefix, modules = match[3], f"movinet.stages.{match[1]}.{match[2]}.", _IN_BLOCK
    theirs = next((module for module in modules if name.startswith(f"{module}.")), None)
    layer, _, leaf = name.removeprefix(f"{theirs}.").partition(".")
    if theirs is None or layer not in ("conv2d", "conv3d", "norm"):
        raise KeyError(f"{key!r} is not a parameter of an upstream MoViNet.")
    ours = prefix + modules[theirs]
    if ours.endswith(_LINEAR):
        return f"{ours}.{leaf}"
    return f"{ours}.{'norm' if layer == 'norm' else 'conv'}.{leaf}"


def convert_state_dict(state_dict):
    """Upstream weights under our names and shapes; weights that are ours already come back as they are. Pure; tensors are views.

    Raises:
        KeyError: A name belongs to neither.
    """
    if any(key.startswith("movinet.") for key in state_dict):
        return dict(state_dict)
    converted = {}
    for key, value in state_dict.items():
        ours = convert_key(key)
        if ours.removesuffix(".weight").endswith(_LINEAR):
            value = value.flatten(1) if value.ndim > 1 else value
        elif value.ndim == 4:  # (O, I, k, k) of a frame, or (C, 1, T, 1) over time
            value = value.unsqueeze(-1) if ".temporal." in ours else value.unsqueeze(2)
        converted[ours] = value
    return converted


def fill_state_dict(state_dict, config):
    """Adds the counters of batch norms where a checkpoint has none; nothing at inference reads them."""
    return with_batch_counters(state_dict)
