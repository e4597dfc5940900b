"""Convolution, norm, sum and activation in one pass give what the modules give one after the other."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_effvid import MoViNetConfig, MoViNetForVideoClassification, X3DConfig, X3DForVideoClassification
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.models import folded_convolution
from hf_effvid.models.folded_convolution import ACTIVATIONS, normed_convolution
from hf_effvid.models.modeling_movinet import SameConv3d
from hf_effvid.models.onednn_operators import onednn_can


needs_onednn = pytest.mark.skipif(not onednn_can(torch.float32), reason="this PyTorch has no oneDNN here")
X3D = {"stem_size": 8, "hidden_sizes": [8, 16], "depths": [2, 3], "head_size": 16}
MOVINET = {
    "stem_size": 8, "hidden_sizes": [8, 16], "expand_sizes": [[16], [24, 24]], "kernel_sizes": [["15"], ["53", "33"]],
    "strides": [2, 2], "projection_size": 16, "head_size": 24,
}  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """Counts of what runs folded and what does not."""
    counted = {"folded": 0, "one by one": 0}
    fold, plain = folded_convolution._folded, folded_convolution._one_by_one

    def counting(function, name):
        def count(*args):
            counted[name] += 1
            return function(*args)

        return count

    monkeypatch.setattr(folded_convolution, "_folded", counting(fold, "folded"))
    monkeypatch.setattr(folded_convolution, "_one_by_one", counting(plain, "one by one"))
    return counted


def fill(module, seed=0):
    """Numbers everywhere, so that no factor is 1 and no summand 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.dtype.is_floating_point and value.dim() < 2:
            positive = name.endswith(("running_var", "alpha")) or name.endswith("norm.weight")
            value.data.copy_(torch.rand(value.shape, generator=generator) + (0.5 if positive else -0.5))
    return module.eval()


def small_model(name, **fields):
    torch.manual_seed(0)
    if name == "x3d":
        return fill(X3DForVideoClassification(X3DConfig(**X3D, num_frames=4, image_size=32, num_labels=3)))
    config = MoViNetConfig(**MOVINET, causal=name == "movinet stream", num_frames=4, image_size=32, num_labels=3)
    return fill(MoViNetForVideoClassification(config))


@needs_onednn
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 99),
    groups=st.sampled_from([1, 6]),
    kernel=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    stride=st.integers(1, 2),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    activation=st.sampled_from(list(ACTIVATIONS)),
    scaled=st.booleans(),
    added=st.booleans(),
    same=st.booleans(),
)
def test_the_numbers_of_the_modules(seed, groups, kernel, stride, shape, activation, scaled, added, same):
    torch.manual_seed(seed)
    if same:
        convolution = SameConv3d(6, 12, kernel, stride, groups)
    else:
        padding = tuple(size // 2 for size in kernel)
        convolution = nn.Conv3d(6, 12, kernel, (1, stride, stride), padding, groups=groups, bias=False)
    norm = fill(nn.BatchNorm3d(12), seed)
    batch, frames, height, width = shape
    maps = torch.randn(batch, 6, frames, height, width)
    with torch.no_grad():
        add = torch.randn_like(convolution(maps)) if added else None
        scale = torch.tensor(0.7) if scaled else None
        found = normed_convolution(convolution, norm, maps, activation, scale=scale, add=add)
        exact = [None if x is None else copy.deepcopy(x).double() for x in (convolution, norm, maps, scale, add)]
        expected = folded_convolution._one_by_one(exact[0], exact[1], exact[2], activation, exact[3], exact[4])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=2e-5 * max(1.0, expected.abs().max().item()), rtol=0)


@needs_onednn
def test_without_a_norm_a_bias_is_kept():
    convolution = nn.Conv3d(5, 7, 3, padding=1)
    maps = torch.randn(1, 5, 3, 6, 6)
    with torch.no_grad():
        found = normed_convolution(convolution, None, maps, "relu")
        torch.testing.assert_close(found, convolution(maps).relu(), atol=1e-5, rtol=0)


@needs_onednn
@pytest.mark.parametrize("name", ["x3d", "movinet", "movinet stream"])
@pytest.mark.parametrize("side", [32, 35])
def test_a_whole_model_runs_folded_and_answers_the_same(name, side, calls):
    model, clips = small_model(name), torch.rand(2, 4, 3, side, side)
    with torch.inference_mode():
        found = model(clips, output_hidden_states=True)
    assert calls["folded"] > 10 and calls["one by one"] == 0
    exact = model.double()
    with torch.no_grad():
        expected = exact(clips.double(), output_hidden_states=True)
    for ours, theirs in zip(
        [found.logits, *found.hidden_states], [expected.logits, *expected.hidden_states], strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, atol=2e-5 * theirs.abs().max().item(), rtol=0)
    assert expected.logits.abs().max() > 0.01


@needs_onednn
def test_a_stream_runs_folded_piece_by_piece(calls):
    model, video, states = small_model("movinet stream"), torch.rand(1, 5, 3, 32, 32), None
    with torch.no_grad():
        for piece in video.split(1, dim=1):
            outputs = model(piece, past_states=states, use_cache=True)
            states = outputs.past_states
        assert calls["one by one"] == 0
        torch.testing.assert_close(outputs.logits, model(video).logits, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_changed_weights_and_statistics_count_at_once():
    model, clips = small_model("x3d"), torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        before = model(clips).logits
        for value in (model.x3d.stages[0][0].expand.weight, model.x3d.stages[0][0].expand_norm.running_mean):
            value.data.add_(0.1)  # behind the back of version counters
            after = model(clips).logits
            assert (after - before).abs().max() > 1e-4
            before = after


def _with_hook(model):
    model.x3d.stages[0][0].expand.register_forward_hook(lambda module, args, output: output * 2)


def _in_training(model):
    model.x3d.stages[0][0].expand_norm.train()


def _parametrized(model):
    nn.utils.parametrizations.weight_norm(model.x3d.stages[0][0].expand)


@needs_onednn
def test_adapters_count(calls):
    peft = pytest.importorskip("peft")
    model, clips = small_model("x3d"), torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        before = model(clips).logits
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(target_modules=["stages.0.0.expand"], init_lora_weights=False)
        )
        calls.update({"folded": 0, "one by one": 0})
        found = adapted.eval()(pixel_values=clips).logits
        assert calls["one by one"] == 1 and calls["folded"] > 10
        expected = copy.deepcopy(adapted).double()(pixel_values=clips.double()).logits
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert (found - before).abs().max() > 1e-4


@needs_onednn
@pytest.mark.parametrize("change", [_with_hook, _in_training, _parametrized])
def test_what_was_changed_runs_as_it_is(change, calls):
    model, clips = small_model("x3d"), torch.rand(2, 4, 3, 32, 32)
    change(model)
    with torch.no_grad():
        found = model(clips).logits
        assert calls["one by one"] == 1
        expected = copy.deepcopy(model).double()(clips.double()).logits
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["x3d", "movinet"])
def test_gradients_counters_compilers_and_half_precision_see_the_modules(name, calls):
    model, clips = small_model(name), torch.rand(1, 4, 3, 32, 32)
    model(clips).logits.sum().backward()
    with torch.no_grad():
        assert count_macs(model, {"pixel_values": clips}).total > 0
        torch.export.export(model, (clips,))
        model.bfloat16()(clips)
    assert calls["folded"] == 0 and calls["one by one"] > 0
