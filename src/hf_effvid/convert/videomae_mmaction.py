# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""VideoMAE under the names of mmaction2, as OpenTAD's detectors carry it, to the names of transformers' `VideoMAEModel`."""

import re


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
