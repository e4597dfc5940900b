# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""torchvision's video networks: from its weight files to ours. Only prefixes differ.

torchvision publishes weights on Kinetics-400 with the names of the classes beside them. A file of these is known by its SHA-256, part of
which stands in its name, and gets the names; what is called as torchvision calls it (`MViT_V2_S_Weights.KINETICS400_V1`) is looked for where
torch keeps its downloads, and fetched if it is not there.
"""

import re
from pathlib import Path

import torch
from torchvision.models import get_model_weights, get_weight

from ..models.configuration_torchvision_video import NETWORKS, TorchvisionVideoConfig, pixel_recipe
from ..models.modeling_torchvision_video import HEADS
from .checkpoints import CheckpointError, with_batch_counters


REFERENCE = "https://github.com/pytorch/vision, torchvision/models/video"

# last layers with a part before them, dropout
_IN_SEQUENCE = {"s3d": "classifier.1", "mvit": "head.1"}
# a weight that only networks of one family have
_SIGNS = {
    "resnet": "layer1.0.conv1.0.weight",
    "s3d": "features.5.branch0.0.weight",
    "mvit": "conv_proj.weight",
    "swin": "patch_embed.proj.weight",
}
# arguments of upstream's constructors that leave no trace in the weights or are named otherwise here
_ARGUMENTS = {
    "num_classes": "num_labels",
    "dropout": "classifier_dropout",
    "stochastic_depth_prob": "drop_path_rate",
    "temporal_size": "num_frames",
    "spatial_size": "image_size",
}
_OF_A_NETWORK = ("depths", "stem_size")


def build_config(upstream):
    """Makes our configuration from the name of a network (`network`) and arguments of torchvision's constructor, under their names.

    Raises:
        ValueError: An argument is not one that we know.
    """
    unknown = sorted(set(upstream) - set(_ARGUMENTS) - {"network"})
    if unknown:
        raise ValueError(
            f"torchvision's video networks have no argument {', '.join(map(repr, unknown))} that we know; we know network, "
            f"{', '.join(_ARGUMENTS)}."
        )
    return TorchvisionVideoConfig(**{_ARGUMENTS.get(name, name): value for name, value in upstream.items()})


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that torchvision's weights need: network, depths, widths and classes show in them.

    Args:
        state_dict: torchvision's weights.
        preset: Name of the network to insist on, such as `"mvit_v2_s"`.
        arguments: Arguments of torchvision's constructor that leave no trace, such as `{"dropout": 0.0}`.

    Raises:
        KeyError: These are no weights of a video network of torchvision.
        ValueError: The network does not exist, or the weights are of another.
    """
    family = _family_of(state_dict)
    network, fields = _READERS[family](state_dict)
    if preset is not None and preset != network:
        TorchvisionVideoConfig.from_preset(preset)  # names the networks if there is no such one
        raise ValueError(f"The weights are not of preset {preset!r}: they are those of a {network}.")
    last = f"{_last_layer(family)}.weight"
    if last not in state_dict:
        raise KeyError(f"it has no {last}.")
    config = TorchvisionVideoConfig.from_preset(network, num_labels=len(state_dict[last]), **fields)
    for theirs, value in (arguments or {}).items():
        if theirs not in _ARGUMENTS:
            raise ValueError(
                f"torchvision's {network} has no argument {theirs!r} that leaves no trace in the weights."
            )
        setattr(config, _ARGUMENTS[theirs], value)
    config.validate_architecture()
    return config


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor that goes with converted weights: torchvision's own test."""
    native = NETWORKS[config.network]
    height, width = config.frame_shape
    published = (height, width) == (native["image_size"],) * 2
    return {
        "sampling": "dense",
        "target_fps": native["fps"],
        "num_frames": config.num_frames,
        "size": native["resize"] if published else {"height": height, "width": width},
        "crop_size": {"height": height, "width": width},
        **pixel_recipe(config),
        "num_clips": native["num_clips"],
        "num_crops": 1,
        "horizontal_flip_safe": horizontal_flip_safe,
    }


def preset_of(config):
    """The network's name where it has torchvision's depths and widths, else None."""
    native = TorchvisionVideoConfig.from_preset(config.network)
    same = all(_plain(getattr(native, name)) == _plain(getattr(config, name)) for name in _OF_A_NETWORK)
    return config.network if same else None


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def convert_state_dict(state_dict):
    """torchvision's weights under our names; weights that are ours already come back as they are. Pure; tensors are not copied.

    Raises:
        KeyError: They belong to none of the networks.
    """
    if any(key.startswith("network.") for key in state_dict):
        return dict(state_dict)
    last = _last_layer(_family_of(state_dict)) + "."
    return {
        f"classifier.{key.removeprefix(last)}" if key.startswith(last) else f"network.{key}": value
        for key, value in state_dict.items()
    }


def fill_state_dict(state_dict, config):
    """Adds the counters of batch norms where a checkpoint has none; nothing at inference reads them."""
    return with_batch_counters(state_dict)


# ---- what weights are of ---------------------------------------------------------------------------------------------------


def _family_of(state_dict):
    if any(key.startswith("network.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    # R(2+1)D has one more level
    found = [
        family
        for family, sign in _SIGNS.items()
        if sign in state_dict or (family == "resnet" and "layer1.0.conv1.0.0.weight" in state_dict)
    ]
    if len(found) != 1:
        raise KeyError(f"it has none of {', '.join(_SIGNS.values())}.")
    return found[0]


def _last_layer(family):
    return _IN_SEQUENCE.get(family, HEADS[family])


def _counts(state_dict, pattern):
    """How many values the second group of a pattern takes in keys, for every value of the first."""
    found = {}
    for key in state_dict:
        if match := re.match(pattern, key):
            found.setdefault(int(match[1]), set()).add(match[2])
    return [len(found[first]) for first in sorted(found)]


def _read_resnet(state_dict):
    depths = _counts(state_dict, r"layer(\d)\.(\d+)\.")
    if "stem.3.weight" in state_dict:
        return "r2plus1d_18", {"depths": depths}
    flat = state_dict["layer4.0.conv1.0.weight"].shape[2] == 1
    return "mc3_18" if flat else "r3d_18", {"depths": depths}


def _read_s3d(state_dict):
    return "s3d", {}


def _read_mvit(state_dict):
    stem = len(state_dict["conv_proj.weight"])
    widths = [
        len(state_dict[f"blocks.{index}.attn.project.0.weight"])
        for index in range(len(_counts(state_dict, r"blocks\.(\d+)\.(norm1)\.weight")))
    ]
    depths = [widths.count(width) for width in sorted(set(widths))]
    fields = {"stem_size": stem, "depths": depths}
    if "blocks.0.attn.rel_pos_t" in state_dict:
        # tables over differences of positions: 2 n - 1 rows for n positions; a position is 2 frames, or 4 pixels
        frames, sites = (len(state_dict[f"blocks.0.attn.rel_pos_{axis}"]) + 1 for axis in "th")
        return "mvit_v2_s", {**fields, "num_frames": frames, "image_size": 2 * sites}
    frames, sites = len(state_dict["pos_encoding.temporal_pos"]), len(state_dict["pos_encoding.spatial_pos"])
    return "mvit_v1_b", {**fields, "num_frames": 2 * frames, "image_size": 4 * round(sites**0.5)}


def _read_swin(state_dict):
    stem = len(state_dict["patch_embed.proj.weight"])
    # every second part is a stage, the others merge patches
    depths = _counts(state_dict, r"features\.(\d+)\.(\d+)\.norm1")
    fields = {"stem_size": stem, "depths": depths}
    for name in ("swin3d_s", "swin3d_b"):
        if [NETWORKS[name]["stem_size"], NETWORKS[name]["depths"]] == [stem, depths]:
            return name, fields
    return "swin3d_t", fields


_READERS = {"resnet": _read_resnet, "s3d": _read_s3d, "mvit": _read_mvit, "swin": _read_swin}


# ---- the files that torchvision publishes ----------------------------------------------------------------------------------


def published_names(sha256):
    """Names of the classes of a file that torchvision publishes; None for any other file.

    Args:
        sha256: Of the file.
    """
    for network in NETWORKS:
        for weights in get_model_weights(network):
            if sha256.startswith(_hash_in(weights.url)):
                return list(weights.meta["categories"])
    return None


def find_source(source):
    """The file behind a name of torchvision's, such as `R2Plus1D_18_Weights.KINETICS400_V1`; a path comes back as it is.

    Raises:
        CheckpointError: It is not among torch's downloads and cannot be fetched.
    """
    if Path(source).exists() or not re.fullmatch(r"\w+_Weights\.\w+", str(source)):
        return source
    try:
        weights = get_weight(str(source))
    except (ValueError, KeyError, AttributeError) as error:
        names = [str(one) for network in NETWORKS for one in get_model_weights(network)]
        raise CheckpointError(f"torchvision has no video weights {source}; it has {', '.join(names)}.") from error
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a damaged download
        raise CheckpointError(
            f"{source} is not at {file} and cannot be fetched ({type(error).__name__}). Download {weights.url} where there is a "
            "network and give the file."
        ) from error
    return file


def _hash_in(url):
    return re.search(r"-([0-9a-f]{8,})\.pth$", url)[1]
