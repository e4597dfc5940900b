"""Our Video-FocalNet gives the numbers of the authors' implementation."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models.focal_ops import focal_implementation
from hf_effvid.models.processor_libraries import onednn_can

from .report import PAGE
from .video_focalnet_reference import FULL_SIZE_CASE, TINY_CASES, ReferenceCase


# every implementation that this processor has; those without double precision leave that to the composite
ON_PROCESSOR = ["composite", "channels_last"] + ["onednn"] * onednn_can(torch.float32)


@pytest.fixture(scope="module", params=TINY_CASES)
def tiny_case(request):
    return ReferenceCase(request.param)


@pytest.fixture(params=ON_PROCESSOR)
def implementation(request):
    with focal_implementation(request.param):
        yield request.param


def _assert_all_pass(comparisons):
    failed = [comparison for comparison in comparisons if not comparison.passes]
    assert not failed, failed


def test_logits_in_double_precision(tiny_case, implementation):
    _assert_all_pass(tiny_case.compare_float64())


def test_every_feature_modulator_and_gate(tiny_case, implementation):
    comparisons = tiny_case.compare_float32()
    assert len(comparisons) == 1 + len(tiny_case.record["features"])
    _assert_all_pass(comparisons)


def test_loss_and_gradient_norm_of_every_parameter(tiny_case, implementation):
    comparisons = tiny_case.compare_gradients()
    assert len(comparisons) == 1 + len(list(tiny_case.model.parameters()))
    _assert_all_pass(comparisons)


@pytest.mark.parametrize("what", ["tanh GELU", "epsilon", "reversed time", "transposed space"])
def test_the_comparison_notices_small_differences(what, monkeypatch):
    """A tolerance that passes these changes would be worth nothing."""
    case = ReferenceCase("tiny_default")
    if what == "tanh GELU":
        gelu = torch.nn.functional.gelu
        monkeypatch.setattr(torch.nn.functional, "gelu", lambda x, **kwargs: gelu(x, approximate="tanh"))
    for module in case.model.modules():
        if what == "epsilon" and isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    for name, parameter in case.model.named_parameters():
        if what == "reversed time" and "temporal_kernel" in name:
            parameter.data = parameter.data.flip(-1)
        if what == "transposed space" and "spatial_kernel" in name:
            parameter.data = parameter.data.transpose(-1, -2)
    assert not case.compare_float64()[0].passes


@pytest.mark.slow
def test_full_size_tiny_model_from_its_seed(implementation):
    case = ReferenceCase(FULL_SIZE_CASE)
    _assert_all_pass(case.compare_float32())
    if implementation != "onednn":  # which has no double precision
        _assert_all_pass(case.compare_float64())


PUBLISHED_SIZES = [("tiny", 49_553_272, 63.0), ("small", 88_735_168, 124.3), ("base", 157_389_216, 220.6)]


@pytest.mark.parametrize(("preset", "parameters", "gmacs"), PUBLISHED_SIZES)
def test_parameters_and_multiply_accumulates_of_the_presets(preset, parameters, gmacs):
    with torch.device("meta"):
        model = VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(preset, num_labels=400)).eval()
        clips = torch.empty(1, 8, 3, 224, 224)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clips)
    # the counter counts a multiplication and an addition as two
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.06)


def test_the_published_table_has_every_row_and_every_row_passes():
    """docs/parity.md is written by `python -m tests.parity.report`; its rows are the comparisons of these tests."""
    ours = tuple(f"| `{case}`" for case in (*TINY_CASES, FULL_SIZE_CASE))
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(ours)]
    listed = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    groups = {(case, quantity, precision) for case, quantity, precision, *_ in listed}
    for case in (*TINY_CASES, FULL_SIZE_CASE):
        assert {(f"`{case}`", "logits", "float64"), (f"`{case}`", "features", "float32")} <= groups
        assert case == FULL_SIZE_CASE or (f"`{case}`", "gradient norms", "float32") in groups
    assert {cells[-1] for cells in listed} == {"yes"}
