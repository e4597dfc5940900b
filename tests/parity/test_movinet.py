"""MoViNet gives the numbers of the reference with its weights converted: base at even and odd sizes, and the stream in pieces."""

import pytest
import torch

from hf_effvid import MoViNetConfig, MoViNetForVideoClassification
from hf_effvid.convert import CONVERTERS
from hf_effvid.convert.checkpoints import with_batch_counters

from .student_cases import CASES, assert_same, input_of, recorded, weights_of


BASE, ODD, STREAM = "movinet_a0_base_64", "movinet_a0_base_odd57", "movinet_a0_stream_48"


def model_of(name):
    build_config, convert_state_dict = CONVERTERS["movinet"]
    arguments = dict(CASES[name]["args"])
    arguments["cfg"] = arguments.pop("variant")
    with torch.device("meta"):
        model = MoViNetForVideoClassification(build_config(arguments))
    assert model.num_parameters() == CASES[name]["params"]
    model.load_state_dict(with_batch_counters(convert_state_dict(weights_of(name))), strict=True, assign=True)
    return model.eval().double()


@pytest.fixture(scope="module")
def base():
    return model_of(BASE)


def test_base(base):
    expected = recorded(BASE)
    kept = {}
    stages = base.movinet.stages
    for stage, block in ((0, 0), (1, 0), (1, 2), (2, 2), (3, 3), (4, 3)):
        stages[stage][block].register_forward_hook(
            lambda module, inputs, output, name=f"feat.b{stage}_l{block}": kept.update({name: output})
        )
    with torch.no_grad():
        outputs = base(input_of(BASE).transpose(1, 2), output_hidden_states=True)
        kept["feat.stem"] = outputs.hidden_states[0]
        kept["feat.conv7"] = base.movinet.projection(outputs.hidden_states[-1])
    assert_same(outputs.logits, expected.pop("logits"))
    assert kept.keys() == expected.keys()
    for name, value in expected.items():
        assert_same(kept[name], value)


def test_base_at_an_odd_size(base):
    with torch.no_grad():
        assert_same(base(input_of(ODD).transpose(1, 2)).logits, recorded(ODD)["logits"])


@pytest.fixture(scope="module")
def stream():
    return model_of(STREAM)


def test_stream_of_a_whole_video(stream):
    with torch.no_grad():
        assert_same(stream(input_of(STREAM).transpose(1, 2)).logits, recorded(STREAM)["logits"])


@pytest.mark.parametrize("cut", range(3))
def test_stream_in_pieces(stream, cut):
    states, logits = None, []
    with torch.no_grad():
        for piece in input_of(STREAM).transpose(1, 2).split(CASES[STREAM]["stream_chunks"][cut], dim=1):
            outputs = stream(piece, past_states=states, use_cache=True)
            states = outputs.past_states
            logits.append(outputs.logits)
        whole = stream(input_of(STREAM).transpose(1, 2)).logits
    assert_same(torch.stack(logits), recorded(STREAM)[f"stream{cut}"])
    torch.testing.assert_close(logits[-1], whole, rtol=0, atol=1e-12)


PARAMETERS = {
    "a0": 3_111_799,
    "a1": 4_690_296,
    "a2": 5_249_562,
    "a3": 7_397_545,
    "a4": 11_349_463,
    "a5": 18_650_523,
    "a0-stream": 3_748_031,
    "a1-stream": 6_447_352,
    "a2-stream": 7_326_962,
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameters_with_the_600_classes_of_the_released_models(preset):
    with torch.device("meta"):
        model = MoViNetForVideoClassification(MoViNetConfig.from_preset(preset, num_labels=600))
    assert model.num_parameters() == PARAMETERS[preset]
