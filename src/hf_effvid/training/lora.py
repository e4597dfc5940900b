"""LoRA for fine-tuning: which layers of a classifier or detector get adapters, and what trains beside them."""

from torch import nn

from ..compression.lora import wrap_with_lora
from .optim import find_blocks


def lora_target_modules(model, targets=None):
    """Full names of the linear layers that get adapters.

    Args:
        model: the classifier.
        targets: name endings (`query`, `attention.qkv`); None takes every linear layer inside the repeated blocks.

    Raises:
        ValueError: no layer matches.
    """
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if targets is None:
        blocks = tuple(name + "." for name, _ in find_blocks(model))
        chosen = {name for name in linear if blocks and name.startswith(blocks)}
    else:
        chosen = {name for name in linear if any(name == t or name.endswith("." + t) for t in targets)}
    if not chosen:
        wanted = "inside repeated blocks" if targets is None else f"ending in {', '.join(targets)}"
        raise ValueError(
            f"LoRA found no linear layer {wanted} in {type(model).__name__}; set lora_targets to some of: "
            f"{', '.join(sorted(linear)[:8])} ..."
        )
    return sorted(chosen)


def head_modules(model):
    """Names of the modules above the backbone that are trained in full beside the adapters: those with parameters that are not frozen.

    A token selector is: no loss on logits reaches it.
    """
    prefix = getattr(model, "base_model_prefix", "")
    children = [(name, child) for name, child in model.named_children() if name != prefix]
    return [name for name, child in children if any(parameter.requires_grad for parameter in child.parameters())]


def add_lora(model, r, alpha=None, dropout=0.0, targets=None, trained=None):
    """Wraps a model into a `peft.PeftModel` whose adapters and head are trainable.

    Args:
        model: the classifier or detector; it is edited in place.
        r: rank of the adapters.
        alpha: scale; twice the rank when None.
        dropout: dropout before the adapters.
        targets: see `lora_target_modules`.
        trained: names of the modules that are trained in full; None: those above the backbone of a classifier.
    """
    return wrap_with_lora(
        model,
        lora_target_modules(model, targets),
        r,
        alpha if alpha is not None else 2 * r,
        dropout,
        head_modules(model) if trained is None else trained,
    )
