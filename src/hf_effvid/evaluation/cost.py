"""What one view costs in arithmetic: parameters and multiply-accumulates. Times belong to the benchmark."""

import torch

from .macs import MacsError, count_macs
from .results import Cost


def model_cost(model, views_shape, input_name: str | None = None) -> Cost:
    """Parameters and GMACs of one view.

    Args:
        model: the model.
        views_shape: shape of its input for one video, (V, T, C, H, W); None when no input was seen, then only parameters
            are counted.
        input_name: what the model calls the input; default: its `main_input_name`.

    Returns:
        The cost without times; `gmacs` is None when not every operator of the model could be counted, or when it differs from clip to
        clip.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if views_shape is None:
        return Cost(parameters=parameters)
    if getattr(model.config, "budget_policy", None):
        # clips have budgets of their own (LITE++): one clip's count would not be that of another
        return Cost(parameters=parameters)
    pixels = torch.zeros(1, *views_shape[1:], dtype=model.dtype, device=model.device)
    try:
        count = count_macs(model, {input_name or model.main_input_name: pixels})
    except MacsError:
        return Cost(parameters=parameters)
    # a lower bound is no number to print
    return Cost(gmacs=None if count.uncounted else count.gmacs or None, parameters=parameters)
