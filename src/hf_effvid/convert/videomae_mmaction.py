# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""VideoMAE under the names of mmaction2, as OpenTAD's detectors carry it, to the names of transformers' `VideoMAEModel`."""

import re

import torch


# mmaction2's module -> ours, inside a block; `attn.qkv` and its biases are three layers here
_BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.layers.0.0": "intermediate.dense",
    "mlp.layers.1": "output.dense",
}
_PATCHES = "embeddings.patch_embeddings.projection"
# the table of sines is made anew, and the norm stands before a classifier
_LEFT_OUT = re.compile(r"pos_embed|fc_norm\.(weight|bias)")


def convert_videomae(state_dict):
    """Weights of a VideoMAE trunk under the names that `VideoMAEModel.load_state_dict` takes. Pure; tensors are views.

    Raises:
        KeyError: a name is not one of mmaction2's VideoMAE.
    """
    converted = {}
    for key, value in state_dict.items():
        if _LEFT_OUT.fullmatch(key):
            continue
        if key.startswith("patch_embed.projection."):
            converted[f"{_PATCHES}.{key.rsplit('.', 1)[1]}"] = value
            continue
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
        if match is None:
            raise KeyError(f"{key!r} is not a parameter of mmaction2's VideoMAE.")
        block, name = f"encoder.layer.{match[1]}", match[2]
        if name == "attn.qkv.weight":
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                converted[f"{block}.attention.attention.{part}.weight"] = rows
        elif name in ("attn.q_bias", "attn.v_bias"):
            part = {"attn.q_bias": "query", "attn.v_bias": "value"}[name]
            converted[f"{block}.attention.attention.{part}.bias"] = value
        else:
            module, leaf = name.rsplit(".", 1)
            if module not in _BLOCK_NAMES:
                raise KeyError(f"{key!r} is not a parameter of mmaction2's VideoMAE.")
            converted[f"{block}.{_BLOCK_NAMES[module]}.{leaf}"] = value
    return converted


def restore_videomae(state_dict):
    """The way back: the names of `VideoMAEModel` to mmaction2's, without its table of positions. Pure.

    Raises:
        KeyError: a name is not one of `VideoMAEModel`.
    """
    theirs = {ours: name for name, ours in _BLOCK_NAMES.items()}
    restored, parts = {}, {}
    for key, value in state_dict.items():
        module, leaf = key.rsplit(".", 1)
        match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)
        if module == _PATCHES:
            restored[f"patch_embed.projection.{leaf}"] = value
        elif match is None:
            raise KeyError(f"{key!r} is not a parameter of VideoMAEModel.")
        elif match[2] in theirs:
            restored[f"blocks.{match[1]}.{theirs[match[2]]}.{leaf}"] = value
        else:
            part = match[2].removeprefix("attention.attention.")
            if part not in ("query", "key", "value"):
                raise KeyError(f"{key!r} is not a parameter of VideoMAEModel.")
            if leaf == "bias":
                restored[f"blocks.{match[1]}.attn.{part[0]}_bias"] = value
            else:
                parts.setdefault(match[1], {})[part] = value
    for block, rows in parts.items():
        restored[f"blocks.{block}.attn.qkv.weight"] = torch.cat([rows["query"], rows["key"], rows["value"]])
    return restored


def infer_videomae(shapes):
    """Fields of the `VideoMAEConfig` that show in the shapes of `VideoMAEModel`'s weights.

    The number of heads does not: every released size has heads of 64 channels.
    """
    hidden, _, tubelet, patch, _ = shapes[f"{_PATCHES}.weight"]
    blocks = {match[1] for key in shapes if (match := re.match(r"encoder\.layer\.(\d+)\.", key))}
    return {
        "hidden_size": hidden,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
        "patch_size": patch,
        "tubelet_size": tubelet,
        "layer_norm_eps": 1e-6,
    }
