"""Which parameters train, and keeping what does not in evaluation mode."""

import re


def freeze(model, patterns):
    """Switches gradients off by pattern.

    Args:
        model: a `PreTrainedModel` with a head.
        patterns: `backbone` (everything under the model's `base_model_prefix`) or regular expressions searched in
            parameter names.

    Returns:
        number of parameters that were frozen.

    Raises:
        ValueError: a pattern that matches nothing, or nothing left to train.
    """
    frozen = 0
    for pattern in patterns:
        expression = re.compile(_backbone_pattern(model) if pattern == "backbone" else pattern)
        matched = [(name, parameter) for name, parameter in model.named_parameters() if expression.search(name)]
        if not matched:
            example = next(iter(model.named_parameters()))[0]
            raise ValueError(f"freeze={pattern!r} matches no parameter; names look like {example!r}.")
        for _, parameter in matched:
            frozen += parameter.numel() if parameter.requires_grad else 0
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freeze={list(patterns)} leaves nothing to train.")
    return frozen


def _backbone_pattern(model):
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not hasattr(model, prefix):
        raise ValueError(
            f"freeze='backbone' needs a model with a base_model_prefix, {type(model).__name__} has none; give "
            "regular expressions on parameter names instead."
        )
    return rf"^{re.escape(prefix)}\."


def keep_frozen_parts_in_eval(module):
    """Puts every sub-module whose parameters are all frozen back into evaluation mode.

    Otherwise a frozen block would still drop paths, and its batch norms would still move their statistics.
    """
    for child in module.children():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
        elif parameters:
            keep_frozen_parts_in_eval(child)
