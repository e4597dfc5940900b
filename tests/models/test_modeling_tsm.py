"""TSM: placement of the shifts, pieces of a video against the whole, checkpointing, initialisation, errors."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForVideoClassification

from hf_effvid import TSMConfig, TSMForVideoClassification, TSMModel
from hf_effvid.models import modeling_tsm
from hf_effvid.models.temporal_shift import ShiftConv2d
from hf_effvid.models.tsm_placement import shifted_convolutions


timm = pytest.importorskip("timm")

RESNET = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}}
TINY = {**RESNET, "num_frames": 4, "image_size": 32, "num_labels": 3, "classifier_std": 0.1}


def make_model(cls=TSMForVideoClassification, **options):
    torch.manual_seed(0)
    return cls(TSMConfig(**{**TINY, **options})).eval()


def make_clips(batch=2, frames=4, size=32, seed=1):
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- placement ---


def in_blocks_with_shortcut(network, attribute):
    return [f"{name}.{attribute}" for name, block in network.named_modules() if getattr(block, "has_skip", False)]


def test_resnets_are_shifted_in_every_block():
    blocks = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
    for name, depths in blocks.items():
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=0)
        expected = [f"layer{s}.{b}.conv1" for s, depth in enumerate(depths, 1) for b in range(depth)]
        assert shifted_convolutions(network) == expected


def test_resnet101_is_shifted_in_every_second_block_of_every_stage():
    with torch.device("meta"):
        network = timm.create_model("resnet101", num_classes=0)
    expected = [f"layer{s}.{b}.conv1" for s, depth in enumerate((3, 4, 23, 3), 1) for b in range(0, depth, 2)]
    assert shifted_convolutions(network) == expected


def test_inverted_residuals_are_shifted_before_their_expansion():
    for name, count in (("mobilenetv2_100", 10), ("tf_efficientnet_lite0", 9)):
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=0)
        assert shifted_convolutions(network) == in_blocks_with_shortcut(network, "conv_pw")
        assert len(shifted_convolutions(network)) == count


def test_mobilenetv4_is_shifted_before_the_first_convolution_that_a_block_has():
    with torch.device("meta"):
        network = timm.create_model("mobilenetv4_conv_small", num_classes=0)
    names = shifted_convolutions(network)
    assert len(names) == 10
    for name in names:
        block = network.get_submodule(name.rsplit(".", 2)[0])
        starts = not isinstance(block.dw_start, nn.Identity)
        assert block.has_skip and name.endswith("dw_start.conv" if starts else "pw_exp.conv")


def test_other_families_need_names():
    vit = {"architecture": "test_vit", "model_args": None, "image_size": 160}
    with pytest.raises(ValueError, match="Name its convolutions in TSMConfig.shift_modules"):
        make_model(**vit)
    convnext = {"architecture": "test_convnext", "model_args": None}
    model = make_model(**convnext, shift_modules=["stages.1.blocks.0.conv_dw", "stages.2.blocks.0.conv_dw"])
    shifted = [name for name, module in model.named_modules() if isinstance(module, ShiftConv2d)]
    assert shifted == ["tsm.timm_model." + name for name in model.tsm.shift_names]
    model, clips = model.double(), make_clips(size=64).double()
    with torch.no_grad():
        difference = model(clips).frame_logits - model(clips[:, [0, 3, 2, 1]]).frame_logits
    assert difference[:, 0].abs().max() > 1e-9  # its layer scale starts at 1e-6


def test_only_convolutions_can_be_named():
    with pytest.raises(ValueError, match="'layer1.0.bn1' is a BatchNorm2d in ResNet"):
        make_model(shift_modules=["layer1.0.bn1"])
    with pytest.raises(ValueError, match="'layer9' is nothing"):
        make_model(shift_modules=["layer9"])


# --- what it computes ---


def test_without_neighbours_it_is_the_image_network():
    """Weights under timm's own names; with a fold of 0 every frame is an image."""
    model = make_model(shift_div=1000)
    image = timm.create_model("resnet18", num_classes=3, **TINY["model_args"]).eval()
    weights = {name: value for name, value in model.tsm.timm_model.state_dict().items()}
    weights |= {f"fc.{name}": value for name, value in model.classifier.state_dict().items()}
    image.load_state_dict(weights, strict=True)
    clips = make_clips()
    with torch.no_grad():
        torch.testing.assert_close(model(clips).frame_logits.flatten(0, 1), image(clips.flatten(0, 1)))


def test_a_frame_sees_its_neighbours_and_not_other_clips():
    model, clips = make_model(shift_modules=["layer1.0.conv1"]), make_clips(frames=5)
    changed = clips.clone()
    changed[0, 2] += 1.0
    with torch.no_grad():
        moved = (model(changed).frame_logits - model(clips).frame_logits).abs().amax(dim=-1) > 1e-6
    assert moved.tolist() == [[False, True, True, True, False], [False] * 5]


def test_outputs():
    model, clips = make_model(), make_clips(frames=6)
    with torch.no_grad():
        outputs = model.tsm(clips, output_hidden_states=True)
        logits = model(clips).logits
    assert outputs.last_hidden_state.shape == (2, 16, 6, 1, 1)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [
        (2, 64, 6, 16, 16), (2, 8, 6, 8, 8), (2, 8, 6, 4, 4), (2, 16, 6, 2, 2), (2, 16, 6, 1, 1),
    ]  # fmt: skip
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state.mean(dim=(2, 3, 4)))
    torch.testing.assert_close(logits, model.classifier(outputs.pooler_output))


@pytest.mark.parametrize("cuts", [[1, 1, 1, 1, 1, 1], [2, 4], [5, 1], [6]])
@pytest.mark.parametrize("gradients", [False, True])
def test_pieces_of_a_video_give_what_the_whole_gives(cuts, gradients):
    model, clips = make_model(causal=True).double(), make_clips(frames=6).double()
    with torch.set_grad_enabled(gradients):
        whole = model(clips)
        assert whole.past_states is None
        states, frame_logits = None, []
        for piece in clips.split(cuts, dim=1):
            outputs = model(piece, past_states=states, use_cache=True)
            states = outputs.past_states
            frame_logits.append(outputs.frame_logits)
    torch.testing.assert_close(outputs.logits, whole.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat(frame_logits, dim=1), whole.frame_logits, rtol=0, atol=1e-12)


def test_a_causal_model_does_not_see_the_future():
    model, clips = make_model(causal=True), make_clips(frames=4)
    changed = clips.clone()
    changed[:, 3:] += 1.0
    with torch.no_grad():
        torch.testing.assert_close(
            model(changed).frame_logits[:, :3], model(clips).frame_logits[:, :3], rtol=0, atol=0
        )


def test_states_do_not_fit():
    clips = make_clips(frames=2)
    with pytest.raises(ValueError, match="shifts from the future"):
        make_model()(clips, use_cache=True)
    model = make_model(causal=True)
    states = model(clips, use_cache=True).past_states
    assert len(states) == len(model.tsm.shift_names) + 2
    with pytest.raises(ValueError, match="must be the 4 tensors .* for the same 1 videos; got 4 of \\[2\\]"):
        model(clips[:1], past_states=states)


# --- what trainers and tools do with it ---


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_computes_the_same_also_when_another_clip_came_in_between(reentrant):
    plain = make_model(classifier_dropout=0.0).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable({"use_reentrant": reentrant})
    clips = make_clips().requires_grad_()
    losses = []
    for model in (plain, checkpointed):
        losses.append(model(clips, labels=torch.tensor([0, 2])).loss)
        model(make_clips(frames=2))
    for loss in losses:
        loss.backward()
    assert losses[0] == losses[1]
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)  # no batch counts twice


def test_a_copy_is_a_model_of_its_own():
    model = make_model()
    other = copy.deepcopy(model)
    assert other.tsm.running is not model.tsm.running
    shifts = [module for module in other.modules() if isinstance(module, ShiftConv2d)]
    assert all(shift.running is other.tsm.running for shift in shifts)


def test_channels_lie_last_on_a_processor_without_gradients_and_the_numbers_stay():
    model, seen = make_model().eval(), []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    clips = make_clips()
    expected = model(clips).logits
    with torch.no_grad():
        found = model(clips).logits
    assert seen == [False, True]
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


@torch.no_grad()
def test_initialisation():
    model = make_model(architecture="mobilenetv2_050", model_args=None, classifier_std=0.001)
    network = model.tsm.timm_model
    assert network.conv_stem.weight.std() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.15)
    depthwise = network.blocks[5][0].conv_dw.weight
    assert depthwise.std() == pytest.approx((2 / 9) ** 0.5, rel=0.15)
    assert model.classifier.weight.std() == pytest.approx(0.001, rel=0.15)
    assert (network.bn1.running_var == 1).all() and not model.classifier.bias.any()


def test_saved_and_opened_again(tmp_path):
    model, clips = make_model(causal=True, shift_div=4), make_clips()
    model.save_pretrained(tmp_path)
    opened = AutoModelForVideoClassification.from_pretrained(tmp_path)
    assert type(opened) is TSMForVideoClassification and opened.config.hidden_size == 16
    with torch.no_grad():
        torch.testing.assert_close(opened(clips).logits, model(clips).logits, rtol=0, atol=0)


def test_half_precision_takes_the_pixels_of_any_processor():
    model = make_model().bfloat16()
    with torch.no_grad():
        assert model(make_clips()).logits.dtype == torch.bfloat16


@pytest.mark.slow
def test_torch_compile_takes_the_whole_graph():
    model, clips = make_model(), make_clips()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clips).logits, model(clips).logits)
        torch.testing.assert_close(compiled(clips[:, :3]).logits, model(clips[:, :3]).logits)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(modeling_tsm, "is_timm_available", lambda: False)
    with pytest.raises(ImportError, match=r"\(resnet18\) with timm, which is not installed: pip install timm"):
        make_model()


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.randn(4, 3, 32, 32), r"expects pixel_values of shape \(batch, frames, channels"),
        (torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8), "floating-point pixel_values, got torch.uint8"),
        (torch.randn(1, 3, 4, 32, 32), "expects 3 channels, got 4. The order is"),
    ],
)
def test_pixels_that_do_not_fit(clips, message):
    with pytest.raises(ValueError, match=message):
        make_model()(clips)


@pytest.mark.parametrize(
    "field", [{"shift_div": 1}, {"num_frames": 0}, {"classifier_dropout": 1.0}, {"image_size": 0}]
)
def test_fields_that_do_not_fit(field):
    with pytest.raises(StrictDataclassError):
        TSMConfig(**field)


PARAMETERS = [("mobilenetv4-small", 3.01), ("mobilenetv2", 2.74), ("resnet18", 11.38), ("resnet50", 24.33)]


@pytest.mark.parametrize(("preset", "millions"), PARAMETERS)
def test_parameters_with_400_classes(preset, millions):
    with torch.device("meta"):
        model = TSMForVideoClassification(TSMConfig.from_preset(preset, num_labels=400))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.006)


def test_unknown_preset():
    with pytest.raises(ValueError, match="expects one of resnet18, .*got 'vgg'"):
        TSMConfig.from_preset("vgg")
    assert TSMModel.base_model_prefix == "tsm"
