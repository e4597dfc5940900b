"""Where the blocks of a model live, and what a block leaves behind that does nothing.

One table, `BLOCKS`, from `model_type` to a `BlockLayout`. All that skips, scores, drops or aligns blocks reads it, so that an
architecture is supported everywhere once it has an entry.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ..models.actionformer_layers import DroppedActionFormerLayer


class UnsupportedBlocksError(ValueError):
    """The blocks of this model cannot be found, or not be edited in the state that it is in."""


class UndroppableBlockError(ValueError):
    """This block cannot be left out: something that only it does would be missing."""


# --- what a block leaves behind that is left out ---


def hidden_states_of(block: nn.Module, args: tuple, kwargs: dict) -> torch.Tensor:
    """What enters a block; a residual block that is left out gives the same."""
    return args[0] if args else kwargs["hidden_states"]


def _pooled(block, args, kwargs):
    # what does not depend on weights remains: the pyramid needs its strides
    return block.skip(*args[:3])


def _bare(states, args, kwargs):
    return states


def _with_attention(states, args, kwargs):
    return states, None


def _with_modulators(states, args, kwargs):
    shown = args[2] if len(args) > 2 else kwargs.get("output_modulators", False)
    return states, (None,) * 4 if shown else None


# --- how a configuration says how deep the model is ---


def _write_num_hidden_layers(config, depths, before):
    config.num_hidden_layers = depths[0]


def _write_stages(config, depths, before):
    # stochastic depth goes by the place that a block had
    config.original_depths = config.original_depths or list(before)
    config.depths = list(depths)


def _write_nothing(config, depths, before):
    """`kept_blocks` says all: the numbers of stem and branch count places, and these stay."""


def _may_go(block):
    return None


def _strided_convolution(block):
    if getattr(block, "downsample", None) is not None:
        return "its skip connection is a convolution with weights, without which the pyramid has no coarser level"
    return None


@dataclass(frozen=True)
class BlockLayout:
    """How one architecture keeps its blocks.

    Attributes:
        paths: names of the lists of blocks, in order, seen from the base model; `*` stands for all elements of a list. Of a tuple the
            first that exists counts (names that differ between versions of transformers).
        residual: (block, args, kwargs) of a call -> the hidden states that come out when the block is left out.
        output: (hidden states, args, kwargs) -> the same in the form in which the block returns them.
        write_depth: (config, blocks per list, blocks per list before) -> None, edits the configuration.
        undroppable: block -> why it has to stay, or None.
        replacement: (block, config) -> what takes its place in the list; None: nothing does, and the blocks after it move up.
    """

    paths: tuple[str | tuple[str, ...], ...]
    residual: Callable[[nn.Module, tuple, dict], torch.Tensor] = hidden_states_of
    output: Callable[[torch.Tensor, tuple, dict], object] = _bare
    write_depth: Callable[[object, Sequence[int], Sequence[int]], None] = _write_num_hidden_layers
    undroppable: Callable[[nn.Module], str | None] = _may_go
    replacement: Callable[[nn.Module, object], nn.Module] | None = None


# `model_type`, without the prefix of our Lite hosts, to the layout
BLOCKS: dict[str, BlockLayout] = {
    "videomae": BlockLayout(("encoder.layer",)),
    "vivit": BlockLayout((("layers", "encoder.layer"),)),
    "timesformer": BlockLayout(("encoder.layer",), output=_with_attention),
    "vjepa2": BlockLayout(("encoder.layer",), output=_with_attention),
    "video_focalnet": BlockLayout(("encoder.stages.*.layers",), output=_with_modulators, write_depth=_write_stages),
    "actionformer": BlockLayout(
        ("encoder.stem", "encoder.branch"),
        residual=_pooled,
        write_depth=_write_nothing,
        undroppable=_strided_convolution,
        replacement=lambda block, config: DroppedActionFormerLayer(config, getattr(block, "stride", 1)),
    ),
    "mamba": BlockLayout(("layers",)),
    "mamba2": BlockLayout(("layers",)),
}


@dataclass(frozen=True)
class ModelBlock:
    """One block of a model.

    Attributes:
        index: running number among the blocks that the model has now.
        original_index: its number in the model before blocks were dropped.
        name: of the module, seen from the model that was asked.
        module: the block.
        part: `"backbone"` or `"detector"`.
        companions: modules that belong to the block and go with it: temporal adapters.
        layout: of its architecture.
    """

    index: int
    original_index: int
    name: str
    module: nn.Module
    part: str
    companions: tuple[nn.Module, ...]
    layout: BlockLayout

    @property
    def last_module(self) -> nn.Module:
        """The module whose output is that of the block: its last companion, or itself."""
        return self.companions[-1] if self.companions else self.module

    @property
    def must_stay(self) -> str | None:
        """Why the block cannot be left out; None when it can."""
        return self.layout.undroppable(self.module)


@dataclass(frozen=True)
class BlockStack:
    """All blocks of one part of a model, and where they are written down.

    Attributes:
        part: `"backbone"` or `"detector"`.
        base: the model below the heads that has the lists.
        layout: of its architecture.
        lists: (name seen from the model that was asked, the list).
        companions: lists beside them, with one module per block.
    """

    part: str
    base: nn.Module
    layout: BlockLayout
    lists: tuple[tuple[str, nn.ModuleList], ...]
    companions: tuple[tuple[str, nn.ModuleList], ...] = ()

    @property
    def depths(self) -> list[int]:
        """Blocks per list, without places that a dropped block left."""
        return [len(self.places(number)) for number in range(len(self.lists))]

    def places(self, number: int) -> list[int]:
        """Places in a list that hold a block."""
        return [place for place, module in enumerate(self.lists[number][1]) if not is_dropped(module)]

    def original_indices(self) -> list[int]:
        """Numbers that the blocks had before any was dropped.

        Raises:
            UnsupportedBlocksError: `kept_blocks` of the configuration is not about as many blocks as the model has.
        """
        count = sum(self.depths)
        kept = getattr(self.base.config, "kept_blocks", None)
        if kept is None:
            return list(range(count))
        if len(kept) != count:
            raise UnsupportedBlocksError(
                f"kept_blocks={list(kept)} of the configuration names {len(kept)} blocks, the model has {count}: it was edited by "
                "other means than drop_blocks. Set config.kept_blocks to the original numbers of its blocks, or to None."
            )
        return [int(index) for index in kept]


def is_dropped(module: nn.Module) -> bool:
    """Whether a module only holds the place of a block that was dropped."""
    return getattr(module, "holds_place_of_dropped_block", False)


def model_blocks(model: nn.Module, part: str | None = None) -> list[ModelBlock]:
    """The blocks of a model in their order.

    Args:
        model: a classifier, detector or base model, also inside a PEFT, DDP or torch.compile wrapper.
        part: of a detector, `"backbone"` (its trunk) or `"detector"` (its own stem and branch); None takes the backbone where there is
            one.

    Raises:
        UnsupportedBlocksError: the model is not in the table, or has no such part.
    """
    stack = find_blocks_of(model, part)
    originals, blocks = iter(stack.original_indices()), []
    for number, (name, modules) in enumerate(stack.lists):
        for place in stack.places(number):
            companions = tuple(companion[place] for _, companion in stack.companions)
            fields = (f"{name}.{place}", modules[place], stack.part, companions, stack.layout)
            blocks.append(ModelBlock(len(blocks), next(originals), *fields))
    return blocks


def kept_blocks(model: nn.Module, part: str | None = None) -> list[int]:
    """Original indices of the blocks that a model has; see `model_blocks` for the arguments and errors."""
    return find_blocks_of(model, part).original_indices()


def find_blocks_of(model: nn.Module, part: str | None = None) -> BlockStack:
    """Where the blocks of a part are; see `model_blocks`."""
    plain = plain_model(model)
    if part not in (None, "backbone", "detector"):
        raise UnsupportedBlocksError(f'part must be "backbone" or "detector", got {part!r}.')
    base, companions, part = _base_of(plain, part)
    layout = _layout_of(base)
    names = {id(module): name for name, module in model.named_modules()}
    lists = []
    for path in layout.paths:
        lists += [(names[id(found)], found) for found in _resolve(base, path)]
    beside = tuple((names[id(found)], found) for found in companions)
    return BlockStack(part, base, layout, tuple(lists), beside)


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside wrappers of torch.compile, DDP and PEFT.

    Raises:
        UnsupportedBlocksError: replicas of `nn.DataParallel` compute in threads of their own, which nothing here reaches.
    """
    if isinstance(model, nn.DataParallel):
        raise UnsupportedBlocksError("Blocks of nn.DataParallel cannot be reached: use one device, or DDP.")
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model


def _base_of(model, part):
    """The model that has the lists of a part, lists of companions, and the part."""
    base = model.base_model if isinstance(model, PreTrainedModel) else model
    trunk = getattr(base, "backbone", None) if _model_type(base) == "actionformer" else None
    if part == "detector" and _model_type(base) != "actionformer":
        raise UnsupportedBlocksError(
            f'part="detector" is the stem and branch of an ActionFormer; {type(model).__name__} has one part: leave it out.'
        )
    if _model_type(base) != "actionformer":
        return base, (), "backbone"
    if part == "detector" or (part is None and trunk is None):
        return base, (), "detector"
    if trunk is None:
        raise UnsupportedBlocksError(
            'part="backbone" is the trunk of a detector that takes pixels; this one takes features: use part="detector".'
        )
    return trunk.trunk, () if trunk.adapters is None else (trunk.adapters,), "backbone"


def _model_type(model):
    return str(getattr(getattr(model, "config", None), "model_type", None))


def _layout_of(base):
    layout = BLOCKS.get(_model_type(base).removeprefix("lite_"))
    if layout is None:
        raise UnsupportedBlocksError(
            f"The blocks of {type(base).__name__} (model_type {_model_type(base)}) are not in the table. It has {', '.join(BLOCKS)}, and "
            "our Lite classes of them. For another stack of residual blocks add an entry with the name of its list, seen from the base "
            'model: hf_effvid.compression.block_table.BLOCKS["my_type"] = BlockLayout(("encoder.layers",)).'
        )
    return layout


def _resolve(base, path):
    """The module lists that a path names."""
    for option in (path,) if isinstance(path, str) else path:
        found = [base]
        for name in option.split("."):
            found = [
                child
                for module in found
                for child in (module if name == "*" else [getattr(module, name, None)])
                if child is not None
            ]
        if found:
            return found
    raise UnsupportedBlocksError(
        f"{type(base).__name__} has no {path}: this version of transformers names its parts differently."
    )


__all__ = [
    "BLOCKS",
    "BlockLayout",
    "BlockStack",
    "ModelBlock",
    "UndroppableBlockError",
    "UnsupportedBlocksError",
    "kept_blocks",
    "model_blocks",
]
