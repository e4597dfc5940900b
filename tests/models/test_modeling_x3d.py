"""X3D: released sizes, the sliding window of the head, checkpointing, errors."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForVideoClassification

from hf_effvid import X3DConfig, X3DForVideoClassification
from hf_effvid.models.channel_counts import round_to_eight


TINY = {
    "stem_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 3],
    "head_size": 16,
    "num_frames": 4,
    "image_size": 32,
    "num_labels": 3,
    "initializer_range": 0.5,
}


def make_model(**options):
    torch.manual_seed(0)
    return X3DForVideoClassification(X3DConfig(**{**TINY, **options})).eval()


def make_clips(batch=2, frames=4, height=32, width=32):
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("preset", "millions"), [("xs", 3.79), ("s", 3.79), ("m", 3.79), ("l", 6.15)])
def test_parameters_of_the_released_sizes(preset, millions):
    with torch.device("meta"):
        model = X3DForVideoClassification(X3DConfig.from_preset(preset, num_labels=400))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.006)


def test_squeeze_and_excitation_stands_in_the_first_block_and_every_second_one_after_it():
    stages = make_model().x3d.stages
    has = [[hasattr(block.squeeze_excitation, "reduce") for block in stage] for stage in stages]
    assert has == [[True], [True, False, True]]


def test_time_is_not_strided_and_sizes_round_up():
    model = make_model()
    with torch.no_grad():
        outputs = model(make_clips(frames=5, height=33, width=47), output_hidden_states=True)
    shapes = [tuple(state.shape[2:]) for state in outputs.hidden_states]
    assert shapes == [(5, 17, 24), (5, 9, 12), (5, 5, 6)]


def test_the_head_slides_over_larger_clips_and_averages_logits():
    model = make_model().double()
    features = torch.randn(1, 16, 6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    side = model.head.window[1]
    assert model.head.window == (4, 4, 4) and side == 4
    with torch.no_grad():
        slid = model.classifier(model.head(features)).mean(dim=1)
        one_by_one = [
            model.classifier(model.head(features[:, :, t : t + 4, y : y + side, x : x + side]))[:, 0]
            for t in range(3)
            for y in range(2)
            for x in range(4)
        ]
    torch.testing.assert_close(slid, torch.stack(one_by_one).mean(dim=0))


def test_smaller_clips_are_pooled_whole():
    with torch.no_grad():
        assert make_model().head(torch.randn(1, 16, 2, 3, 1)).shape == (1, 1, 16)


def test_checkpointing_computes_the_same():
    plain = make_model(classifier_dropout=0.0).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    for model in (plain, checkpointed):
        model(make_clips(), labels=torch.tensor([0, 2])).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)


def test_saved_and_opened_again(tmp_path):
    model, clips = make_model(), make_clips()
    model.save_pretrained(tmp_path)
    opened = AutoModelForVideoClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(opened(clips).logits, model(clips).logits)


@pytest.mark.parametrize(
    ("wanted", "given"), [(3.375, 8), (27, 32), (12, 16), (20, 24), (14.4, 16), (100, 104), (8, 8)]
)
def test_rounding_to_eight(wanted, given):
    assert round_to_eight(wanted) == given


def test_what_does_not_fit():
    with pytest.raises(StrictDataclassError, match="hidden_sizes needs one number per stage"):
        make_model(depths=[1])
    with pytest.raises(StrictDataclassError):
        X3DConfig(depths=[])
    with pytest.raises(ValueError, match="expects one of xs, s, m, l, got 'xl'"):
        X3DConfig.from_preset("xl")
    with pytest.raises(ValueError, match="X3D expects 3 channels, got 4"):
        make_model()(torch.randn(1, 3, 4, 32, 32))
