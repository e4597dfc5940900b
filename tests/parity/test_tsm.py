"""TSM gives the numbers of the authors' code: the shift, and networks with their weights converted."""

import pytest
import torch

from hf_effvid import TSMForVideoClassification
from hf_effvid.convert import CONVERTERS
from hf_effvid.convert.checkpoints import with_batch_counters
from hf_effvid.models.temporal_shift import FramePass, clip_borders, shift_both_ways

from .student_cases import CASES, assert_same, cases_of, input_of, recorded, weights_of


@pytest.mark.parametrize("name", cases_of("temporal_shift"))
@pytest.mark.parametrize("gradients", [False, True])
def test_shift(name, gradients):
    arguments, tensors = CASES[name]["args"], recorded(name)
    frames = tensors["input"]
    num_clips = len(frames) // arguments["num_frames"]
    clips = FramePass(arguments["num_frames"], *clip_borders(num_clips, arguments["num_frames"], frames.device))
    with torch.set_grad_enabled(gradients):
        shifted = shift_both_ways(frames, frames.shape[1] // arguments["shift_div"], clips)
    torch.testing.assert_close(shifted, tensors["expected"], rtol=0, atol=0)


@pytest.fixture(scope="module", params=cases_of("tsm_network"))
def network(request):
    """A case and our model with its weights, in double precision."""
    pytest.importorskip("timm")
    name, (build_config, convert_state_dict) = request.param, CONVERTERS["tsm"]
    arguments = CASES[name]["args"]
    upstream = {
        "num_class": "num_classes",
        "num_segments": "num_frames",
        "shift_div": "shift_div",
        "base_model": "arch",
    }
    config = build_config({theirs: arguments[ours] for theirs, ours in upstream.items()})
    with torch.device("meta"):
        model = TSMForVideoClassification(config)
    weights = with_batch_counters(convert_state_dict(weights_of(name)))
    model.load_state_dict(weights, strict=True, assign=True)
    return name, model.eval().double()


def test_logits_of_frames_and_clips(network):
    name, model = network
    with torch.no_grad():
        outputs = model(input_of(name))
    assert_same(outputs.frame_logits, recorded(name)["frame_logits"])
    assert_same(outputs.logits, recorded(name)["logits"])


def test_the_comparison_notices_time_running_backwards(network):
    name, model = network
    with torch.no_grad():
        backwards = model(input_of(name).flip(1)).frame_logits.flip(1)
    with pytest.raises(AssertionError, match="largest difference"):
        assert_same(backwards, recorded(name)["frame_logits"])
