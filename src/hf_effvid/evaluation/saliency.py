"""Maps that claim to show what a video classifier looked at: a number for every cell (step in time x site of the last stage).

All methods give their map on the same grid, so that none is better only because it is finer.
"""

import torch
from torch.nn import functional as F

from ..explanation import explain_clip


SPATIAL, TEMPORAL, PRODUCT = "spatial modulator", "temporal modulator", "product of both modulators"
GRAD_CAM, CENTRE, RANDOM = "Grad-CAM, last stage", "centre prior", "random"
METHODS = (SPATIAL, TEMPORAL, PRODUCT, GRAD_CAM, CENTRE, RANDOM)
BASELINES = (RANDOM, CENTRE, GRAD_CAM)
"""What the modulators are compared with."""

# of the half diagonal: the prior falls to exp(-2) in the corners
_CENTRE_WIDTH = 0.5


def saliency_maps(model, pixel_values, target, block=-1, seeds=(0,)):
    """One map per method and, for the random one, per seed.

    Args:
        model: a Video-FocalNet classifier.
        pixel_values: (1, T, C, H, W).
        target: the class that is explained.
        block: block of the modulators; another grid than the last stage's is averaged or enlarged to it.
        seeds: seeds of the random maps.

    Returns:
        name -> list of (T', h, w); the temporal modulator and the product are missing for a model without temporal branch.
    """
    explanation = explain_clip(model, pixel_values, block=block)
    cam = grad_cam(model, pixel_values, target)
    grid = cam.shape
    maps = {SPATIAL: [_on_grid(explanation.spatial, grid)]}
    if explanation.temporal is not None:
        maps[TEMPORAL] = [_on_grid(explanation.temporal, grid)]
        maps[PRODUCT] = [_on_grid(explanation.spatial * explanation.temporal, grid)]
    maps[GRAD_CAM] = [cam]
    maps[CENTRE] = [centre_prior(grid)]
    maps[RANDOM] = [torch.rand(grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return maps


def grad_cam(model, pixel_values, target):
    """Grad-CAM on the tokens of the last stage: ReLU(sum_c w_c A_c), w_c the gradient of the logit to A_c, averaged over all cells.

    Args:
        model: a classifier that gives `hidden_states` and `reshaped_hidden_states` (B, C, T', h, w).
        pixel_values: (1, T, C, H, W).
        target: the class.

    Returns:
        (T', h, w), at least 0, on the CPU.
    """
    with torch.enable_grad():
        # a graph also where all parameters are frozen
        clip = pixel_values.detach().to(model.device).requires_grad_(True)
        output = model(clip, output_hidden_states=True)
        tokens = output.hidden_states[-1]
        (gradient,) = torch.autograd.grad(output.logits[0, target], tokens)
    weights = gradient[0].float().mean(0)
    cam = (tokens[0].detach().float() @ weights).clamp_min(0)
    return cam.unflatten(0, output.reshaped_hidden_states[-1].shape[2:]).cpu()


def centre_prior(grid):
    """A Gaussian around the middle of every frame: things that matter are filmed in the middle. (T', h, w)."""
    steps, height, width = grid
    # whole numbers first: rounding must not break ties between equally central cells
    y, x = ((2 * torch.arange(count) + 1 - count) ** 2 / count**2 for count in (height, width))
    squared = (y[:, None] + x[None]) / 2
    return torch.exp(-squared / (2 * _CENTRE_WIDTH**2)).expand(steps, height, width).clone()


def _on_grid(one, grid):
    if one.shape == grid:
        return one
    return F.interpolate(one[None, None], size=tuple(grid), mode="area")[0, 0]
