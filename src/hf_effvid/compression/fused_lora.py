"""The adapters of the published block-drop code, which adapt query, key and value in one matrix, as adapters of separate layers.

There y = x W^T + x A B, with A (D, r) and B (r, 3 D) for the fused projection, B (r, D) for the output. One A serves query, key and
value: copied to all three, and B sliced, the separate layers compute the same.
"""

import re

import torch

from .block_table import model_blocks


_FUSED_KEY = re.compile(r"(?:.*\.)?blocks\.(\d+)\.attn\.lora_(qkv|proj)\.([AB])")
_PARTS = ("query", "key", "value")


def fused_lora_shapes(hidden_size, rank):
    """Name -> shape of the adapters of one block in the published layout: r (6 D) numbers, against r (8 D) in separate layers."""
    return {
        "attn.lora_qkv.A": (hidden_size, rank),
        "attn.lora_qkv.B": (rank, 3 * hidden_size),
        "attn.lora_proj.A": (hidden_size, rank),
        "attn.lora_proj.B": (rank, hidden_size),
    }


def split_fused_lora(state_dict, scale=1.0):
    """Published adapters as those of the separate layers of a VideoMAE block. Pure; A and B are transposed, as PEFT keeps them.

    Args:
        state_dict: with `blocks.{i}.attn.lora_qkv.A`, `.B` and `lora_proj`; other names are left out.
        scale: of their product; it goes into B.

    Returns:
        Original number of the block -> name of the layer inside it -> (weight (r, D) of `lora_A`, weight (D, r) of `lora_B`).

    Raises:
        ValueError: a block lacks one of its four matrices, or their shapes do not fit each other.
    """
    blocks = {}
    for key, value in state_dict.items():
        match = _FUSED_KEY.fullmatch(key)
        if match is not None:
            blocks.setdefault(int(match[1]), {})[f"attn.lora_{match[2]}.{match[3]}"] = value
    return {index: _split(index, found, scale) for index, found in sorted(blocks.items())}


def _split(index, found, scale):
    first = found.get("attn.lora_qkv.A")
    wanted = fused_lora_shapes(*first.shape) if first is not None else fused_lora_shapes(1, 1)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    if shapes != wanted:
        raise ValueError(f"The adapters of block {index} should be {wanted}, got {shapes}.")
    layers = {}
    for part, columns in zip(_PARTS, found["attn.lora_qkv.B"].chunk(3, dim=1), strict=True):
        layers[f"attention.attention.{part}"] = (first.T, scale * columns.T)
    layers["attention.output.dense"] = (found["attn.lora_proj.A"].T, scale * found["attn.lora_proj.B"].T)
    return layers


@torch.no_grad()
def load_fused_lora(model, state_dict, part=None, scale=1.0):
    """Copies published adapters into the adapters of a model.

    Args:
        model: what `recovery_lora` returned for a VideoMAE, or a detector on one.
        state_dict, scale: see `split_fused_lora`.
        part: see `model_blocks`.

    Raises:
        ValueError: the adapters are not those of the model's kept blocks.
    """
    adapters = split_fused_lora(state_dict, scale)
    blocks = {block.original_index: block.module for block in model_blocks(model, part)}
    if set(blocks) != set(adapters):
        raise ValueError(
            f"The adapters are of the blocks {sorted(adapters)}, the model has {sorted(blocks)} (original numbers)."
        )
    for index, layers in adapters.items():
        for name, (first, second) in layers.items():
            layer = blocks[index].get_submodule(name)
            for matrices, value in ((layer.lora_A, first), (layer.lora_B, second)):
                for matrix in matrices.values():
                    matrix.weight.copy_(value)
