"""Narrower blocks: channels that torch-pruning's dependency graph (DepGraph) finds to belong together are removed from a VideoMAE.

The rival, and the companion, of dropped blocks: the depth stays, the matrices shrink. What can go, and what it leaves:

- the width of the MLPs (`intermediate_size`): the configuration has a field for it, the result is a plain VideoMAE that saves and loads;
- the dimension of the attention heads: smaller and as fast as it looks, but the configuration derives it (`hidden_size` / heads), so that what
  is saved does not load. For measuring;
- the residual stream (`hidden_size`): not at all. Positions are a table that the model computes from the width, which no graph of weights sees: a
  narrower one would add other positions.

All blocks keep the same number of channels, because a configuration has one number for all of them.
"""

from contextlib import contextmanager

import torch
from torch import nn

from .block_table import find_blocks_of
from .own_configurations import own_configurations


IMPORTANCES = ("magnitude", "taylor")


class PruningError(ValueError):
    """Channels cannot be pruned as asked; the message says why and what to do."""


class MissingPrunerError(PruningError, ImportError):
    """The `prune` extra is not installed."""


def prune_channels(
    model,
    *,
    part: str | None = None,
    intermediate_size: int | None = None,
    head_dim: int | None = None,
    importance: str = "magnitude",
):
    """Removes the least important channels of every block, in place.

    A group of channels is what has to go together: a row of the first matrix of an MLP with the column of the second; a row of queries, keys and
    values with a column of the projection behind. Its importance is the mean over its matrices of the squared norm of its rows or columns
    ("magnitude"), or of (weight x gradient) squared ("taylor": first order change of the loss).

    Args:
        model: a `VideoMAEForVideoClassification`, `VideoMAEModel`, a LITE of them that keeps all tokens, or a detector on one.
        part: of a detector, see `model_blocks`; channels are those of its trunk.
        intermediate_size: channels that the MLPs keep; None leaves them.
        head_dim: channels that each attention head keeps; None leaves them. The model then runs and trains, but what is saved of it does not load.
        importance: `"magnitude"`, or `"taylor"` for a model whose parameters hold gradients of a loss.

    Returns:
        The model.

    Raises:
        PruningError: the model is no VideoMAE, a width is not below the present one, or gradients are missing.
        MissingPrunerError: torch-pruning is not installed.
    """
    pruning = _torch_pruning()
    trunk = _trunk(model, part)
    check_widths(model, intermediate_size, head_dim, part)
    attention = trunk.encoder.layer[0].attention.attention
    score = _importance(pruning, trunk, importance)
    with _traceable(trunk):
        graph = pruning.DependencyGraph().build_dependency(
            trunk, example_inputs=_traced_clip(trunk), output_transform=lambda output: output.last_hidden_state.sum()
        )
        for layer in trunk.encoder.layer:
            if intermediate_size is not None:
                _prune(pruning, graph, score, layer.intermediate.dense, 1, intermediate_size)
            if head_dim is not None:
                query = layer.attention.attention.query
                _prune(pruning, graph, score, query, attention.num_attention_heads, head_dim)
    model.zero_grad(set_to_none=True)  # those of other shapes
    if intermediate_size is not None:
        for config in own_configurations(model, trunk.config.model_type):
            config.intermediate_size = intermediate_size
    if head_dim is not None:
        for layer in trunk.encoder.layer:
            # `scaling` stays: the channels that are left are to give the products they gave before
            of_layer = layer.attention.attention
            of_layer.attention_head_size, of_layer.all_head_size = head_dim, head_dim * of_layer.num_attention_heads
    return model


def check_widths(
    model, intermediate_size: int | None = None, head_dim: int | None = None, part: str | None = None
) -> None:
    """Raises what `prune_channels` would, before anything is done; see there for the arguments."""
    _torch_pruning()
    layer = _trunk(model, part).encoder.layer[0]
    _check_width("intermediate_size", intermediate_size, layer.intermediate.dense.out_features)
    _check_width("head_dim", head_dim, layer.attention.attention.attention_head_size)


def is_expressible(model) -> bool:
    """Whether the configuration says all of a VideoMAE's widths, so that what is saved loads."""
    trunk = _trunk(model)
    config, layers = trunk.config, trunk.encoder.layer
    heads = all(layer.attention.attention.query.out_features == config.hidden_size for layer in layers)
    return heads and all(layer.intermediate.dense.out_features == config.intermediate_size for layer in layers)


def _torch_pruning():
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingPrunerError(
            f"pruning channels needs torch-pruning ({error}): pip install 'hf_effvid[prune]'."
        ) from error
    return torch_pruning


def _trunk(model, part=None):
    """The module with the encoder: that of a classifier or detector, or the model itself."""
    trunk = find_blocks_of(model, part).base
    model_type = str(trunk.config.model_type)
    if model_type.removeprefix("lite_") != "videomae":
        raise PruningError(
            f"channels of {type(trunk).__name__} ({model_type}) cannot be pruned: a VideoMAE was expected."
        )
    if getattr(trunk.config, "keep_ratio", 1) != 1:
        raise PruningError(
            f"the graph of channels is traced with all tokens: set keep_ratio=1, got {trunk.config.keep_ratio}; select tokens afterwards."
        )
    return trunk


def _traced_clip(trunk):
    """A clip that the trunk was made for; its values do not matter."""
    config = trunk.config
    sides = config.image_size if isinstance(config.image_size, (list, tuple)) else (config.image_size,) * 2
    return torch.zeros(1, config.num_frames, config.num_channels, *sides, device=trunk.device, dtype=trunk.dtype)


def _check_width(name: str, width: int | None, present: int) -> None:
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or not 0 < width < present):
        raise PruningError(f"{name} must be a number of channels from 1 to {present - 1}, got {width!r}.")


def _importance(pruning, trunk, name: str):
    if name not in IMPORTANCES:
        raise PruningError(f"importance must be one of {', '.join(IMPORTANCES)}, got {name!r}.")
    if name == "magnitude":
        return pruning.importance.GroupMagnitudeImportance(p=2)
    if not any(parameter.grad is not None for parameter in trunk.encoder.parameters()):
        raise PruningError('importance="taylor" needs gradients: run loss.backward() first.')
    return pruning.importance.GroupTaylorImportance()


@contextmanager
def _traceable(model):
    """Evaluation, gradients everywhere and attention written out: the graph is read off autograd's, and a fused kernel hides its inputs."""
    modes = {module: module.training for module in model.modules()}
    needs_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    attention = model.config._attn_implementation
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.set_attn_implementation("eager")
    try:
        with torch.enable_grad():
            yield
    finally:
        model.set_attn_implementation(attention)
        for name, parameter in model.named_parameters():  # by name: pruned ones are new
            parameter.requires_grad_(needs_grad[name])
        for module, training in modes.items():
            module.training = training


def _prune(pruning, graph, score, linear: nn.Linear, heads: int, keep: int) -> None:
    """Removes output channels of a layer, equally many of each head, and all that hangs on them."""
    group = graph.get_pruning_group(linear, pruning.prune_linear_out_channels, list(range(linear.out_features)))
    scores = score(group).reshape(heads, -1)
    weakest = scores.argsort(dim=1)[:, : scores.shape[1] - keep]
    offsets = torch.arange(heads, device=weakest.device)[:, None] * scores.shape[1]
    chosen = sorted((weakest + offsets).flatten().tolist())
    group = graph.get_pruning_group(linear, pruning.prune_linear_out_channels, chosen)
    group.prune()
