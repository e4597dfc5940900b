"""Losses against their definitions, at the ends of their range, and in the limits that name them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.temporal_losses import (
    RunningCount,
    diou_loss,
    giou_loss,
    sigmoid_focal_loss,
    smooth_labels,
)


distances = st.tuples(st.floats(0, 100), st.floats(0, 100))


def as_tensor(*pairs):
    return torch.tensor(pairs, dtype=torch.float64)


@settings(max_examples=100, deadline=None)
@given(predicted=distances, wanted=distances)
def test_segment_losses_are_those_of_the_segments(predicted, wanted):
    """Around a point at 0, computed on (start, end) from the definitions of GIoU and DIoU."""
    a, b = (-predicted[0], predicted[1]), (-wanted[0], wanted[1])
    shared = min(a[1], b[1]) - max(a[0], b[0])
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    around = max(a[1], b[1]) - min(a[0], b[0])
    if union < 1e-3:
        return  # nothing is divided by nothing; see the next test
    giou = shared / union - (around - union) / around
    diou = shared / union - ((a[0] + a[1] - b[0] - b[1]) / 2 / around) ** 2
    assert giou_loss(as_tensor(predicted), as_tensor(wanted)).item() == pytest.approx(1 - giou, abs=1e-6)
    assert diou_loss(as_tensor(predicted), as_tensor(wanted)).item() == pytest.approx(1 - diou, abs=1e-6)


@pytest.mark.parametrize("loss", [giou_loss, diou_loss])
def test_limits_of_segment_losses(loss):
    same = as_tensor((2.0, 3.0))
    assert loss(same, same).item() == pytest.approx(0, abs=1e-9)
    empty = as_tensor((0.0, 0.0)).requires_grad_()
    value = loss(empty, as_tensor((0.0, 0.0)))
    value.sum().backward()
    assert value.isfinite().all() and empty.grad.isfinite().all()
    assert loss(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)


def test_diou_prefers_the_right_centre_where_iou_does_not():
    wanted = as_tensor((10.0, 10.0))
    centred, aside = as_tensor((5.0, 5.0)), as_tensor((0.0, 10.0))
    assert giou_loss(centred, wanted) == giou_loss(aside, wanted)
    assert diou_loss(centred, wanted) < diou_loss(aside, wanted)


def test_focal_loss_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    targets = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    p = logits.sigmoid()
    entropy = -(targets * p.log() + (1 - targets) * (1 - p).log())
    expected = (0.25 * targets + 0.75 * (1 - targets)) * (1 - p * targets - (1 - p) * (1 - targets)) ** 2 * entropy
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets), expected)
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets, alpha=0.5, gamma=0.0), 0.5 * entropy)


def test_focal_loss_is_finite_far_out():
    logits = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad.isfinite().all()
    assert loss[0] == loss[1] == 0


def test_smoothed_labels():
    targets = torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(smooth_labels(targets, 0.1), torch.tensor([[0.025, 0.925, 0.025]]))
    assert smooth_labels(targets, 0.0) is targets


def test_the_running_count_moves_in_training_only_and_is_saved():
    count = RunningCount(100, 0.9)
    assert count(torch.tensor(18)).item() == pytest.approx(91.8)
    kept = count.value.clone()
    count.eval()
    assert count(torch.tensor(5000)).item() == pytest.approx(91.8) and torch.equal(count.value, kept)
    again = RunningCount(7, 0.9)
    again.load_state_dict(count.state_dict())
    assert torch.equal(again.value, kept)


def test_no_positive_point_counts_as_one_and_earlier_values_stay():
    count = RunningCount(1, 0.5)
    first = count(torch.tensor(0))
    assert first.item() == 1.0
    before = copy.deepcopy(first)
    count(torch.tensor(99))
    assert torch.equal(first, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_running_count_stays_in_single_precision(dtype):
    parent = torch.nn.Sequential(torch.nn.Linear(2, 2), RunningCount(100, 0.9))
    parent[1](torch.tensor(18))
    parent.to(dtype)
    assert parent[0].weight.dtype == dtype
    assert parent[1].value.dtype == torch.float32 and parent[1].value.item() == pytest.approx(91.8)
    meta = RunningCount(100, 0.9).to("meta")
    assert meta.value.is_meta and meta.to_empty(device="cpu").value.device.type == "cpu"
