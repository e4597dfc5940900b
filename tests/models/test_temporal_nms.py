"""Suppression against the definition written as a loop, its limits, its order, and its independence of the batch."""

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.temporal_nms import nms_1d, segment_iou


def make_candidates(count, seed=0, classes=3, videos=1, decimals=None):
    """Seeded candidates; few decimals make ties likely."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, generator=generator, dtype=torch.float64) * 40
    half = torch.rand(count, generator=generator, dtype=torch.float64) * 5
    segments, scores = torch.stack([centre - half, centre + half], 1), torch.rand(count, generator=generator).double()
    if decimals is not None:
        segments, scores = (torch.round(values, decimals=decimals) for values in (segments, scores))
    labels = torch.randint(classes, (count,), generator=generator)
    return segments, scores, labels, torch.randint(videos, (count,), generator=generator)


def by_the_definition(segments, scores, labels, method, sigma, iou_threshold, min_score, max_segments):
    """One video: greedy picks per class, then sorted by score, then cut."""
    found = []
    for label in sorted(set(labels.tolist())):
        left = {i: scores[i].item() for i in range(len(scores)) if labels[i] == label}
        if method == "hard":
            left = {i: score for i, score in left.items() if score >= min_score}
        while left:
            pick = max(left, key=lambda i: (left[i], -i))
            found.append((left.pop(pick), pick))
            for i in list(left):
                a, b = segments[pick].tolist(), segments[i].tolist()
                overlap = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
                iou = overlap / (a[1] - a[0] + b[1] - b[0] + 2e-6 - overlap)
                if method == "soft":
                    left[i] *= math.exp(-(iou**2) / sigma)
                    if left[i] < min_score:
                        del left[i]
                elif iou > iou_threshold:
                    del left[i]
    found.sort(key=lambda one: (-one[0], one[1]))
    return found[:max_segments]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 40),
    seed=st.integers(0, 10**6),
    method=st.sampled_from(["soft", "hard"]),
    sigma=st.sampled_from([1e-4, 0.5, 0.9]),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.7]),
    min_score=st.sampled_from([0.0, 0.001, 0.4]),
    max_segments=st.sampled_from([1, 7, None]),
)
def test_is_the_definition(count, seed, method, sigma, iou_threshold, min_score, max_segments):
    segments, scores, labels, _ = make_candidates(count, seed)
    options = {"method": method, "sigma": sigma, "iou_threshold": iou_threshold, "min_score": min_score}
    found = nms_1d(segments, scores, labels, max_segments=max_segments, **options)
    expected = by_the_definition(segments, scores, labels, max_segments=max_segments, **options)
    assert found.indices.tolist() == [index for _, index in expected]
    assert found.scores.tolist() == pytest.approx([score for score, _ in expected], abs=1e-12)
    assert torch.equal(found.segments, segments[found.indices]) and torch.equal(found.labels, labels[found.indices])


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 10**6))
def test_soft_suppression_becomes_hard_or_none_in_the_limit(count, seed):
    segments, scores, labels, _ = make_candidates(count, seed)
    options = {"min_score": 1e-3, "max_segments": None}
    scores = scores.clamp(min=2e-3)
    sharp = nms_1d(segments, scores, labels, method="soft", sigma=1e-300, **options)
    hard = nms_1d(segments, scores, labels, method="hard", iou_threshold=0.0, **options)
    assert sharp.indices.tolist() == hard.indices.tolist()
    gentle = nms_1d(segments, scores, labels, method="soft", sigma=1e300, **options)
    assert gentle.indices.tolist() == nms_1d(segments, scores, labels, method="none", **options).indices.tolist()
    permissive = nms_1d(segments, scores, labels, method="hard", iou_threshold=1.0, **options)
    assert permissive.indices.tolist() == gentle.indices.tolist()


@pytest.mark.parametrize("method", ["soft", "hard", "none"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_batch_of_videos_gives_what_each_gives_alone(method, class_agnostic):
    segments, scores, labels, videos = make_candidates(600, videos=7, classes=4, decimals=1)
    videos[:150] = 3  # rows of very different lengths
    options = {"method": method, "class_agnostic": class_agnostic, "max_segments": 9, "voting_threshold": 0.5}
    found = nms_1d(segments, scores, labels, videos=videos, **options)
    for video in videos.unique().tolist():
        mine = torch.nonzero(videos == video)[:, 0]
        alone = nms_1d(segments[mine], scores[mine], labels[mine], **options)
        chosen = found.videos == video
        assert torch.equal(found.indices[chosen], mine[alone.indices])
        assert torch.equal(found.scores[chosen], alone.scores)
        assert torch.equal(found.segments[chosen], alone.segments)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(["soft", "hard", "none"]))
def test_of_equal_scores_the_first_wins(seed, method):
    segments, scores, labels, _ = make_candidates(40, seed, decimals=0)
    found = nms_1d(segments, scores, labels, method=method, iou_threshold=0.3, max_segments=None)
    order = list(zip((-found.scores).tolist(), found.indices.tolist(), strict=True))
    assert order == sorted(order)


def test_the_best_of_a_class_is_never_dropped_by_soft_suppression():
    segments = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert nms_1d(segments, torch.tensor([1e-5, 1e-6])).indices.tolist() == [0]
    assert nms_1d(segments, torch.tensor([1e-5, 1e-6]), method="hard").indices.tolist() == []


def test_voting_is_a_weighted_mean_and_keeps_the_order():
    segments = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 30.0]])
    scores = torch.tensor([0.5, 0.4, 0.9])
    options = {"class_agnostic": True, "voting_threshold": 0.8, "max_segments": 2}
    found = nms_1d(segments, scores, **options)
    end = (0.5 * 1.0 * 10 + 0.4 * 0.9 * 9) / (0.5 + 0.4 * 0.9)
    assert found.segments.tolist() == [[20.0, 30.0], [0.0, pytest.approx(end)]]
    by_score = nms_1d(segments, scores, voting_weight="score", **options)
    assert by_score.segments[1, 1].item() == pytest.approx((0.5 * 10 + 0.4 * 9) / 0.9)
    per_class = nms_1d(segments, scores, voting_threshold=0.8, max_segments=2)
    assert torch.equal(per_class.segments, segments[per_class.indices])


@pytest.mark.parametrize("method", ["soft", "hard", "none"])
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_no_candidates(method, class_agnostic):
    found = nms_1d(
        torch.zeros(0, 2), torch.zeros(0), method=method, class_agnostic=class_agnostic, voting_threshold=0.9
    )
    assert [tuple(values.shape) for values in found] == [(0, 2), (0,), (0,), (0,), (0,)]


def test_half_precision_is_computed_in_single():
    segments, scores, labels, _ = make_candidates(30)
    found = nms_1d(segments.half(), scores.half(), labels)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.indices, nms_1d(segments.half().float(), scores.half().float(), labels).indices)


def test_overlap():
    segments = torch.tensor([[0.0, 2.0], [1.0, 3.0], [5.0, 5.0]])
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(segment_iou(segments, segments), torch.tensor(expected))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "fast"}, "`method`"),
        ({"sigma": 0}, "`sigma`"),
        ({"min_score": -1}, "`min_score`"),
        ({"max_segments": 0}, "`max_segments`"),
        ({"iou_threshold": 2}, "between 0 and 1"),
        ({"voting_weight": "iou"}, "`voting_weight`"),
        ({"scores": torch.tensor([float("nan")])}, "finite"),
        ({"scores": torch.tensor([-1.0])}, "probabilities"),
        ({"scores": torch.tensor([1.0, 1.0])}, "shape|Expected"),
        ({"segments": torch.tensor([[2.0, 1.0]])}, "before it starts"),
    ],
)
def test_what_cannot_be_used(change, message):
    arguments = {"segments": torch.tensor([[1.0, 2.0]]), "scores": torch.tensor([0.5])} | change
    with pytest.raises(ValueError, match=message):
        nms_1d(**arguments)


@pytest.mark.slow
def test_four_hundred_thousand_candidates_within_a_second():
    """33 videos of what a detector gives before suppression (2,000 of each of 6 levels, 20 classes)."""
    videos = torch.arange(33).repeat_interleave(12_000)
    segments, scores, labels, _ = make_candidates(len(videos), classes=20)
    arguments = (segments.float(), scores.float(), labels)

    def seconds():
        began = time.process_time()
        nms_1d(*arguments, videos=videos)
        return time.process_time() - began

    # the processor's own time, the best of three: a busy machine must not fail this
    assert min(seconds() for _ in range(3)) < 1
