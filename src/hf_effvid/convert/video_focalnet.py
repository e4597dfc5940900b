# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Video-FocalNet: from TalalWasim/Video-FocalNets to ours.

Only names and two shapes differ: the context projections are 1x1 convolutions upstream and linear layers here, and the
downsampling at the end of a stage upstream opens the next stage here.
"""

import re

from ..models.configuration_video_focalnet import PRESETS, VideoFocalNetConfig


REFERENCE = "https://github.com/TalalWasim/Video-FocalNets at commit 39eba99"

# How the published numbers were measured: 8 segments with an interval of 4 frames, 4 clips x 3 crops. One centre crop is taken
# from a short side of 256, three crops from one of 224. Upstream draws its 4 clips at random; here they are spread evenly.
RECIPE = {
    "sampling": "segment",
    "frame_stride": 4,
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "multi_view_size": {"shortest_edge": 224},
    "image_mean": [123.675 / 255, 116.28 / 255, 103.53 / 255],
    "image_std": [58.395 / 255, 57.12 / 255, 57.375 / 255],
    "num_clips": 4,
    "num_crops": 3,
    "aggregation": "softmax_mean",
}

# upstream pattern -> our name, both without the prefix of the model; the first match wins
_RENAMINGS = [
    (r"patch_embed\.proj\.", "embeddings.projection."),
    (r"patch_embed\.norm\.", "embeddings.norm."),
    (r"layers\.(\d+)\.blocks\.(\d+)\.", r"encoder.stages.\1.layers.\2."),
    (r"norm\.", "layernorm."),
]
_BLOCK_RENAMINGS = [
    (r"gamma_(1|2)$", r"layer_scale\1"),
    (r"modulation\.f\.", "modulation.projection_in."),
    (r"modulation\.f_temporal\.", "modulation.projection_in_temporal."),
    (r"modulation\.h\.", "modulation.projection_context."),
    (r"modulation\.h_temporal\.", "modulation.projection_context_temporal."),
    (r"modulation\.proj\.", "modulation.projection_out."),
    (r"modulation\.ln\.", "modulation.norm."),
    (r"modulation\.focal_layers\.(\d+)\.0\.weight$", r"modulation.spatial_kernel_\1"),
    (r"modulation\.focal_layers_temporal\.(\d+)\.0\.weight$", r"modulation.temporal_kernel_\1"),
]
_DOWNSAMPLE = re.compile(r"layers\.(\d+)\.downsample\.(proj|norm)\.(weight|bias)$")

# upstream constructor argument -> field of our configuration
_ARGUMENTS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "num_classes": "num_labels",
    "embed_dim": "embed_dim",
    "depths": "depths",
    "mlp_ratio": "mlp_ratio",
    "drop_rate": "hidden_dropout_prob",
    "drop_path_rate": "drop_path_rate",
    "patch_norm": "patch_norm",
    "focal_levels": "focal_levels",
    "focal_windows": "focal_windows",
    "use_conv_embed": "use_conv_embed",
    "use_layerscale": "use_layerscale",
    "layerscale_value": "layerscale_value",
    "use_postln": "use_postln",
    "use_postln_in_modulation": "use_postln_in_modulation",
    "normalize_modulator": "normalize_modulator",
    "num_frames": "num_frames",
    "tubelet_size": "tubelet_size",
}
# what the upstream constructor assumes where its defaults differ from ours
_UPSTREAM_DEFAULTS = {"num_classes": 1000, "drop_path_rate": 0.1}


def build_config(upstream):
    """Makes our configuration from the arguments of the upstream constructor, under their upstream names.

    Raises:
        ValueError: An argument is not one of the upstream constructor.
    """
    unknown = sorted(set(upstream) - set(_ARGUMENTS))
    if unknown:
        raise ValueError(
            f"Video-FocalNet's constructor has no argument {', '.join(map(repr, unknown))}; it has {', '.join(_ARGUMENTS)}."
        )
    return VideoFocalNetConfig(
        **{_ARGUMENTS[name]: value for name, value in {**_UPSTREAM_DEFAULTS, **upstream}.items()}
    )


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that upstream weights need, read off their names and shapes.

    What leaves no trace there is taken from the released models: post-LN and the normalised modulator are off, clips
    have 8 frames.

    Args:
        state_dict: Upstream weights.
        preset: Released size to insist on, or None.
        arguments: Upstream constructor arguments that differ from the released models and leave no trace.

    Raises:
        KeyError: These are no weights of a Video-FocalNet.
        ValueError: The preset does not exist, or the weights are not of that size.
    """
    if any(key.startswith("video_focalnet.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    for key in ("patch_embed.proj.weight", "head.weight", "layers.0.blocks.0.modulation.f_temporal.weight"):
        if key not in state_dict:
            raise KeyError(f"it has no {key}.")
    found = infer_arguments(state_dict)
    config = build_config({**found, **(arguments or {})})
    size = preset_of(config)
    if preset is not None:
        VideoFocalNetConfig.from_preset(preset)  # names the presets if there is no such one
        if size != preset:
            raise ValueError(
                f"The weights are not of preset {preset!r}: they have embed_dim={config.embed_dim} and "
                f"depths={list(config.depths)}{f', which is {size!r}' if size else ''}."
            )
    if size is not None and "drop_path_rate" not in (arguments or {}):
        config.drop_path_rate = PRESETS[size]["drop_path_rate"]
    return config


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor that goes with converted weights."""
    return {**RECIPE, "num_frames": config.num_frames, "horizontal_flip_safe": horizontal_flip_safe}


def preset_of(config):
    """Name of the released size with these widths and depths, or None."""
    for name, preset in PRESETS.items():
        if (preset["embed_dim"], preset["depths"]) == (config.embed_dim, list(config.depths)):
            return name
    return None


def infer_arguments(state_dict):
    """Arguments of the upstream constructor that show in names and shapes; weights without a head leave `num_classes` out.

    Raises:
        KeyError: A weight that every model has is missing.
        ValueError: There are no stages.
    """
    stages = 1 + max(int(match[1]) for key in state_dict if (match := re.match(r"layers\.(\d+)\.", key)))
    stem = state_dict["patch_embed.proj.weight"]
    block = "layers.{}.blocks.0.".format
    depths, levels, windows = [], [], []
    for stage in range(stages):
        blocks = {match[1] for key in state_dict if (match := re.match(rf"layers\.{stage}\.blocks\.(\d+)\.", key))}
        kernels = [key for key in state_dict if key.startswith(f"{block(stage)}modulation.focal_layers.")]
        depths.append(len(blocks))
        levels.append(len(kernels))
        first = state_dict.get(f"{block(stage)}modulation.focal_layers.0.0.weight")
        windows.append(3 if first is None else first.shape[-1])
    conv_embed = stem.shape[-1] == 7
    head = {"num_classes": state_dict["head.weight"].shape[0]} if "head.weight" in state_dict else {}
    return {
        **head,
        "in_chans": stem.shape[1],
        "embed_dim": stem.shape[0],
        "patch_size": 4 if conv_embed else stem.shape[-1],
        "tubelet_size": stem.shape[2] if stem.ndim == 5 else 1,
        "depths": depths,
        "focal_levels": levels,
        "focal_windows": windows,
        "mlp_ratio": state_dict[f"{block(0)}mlp.fc1.weight"].shape[0] / stem.shape[0],
        "patch_norm": "patch_embed.norm.weight" in state_dict,
        "use_conv_embed": conv_embed,
        "use_layerscale": f"{block(0)}gamma_1" in state_dict,
        "use_postln_in_modulation": f"{block(0)}modulation.ln.weight" in state_dict,
    }


def convert_key(key):
    """Our name of an upstream parameter, as in `VideoFocalNetForVideoClassification.state_dict()`.

    Raises:
        KeyError: The name is not one of an upstream model.
    """
    if key.startswith("head."):
        return key.replace("head.", "classifier.", 1)
    downsample = _DOWNSAMPLE.match(key)
    if downsample:
        stage, module, leaf = downsample.groups()
        module = {"proj": "projection", "norm": "norm"}[module]
        return f"video_focalnet.encoder.stages.{int(stage) + 1}.downsample.{module}.{leaf}"
    for pattern, ours in _RENAMINGS:
        renamed, found = re.subn(f"^{pattern}", ours, key)
        if found:
            break
    else:
        raise KeyError(f"{key!r} is not a parameter of an upstream Video-FocalNet.")
    for pattern, ours in _BLOCK_RENAMINGS:
        renamed, found = re.subn(pattern, ours, renamed)
        if found:
            break
    return f"video_focalnet.{renamed}"


def convert_state_dict(state_dict):
    """Upstream weights under our names and shapes; weights that are ours already come back as they are.

    Pure: tensors are not copied and nothing is modified.

    Raises:
        KeyError: A name belongs to neither.
    """
    if any(key.startswith("video_focalnet.") for key in state_dict):
        return dict(state_dict)
    return {convert_key(key): _convert_shape(key, value) for key, value in state_dict.items()}


def _convert_shape(key, value):
    if re.search(r"modulation\.h(_temporal)?\.weight$", key):
        return value.reshape(value.shape[:2])  # (C, C, 1, 1) or (C, C, 1)
    return value
