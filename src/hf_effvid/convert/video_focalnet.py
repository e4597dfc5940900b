# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Video-FocalNet: from TalalWasim/Video-FocalNets to ours.

Only names and two shapes differ: the context projections are 1x1 convolutions upstream and linear layers here, and the
downsampling at the end of a stage upstream opens the next stage here.
"""

import re

from ..models.configuration_video_focalnet import VideoFocalNetConfig


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
