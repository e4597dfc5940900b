"""Our ActionFormer gives the numbers of the authors' implementation, stage by stage."""

import pytest
import torch

from hf_effvid.convert.actionformer import convert_state_dict, restore_state_dict
from hf_effvid.models.temporal_candidates import select_candidates

from .actionformer_reference import CASES, EVALUATIONS, ReferenceCase


# both sides are float32: what two correct orders of summation differ by, with logits up to 5 and segments up to 100 steps
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CLOSE_IN_STEPS = {"rtol": 1e-5, "atol": 5e-5}


@pytest.fixture(scope="module", params=EVALUATIONS, ids=lambda row: f"{row[0]}-{row[1]}")
def evaluated(request):
    name, index = request.param
    case = ReferenceCase(name)
    with torch.no_grad():
        features, mask = case.evaluation_inputs(index)
        return case, index, case.model.actionformer(features, mask), case.model(features, mask)


def test_features_after_the_neck(evaluated):
    case, index, features, _ = evaluated
    for level, name in ((0, "0"), (-1, "last")):
        expected = case.recorded[f"eval{index}.fpn_feat.{name}"].transpose(1, 2)
        torch.testing.assert_close(features.feature_maps[level], expected, **CLOSE)


def test_logits_offsets_and_masks(evaluated):
    case, index, _, outputs = evaluated
    torch.testing.assert_close(outputs.logits, case.levels(f"eval{index}.cls_logits"), **CLOSE)
    torch.testing.assert_close(outputs.offsets, case.levels(f"eval{index}.offsets"), **CLOSE)
    assert torch.equal(outputs.point_mask, case.levels(f"eval{index}.mask"))


def test_candidates(evaluated):
    case, index, _, outputs = evaluated
    found = select_candidates(
        outputs.logits[0],
        outputs.offsets[0],
        outputs.point_mask[0],
        outputs.points,
        score_threshold=case.tests["pre_nms_thresh"],
        top_k=case.tests["pre_nms_topk"],
        min_steps=case.tests["duration_thresh"],
    )
    assert len(found.scores) == case.record["eval"][index]["n_pre_nms"]
    expected = f"eval{index}.pre_nms."
    torch.testing.assert_close(found.segments, case.recorded[expected + "segments"], **CLOSE_IN_STEPS)
    torch.testing.assert_close(found.scores, case.recorded[expected + "scores"], **CLOSE)
    assert torch.equal(found.labels, case.recorded[expected + "labels"])


@pytest.fixture(scope="module", params=CASES)
def trained(request):
    case = ReferenceCase(request.param, drop_path_rate=0.0)
    case.model.train()
    features, mask, labels = case.training_inputs()
    first = case.model(features, mask, labels=labels)
    after_first = case.model.loss_normalizer.value.item()
    first.loss.backward()
    second = case.model(features, mask, labels=labels)
    return case, labels, first, after_first, second


def test_targets_and_positive_points(trained):
    case, labels, outputs, *_ = trained
    targets = case.model.assign_targets(labels, outputs.points)
    positive = targets.positive & outputs.point_mask
    assert torch.equal(positive, case.recorded["train.pos_mask"])
    assert torch.equal(targets.classes, case.recorded["train.target_cls"])
    torch.testing.assert_close(
        targets.offsets[positive], case.recorded["train.target_offsets"][positive], rtol=0, atol=0
    )
    levels = [int(positive[:, outputs.points[:, 3] == 2**level].sum()) for level in range(case.config.num_levels)]
    assert levels == case.record["train"]["num_pos_per_level"]


def test_training_logits_and_offsets(trained):
    case, _, outputs, *_ = trained
    torch.testing.assert_close(outputs.logits, case.levels("train.cls_logits"), **CLOSE)
    torch.testing.assert_close(outputs.offsets, case.levels("train.offsets"), **CLOSE)


def test_losses_of_two_steps_and_the_running_count(trained):
    case, _, first, after_first, second = trained
    record = case.record["train"]
    for outputs, losses in ((first, record["losses"]), (second, record["losses_second_call"])):
        assert outputs.classification_loss.item() == pytest.approx(losses["cls_loss"], rel=1e-6)
        assert outputs.regression_loss.item() == pytest.approx(losses["reg_loss"], rel=1e-6)
        assert outputs.loss.item() == pytest.approx(losses["final_loss"], rel=1e-6)
    assert after_first == pytest.approx(record["loss_normalizer_after"], rel=1e-6)
    after_second = case.model.loss_normalizer.value.item()
    assert after_second == pytest.approx(record["loss_normalizer_after_second"], rel=1e-6)


def test_gradient_norm_of_every_parameter(trained):
    case, *_ = trained
    gradients = {name: parameter.grad for name, parameter in case.model.named_parameters()}
    norms = {name: float(value.norm()) for name, value in restore_state_dict(gradients).items()}
    expected = case.record["train"]["grad_l2"]
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("layout", ["official", "opentad"])
@pytest.mark.parametrize("name", CASES)
def test_weights_there_and_back(name, layout):
    case = ReferenceCase(name)
    assert case.missing.missing_keys == ["loss_normalizer.value"] and not case.missing.unexpected_keys
    ours = case.model.state_dict()
    theirs = restore_state_dict(ours, layout)
    again = convert_state_dict(theirs)
    if layout == "official":
        assert theirs.keys() == case.official_weights.keys()
        assert all(torch.equal(theirs[key], case.official_weights[key]) for key in theirs)
        assert ours.keys() - again.keys() == {"loss_normalizer.value"}
    else:
        assert ours.keys() == again.keys() and "rpn_head.loss_normalizer" in theirs
    assert all(torch.equal(again[key], ours[key]) for key in again)


@pytest.mark.parametrize("what", ["epsilon", "window", "tanh GELU", "padding hidden", "positions"])
def test_the_comparison_notices_small_differences(what, monkeypatch):
    """A tolerance that passes these changes would be worth nothing."""
    overrides = {
        "epsilon": {"layer_norm_eps": 1e-4, "convolution_norm_eps": 1e-4},
        "window": {"attention_window": 7},
        "padding hidden": {"mask_after_norm": "convolutions"},
        "positions": {"use_absolute_positions": False},
    }
    case = ReferenceCase("anet_tiny_global" if what == "positions" else "thumos_tiny_local", **overrides.get(what, {}))
    if what == "tanh GELU":
        gelu = torch.nn.functional.gelu
        monkeypatch.setattr(torch.nn.functional, "gelu", lambda x: gelu(x, approximate="tanh"))
    with torch.no_grad():
        logits = case.model(*case.evaluation_inputs(0)).logits
    assert (logits - case.levels("eval0.cls_logits")).abs().max() > 1e-4
