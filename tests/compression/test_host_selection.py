"""select_tokens: the same classifier with fewer tokens, sharing its weights; what cannot be done right is refused."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import TimesformerConfig, TimesformerForVideoClassification, VivitModel

from hf_effvid import select_tokens
from hf_effvid.compression import UnsupportedHostError
from hf_effvid.pipelines import interpolate_positions

from ..pipelines.hosts import HOSTS


SUPPORTED = ("videomae", "vivit", "vjepa2", "timesformer")


def clips(frames=4, size=32):
    return torch.randn(2, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits_of(model, *inputs, **options):
    with torch.no_grad():
        return model(*inputs, **options).logits


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_same_model_with_fewer_tokens(name):
    stock, _ = HOSTS[name]()
    before = copy.deepcopy(stock.config.to_dict())
    lite = select_tokens(stock, keep_ratio=0.5, scorer="embedding_norm")
    assert torch.equal(logits_of(lite, clips(), keep_ratio=1.0), logits_of(stock, clips()))
    half = lite(clips())
    torch.testing.assert_close(half.realised_keep_ratio, torch.full((2,), 0.5))
    assert (half.logits - logits_of(stock, clips())).abs().max() > 1e-2
    assert stock.config.to_dict() == before and lite.config.model_type == f"lite_{before['model_type']}"
    assert lite.config.id2label == stock.config.id2label and not lite.training
    # one set of weights
    own = dict(lite.named_parameters())
    assert all(own[key] is parameter for key, parameter in stock.named_parameters())
    assert all(parameter.requires_grad for parameter in stock.parameters())
    assert set(own) - set(dict(stock.named_parameters())) == {key for key in own if key.startswith("selector.")}


@pytest.mark.parametrize("name", SUPPORTED)
def test_saved_and_opened(name, tmp_path):
    stock, _ = HOSTS[name]()
    lite = select_tokens(stock, keep_ratio=0.5, scorer="lite", selector_hidden_sizes=[6])
    lite.save_pretrained(tmp_path)
    again = type(lite).from_pretrained(tmp_path).eval()
    assert torch.equal(logits_of(again, clips()), logits_of(lite, clips()))


def test_frozen_weights_precision_and_attention_are_kept():
    stock, _ = HOSTS["vivit"]()
    stock.set_attn_implementation("eager")
    stock.vivit.requires_grad_(False)
    lite = select_tokens(stock.to(torch.bfloat16).train(), keep_ratio=0.5)
    assert lite.config._attn_implementation == "eager" and lite.training
    assert lite.vivit.layers[0].attention.config._attn_implementation == "eager"
    assert {key for key, parameter in lite.named_parameters() if parameter.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert {parameter.dtype for parameter in lite.parameters()} == {torch.bfloat16}
    lite.set_attn_implementation("sdpa")
    assert lite.vivit.layers[0].attention.config._attn_implementation == "sdpa"
    assert stock.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", SUPPORTED)
def test_interpolated_positions_come_along(name):
    stock, _ = HOSTS[name]()
    interpolate_positions(stock, num_frames=8, image_size=48)
    lite = select_tokens(stock, keep_ratio=0.5, scorer="random")
    assert torch.equal(logits_of(lite, clips(8, 48), keep_ratio=1.0), logits_of(stock, clips(8, 48)))


def test_lite_models_get_other_fields_and_keep_their_selector():
    stock, _ = HOSTS["vivit"]()
    first = select_tokens(stock, keep_ratio=0.5, scorer="lite", selector_trained=True)
    second = select_tokens(first, keep_ratio=0.3)
    assert (first.config.keep_ratio, second.config.keep_ratio, second.config.scorer) == (0.5, 0.3, "lite")
    assert all(a is b for a, b in zip(first.selector.parameters(), second.selector.parameters(), strict=True))
    assert second.config.selector_trained
    third = select_tokens(first, selector_kind="global")
    assert third.config.selector_kind == "global" and not third.config.selector_trained
    assert logits_of(third, clips()).isfinite().all()
    fourth = select_tokens(first, selector_hidden_sizes=[5])
    assert fourth.selector.network.layers[0].weight.shape == (5, 16)
    # drawn as in a model that is built anew: of variance 1 / fan-in, without biases
    assert fourth.selector.network.layers[0].weight.std().item() == pytest.approx(16**-0.5, rel=0.3)
    assert not fourth.selector.network.layers[0].bias.any()


@pytest.mark.parametrize(
    ("name", "reason"), [("videoprism", "would shift the places of the others"), ("video_focalnet", "whole grid")]
)
def test_other_hosts_are_refused(name, reason):
    stock, _ = HOSTS[name]()
    with pytest.raises(UnsupportedHostError, match=f"{reason}.*Supported are VideoMAEForVideoClassification, Vivit"):
        select_tokens(stock, keep_ratio=0.5)


def test_what_is_no_bare_classifier_is_refused():
    stock, _ = HOSTS["vivit"]()
    with pytest.raises(UnsupportedHostError, match="VivitModel.*no classifier"):
        select_tokens(VivitModel(stock.config), keep_ratio=0.5)
    wrapped = torch.nn.Sequential(stock)
    wrapped.config = stock.config
    with pytest.raises(UnsupportedHostError, match="Sequential.*before it is compiled or wrapped"):
        select_tokens(wrapped, keep_ratio=0.5)
    with pytest.raises(UnsupportedHostError, match="NoneType"):
        select_tokens(None)


def test_adapters_have_to_be_merged():
    peft = pytest.importorskip("peft")
    stock, _ = HOSTS["vivit"]()
    adapted = peft.get_peft_model(stock, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UnsupportedHostError, match="merge adapters"):
        select_tokens(adapted, keep_ratio=0.5)
    with pytest.raises(UnsupportedHostError, match=r"lora.*merge adapters|base_layer.*merge adapters"):
        select_tokens(adapted.base_model.model, keep_ratio=0.5)
    assert select_tokens(adapted.merge_and_unload(), keep_ratio=0.5, scorer="random")(clips()).logits.shape == (2, 7)


def test_attention_over_space_only_is_refused_unless_all_tokens_stay():
    config = TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_type="space_only",
    )
    stock = TimesformerForVideoClassification(config)
    with pytest.raises(UnsupportedHostError, match="once per frame"):
        select_tokens(stock, keep_ratio=0.5)
    assert select_tokens(stock).config.keep_ratio == 1


@pytest.mark.parametrize("wrong", [{"keep_ratio": 1.5}, {"scorer": "luck"}, {"selector_kind": "deepest"}])
def test_fields_out_of_range(wrong):
    stock, _ = HOSTS["timesformer"]()
    with pytest.raises(StrictDataclassFieldValidationError):
        select_tokens(stock, **wrong)


def test_unknown_fields():
    stock, _ = HOSTS["timesformer"]()
    with pytest.raises(TypeError, match="keep_ratios"):
        select_tokens(stock, keep_ratios=0.5)
