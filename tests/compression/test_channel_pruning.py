"""Channels of VideoMAE: what is dead goes first and changes nothing, what is saved loads, what cannot be done is refused."""

import copy
import sys

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification, select_tokens
from hf_effvid.compression.channel_pruning import MissingPrunerError, PruningError, is_expressible, prune_channels

from ..models.test_clip_backbone import make_model as make_detector
from ..models.test_clip_backbone import make_video


CLIPS = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def torch_pruning():
    return pytest.importorskip("torch_pruning")


def make_model(model_class=VideoMAEForVideoClassification):
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=32, patch_size=8,
        num_frames=4, num_labels=5,
    )  # fmt: skip
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
    return model


def logits(model):
    with torch.no_grad():
        return model(CLIPS).logits


def kill(layer, mlp_channels, head_channels):
    """Channels that take part in nothing: rows, biases and columns of zeros."""
    mlp, attention = layer.intermediate.dense, layer.attention.attention
    with torch.no_grad():
        mlp.weight[mlp_channels], mlp.bias[mlp_channels] = 0, 0
        layer.output.dense.weight[:, mlp_channels] = 0
        for one in (attention.query, attention.key, attention.value):
            one.weight[head_channels] = 0
            if one.bias is not None:
                one.bias[head_channels] = 0
        layer.attention.output.dense.weight[:, head_channels] = 0


def test_dead_channels_go_and_nothing_changes():
    model = make_model()
    for layer in model.videomae.encoder.layer:
        # one dead channel in every head of 8
        kill(layer, [0, 7, 39], [1, 8 + 5, 16 + 7])
    before = logits(model)
    assert prune_channels(model, intermediate_size=37, head_dim=7) is model
    assert torch.allclose(logits(model), before, atol=1e-5)
    layer = model.videomae.encoder.layer[1]
    assert layer.intermediate.dense.weight.shape == (37, 24) and layer.output.dense.weight.shape == (24, 37)
    assert layer.attention.attention.key.weight.shape == (21, 24)
    assert layer.attention.output.dense.weight.shape == (24, 21)


def test_a_narrower_mlp_is_a_plain_checkpoint(tmp_path):
    model = prune_channels(make_model(), intermediate_size=24)
    assert model.config.intermediate_size == 24 and is_expressible(model)
    model.save_pretrained(tmp_path)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))


def test_smaller_heads_train_but_do_not_load(tmp_path):
    model = prune_channels(make_model(), head_dim=6)
    assert not is_expressible(model)
    model(CLIPS).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch|mismatched sizes|ignore_mismatched_sizes"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path)


def test_the_model_is_left_as_it_was_but_for_its_width():
    model = make_model().train()
    model.videomae.embeddings.requires_grad_(False)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    attention = model.config._attn_implementation
    prune_channels(model, intermediate_size=20)
    assert model.training and model.config._attn_implementation == attention
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == frozen


def test_taylor_keeps_the_channels_that_the_loss_needs():
    model = make_model()
    one = model.videomae.encoder.layer[0]
    with torch.no_grad():  # loud, but nobody listens
        one.intermediate.dense.weight[3] *= 30
        one.output.dense.weight[:, 3] = 0
    by_size = prune_channels(copy.deepcopy(model), intermediate_size=39)
    assert by_size.videomae.encoder.layer[0].intermediate.dense.weight.norm(dim=1).max() > 2
    with pytest.raises(PruningError, match="backward"):
        prune_channels(model, intermediate_size=39, importance="taylor")
    model(CLIPS).logits.square().sum().backward()
    prune_channels(model, intermediate_size=39, importance="taylor")
    largest = model.videomae.encoder.layer[0].intermediate.dense.weight.norm(dim=1).max()
    assert largest < 1


def test_the_trunk_of_a_detector(tmp_path):
    model, video = make_detector(), make_video(8)
    width = model.config.backbone_config.intermediate_size - 3
    prune_channels(model, intermediate_size=width)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.config.backbone_config.intermediate_size == width
    with torch.no_grad():
        assert torch.equal(again(pixel_values=video).logits, model(pixel_values=video).logits)


def test_trunks_and_selected_tokens():
    trunk = prune_channels(make_model(VideoMAEModel), intermediate_size=30)
    assert trunk(CLIPS).last_hidden_state.shape[-1] == 24
    lite = select_tokens(make_model(), keep_ratio=1.0, scorer="random")
    pruned = prune_channels(lite, intermediate_size=30)
    assert pruned(CLIPS, keep_ratio=0.5).logits.shape == (2, 5)
    with pytest.raises(PruningError, match="keep_ratio=1"):
        prune_channels(select_tokens(make_model(), keep_ratio=0.5, scorer="random"), intermediate_size=30)


@pytest.mark.parametrize(
    "widths", [{"intermediate_size": 40}, {"intermediate_size": 0}, {"head_dim": 8}, {"head_dim": 2.0}]
)
def test_widths_that_make_no_sense(widths):
    with pytest.raises(PruningError, match="must be a number of channels"):
        prune_channels(make_model(), **widths)


def test_other_models_and_a_missing_package(monkeypatch):
    other = VideoFocalNetForVideoClassification(VideoFocalNetConfig(depths=[1, 1, 1, 1], embed_dim=8, num_labels=2))
    with pytest.raises(PruningError, match="VideoMAE was expected"):
        prune_channels(other, intermediate_size=8)
    with pytest.raises(PruningError, match="one of magnitude, taylor"):
        prune_channels(make_model(), intermediate_size=8, importance="random")
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingPrunerError, match=r"hf_effvid\[prune\]"):
        prune_channels(make_model(), intermediate_size=8)
