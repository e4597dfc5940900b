"""Parameter groups: no decay for vectors and position tables, smaller learning rates for lower blocks."""

import re
from dataclasses import dataclass

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


# tables that are looked up or added, not multiplied: decaying them pulls positions together
_UNDECAYED = re.compile(
    r"(^|[._])(cls_token|mask_token|pos_embed|position_embeddings?|relative_position_bias_table|relative_bias)$"
)
_WRAPPER_PREFIXES = ("module.", "_fsdp_wrapped_module.", "_orig_mod.")


@dataclass(frozen=True)
class ParameterRule:
    """How one parameter is optimised: whether it decays, and the factor on the learning rate."""

    decays: bool
    lr_scale: float


def find_blocks(model):
    """The repeated blocks of a model in order, as (name, module).

    They are the innermost elements of module lists that the model checkpoints or never splits (embeddings, which some
    models never split either, are no elements of a list).
    """
    unsplit = set(getattr(model, "_no_split_modules", None) or ())
    candidates = [
        (name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2].isdigit()
        and (isinstance(module, GradientCheckpointingLayer) or type(module).__name__ in unsplit)
    ]
    names = {name for name, _ in candidates}
    return [(name, module) for name, module in candidates if not any(other.startswith(name + ".") for other in names)]


def layer_ids(model):
    """Depth of every parameter: 0 before the first block, i + 1 in block i, the last one for what follows all blocks.

    What stands between two blocks (a downsampling layer) counts with the block before it.

    Returns:
        dict from parameter name to depth, and the number of depths.
    """
    blocks = [name + "." for name, _ in find_blocks(model)]
    ids, current = {}, 0
    remaining = len(blocks)
    seen = set()
    for name, _ in model.named_parameters():
        inside = next((index for index, block in enumerate(blocks) if name.startswith(block)), None)
        if inside is not None:
            if inside not in seen:
                seen.add(inside)
                remaining -= 1
            current = inside + 1
            ids[name] = current
        else:
            # after the last block come the final norm and the head
            ids[name] = current if remaining else len(blocks) + 1
    return ids, len(blocks) + 2


def parameter_rules(task, layer_decay=1.0, factors=None):
    """Rules for every trainable parameter of a task, by name.

    Auxiliaries of the task (what stands outside `task.model`) train at the full learning rate.

    Args:
        task: the task.
        layer_decay: factor on the learning rate from one block to the block below it.
        factors: further factors by part, a name in the dotted names of parameters, of which the innermost counts: with
            `{"backbone": 0.1, "adapters": 2}` the parameter `backbone.adapters.0.up.weight` has 2.

    Raises:
        ValueError: layer-wise learning rates asked of a model without recognisable blocks, or a factor of a part that no trained
            parameter is in.
    """
    ids, num_depths = layer_ids(task.model)
    if layer_decay != 1.0 and num_depths == 2:
        raise ValueError(
            f"layer_decay={layer_decay} needs a model with repeated blocks; {type(task.model).__name__} has no "
            "GradientCheckpointingLayer and no _no_split_modules. Set layer_decay=1."
        )
    undecayed = _undecayed_modules(task)
    rules = {}
    for name, parameter in task.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = ids[name.removeprefix("model.")] if name.startswith("model.") else num_depths - 1
        is_vector = parameter.numel() == max(parameter.shape, default=1)
        decays = not (is_vector or name.rpartition(".")[0] in undecayed or _UNDECAYED.search(name))
        lr_scale = layer_decay ** (num_depths - 1 - depth) * _factor_of(name, factors or {})
        rules[name] = ParameterRule(decays=decays, lr_scale=lr_scale)
    unused = [part for part in factors or {} if not any(part in name.split(".") for name in rules)]
    if unused:
        raise ValueError(f"lr_factors: no trained parameter is in {', '.join(unused)}.")
    return rules


def _factor_of(name, factors):
    innermost = next((part for part in reversed(name.split(".")) if part in factors), None)
    return 1.0 if innermost is None else factors[innermost]


def parameter_groups(named_parameters, rules, learning_rate, weight_decay):
    """Optimiser groups for the trainable parameters, one per rule, in a fixed order.

    Args:
        named_parameters: pairs of the (possibly wrapped) model that will be optimised.
        rules: result of `parameter_rules` on the unwrapped task.
    """
    groups = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        rule = rules[unwrapped_name(name)]
        group = groups.setdefault(
            rule,
            {
                "params": [],
                "weight_decay": weight_decay if rule.decays else 0.0,
                "lr": learning_rate * rule.lr_scale,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def unwrapped_name(name):
    """Parameter name without what DDP, FSDP and torch.compile put in front of module names."""
    for prefix in _WRAPPER_PREFIXES:
        name = name.replace(prefix, "")
    return name


def _undecayed_modules(task):
    return {name for name, module in task.named_modules() if isinstance(module, nn.Embedding)}
