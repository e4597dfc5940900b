"""Convolution along time with fewer products gives what the direct sum gives, and is used where it pays."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_effvid.models import fast_temporal_convolution, processor_libraries
from hf_effvid.models.fast_temporal_convolution import (
    PAIRS,
    is_faster,
    num_products,
    temporal_convolution_gelu,
    temporal_plan,
)
from hf_effvid.models.focal_ops import focal_implementation
from hf_effvid.models.processor_libraries import OneDnn, Plain, onednn_can
from tests.parity.video_focalnet_reference import TINY_CASES, ReferenceCase


needs_onednn = pytest.mark.skipif(not onednn_can(torch.float32), reason="this PyTorch has no oneDNN")


def draw(batch, steps, sites, channels, size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    tracks = torch.randn(batch, steps, sites, channels, generator=generator, dtype=torch.float64)
    kernel = torch.randn(channels, channels, size, generator=generator, dtype=torch.float64)
    return tracks.to(dtype), (kernel / (size * channels) ** 0.5).to(dtype)


def direct(tracks, kernel):
    maps = F.conv2d(tracks.permute(0, 3, 1, 2), kernel[..., None], padding=(kernel.shape[2] // 2, 0))
    return F.gelu(maps).permute(0, 2, 3, 1)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 16),
    sites=st.integers(1, 9),
    channels=st.integers(1, 24),
    size=st.sampled_from(list(PAIRS)),
    seed=st.integers(0, 2**16),
    piece_bytes=st.sampled_from([3000, 1 << 20]),
)
def test_it_is_the_direct_sum(batch, steps, sites, channels, size, seed, piece_bytes):
    tracks, kernel = draw(batch, steps, sites, channels, size, seed)
    before, reference = (tracks.clone(), kernel.clone()), direct(tracks, kernel)
    with mock.patch.object(fast_temporal_convolution, "PIECE_BYTES", piece_bytes):
        result = temporal_convolution_gelu(tracks, kernel, Plain)
    assert result.shape == reference.shape
    assert (result - reference).abs().max() <= 1e-12 * reference.abs().max().clamp(min=1.0)
    assert torch.equal(tracks, before[0]) and torch.equal(kernel, before[1])


class PackedOnly(Plain):
    """Refuses weights whose rows or columns do not follow each other, for which oneDNN has slow code only."""

    @staticmethod
    def linear(tokens, weight, bias, grad):
        assert weight.is_contiguous() or weight.t().is_contiguous()
        return Plain.linear(tokens, weight, bias, grad)

    @staticmethod
    def linear_gelu(tokens, weight, bias, grad):
        return F.gelu(PackedOnly.linear(tokens, weight, bias, grad))


@pytest.mark.parametrize("piece_bytes", [3000, 1 << 20])
def test_it_asks_for_products_of_packed_matrices(piece_bytes):
    tracks, kernel = draw(2, 8, 12, 8, 3)
    with mock.patch.object(fast_temporal_convolution, "PIECE_BYTES", piece_bytes):
        for part in (tracks, tracks[:1], tracks[:1, :, 1::2], tracks[:1, :, 2:9]):
            result = temporal_convolution_gelu(part, kernel, PackedOnly)
            torch.testing.assert_close(result, direct(part, kernel), rtol=0, atol=1e-12)


@needs_onednn
@pytest.mark.parametrize(("size", "times"), [(3, 1.7), (5, 2.7)])
@pytest.mark.parametrize("steps", [4, 8, 11, 16])
def test_rounding_in_single_precision(size, times, steps):
    """Root mean square and largest error, beside those of the direct sum in the same library."""
    tracks, kernel = draw(1, steps, 49, 256, size, seed=steps)
    reference = direct(tracks, kernel)
    tracks, kernel = tracks.float(), kernel.float()
    with mock.patch.object(processor_libraries, "is_faster", return_value=False):
        errors = {"direct": OneDnn.convolution_gelu(tracks, kernel[..., None], False) - reference}
    errors["fast"] = temporal_convolution_gelu(tracks, kernel, OneDnn) - reference
    size_of = {name: error.square().mean().sqrt() for name, error in errors.items()}
    assert size_of["fast"] <= times * size_of["direct"]
    assert errors["fast"].abs().max() <= 2e-5 * reference.abs().max()
    assert errors["fast"].abs().max() <= 3 * errors["direct"].abs().max()


@pytest.mark.parametrize("size", PAIRS)
def test_a_kernel_with_one_tap_moves_the_steps(size):
    """GELU of large numbers is the numbers themselves, so what comes out can be told by eye."""
    tracks = torch.arange(1.0, 12.0, dtype=torch.float64).mul(100).view(1, 11, 1, 1)
    for tap in range(size):
        kernel = torch.zeros(1, 1, size, dtype=torch.float64)
        kernel[..., tap] = 1
        moved = [
            tracks.flatten().tolist()[t] if 0 <= t < 11 else 0.0 for t in range(tap - size // 2, tap - size // 2 + 11)
        ]
        result = temporal_convolution_gelu(tracks, kernel, Plain)
        torch.testing.assert_close(result.flatten().tolist(), moved, rtol=0, atol=1e-9)


def test_numbers_of_products():
    assert num_products(8, 3) == 12 and num_products(8, 5) == 16 and num_products(9, 3) == 18
    plan = temporal_plan(8, 5, torch.float32)
    assert plan.into.shape == (16, 8) and plan.back.shape == (8, 16) and plan.into.dtype == torch.float32


def test_where_it_pays():
    assert is_faster(8, 196, 512, 3) and is_faster(8, 196, 512, 5) and is_faster(8, 196, 384, 5)
    assert not is_faster(8, 3136, 96, 5), "passes cost more than products of narrow layers"
    assert not is_faster(8, 4, 512, 5), "weights at the points cost more than few sites"
    assert not is_faster(1, 3136, 512, 5), "one step is one product"
    assert not any(is_faster(8, 3136, 1024, size) for size in (1, 2, 7, 9))


@needs_onednn
def test_it_runs_without_gradients_where_it_pays():
    tracks, kernel = draw(1, 8, 64, 512, 5, dtype=torch.float32)
    with mock.patch.object(processor_libraries, "temporal_convolution_gelu", wraps=temporal_convolution_gelu) as fast:
        result = OneDnn.convolution_gelu(tracks, kernel[..., None], False)
        assert fast.call_count == 1
        OneDnn.convolution_gelu(tracks, kernel[..., None].requires_grad_(), True)
        OneDnn.convolution_gelu(tracks[..., :32].contiguous(), kernel[:32, :32, :, None].contiguous(), False)
        OneDnn.convolution_gelu(tracks.bfloat16(), kernel[..., None].bfloat16(), False)
        assert fast.call_count == 1
    torch.testing.assert_close(result, direct(tracks, kernel), rtol=0, atol=2e-5)


def test_plans_that_inference_mode_made_serve_everywhere():
    temporal_plan.cache_clear()
    tracks, kernel = draw(1, 3, 2, 4, 3)
    with torch.inference_mode():
        temporal_convolution_gelu(tracks, kernel, Plain)
    plan = temporal_plan(3, 3, torch.float64)
    assert temporal_plan.cache_info().hits == 1 and not plan.into.is_inference()


@needs_onednn
@pytest.mark.parametrize("name", TINY_CASES)
def test_recorded_runs_with_fewer_products(name):
    """Widths of the fixtures are too small for it to be chosen, so here it has to be used."""
    forced = mock.patch.object(processor_libraries, "is_faster", lambda *call: call[-1] in PAIRS)
    counted = mock.patch.object(processor_libraries, "temporal_convolution_gelu", wraps=temporal_convolution_gelu)
    with focal_implementation("onednn"), forced, counted as fast:
        comparisons = ReferenceCase(name).compare_float32()
    assert fast.call_count > 0
    assert not [comparison for comparison in comparisons if not comparison.passes]
