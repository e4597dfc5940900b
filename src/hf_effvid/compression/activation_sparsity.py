"""ReLU in place of GELU, and how many zeros that leaves behind the activations of a model's blocks.

After https://huggingface.co/papers/2503.16916, appendix E: zeros cost nothing where hardware and kernels can leave them out. Dense kernels
gain nothing.
"""

import copy
import inspect
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers.activations import ACT2FN

from .block_table import find_blocks_of, model_blocks
from .own_configurations import own_configurations


# the layer behind the activation, as the blocks of transformers and ours call it
_SECOND_LAYERS = ("output.dense", "mlp.fc2")


@dataclass(frozen=True)
class ActivationSparsity:
    """How many values behind the activations are zero.

    Attributes:
        overall: share in [0, 1], over all values of all blocks.
        per_block: original number of the block -> its share.
        threshold: magnitude up to which a value counts as zero.
        num_values: how many values were looked at.
    """

    overall: float
    per_block: dict[int, float]
    threshold: float
    num_values: int


def replace_activation(model, activation="relu", part=None):
    """Gives a model another activation, in place, and writes it into the configuration: what is saved opens as an ordinary checkpoint.

    Every module changes that the model's class would build otherwise for the new `hidden_act`: the MLPs of all blocks, and with
    V-JEPA 2 those of its pooler. The weights stay; train the model afterwards.

    Args:
        model: a model whose configuration has `hidden_act`; not inside a wrapper.
        activation: a name of `transformers.activations.ACT2FN`.
        part: of a detector, see `model_blocks`.

    Returns:
        The model.

    Raises:
        ValueError: the architecture has no choice of activation, or there is no such activation.
        UnsupportedBlocksError: see `model_blocks`.
    """
    if activation not in ACT2FN:
        raise ValueError(f"activation must be one of {', '.join(sorted(ACT2FN))}, got {activation!r}.")
    stack = find_blocks_of(model, part)
    if stack.part == "detector" or not hasattr(stack.base.config, "hidden_act"):
        raise ValueError(
            f"The blocks of {type(stack.base).__name__} compute a fixed GELU: their configuration has no hidden_act to save another. "
            "Models that have one: VideoMAE, ViViT, V-JEPA 2, TimeSformer, and detectors on them."
        )
    for config in own_configurations(model, stack.base.config.model_type):
        config.hidden_act = activation
    with torch.device("meta"):
        wanted = dict(type(model)(copy.deepcopy(model.config)).named_modules())
    for name, module in list(model.named_modules()):
        if name in wanted and type(module) is not type(wanted[name]) and not any(True for _ in module.parameters()):
            model.set_submodule(name, wanted[name].train(module.training))
    return model


@torch.no_grad()
def activation_sparsity(model, batches, part=None, threshold=0.0):
    """Measures the share of zeros that enters the second layer of every MLP, in evaluation mode.

    Args:
        model: see `model_blocks`.
        batches: iterable of dictionaries with the inputs of the model; labels, and what its `forward` does not name, are left out.
        part: see `model_blocks`.
        threshold: magnitude up to which a value counts as zero.

    Returns:
        `ActivationSparsity`.

    Raises:
        ValueError: no batch, or blocks without an MLP whose second layer is known.
    """
    counts, names = {}, set(inspect.signature(model.forward).parameters) - {"labels"}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with _counting(model, part, threshold, counts):
            for batch in batches:
                model(**{name: value for name, value in batch.items() if name in names})
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not counts:
        raise ValueError("At least one batch is needed to measure activations, got none.")
    zeros, values = (sum(int(pair[place]) for pair in counts.values()) for place in (0, 1))
    per_block = {index: int(found) / number for index, (found, number) in counts.items()}
    return ActivationSparsity(zeros / values, per_block, threshold, values)


@contextmanager
def _counting(model, part, threshold, counts):
    """Adds (zeros, values) of every block to `counts` while the model runs."""

    def counter(index):
        def count(module, args):
            zeros, values = counts.get(index, (0, 0))
            counts[index] = (zeros + (args[0].abs() <= threshold).sum(), values + args[0].numel())

        return count

    hooks = []
    try:
        for block in model_blocks(model, part):
            layers = dict(block.module.named_modules())
            second = next((layers[name] for name in _SECOND_LAYERS if isinstance(layers.get(name), nn.Linear)), None)
            if second is None:
                raise ValueError(
                    f"Block {block.name} has no MLP whose second layer is called {' or '.join(_SECOND_LAYERS)}."
                )
            hooks.append(second.register_forward_pre_hook(counter(block.original_index)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
