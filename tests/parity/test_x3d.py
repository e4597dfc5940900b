"""X3D gives the numbers of pytorchvideo with its weights converted."""

import pytest
import torch

from hf_effvid import X3DForVideoClassification
from hf_effvid.convert import CONVERTERS
from hf_effvid.convert.checkpoints import with_batch_counters

from .student_cases import CASES, assert_same, cases_of, input_of, recorded, weights_of


@pytest.fixture(scope="module", params=cases_of("x3d"))
def outputs(request):
    """A case's name, and what our model makes of its input in double precision."""
    name, (build_config, convert_state_dict) = request.param, CONVERTERS["x3d"]
    with torch.device("meta"):
        model = X3DForVideoClassification(build_config(CASES[name]["args"]))
    model.load_state_dict(with_batch_counters(convert_state_dict(weights_of(name))), strict=True, assign=True)
    with torch.no_grad():
        return name, model.eval().double()(input_of(name).transpose(1, 2), output_hidden_states=True)


def test_logits(outputs):
    name, ours = outputs
    assert_same(ours.logits, recorded(name)["logits"])


@pytest.mark.parametrize("block", [0, 1, 4])
def test_feature_maps(outputs, block):
    name, ours = outputs
    assert_same(ours.hidden_states[block], recorded(name)[f"feat.block{block}"])


def test_number_of_parameters(outputs):
    name, _ = outputs
    build_config, _ = CONVERTERS["x3d"]
    with torch.device("meta"):
        assert X3DForVideoClassification(build_config(CASES[name]["args"])).num_parameters() == CASES[name]["params"]
