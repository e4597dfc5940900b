"""What the blocks of a model give, by their original numbers, while it runs."""

from contextlib import contextmanager

import torch

from .block_table import model_blocks


@contextmanager
def record_block_outputs(model, part=None, indices=None):
    """Within the block, every call of a kept block leaves its output behind.

    A detector runs its trunk in several passes of clips per forward; each pass adds one tensor. With temporal adapters the output of a
    block is that of its adapter.

    Args:
        model: see `model_blocks`.
        part: see `model_blocks`.
        indices: original numbers of the blocks to record; None: all that the model has.

    Yields:
        Original number -> list of hidden states, one per call.

    Raises:
        ValueError: the model does not have one of `indices`.
    """
    blocks = {block.original_index: block for block in model_blocks(model, part)}
    wanted = list(blocks) if indices is None else list(indices)
    missing = sorted(set(wanted) - set(blocks))
    if missing:
        raise ValueError(
            f"{type(model).__name__} has the blocks {list(blocks)} (original numbers), and not {missing}."
        )
    outputs = {index: [] for index in wanted}
    hooks = [blocks[index].last_module.register_forward_hook(_keeping(outputs[index])) for index in wanted]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keeping(passes):
    def keep(module, inputs, output):
        passes.append(output if isinstance(output, torch.Tensor) else output[0])

    return keep
