"""MoViNet: pieces of a video against the whole, padding, pooling of shortcuts, checkpointing, errors."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from hf_effvid import MoViNetConfig, MoViNetForVideoClassification
from hf_effvid.models.modeling_movinet import pool_shortcut, same_padding


TINY = {
    "stem_size": 8,
    "hidden_sizes": [8, 16],
    "expand_sizes": [[16], [24, 24]],
    "kernel_sizes": [["15"], ["53", "33"]],
    "strides": [2, 2],
    "projection_size": 16,
    "head_size": 24,
    "num_frames": 4,
    "image_size": 32,
    "num_labels": 3,
}


def make_model(**options):
    torch.manual_seed(0)
    model = MoViNetForVideoClassification(MoViNetConfig(**{**TINY, **options})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):  # at zero the branches would not be seen
            parameter.data.fill_(0.7)
    return model


def make_clips(batch=2, frames=7, size=32):
    return torch.rand(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cuts", [[1] * 7, [2, 5], [6, 1], [3, 4]])
def test_pieces_of_a_video_give_what_the_whole_gives(cuts):
    model, clips, states = make_model(causal=True).double(), make_clips().double(), None
    with torch.no_grad():
        whole = model(clips)
        assert whole.past_states is None
        for piece in clips.split(cuts, dim=1):
            outputs = model(piece, past_states=states, use_cache=True)
            states = outputs.past_states
    torch.testing.assert_close(outputs.logits, whole.logits, rtol=0, atol=1e-12)
    assert states[0].tolist() == [7, 7] and len(states) == model.movinet.num_states + 2


def test_a_stream_does_not_see_the_future():
    model, clips = make_model(causal=True).double(), make_clips().double()
    changed = clips.clone()
    changed[:, 5:] = 0.0
    with torch.no_grad():
        one, other = (model.movinet(given).last_hidden_state for given in (clips, changed))
    torch.testing.assert_close(one[:, :, :5], other[:, :, :5], rtol=0, atol=1e-12)
    assert (one[:, :, 5:] - other[:, :, 5:]).abs().max() > 1e-6


def test_states_do_not_fit():
    with pytest.raises(ValueError, match="this MoViNet is of the base form"):
        make_model()(make_clips(), use_cache=True)
    model = make_model(causal=True)
    states = model(make_clips(), use_cache=True).past_states
    with pytest.raises(ValueError, match="for the same 1 videos"):
        model(make_clips(batch=1), past_states=states)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [
    (8, 3, 1, (1, 1)), (8, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (8, 5, 2, (1, 2)), (7, 5, 2, (2, 2)), (6, 1, 2, (0, 0)),
])  # fmt: skip
def test_padding_is_that_of_tensorflow(size, kernel, stride, padding):
    assert same_padding(size, kernel, stride) == padding
    assert (size + sum(padding) - kernel) // stride + 1 == -(-size // stride)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 8), (2, 5), (1, 6)])
def test_shortcuts_average_only_what_is_there(height, width):
    features = torch.rand(1, 2, 3, height, width, dtype=torch.float64)
    pooled = pool_shortcut(features)
    assert pooled.shape[3:] == (-(-height // 2), -(-width // 2))
    for y in range(pooled.shape[3]):
        for x in range(pooled.shape[4]):
            top, left = 2 * y - height % 2, 2 * x - width % 2
            window = features[..., max(top, 0) : top + 3, max(left, 0) : left + 3]
            torch.testing.assert_close(pooled[..., y, x], window.mean(dim=(3, 4)))


@pytest.mark.parametrize("causal", [False, True])
def test_checkpointing_computes_the_same(causal):
    plain = make_model(classifier_dropout=0.0, causal=causal).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    for model in (plain, checkpointed):
        model(make_clips(), labels=torch.tensor([0, 2])).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)


def test_a_new_block_is_its_shortcut():
    torch.manual_seed(0)
    block = MoViNetForVideoClassification(MoViNetConfig(**TINY)).eval().movinet.stages[1][1]
    assert isinstance(block.shortcut, nn.Identity) and block.alpha == 0
    features = torch.randn(1, 16, 3, 4, 4)
    torch.testing.assert_close(block(features, None), features, rtol=0, atol=0)


def test_what_does_not_fit():
    for fields, message in (
        ({"strides": [2]}, "one entry per stage"),
        ({"kernel_sizes": [["15"], ["53"]]}, "one kernel per block"),
        ({"kernel_sizes": [["15"], ["53", "43"]]}, "an odd number of frames"),
    ):
        with pytest.raises(StrictDataclassError, match=message):
            make_model(**fields)
    with pytest.raises(ValueError, match="expects one of a0, .*got 'a3-stream'"):
        MoViNetConfig.from_preset("a3-stream")
    with pytest.raises(ValueError, match="MoViNet expects 3 channels, got 4"):
        make_model()(torch.rand(1, 3, 4, 32, 32))
