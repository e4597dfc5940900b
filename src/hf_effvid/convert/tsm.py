# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""TSM: from the checkpoints of mit-han-lab/temporal-shift-module (ResNets, MobileNetV2) to ours.

Only names differ: the 2-D networks are timm's here (`frame_networks`), and a shifted convolution keeps its own name.
"""

from ..models.configuration_tsm import PRESETS, TSMConfig
from .checkpoints import with_batch_counters
from .frame_networks import architecture_of, to_timm_names


REFERENCE = "https://github.com/mit-han-lab/temporal-shift-module at commit 4759ad8"

# How the light protocol of the published numbers tests: one clip of segments, one centre crop.
RECIPE = {"sampling": "segment", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}

_NETWORKS = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenetv2": "mobilenetv2_100",
}
_ARGUMENTS = {
    "num_class": "num_labels",
    "num_segments": "num_frames",
    "base_model": "architecture",
    "dropout": "classifier_dropout",
    "shift_div": "shift_div",
}
# upstream constructor arguments that must have one value to be what we have
_FIXED = {
    "modality": "RGB",
    "is_shift": True,
    "shift_place": "blockres",
    "consensus_type": "avg",
    "temporal_pool": False,
    "non_local": False,
}
# without influence on a trained network
_IGNORED = {
    "new_length", "before_softmax", "img_feature_dim", "crop_num", "partial_bn", "print_spec", "pretrain", "fc_lr5",
}  # fmt: skip


def build_config(upstream):
    """Makes our configuration from the arguments of the upstream constructor (`TSN`), under their upstream names.

    Raises:
        ValueError: An argument is not one of the upstream constructor, or has a value that we have no counterpart of.
    """
    unknown = sorted(set(upstream) - set(_ARGUMENTS) - set(_FIXED) - _IGNORED)
    if unknown:
        known = ", ".join([*_ARGUMENTS, *_FIXED])
        raise ValueError(f"TSM's constructor has no argument {', '.join(map(repr, unknown))}; it has {known}.")
    for name, value in _FIXED.items():
        if upstream.get(name, value) != value:
            raise ValueError(f"TSM with {name}={upstream[name]!r} has no counterpart here: expected {value!r}.")
    fields = {ours: upstream[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in upstream}
    network = fields.get("architecture", "resnet50")
    if network not in _NETWORKS:
        raise ValueError(f"TSM on {network!r} has no counterpart here: expected one of {', '.join(_NETWORKS)}.")
    return TSMConfig(**{**fields, "architecture": _NETWORKS[network]})


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that upstream weights need, read off their names and shapes.

    What leaves no trace there is taken from the released models: 8 frames, shift of an eighth.

    Args:
        state_dict: Upstream weights.
        preset: Name among `PRESETS` to insist on, or None.
        arguments: Upstream constructor arguments that differ from the released models and leave no trace.

    Raises:
        KeyError: These are no weights of a TSM.
        ValueError: The preset does not exist, or the weights are not of that network.
    """
    if any(key.startswith("tsm.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    if not any(".net." in key for key in state_dict):
        raise KeyError(
            "none of its convolutions is shifted (.net.); for ImageNet weights see convert.tsm_from_image_network."
        )
    network, head = _split(state_dict)
    found = architecture_of(network)
    names = {timm: theirs for theirs, timm in _NETWORKS.items()}
    if found not in names:
        raise KeyError(f"its 2-D network is none of {', '.join(_NETWORKS)}.")
    if "weight" not in head:
        raise KeyError("it has no classifier (new_fc.weight).")
    arguments = {"num_class": len(head["weight"]), "dropout": 0.5, "base_model": names[found], **(arguments or {})}
    config = build_config(arguments)
    if preset is not None:
        TSMConfig.from_preset(preset)  # names the presets if there is no such one
        if preset_of(config) != preset:
            raise ValueError(f"The weights are not of preset {preset!r}: they are a {found}.")
    return config


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor that goes with converted weights."""
    return {**RECIPE, "num_frames": config.num_frames, "horizontal_flip_safe": horizontal_flip_safe}


def preset_of(config):
    """Name of the preset with this 2-D network, or None."""
    return next((name for name, fields in PRESETS.items() if fields["architecture"] == config.architecture), None)


def convert_state_dict(state_dict):
    """Upstream weights under our names; weights that are ours already come back as they are.

    Pure: tensors are not copied and nothing is modified.

    Raises:
        KeyError: A name belongs to neither.
    """
    if any(key.startswith("tsm.") for key in state_dict):
        return dict(state_dict)
    network, head = _split(state_dict)
    converted = {f"tsm.timm_model.{name}": value for name, value in to_timm_names(network).items()}
    converted.update({f"classifier.{leaf}": value for leaf, value in head.items()})
    return converted


def fill_state_dict(state_dict, config):
    """Adds the counters of batch norms, which checkpoints from before 2018 do not have and nothing at inference reads."""
    return with_batch_counters(state_dict)


def _split(state_dict):
    """The 2-D network under its own names, and weight and bias of the classifier."""
    network, head = {}, {}
    for key, value in state_dict.items():
        name = key.removeprefix("module.").removeprefix("base_model.").replace(".net.", ".")
        layer, _, leaf = name.rpartition(".")
        if layer in ("new_fc", "fc", "classifier", "classifier.1"):
            head[leaf] = value
        else:
            network[name] = value
    return network, head
