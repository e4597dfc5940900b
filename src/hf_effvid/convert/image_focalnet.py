# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Image FocalNets of three origins, read into one: names and shapes of the official checkpoints.

The same ImageNet weights exist as the authors' `.pth` files, as transformers' `FocalNetForImageClassification` (the Hub's
`microsoft/focalnet-*`) and as timm's `focalnet_*` (which moves the downsampling to the start of the next stage and writes linear layers
as 1x1 convolutions). An official image name is also the name of the same weight in an official *video* checkpoint, so the converter of
those takes it from here.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import nn
from transformers import FocalNetConfig

from .checkpoints import CheckpointError, find_weight_file, read_weights


_FROM_TRANSFORMERS = [
    (r"^focalnet\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", r"layers.\1.blocks.\2."),
    (r"^encoder\.stages\.(\d+)\.downsample\.projection\.", r"layers.\1.downsample.proj."),
    (r"^encoder\.stages\.(\d+)\.downsample\.norm\.", r"layers.\1.downsample.norm."),
    (r"\.modulation\.projection_in\.", ".modulation.f."),
    (r"\.modulation\.projection_context\.", ".modulation.h."),
    (r"\.modulation\.projection_out\.", ".modulation.proj."),
    (r"\.modulation\.layernorm\.", ".modulation.ln."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
]
_FROM_TIMM = [
    (r"^stem\.", "patch_embed."),
    (r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample."),
    (r"\.norm(1|2)_post\.", r".norm\1."),
    (r"\.ls(1|2)\.gamma$", r".gamma_\1"),
    (r"\.modulation\.norm\.", ".modulation.ln."),
    (r"^head\.fc\.", "head."),
]
# linear layers that timm writes as 1x1 convolutions; `h` is one in every layout
_LINEAR = re.compile(r"\.(modulation\.(f|proj)|mlp\.fc[12])\.weight$")


class ImageFocalNet(NamedTuple):
    """An image classifier, its origin forgotten.

    Args:
        weights: Tensors by official name. `head.*` is missing where the source had no head.
        arguments: What the weights do not show, under the official constructor's names.
        layer_norm_eps: Epsilon of every LayerNorm.
        layout: `"official"`, `"transformers"` or `"timm"`.
        id2label: Names of its classes where the source knows them, else None.
        file: The file that the weights came from, None for modules and dictionaries.
    """

    weights: dict
    arguments: dict
    layer_norm_eps: float
    layout: str
    id2label: dict | None
    file: Path | None


def read_image_focalnet(source):
    """Reads an image FocalNet.

    Args:
        source: A Hub id or folder (transformers' or timm's), a checkpoint file (`.pth` and `.bin` are opened with
            `weights_only=True`, or `.safetensors`), a module of transformers or timm, or a dictionary of tensors.

    Raises:
        FileNotFoundError: A file or folder without weights.
        CheckpointError: The weights are unsafe, damaged, or of no known image FocalNet.
    """
    config, file = {}, None
    if isinstance(source, nn.Module):
        weights, config = source.state_dict(), _config_of_module(source)
    elif isinstance(source, Mapping):
        weights = dict(source)
    else:
        file = Path(source)
        if not file.is_file():
            file, config = _find_files(str(source))
        weights = read_weights(file)
    name = source if isinstance(source, (str, Path)) else type(source).__name__
    layout = _layout_of(weights, name)
    arguments = _traceless_arguments(config, name)
    if any(".norm1_post." in key for key in weights):
        arguments["use_postln"] = True
    labels = config.get("id2label")
    return ImageFocalNet(
        weights=_to_official(weights, layout),
        arguments=arguments,
        layer_norm_eps=config.get("layer_norm_eps", 1e-5),
        layout=layout,
        id2label={int(index): label for index, label in labels.items()} if labels else None,
        file=file,
    )


def _find_files(source):
    """The weights' file and the configuration of a folder or a Hub id."""
    file, document = find_weight_file(source, "an image FocalNet")
    if document.get("model_type") == "focalnet":
        document = FocalNetConfig.from_dict(document).to_dict()
    return file, document


def _config_of_module(module):
    if hasattr(module, "config"):
        return module.config.to_dict()
    return {"normalize_modulator": any(getattr(part, "normalize_modulator", False) for part in module.modules())}


def _traceless_arguments(config, name):
    """Official constructor arguments that leave no trace in the weights; timm's registered models have none of them."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"{name}: Video-FocalNet has the exact GELU, got hidden_act={config['hidden_act']!r}.")
    arguments = {}
    for ours, theirs in (("use_postln", "use_post_layernorm"), ("normalize_modulator", "normalize_modulator")):
        if config.get(theirs):
            arguments[ours] = True
    if "image_size" in config:
        arguments["img_size"] = config["image_size"]
    return arguments


def _layout_of(weights, name):
    if any(".modulation.f_temporal." in key for key in weights):
        raise CheckpointError(
            f"{name}: already a Video-FocalNet, not an image FocalNet. Convert it as a video checkpoint."
        )
    if "patch_embed.proj.weight" in weights:
        return "official"
    if any(key.endswith("embeddings.patch_embeddings.projection.weight") for key in weights):
        return "transformers"
    if "stem.proj.weight" in weights:
        if any(key.startswith("head.pre_logits") for key in weights):
            raise CheckpointError(
                f"{name}: its head has a hidden layer (head_hidden_size), which Video-FocalNet has not."
            )
        return "timm"
    shown = ", ".join(sorted(map(str, weights))[:3])
    raise CheckpointError(
        f"{name}: not an image FocalNet of its authors, transformers or timm; it begins with {shown}."
    )


def _to_official(weights, layout):
    renamings = {"official": [], "transformers": _FROM_TRANSFORMERS, "timm": _FROM_TIMM}[layout]
    official = {}
    for key, value in weights.items():
        if layout == "transformers" and (key.startswith("decoder.") or key.endswith("mask_token")):
            continue  # of FocalNetForMaskedImageModeling
        for pattern, name in renamings:
            key = re.sub(pattern, name, key)
        if layout == "timm" and _LINEAR.search(key):
            value = value.reshape(value.shape[:2])
        official[key] = value
    return official
