"""Focal modulation against its definition, written out site by site."""

import math

import pytest
import torch
from torch import nn

from hf_effvid.models.focal_ops import focal_modulation, gather_spatial_context, gather_temporal_context


def gelu(value):
    return 0.5 * value * (1 + math.erf(value / math.sqrt(2)))


def random_inputs(levels, shape=(2, 3, 4, 5, 3), window=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    channels = shape[-1]
    context, gates = draw(*shape), draw(*shape[:-1], levels + 1)
    spatial = [draw(channels, 1, window + 2 * level, window + 2 * level) for level in range(levels)]
    temporal = [draw(channels, channels, window + 2 * level) for level in range(levels)]
    return context, gates, spatial, temporal


def spatial_by_definition(context, gates, kernels):
    batch, steps, height, width, channels = context.shape
    result = torch.zeros_like(context)
    for b in range(batch):
        for t in range(steps):
            frame = context[b, t]
            for level, kernel in enumerate(kernels):
                half, wider = kernel.shape[-1] // 2, torch.zeros_like(frame)
                for y in range(height):
                    for x in range(width):
                        for c in range(channels):
                            total = 0.0
                            for dy in range(-half, half + 1):
                                for dx in range(-half, half + 1):
                                    if 0 <= y + dy < height and 0 <= x + dx < width:
                                        weight = kernel[c, 0, dy + half, dx + half].item()
                                        total += weight * frame[y + dy, x + dx, c].item()
                            wider[y, x, c] = gelu(total)
                frame = wider
                result[b, t] += frame * gates[b, t, :, :, level, None]
            everywhere = torch.tensor([gelu(mean) for mean in frame.mean(dim=(0, 1)).tolist()], dtype=frame.dtype)
            result[b, t] += everywhere * gates[b, t, :, :, -1, None]
    return result


def temporal_by_definition(context, gates, kernels):
    batch, steps, height, width, channels = context.shape
    result = torch.zeros_like(context)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                track = context[b, :, y, x]  # (T, C)
                for level, kernel in enumerate(kernels):
                    half, wider = kernel.shape[-1] // 2, torch.zeros_like(track)
                    for t in range(steps):
                        total = torch.zeros(channels, dtype=track.dtype)
                        for dt in range(-half, half + 1):
                            if 0 <= t + dt < steps:
                                total += kernel[:, :, dt + half] @ track[t + dt]
                        wider[t] = torch.tensor([gelu(value) for value in total.tolist()], dtype=track.dtype)
                    track = wider
                    result[b, :, y, x] += track * gates[b, :, y, x, level, None]
                always = torch.tensor([gelu(mean) for mean in track.mean(dim=0).tolist()], dtype=track.dtype)
                result[b, :, y, x] += always * gates[b, :, y, x, -1, None]
    return result


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_spatial_context_is_its_definition(levels):
    context, gates, kernels, _ = random_inputs(levels)
    torch.testing.assert_close(
        gather_spatial_context(context, gates, kernels), spatial_by_definition(context, gates, kernels)
    )


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 4])
def test_temporal_context_is_its_definition(levels, steps):
    context, gates, _, kernels = random_inputs(levels, shape=(2, steps, 2, 3, 3))
    torch.testing.assert_close(
        gather_temporal_context(context, gates, kernels), temporal_by_definition(context, gates, kernels)
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_modulation_is_query_times_both_modulators(normalize):
    spatial_context, spatial_gates, spatial_kernels, _ = random_inputs(2, seed=1)
    temporal_context, temporal_gates, _, temporal_kernels = random_inputs(2, seed=2)
    query = torch.randn_like(spatial_context)
    projections = [nn.Linear(3, 3).double(), nn.Linear(3, 3).double()]
    result = focal_modulation(
        query,
        spatial_context,
        spatial_gates,
        temporal_context,
        temporal_gates,
        spatial_kernels,
        temporal_kernels,
        *projections,
        normalize=normalize,
    )
    divisor = 3 if normalize else 1
    spatial = projections[0](spatial_by_definition(spatial_context, spatial_gates, spatial_kernels) / divisor)
    temporal = projections[1](temporal_by_definition(temporal_context, temporal_gates, temporal_kernels) / divisor)
    torch.testing.assert_close(result.spatial_modulator, spatial)
    torch.testing.assert_close(result.temporal_modulator, temporal)
    torch.testing.assert_close(result.modulated, query * spatial * temporal)


def test_space_does_not_mix_frames_and_time_does_not_mix_sites():
    context, gates, spatial_kernels, temporal_kernels = random_inputs(2)
    changed = context.clone()
    changed[0, 1, 2, 3] += 1.0
    moved = (
        gather_spatial_context(changed, gates, spatial_kernels)
        != gather_spatial_context(context, gates, spatial_kernels)
    ).any(-1)
    assert moved[0, 1].all()
    assert not moved[0, [0, 2]].any() and not moved[1].any()
    moved = (
        gather_temporal_context(changed, gates, temporal_kernels)
        != gather_temporal_context(context, gates, temporal_kernels)
    ).any(-1)
    assert moved[0, :, 2, 3].all()
    moved[0, :, 2, 3] = False
    assert not moved.any()


def test_gradients_match_finite_differences():
    context, gates, spatial_kernels, temporal_kernels = random_inputs(2, shape=(1, 2, 2, 2, 2))
    for gather, kernels in ((gather_spatial_context, spatial_kernels), (gather_temporal_context, temporal_kernels)):
        inputs = [context.clone(), gates.clone(), *kernels]
        inputs = [value.requires_grad_() for value in inputs]
        assert torch.autograd.gradcheck(lambda c, g, *k, gather=gather: gather(c, g, list(k)), inputs)
