"""One batch through a model with all of its blocks, and without each of some: what the runs share is computed once.

Before a block that is left out, the model computes what the whole model computed. Those blocks give back what they gave then, call by
call, so that N candidates of N blocks cost N (N - 1) / 2 + N block evaluations for each call instead of N (N - 1) + N, and every number
is the same bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from .block_skip import BlockSkip, HandledCalls
from .block_table import model_blocks


def run_without_each(
    model: nn.Module, run: Callable[[], object], candidates: Iterable[int], part: str | None = None
) -> Iterator[tuple[int | None, object]]:
    """Calls `run` with the whole model and then without each candidate.

    Outputs of the blocks before the last candidate are kept until the end, for one call of `run`: where that is too much memory, give
    smaller batches.

    Args:
        model: see `model_blocks`; in evaluation mode, since stochastic layers would make every call another one.
        run: calls the model, once or more often, in the same way every time.
        candidates: running numbers of blocks.
        part: see `model_blocks`.

    Yields:
        (None, what `run` gave with all blocks), then (number, what it gave without that block), ascending.

    Raises:
        RuntimeError: `run` calls the blocks otherwise the second time.
    """
    candidates = sorted(candidates)
    blocks = model_blocks(model, part)
    before_last = blocks[: candidates[-1]] if candidates else []
    recordings = {module: _Recording() for block in before_last for module in (block.module, *block.companions)}
    with HandledCalls({module: recording.record for module, recording in recordings.items()}):
        result = run()
    yield None, result
    for candidate in candidates:
        shared = [recordings[module] for block in blocks[:candidate] for module in (block.module, *block.companions)]
        replays = {
            module: recordings[module].replay
            for block in blocks[:candidate]
            for module in (block.module, *block.companions)
        }
        for recording in shared:
            recording.rewind()
        with HandledCalls(replays), BlockSkip(model, [candidate], part):
            result = run()
        if not all(recording.is_at_end for recording in shared):
            raise RuntimeError(_ANOTHER_WAY)
        yield candidate, result


_ANOTHER_WAY = (
    "The model called its blocks in another way than with all blocks: it is not in evaluation mode, or which of them it calls depends on "
    "what they compute. Run it once per candidate, with BlockSkip."
)


class _Recording:
    """Outputs of the calls of one module, in their order."""

    def __init__(self):
        self._outputs: list[torch.Tensor | tuple] = []
        self._next = 0

    def record(self, module, call, args, kwargs):
        self._outputs.append(call())
        return self._outputs[-1]

    def replay(self, module, call, args, kwargs):
        if self.is_at_end:
            raise RuntimeError(_ANOTHER_WAY)
        self._next += 1
        return self._outputs[self._next - 1]

    def rewind(self):
        self._next = 0

    @property
    def is_at_end(self):
        return self._next == len(self._outputs)
