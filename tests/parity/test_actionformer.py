"""Our ActionFormer gives the numbers of the authors' implementation, stage by stage."""

import pytest
import torch

from hf_effvid.convert.actionformer import convert_state_dict, restore_state_dict

from .actionformer_reference import ALLOWED, CASES, EVALUATIONS, ReferenceCase
from .report import PAGE


def _assert_all_pass(comparisons):
    failed = [comparison for comparison in comparisons if not comparison.passes]
    assert not failed, failed


@pytest.mark.parametrize(("name", "index"), EVALUATIONS)
def test_features_logits_offsets_and_candidates(name, index):
    _assert_all_pass(ReferenceCase(name).compare_evaluation(index))


@pytest.mark.parametrize(("name", "index"), EVALUATIONS)
def test_masks_and_classes_of_candidates(name, index):
    case = ReferenceCase(name)
    _, outputs, candidates = case.run_evaluation(index)
    assert torch.equal(outputs.point_mask, case.levels(f"eval{index}.mask"))
    assert torch.equal(candidates.labels, case.recorded[f"eval{index}.pre_nms.labels"])
    assert len(candidates.scores) == case.record["eval"][index]["n_pre_nms"]


@pytest.mark.parametrize("name", CASES)
def test_targets_losses_running_count_and_gradients(name):
    case = ReferenceCase(name, drop_path_rate=0.0)
    comparisons = list(case.compare_training())
    _assert_all_pass(comparisons)
    norms = [comparison for comparison in comparisons if comparison.quantity == "gradient norms"]
    assert len(norms) == len(case.record["train"]["grad_l2"]) == len(case.official_weights)


@pytest.mark.parametrize("name", CASES)
def test_positive_points_and_their_classes(name):
    case = ReferenceCase(name)
    features, mask, labels = case.training_inputs()
    with torch.no_grad():
        outputs = case.model(features, mask)
    targets = case.model.assign_targets(labels, outputs.points)
    positive = targets.positive & outputs.point_mask
    assert torch.equal(positive, case.recorded["train.pos_mask"])
    assert torch.equal(targets.classes, case.recorded["train.target_cls"])
    levels = [int(positive[:, outputs.points[:, 3] == 2**level].sum()) for level in range(case.config.num_levels)]
    assert levels == case.record["train"]["num_pos_per_level"]


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
    logits = next(one for one in case.compare_evaluation(0) if one.quantity == "logits")
    assert not logits.passes


def test_the_published_table_has_every_row_and_every_row_passes():
    """docs/parity.md is written by `python -m tests.parity.report`; its rows are the comparisons of these tests."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(tuple(f"| `{name}`" for name in CASES))]
    listed = [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows]
    assert {(case, quantity) for case, quantity, *_ in listed} == {(f"`{n}`", q) for n in CASES for q in ALLOWED}
    assert {cells[-1] for cells in listed} == {"yes"}
