"""What one view costs in arithmetic: parameters and multiply-accumulates, counted without running anything."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from .results import Cost


def model_cost(model, views_shape) -> Cost:
    """Parameters and GMACs of one view.

    Multiply-accumulates of matrix products, convolutions and attention are counted; element-wise work (activations,
    norms, the products of a modulation) is not, as in the counters papers use.

    Args:
        model: the model.
        views_shape: shape of its input for one video, (V, T, C, H, W); None when no input was seen, then only parameters
            are counted.

    Returns:
        The cost without times; `gmacs` is None when the model cannot run on the meta device.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(gmacs=count_gmacs(model, views_shape[1:]) if views_shape else None, parameters=parameters)


def count_gmacs(model, clip_shape) -> float | None:
    """Multiply-accumulates of one clip, in units of 1e9, from shapes alone (meta device: no arithmetic, little memory).

    Args:
        model: the model; a copy is used.
        clip_shape: (T, C, H, W).

    Returns:
        GMACs, or None where the forward pass needs values, not only shapes.
    """
    # an architecture may branch on values, which the meta device does not have: then nothing can be counted here
    try:
        shadow = copy.deepcopy(model).to("meta").eval()
        pixels = torch.empty(1, *clip_shape, device="meta", dtype=model.dtype)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shadow(**{model.main_input_name: pixels})
    except (RuntimeError, NotImplementedError):
        return None
    return counter.get_total_flops() / 2e9 or None
