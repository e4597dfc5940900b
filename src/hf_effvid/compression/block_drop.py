"""Blocks taken out of a model for good: what is left is an ordinary, shallower model of the same architecture.

The configuration gets the new depth and `kept_blocks`, the original numbers of the blocks that are left. A VideoMAE, ViViT, TimeSformer
or V-JEPA 2 without some blocks opens with the class of transformers; nothing about it is special but that one line.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from transformers.utils import logging

from .block_skip import chosen_blocks
from .block_table import BlockStack, UnsupportedBlocksError, find_blocks_of, model_blocks, plain_model
from .own_configurations import own_configurations


logger = logging.get_logger(__name__)


def drop_blocks(model: nn.Module, indices: Iterable[int], part: str | None = None) -> nn.Module:
    """Removes blocks from a model, in place, and writes its new depth into the configuration.

    Temporal adapters go with their block. A block of ActionFormer's pyramid leaves its max pool, a stage of Video-FocalNet its
    downsampling. The weights of the blocks that are left are the very same tensors.

    Args:
        model: see `model_blocks`; not inside a wrapper.
        indices: running numbers of the blocks, in the model as it is now.
        part: of a detector, `"backbone"` or `"detector"`; None takes the backbone where there is one.

    Returns:
        The model. `config.kept_blocks` (for a backbone `config.backbone_config.kept_blocks`) has the original numbers of its blocks,
        also after further drops.

    Raises:
        UnsupportedBlocksError: the model is not in the table, or is inside a wrapper (PEFT, DDP, torch.compile).
        UndroppableBlockError: a block that has to stay.
        ValueError: there is no such block, or none would be left.

    Example:
        >>> from transformers import VideoMAEForVideoClassification
        >>> from hf_effvid import drop_blocks
        >>> model = VideoMAEForVideoClassification.from_pretrained("MCG-NJU/videomae-small-finetuned-kinetics")
        >>> drop_blocks(model, [6, 7, 10]).save_pretrained("videomae-9-blocks")
    """
    if plain_model(model) is not model:
        raise UnsupportedBlocksError(
            f"Blocks are dropped from the model itself, got a {type(model).__name__} around it: merge adapters "
            "(merge_and_unload), or take the model out of its wrapper."
        )
    blocks = model_blocks(model, part)
    dropped = chosen_blocks(blocks, indices)
    if not dropped:
        return model
    stack = find_blocks_of(model, part)
    depths = stack.depths
    gone = {block.index for block in dropped}
    originals = [block.original_index for block in blocks if block.index not in gone]
    for places, number in _places_of(stack, gone):
        _remove(stack, number, places)
    for config in own_configurations(model, stack.base.config.model_type):
        _filter_lists_per_block(config, gone, len(blocks))
        stack.layout.write_depth(config, stack.depths, depths)
        config.kept_blocks = list(originals)
    for block in model_blocks(model, part):
        for module in block.module.modules():
            if hasattr(module, "layer_idx"):  # of a cache, which has one entry per block
                module.layer_idx = block.index
    _spread_drop_path(model, part)
    return model


def dropped_state_dict(
    state_dict: Mapping[str, torch.Tensor], model: nn.Module, indices: Iterable[int], part: str | None = None
) -> dict[str, torch.Tensor]:
    """Weights of a model as they are named after `drop_blocks(model, indices, part)`: for checkpoints, averages or gradients of it.

    Args:
        state_dict: of `model`, or with the same keys.
        model: the model before blocks are dropped; it stays as it is.
        indices, part: see `drop_blocks`.
    """
    stack = find_blocks_of(model, part)
    gone = {block.index for block in chosen_blocks(model_blocks(model, part), indices)}
    renamed: dict[str, str | None] = {}
    for places, number in _places_of(stack, gone):
        beside = [stack.lists[number]] + ([] if number else list(stack.companions))
        for name, modules in beside:
            left = [place for place in range(len(modules)) if place not in places]
            if stack.layout.replacement is not None:
                renamed |= {f"{name}.{place}.": None for place in places}
            else:
                new = {place: f"{name}.{position}." for position, place in enumerate(left)}
                renamed |= {f"{name}.{place}.": new.get(place) for place in range(len(modules))}
    result = {}
    for key, value in state_dict.items():
        prefix = next((prefix for prefix in _list_prefixes(key) if prefix in renamed), None)
        if prefix is None:
            result[key] = value
        elif renamed[prefix] is not None:
            result[renamed[prefix] + key[len(prefix) :]] = value
    return result


def _list_prefixes(key):
    """Beginnings of a key that end with a number: names of elements of lists."""
    return [key[: match.end()] for match in re.finditer(r"\.\d+\.", key)]


def _places_of(stack: BlockStack, gone: set[int]):
    """(places that lose their block, number of the list) for every list that loses any."""
    start = 0
    for number in range(len(stack.lists)):
        places = stack.places(number)
        losing = {place for offset, place in enumerate(places) if start + offset in gone}
        start += len(places)
        if losing:
            yield losing, number


def _remove(stack, number, places):
    modules = stack.lists[number][1]
    for place in sorted(places, reverse=True):
        if stack.layout.replacement is not None:
            modules[place] = _replaced(modules[place], stack)
            continue
        del modules[place]
        for _, companions in stack.companions:
            del companions[place]


def _replaced(block, stack):
    """What takes the place of a block, on its device, with the hooks that others look at the place through (hidden states)."""
    replacement = stack.layout.replacement(block, stack.base.config).train(block.training)
    for hooks in ("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"):
        setattr(replacement, hooks, getattr(block, hooks))
    return replacement


def _filter_lists_per_block(config, gone, count):
    kinds = vars(config).get("layer_types")
    if isinstance(kinds, (list, tuple)) and len(kinds) == count:
        config.layer_types = [kind for index, kind in enumerate(kinds) if index not in gone]


def _spread_drop_path(model, part):
    """Gives blocks the rates of stochastic depth that classes of transformers will give them when they open the checkpoint.

    These grow evenly from 0 at the first block to the rate at the last, however many there are, and no configuration can say otherwise.
    """
    stack = find_blocks_of(model, part)
    rate = getattr(stack.base.config, "drop_path_rate", 0.0)
    blocks = model_blocks(model, part)
    kinds = {type(getattr(block.module, "drop_path", None)) for block in blocks}
    kinds = {kind for kind in kinds if kind.__module__.startswith("transformers.")}
    if not rate or not kinds:
        return
    (kind,) = kinds
    for block in blocks:
        share = block.index / (len(blocks) - 1) if len(blocks) > 1 else 0.0
        block.module.drop_path = kind(rate * share)
    logger.warning(
        f"Stochastic depth now grows from 0 to {rate} over the {len(blocks)} blocks that are left: the class of transformers spreads it "
        "so, and a checkpoint cannot keep the rates that the blocks had. Set drop_path_rate=0 to train without."
    )


__all__ = ["drop_blocks", "dropped_state_dict"]
