"""Points and targets: against a loop that spells the rules out, and against what they are for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.configuration_actionformer import default_regression_ranges
from hf_effvid.models.temporal_candidates import select_candidates
from hf_effvid.models.temporal_points import assign_targets, decode_segments, make_points


RANGES = default_regression_ranges(4)
OVERLAPPING = [[0, 4], [2, 8], [4, 16], [8, 10000]]


def spelled_out(points, segments, labels, num_labels, center_sampling="radius", radius=1.5):
    """Class sets and offsets, point by point and segment by segment."""
    classes = torch.zeros(len(points), num_labels, dtype=points.dtype)
    offsets = torch.full((len(points), 2), math.nan, dtype=points.dtype)
    for index, (time, low, high, stride) in enumerate(points.tolist()):
        found = []
        for (start, end), label in zip(segments.tolist(), labels.tolist(), strict=True):
            center, reach = (start + end) / 2, radius * stride if center_sampling == "radius" else math.inf
            inside = max(start, center - reach) < time < min(end, center + reach)
            if inside and low <= max(time - start, end - time) <= high:
                found.append((end - start, start, end, label))
        if found:
            shortest = min(length for length, *_ in found)
            for length, _, _, label in found:
                if length <= shortest + 1e-3:
                    classes[index, label] = 1
            _, start, end, _ = min(found, key=lambda row: row[0])
            offsets[index] = torch.tensor([(time - start) / stride, (end - time) / stride])
    return classes, offsets


def test_points_of_a_pyramid():
    points = make_points(5, [[0, 4], [4, 8], [8, 10000]])
    assert points[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 2, 4, 0, 4]
    assert points[:, 3].tolist() == [1] * 5 + [2] * 3 + [4] * 2
    assert points[5].tolist() == [0, 4, 8, 2] and points[-1].tolist() == [4, 8, 10000, 4]


def test_default_ranges_are_those_of_the_released_models():
    assert default_regression_ranges(6) == [[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, 10000]]
    assert default_regression_ranges(1) == [[0, 10000]]


# eighths, so that ties and bounds are met exactly in floating point
times = st.integers(-16, 400).map(lambda eighths: eighths / 8)


@settings(max_examples=80, deadline=None)
@given(
    bounds=st.lists(st.tuples(times, times), max_size=5),
    sampling=st.sampled_from(["radius", "none"]),
    ranges=st.sampled_from([RANGES, OVERLAPPING]),
    num_steps=st.integers(1, 50),
    data=st.data(),
)
def test_targets_equal_the_rules_spelled_out(bounds, sampling, ranges, num_steps, data):
    segments = torch.tensor([sorted(pair) for pair in bounds], dtype=torch.float64).reshape(-1, 2)
    labels = torch.tensor([data.draw(st.integers(0, 2)) for _ in bounds], dtype=torch.long)
    points = make_points(num_steps, ranges, dtype=torch.float64)
    classes, offsets = spelled_out(points, segments, labels, 3, sampling)
    targets = assign_targets(points, segments, labels, 3, center_sampling=sampling)
    assert torch.equal(targets.classes, classes)
    assert torch.equal(targets.positive, classes.any(dim=1))
    torch.testing.assert_close(targets.offsets[targets.positive], offsets[targets.positive], rtol=0, atol=0)


@settings(max_examples=50, deadline=None)
@given(start=st.floats(0, 50), length=st.floats(1.5, 200), num_steps=st.integers(60, 300))
def test_positive_points_lead_back_to_their_segment(start, length, num_steps):
    segment = torch.tensor([[start, start + length]], dtype=torch.float64)
    points = make_points(num_steps, RANGES, dtype=torch.float64)
    targets = assign_targets(points, segment, torch.tensor([0]), 1)
    decoded = decode_segments(points, targets.offsets)[targets.positive]
    torch.testing.assert_close(decoded, segment.expand_as(decoded), rtol=0, atol=1e-9)
    assert (targets.offsets[targets.positive] > 0).all()


def test_two_names_of_one_segment_are_joined_and_a_duplicate_counts_once():
    points = make_points(32, RANGES)
    segments = torch.tensor([[8.0, 14.0], [8.0, 14.0], [8.0, 14.0], [2.0, 30.0]])
    targets = assign_targets(points, segments, torch.tensor([0, 2, 2, 1]), 3)
    near_center = (points[:, 0] == 11) & (points[:, 3] == 1)
    assert targets.classes[near_center].tolist() == [[1, 0, 1]]
    assert targets.classes.max() == 1


def test_a_video_without_segments_is_background():
    targets = assign_targets(make_points(16, RANGES), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), 4)
    assert targets.classes.shape == (30, 4) and not targets.classes.any() and not targets.positive.any()


# --- candidates ---


def draw_outputs(num_steps=20, num_labels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = make_points(num_steps, RANGES)
    logits = torch.randn(len(points), num_labels, generator=generator)
    offsets = torch.rand(len(points), 2, generator=generator) * 3
    return logits, offsets, torch.ones(len(points), dtype=torch.bool), points


def test_top_k_of_every_level_or_of_all():
    outputs = draw_outputs()
    per_level = select_candidates(*outputs, top_k=2, min_steps=0.0)
    assert len(per_level.scores) == 8
    together = select_candidates(*outputs, top_k=8, per_level=False, min_steps=0.0)
    best = outputs[0].sigmoid().flatten().sort(descending=True).values[:8]
    assert torch.equal(together.scores, best)
    assert together.scores.min() > per_level.scores.min()


def test_padding_threshold_and_short_segments_are_left_out():
    logits, offsets, mask, points = draw_outputs()
    mask[points[:, 0] >= 10] = False
    found = select_candidates(logits, offsets, mask, points, score_threshold=0.6, min_steps=2.0)
    scores = logits.sigmoid()
    expected = (scores > 0.6) & mask[:, None]
    lengths = (offsets.sum(1) * points[:, 3])[:, None].expand_as(scores)
    assert len(found.scores) == int((expected & (lengths > 2.0)).sum())
    assert ((found.segments[:, 1] - found.segments[:, 0]) > 2.0).all()


def test_equal_scores_keep_the_order_of_points_and_classes():
    logits, offsets, mask, points = draw_outputs()
    found = select_candidates(torch.zeros_like(logits), offsets + 1, mask, points, top_k=4, per_level=False)
    assert found.labels.tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(found.segments[:3], decode_segments(points[:1], offsets[:1] + 1).expand(3, 2))


def test_nothing_above_the_threshold():
    logits, *rest = draw_outputs()
    found = select_candidates(logits - 100, *rest)
    assert found.segments.shape == (0, 2) and found.scores.shape == found.labels.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_take_the_precision_asked_for(dtype):
    assert make_points(9, RANGES, dtype=dtype).dtype == dtype
