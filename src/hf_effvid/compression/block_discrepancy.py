"""How much each block changes what goes through it: difference and angle between its input and its output, in one pass.

The input of a block that strides (ActionFormer's branch) is what its skip connection makes of it, so that both have the same shape.
Tokens that are zero on both sides are padding and do not count.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from .block_skip import HandledCalls, states_of
from .block_table import ModelBlock


class BlockDiscrepancy:
    """Sums of one block over all of its calls.

    Args:
        block: from `model_blocks`. With temporal adapters its output is that of the adapter, which sees several calls at once.
    """

    def __init__(self, block: ModelBlock):
        self.block = block
        self._inputs: list[torch.Tensor] = []
        self._squares = self._cosines = 0.0
        self._elements = self._tokens = 0

    @property
    def handlers(self) -> dict[nn.Module, Callable]:
        """What `HandledCalls` takes to measure the block."""
        return {self.block.last_module: self._measure} | {self.block.module: self._enter}

    def mse(self) -> float:
        """Mean squared difference of an element."""
        return self._squares / self._elements if self._elements else float("nan")

    def cosine(self) -> float:
        """Mean cosine between a token before and after."""
        return self._cosines / self._tokens if self._tokens else float("nan")

    def _enter(self, module, call, args, kwargs):
        self._inputs.append(self.block.layout.residual(module, args, kwargs))
        output = call()
        if self.block.last_module is module:
            self._add(output)
        return output

    def _measure(self, module, call, args, kwargs):
        output = call()
        self._add(output)
        return output

    def _add(self, output):
        before, after = torch.cat(self._inputs).float(), states_of(output).float()
        self._inputs.clear()
        cosines = torch.nn.functional.cosine_similarity(before, after, dim=-1)
        there = (before != 0).any(dim=-1) | (after != 0).any(dim=-1)
        # sums in double precision: millions of tokens of many batches
        self._squares += (before - after)[there].double().square().sum().item()
        self._cosines += cosines[there].double().sum().item()
        self._tokens += int(there.sum())
        self._elements += int(there.sum()) * before.shape[-1]


def measure_discrepancies(
    blocks: Iterable[ModelBlock], run: Callable[[object], object], data: Iterable
) -> tuple[list[BlockDiscrepancy], int]:
    """Runs a model over data and measures its blocks.

    Args:
        blocks: of `model_blocks`.
        run: batch -> anything; calls the model.
        data: batches.

    Returns:
        One measurement per block, and the number of batches.
    """
    found = [BlockDiscrepancy(block) for block in blocks]
    handlers = {module: handler for one in found for module, handler in one.handlers.items()}
    batches = 0
    with HandledCalls(handlers):
        for batch in data:
            run(batch)
            batches += 1
    return found, batches
