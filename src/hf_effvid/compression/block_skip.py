"""A model that computes without some of its blocks, for as long as a context lasts.

No surgery: modules, parameters and hooks stay where they are. The call of a block goes through a handler that belongs to the context
(a `ContextVar`): other threads that use the same model see all of its blocks, contexts nest, and nothing is left behind.
"""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from threading import Lock
from types import MappingProxyType, MethodType

import torch
from torch import nn

from .block_table import ModelBlock, UndroppableBlockError, UnsupportedBlocksError, model_blocks


# (module, what it would have returned, args, kwargs) of a call -> what the call returns
CallHandler = Callable[[nn.Module, Callable, tuple, dict], object]

_handlers: ContextVar[Mapping[int, tuple[CallHandler, ...]]] = ContextVar(
    "block_call_handlers", default=MappingProxyType({})
)
_installing = Lock()
_USERS, _BEFORE = "_block_call_users", "_forward_before_block_calls"
_CHECKPOINT, _CHECKPOINT_BEFORE = "_gradient_checkpointing_func", "_checkpoint_before_block_calls"


class HandledCalls:
    """Context in which calls of some modules go through handlers, the innermost context's first.

    Args:
        handlers: module -> `CallHandler`. The second argument of a handler computes what an outer context, or the module, gives.
    """

    def __init__(self, handlers: Mapping[nn.Module, CallHandler]):
        self._own = dict(handlers)
        self._tokens = []

    def __enter__(self):
        for module in self._own:
            _redirect(module)
        merged = dict(_handlers.get())
        for module, handler in self._own.items():
            merged[id(module)] = (*merged.get(id(module), ()), handler)
        self._tokens.append(_handlers.set(merged))
        return self

    def __exit__(self, *exception):
        _handlers.reset(self._tokens.pop())
        for module in self._own:
            _release(module)


class BlockSkip(HandledCalls):
    """Context in which a model computes without some of its blocks, as it would after `drop_blocks`.

    Outputs are those of the dropped model bit for bit; of hidden states one per block remains, which repeats at a skipped block. Only
    calls from the thread (or task) that entered the context are concerned.

    Args:
        model: see `model_blocks`; also inside a PEFT or DDP wrapper.
        indices: running numbers of the blocks to leave out.
        part: see `model_blocks`.

    Raises:
        UnsupportedBlocksError: the model is not in the table, or is compiled.
        UndroppableBlockError: a block that has to stay.
        ValueError: there is no such block, or none would be left.

    Example:
        >>> with BlockSkip(model, [7]):
        ...     without_block_7 = model(pixel_values).logits
    """

    def __init__(self, model: nn.Module, indices: Iterable[int], part: str | None = None):
        _refuse_compiled(model)
        blocks = model_blocks(model, part)
        skipped = chosen_blocks(blocks, indices)
        _refuse_last_block_that_chooses(model, blocks, skipped)
        handlers = {block.module: partial(_skip_block, block) for block in skipped}
        handlers |= {companion: _skip_companion for block in skipped for companion in block.companions}
        super().__init__(handlers)


def chosen_blocks(blocks: list[ModelBlock], indices: Iterable[int]) -> list[ModelBlock]:
    """The blocks with these numbers, ascending, when all of them can be left out together.

    Raises:
        ValueError: no such block, one named twice, or none left of an architecture that needs one.
        UndroppableBlockError: a block that has to stay.
    """
    indices = list(indices)
    if any(isinstance(index, bool) or not hasattr(index, "__index__") for index in indices):
        raise ValueError(f"Blocks are given by whole numbers, got {indices}.")
    numbers = sorted(index.__index__() for index in indices)
    if len(set(numbers)) < len(numbers) or any(not 0 <= number < len(blocks) for number in numbers):
        raise ValueError(
            f"Expected different numbers from 0 to {len(blocks) - 1}, one per block that the model has now, got {indices}."
        )
    chosen = [blocks[number] for number in numbers]
    for block in chosen:
        _refuse_if_needed(block)
    if chosen and len(chosen) == len(blocks) and chosen[0].layout.replacement is None:
        raise ValueError(f"At least one block has to remain, all {len(blocks)} were named.")
    return chosen


def _refuse_if_needed(block):
    if block.must_stay is not None:
        raise UndroppableBlockError(
            f"Block {block.index} ({block.name}, {type(block.module).__name__}) cannot be left out: {block.must_stay}."
        )
    if hasattr(block.module, "reduction"):
        raise UndroppableBlockError(
            f"Block {block.index} ({block.name}) merges tokens: take it back (restore_tokens), leave blocks out, and merge again."
        )


def _refuse_last_block_that_chooses(model, blocks, skipped):
    """`scorer="attention"` of a Lite model asks the module of the last block, whether it runs or not."""
    scorers = {getattr(getattr(module, "config", None), "scorer", None) for module in model.modules()}
    if "attention" in scorers and skipped and skipped[-1] is blocks[-1]:
        raise UndroppableBlockError(
            f"Block {blocks[-1].index} ({blocks[-1].name}) cannot be skipped: its attention chooses the tokens (scorer='attention'). Drop "
            "it, or skip it with another scorer."
        )


def _skip_block(block, module, call, args, kwargs):
    return block.layout.output(block.layout.residual(module, args, kwargs), args, kwargs)


def _skip_companion(module, call, args, kwargs):
    return args[0]


def _refuse_compiled(model):
    if any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in model.modules()):
        raise UnsupportedBlocksError(
            "A compiled model does not see that blocks are skipped: give the model before torch.compile."
        )


# --- calls of a module that go through the handlers of the context ---


def _redirect(module):
    with _installing:
        users = module.__dict__.get(_USERS, 0)
        if users == 0:
            module.__dict__[_BEFORE] = module.__dict__.get("forward")
            # a bound method, so that copies of the module made meanwhile get one of their own
            module.__dict__["forward"] = MethodType(_handled_forward, module)
            if _CHECKPOINT in module.__dict__:
                module.__dict__[_CHECKPOINT_BEFORE] = module.__dict__[_CHECKPOINT]
                module.__dict__[_CHECKPOINT] = MethodType(_checkpoint_if_not_handled, module)
        module.__dict__[_USERS] = users + 1


def _release(module):
    with _installing:
        module.__dict__[_USERS] -= 1
        if module.__dict__[_USERS]:
            return
        del module.__dict__[_USERS]
        before = module.__dict__.pop(_BEFORE)
        if _CHECKPOINT_BEFORE in module.__dict__:
            module.__dict__[_CHECKPOINT] = module.__dict__.pop(_CHECKPOINT_BEFORE)
        if getattr(module.__dict__.get("forward"), "__func__", None) is not _handled_forward:
            return  # somebody replaced it since; what they kept of ours finds no handler and computes the block
        del module.__dict__["forward"]
        if before is not None:
            module.__dict__["forward"] = before


def _handled_forward(module, *args, **kwargs):
    return _call_through(_handlers.get().get(id(module), ()), module, args, kwargs)


def _checkpoint_if_not_handled(module, call, *args):
    # some versions of transformers checkpoint the whole call: what is computed again in the backward pass, in any thread and after the
    # context, would then not be what was computed
    if _handlers.get().get(id(module)):
        return call(*args)
    return module.__dict__[_CHECKPOINT_BEFORE](call, *args)


def _call_through(handlers, module, args, kwargs):
    if not handlers:
        before = module.__dict__.get(_BEFORE)
        return type(module).forward(module, *args, **kwargs) if before is None else before(*args, **kwargs)
    outer = partial(_call_through, handlers[:-1], module, args, kwargs)
    return handlers[-1](module, outer, args, kwargs)


def states_of(output) -> torch.Tensor:
    """Hidden states among what a block returned."""
    return output[0] if isinstance(output, tuple) else output


__all__ = ["BlockSkip", "HandledCalls"]
