"""The literal network is the released one: it reproduces the recorded runs, and it is the same as ours."""

import pytest
import torch

from tests.parity.video_focalnet_reference import TINY_CASES, ReferenceCase

from .video_focalnet import LiteralVideoFocalNet


@pytest.mark.parametrize("name", TINY_CASES)
def test_logits_of_the_recorded_runs(name):
    case = ReferenceCase(name)
    model = LiteralVideoFocalNet(**case.record["kwargs"]).eval()
    model.load_state_dict(case.upstream_state_dict, strict=True)
    with torch.no_grad():
        logits = model.double()(case.clips.double())
    torch.testing.assert_close(logits, case.recorded["logits_fp64"].double(), rtol=0, atol=1e-9)


def test_size_of_the_released_tiny_model():
    with torch.device("meta"):
        model = LiteralVideoFocalNet(num_classes=400)
    assert sum(parameter.numel() for parameter in model.parameters()) == 49_553_272
    assert len(model.state_dict()) == 284
