"""Multiply-accumulates: exact against formulas written out by hand, and against the numbers that papers print."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from hf_effvid.evaluation.macs import MacsError, count_macs, count_parameters
from hf_effvid.models.configuration_video_focalnet import VideoFocalNetConfig
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification


sizes = st.integers(1, 6)


@settings(max_examples=25, deadline=None)
@given(batch=sizes, inner=sizes, outer=sizes, groups=st.sampled_from([1, 2]), kernel=st.sampled_from([1, 3]))
def test_linear_and_convolution(batch, inner, outer, groups, kernel):
    model = nn.Sequential(nn.Conv3d(2 * inner, 2 * outer, kernel, padding=kernel // 2, groups=groups), nn.GELU())
    count = count_macs(model, {"input": torch.empty(batch, 2 * inner, 3, 4, 5, device="meta")})
    assert count.total == batch * 3 * 4 * 5 * (2 * outer) * (2 * inner // groups) * kernel**3
    linear = count_macs(nn.Linear(inner, outer), {"input": torch.empty(batch, 7, inner, device="meta")})
    assert linear.total == batch * 7 * inner * outer and linear.on_meta and linear.uncounted == ()


def tiny_videomae(attention="sdpa"):
    config = VideoMAEConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40, image_size=32, patch_size=8,
        num_frames=4, num_labels=5, attn_implementation=attention,
    )  # fmt: skip
    return VideoMAEForVideoClassification(config)


def videomae_macs(config):
    """VideoMAE by hand: patches, then per layer four projections, two products of attention and an MLP; then the head."""
    tokens = config.num_frames // config.tubelet_size * (config.image_size // config.patch_size) ** 2
    width = config.hidden_size
    patches = tokens * width * 3 * config.tubelet_size * config.patch_size**2
    layer = tokens * (4 * width**2 + 2 * width * config.intermediate_size) + 2 * tokens**2 * width
    return patches + config.num_hidden_layers * layer + width * config.num_labels


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_transformer_is_counted_with_its_attention_whatever_its_implementation(attention, batch):
    model = tiny_videomae(attention)
    count = count_macs(model, {"pixel_values": torch.zeros(batch, 4, 3, 32, 32)})
    assert count.total == batch * videomae_macs(model.config)
    assert sum(count.by_operator.values()) == count.total
    assert count.gmacs == count.total / 1e9


def test_attention_run_for_real_on_the_cpu_is_counted_too():
    class Attention(nn.Module):
        def forward(self, x):
            if x.sum() > 0:  # a value: the meta device has none
                return x
            return nn.functional.scaled_dot_product_attention(x, x, x)

    count = count_macs(Attention(), {"x": torch.zeros(2, 3, 10, 8)})
    assert not count.on_meta
    assert count.total == 2 * 3 * 2 * 10 * 10 * 8


def test_fused_encoder_layers_are_looked_into():
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True).eval()
    count = count_macs(layer, {"src": torch.zeros(1, 9, 16)})
    assert count.total == 9 * (4 * 16**2 + 2 * 16 * 32) + 2 * 9**2 * 16
    assert torch.backends.mha.get_fastpath_enabled()


def test_onednn_operators_have_formulas():
    class OneDnn(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.conv = nn.Linear(6, 4), nn.Conv2d(4, 8, (3, 1), padding=(1, 0), groups=2)

        def forward(self, x):
            if x.sum() > 0:
                return x
            x = torch.ops.mkldnn._linear_pointwise(x, self.linear.weight, self.linear.bias, "none", [], "none")
            x = x.permute(0, 3, 1, 2)
            return torch.mkldnn_convolution(x, self.conv.weight, self.conv.bias, [1, 0], [1, 1], [1, 1], 2)

    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or not torch.backends.mkldnn.is_available():
        pytest.skip("this torch was built without oneDNN")
    count = count_macs(OneDnn(), {"x": torch.zeros(1, 5, 7, 6)})
    assert count.total == 35 * 6 * 4 + 35 * 8 * 2 * 3 and count.uncounted == ()


def test_an_operator_without_a_formula_is_named():
    @torch.library.custom_op("effvid_test::mystery", mutates_args=())
    def mystery(x: torch.Tensor) -> torch.Tensor:
        return x @ x

    @mystery.register_fake
    def _(x):
        return torch.empty_like(x)

    class Model(nn.Module):
        def forward(self, x):
            return torch.ops.effvid_test.mystery(x)

    count = count_macs(Model(), {"x": torch.zeros(3, 3)})
    assert count.total == 0
    assert any("mystery" in name for name in count.uncounted)


def test_the_model_is_left_as_it_was():
    model = tiny_videomae().train()
    model.videomae.encoder.eval()
    before = {name: (tensor.data_ptr(), tensor.device) for name, tensor in model.state_dict().items()}
    count_macs(model, {"pixel_values": torch.zeros(1, 4, 3, 32, 32)})
    assert {name: (tensor.data_ptr(), tensor.device) for name, tensor in model.state_dict().items()} == before
    assert model.training and not model.videomae.encoder.training and model.classifier.training


def test_a_model_that_cannot_run_says_why():
    with pytest.raises(MacsError, match="Linear could not be counted.*run for real raised RuntimeError"):
        count_macs(nn.Linear(4, 2), {"input": torch.zeros(1, 5)})


def test_shared_parameters_count_once():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    assert count_parameters(model) == 40
    model[1].weight = model[0].weight
    assert count_parameters(model) == 24


@pytest.mark.parametrize(
    ("build", "shape", "gmacs"),
    [
        (lambda: VideoMAEForVideoClassification(VideoMAEConfig()), (16, 3, 224, 224), 180.3),
        (lambda: TimesformerForVideoClassification(TimesformerConfig()), (8, 3, 224, 224), 195.8),
        (lambda: VivitForVideoClassification(VivitConfig()), (32, 3, 224, 224), 451.5),
        (lambda: focalnet("tiny"), (8, 3, 224, 224), 63.0),
        (lambda: focalnet("small"), (8, 3, 224, 224), 124.3),
        (lambda: focalnet("base"), (8, 3, 224, 224), 220.6),
    ],
    ids=["videomae-base", "timesformer", "vivit", "focalnet-tiny", "focalnet-small", "focalnet-base"],
)
def test_published_sizes(build, shape, gmacs):
    with torch.device("meta"):  # no weights: the whole test takes no memory and no arithmetic
        model = build()
    count = count_macs(model, {"pixel_values": torch.empty(1, *shape, device="meta")})
    assert round(count.gmacs, 1) == gmacs
    assert count.on_meta and count.uncounted == ()


def focalnet(preset):
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset, num_labels=400))
