"""A linear layer inside the convolution behind it gives what both give one after the other, for as long as no weight changes."""

import copy
import gc
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models import focal_ops, folded_projection, processor_libraries
from hf_effvid.models.fast_temporal_convolution import PAIRS, temporal_convolution_gelu
from hf_effvid.models.focal_ops import focal_implementation
from hf_effvid.models.folded_projection import fold, pays
from hf_effvid.models.processor_libraries import OneDnn, Plain, onednn_can
from tests.parity.video_focalnet_reference import TINY_CASES, ReferenceCase


needs_onednn = pytest.mark.skipif(not onednn_can(torch.float32), reason="this PyTorch has no oneDNN")


def draw(channels, size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(channels, channels, size, generator=generator, dtype=dtype) / (size * channels) ** 0.5
    weight = torch.randn(channels, channels, generator=generator, dtype=dtype) / channels**0.5
    return kernel, weight, torch.randn(channels, generator=generator, dtype=dtype)


def one_after_the_other(tracks, kernel, weight, bias):
    maps = F.linear(tracks, weight, bias).permute(0, 3, 1, 2)
    return F.gelu(F.conv2d(maps, kernel[..., None], padding=(kernel.shape[2] // 2, 0))).permute(0, 2, 3, 1)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    steps=st.integers(1, 13),
    sites=st.integers(1, 9),
    channels=st.integers(1, 16),
    size=st.sampled_from(list(PAIRS)),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_it_is_both_one_after_the_other(batch, steps, sites, channels, size, with_bias, seed):
    """The bias of the layer is inside the clip alone: zeros that the convolution pads with are zeros of the context."""
    kernel, weight, bias = draw(channels, size, seed)
    bias = bias if with_bias else None
    generator = torch.Generator().manual_seed(seed + 1)
    tracks = torch.randn(batch, steps, sites, channels, generator=generator, dtype=torch.float64)
    folded = fold(kernel, weight, bias, Plain)
    result = temporal_convolution_gelu(tracks, folded.kernel, Plain, folded.tap_biases)
    reference = one_after_the_other(tracks, kernel, weight, bias)
    assert (result - reference).abs().max() <= 1e-11 * reference.abs().max().clamp(min=1.0)


def rows_swapped(tensor):
    tensor.data[[0, 1]] = tensor.data[[1, 0]]


def two_numbers_swapped(tensor):
    flat = tensor.data.flatten()
    flat[0], flat[-1] = flat[-1].clone(), flat[0].clone()
    tensor.data.copy_(flat.view_as(tensor))


@pytest.mark.parametrize("changed", [0, 1, 2], ids=["kernel", "weight", "bias"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.data.add_(1e-3),
        lambda tensor: tensor.data.view(-1)[3].mul_(1.001),
        rows_swapped,
        two_numbers_swapped,
    ],
    ids=["all", "one number", "rows", "two numbers"],
)
def test_a_change_is_noticed(changed, change):
    """Also one that neither autograd nor a version counter sees."""
    tensors = [torch.nn.Parameter(tensor) for tensor in draw(12, 3, dtype=torch.float32)]
    with torch.no_grad():
        first = fold(*tensors, Plain)
        assert fold(*tensors, Plain) is first
        change(tensors[changed])
        second = fold(*tensors, Plain)
    assert second is not first
    torch.testing.assert_close(second.kernel[..., 0], (tensors[0][..., 0] @ tensors[1]).detach())
    torch.testing.assert_close(second.tap_biases[0], (tensors[0][..., 0] @ tensors[2]).detach())


def test_nothing_is_kept_longer_than_the_kernel():
    gc.collect()
    before = len(folded_projection._kept)
    kernel, weight, bias = draw(6, 3)
    fold(kernel, weight, bias, Plain)
    assert len(folded_projection._kept) == before + 1
    del kernel
    gc.collect()
    assert len(folded_projection._kept) == before


def test_where_it_pays():
    assert pays(1568, 384, 3) and pays(1568, 512, 3), "third stages at batch 1"
    assert not pays(392, 768, 3), "so few rows that folding anew would cost more than it saves"


@needs_onednn
def test_rounding_in_single_precision():
    """Beside that of the two steps."""
    kernel, weight, bias = draw(256, 3)
    tracks = torch.randn(1, 8, 49, 256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reference = one_after_the_other(tracks, kernel, weight, bias)
    kernel, weight, bias, tracks = (tensor.float() for tensor in (kernel, weight, bias, tracks))
    apart = temporal_convolution_gelu(OneDnn.linear(tracks, weight, bias, False), kernel, OneDnn) - reference
    folded = fold(kernel, weight, bias, OneDnn)
    together = temporal_convolution_gelu(tracks, folded.kernel, OneDnn, folded.tap_biases) - reference
    assert together.square().mean() <= 1.5**2 * apart.square().mean()
    assert together.abs().max() <= 2 * apart.abs().max()


# ---- in the network -------------------------------------------------------------------------------------------------


def forced():
    """Widths here are too small for it to be chosen."""
    return mock.patch.multiple(processor_libraries, is_faster=lambda *call: call[-1] in PAIRS, pays=lambda *call: True)


def tiny_model():
    torch.manual_seed(0)
    config = VideoFocalNetConfig(
        image_size=32,
        num_frames=6,
        embed_dim=8,
        depths=[1, 2],
        focal_levels=[2, 1],
        focal_windows=[3, 3],
        num_labels=5,
    )
    model = VideoFocalNetForVideoClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def clips():
    return torch.randn(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@needs_onednn
def test_networks_fold_and_give_the_same(clips):
    model = tiny_model()
    with torch.no_grad(), focal_implementation("composite"):
        reference = model(clips).logits
    with torch.no_grad(), focal_implementation("onednn"), forced():
        with mock.patch.object(processor_libraries, "fold", wraps=fold) as folded:
            first, second = model(clips).logits, model(clips).logits
        assert folded.call_count == 2 * 3
        torch.testing.assert_close(first, reference, rtol=0, atol=2e-6)
        assert torch.equal(first, second)
        moved = copy.deepcopy(model)
        for parameter in moved.parameters():
            parameter.data.mul_(1.1)
        with focal_implementation("composite"):
            reference = moved(clips).logits
        torch.testing.assert_close(moved(clips).logits, reference, rtol=0, atol=2e-6)


@needs_onednn
def test_it_stays_away_where_the_context_is_wanted_or_learns(clips):
    model = tiny_model()
    with focal_implementation("onednn"), forced(), mock.patch.object(processor_libraries, "fold") as folded:
        model(clips)  # gradients
        with torch.no_grad():
            model(clips, output_modulators=True)
            with torch.autocast("cpu", torch.bfloat16):
                model(clips)
            model.bfloat16()(clips)
        assert not folded.called
    hooked = tiny_model()
    for module in hooked.modules():
        if hasattr(module, "projection_in_temporal"):
            module.projection_in_temporal.register_forward_hook(lambda module, args, output: output)
    with focal_implementation("onednn"), forced(), mock.patch.object(processor_libraries, "fold") as folded:
        with torch.no_grad():
            hooked(clips)
        assert not folded.called
    with torch.no_grad(), focal_implementation("channels_last"), forced():
        with mock.patch.object(processor_libraries, "fold") as folded:
            tiny_model()(clips)
        assert not folded.called


@needs_onednn
def test_a_failure_behind_it_falls_back(clips):
    model = tiny_model()
    with torch.no_grad(), focal_implementation("composite"):
        reference = model(clips).logits
    fails = mock.patch.object(processor_libraries.OneDnn, "convolution_gelu", side_effect=RuntimeError("broken"))
    with torch.no_grad(), focal_implementation("onednn"), forced(), fails:
        with mock.patch.object(focal_ops, "_failed", set()):
            torch.testing.assert_close(model(clips).logits, reference, rtol=0, atol=2e-6)


@needs_onednn
@pytest.mark.parametrize("name", TINY_CASES)
def test_recorded_runs_folded(name):
    with (
        focal_implementation("onednn"),
        forced(),
        mock.patch.object(processor_libraries, "fold", wraps=fold) as folded,
    ):
        comparisons = ReferenceCase(name).compare_float32()
    assert folded.call_count > 0
    assert not [comparison for comparison in comparisons if not comparison.passes]
