"""Suppression while the video runs: the union of what was let go is suppression of the whole video, and nothing is held longer than needed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.streaming_suppression import StreamingSuppression
from hf_effvid.models.temporal_nms import nms_1d


HOP, LENGTH = 5.0, 10.0


def windows_of(seed, count, per_window, reach, classes, decimals):
    """Candidates of windows [5 k, 5 k + 10], each reaching at most `reach` seconds beyond its window; few decimals make ties."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for window in range(count):
        ends = torch.rand(per_window, 2, generator=generator, dtype=torch.float64)
        # short ones around one place, long ones over all of it
        ends = torch.where(torch.rand(per_window, 1, generator=generator) < 0.5, ends, ends[:, :1] + 0.15 * ends)
        ends = ends.sort(1).values.clamp(max=1) * (LENGTH + 2 * reach) - reach + window * HOP
        scores = torch.rand(per_window, generator=generator, dtype=torch.float64) ** 2
        if decimals is not None:
            ends, scores = ends.round(decimals=decimals), scores.round(decimals=decimals)
        # rounding must not carry a segment out of its reach
        ends = ends.clamp(window * HOP - reach, window * HOP + LENGTH + reach)
        found.append((ends, scores, torch.randint(classes, (per_window,), generator=generator)))
    return found


def streamed(windows, reach, **options):
    """Everything that is let go, in order, and how much of it before the end."""
    suppression, parts = StreamingSuppression(**options), []
    for number, window in enumerate(windows):
        suppression.add(*window)
        # the video may end here, or anywhere up to the next window: it goes at least as far as this window
        parts.append(suppression.settle((number + 1) * HOP - reach, now=number * HOP + LENGTH))
    early = sum(len(part["scores"]) for part in parts)
    parts.append(suppression.settle(float("inf")))
    assert len(suppression) == 0
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, early


def offline(windows, floor, **options):
    found = nms_1d(*(torch.cat(parts) for parts in zip(*windows, strict=True)), max_segments=None, **options)
    keep = found.scores >= max(floor, options.get("min_score", 0.001))
    return {"segments": found.segments[keep], "scores": found.scores[keep], "labels": found.labels[keep]}


def assert_same(left, right):
    def sorted_rows(found):
        rows = torch.cat([found["labels"][:, None].double(), found["segments"], found["scores"][:, None]], 1)
        return torch.tensor(sorted(rows.round(decimals=9).tolist())).reshape(-1, 4)

    torch.testing.assert_close(sorted_rows(left), sorted_rows(right), atol=2e-9, rtol=0)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 7),
    per_window=st.integers(0, 12),
    reach=st.sampled_from([0.0, 2.5, 7.0]),
    decimals=st.sampled_from([None, None, 1]),
    floor=st.sampled_from([0.0, 0.05, 0.4]),
    options=st.sampled_from(
        [
            {},
            {"sigma": 1e-4},
            {"sigma": 0.9, "min_score": 0.1},
            {"method": "hard", "iou_threshold": 0.3},
            {"method": "hard", "iou_threshold": 0.0, "class_agnostic": True},
            {"method": "none"},
            {"class_agnostic": True, "voting_threshold": 0.7},
            {"class_agnostic": True, "voting_threshold": 0.05, "voting_weight": "score"},
        ]
    ),
)
def test_the_stream_says_what_the_whole_video_says(seed, count, per_window, reach, decimals, floor, options):
    windows = windows_of(seed, count, per_window, reach, classes=2, decimals=decimals)
    found, _ = streamed(windows, reach, floor=floor, **options)
    assert_same(found, offline(windows, floor, **options))


def test_most_is_let_go_long_before_the_end():
    windows = windows_of(0, 60, 12, 2.5, classes=2, decimals=None)
    found, early = streamed(windows, 2.5, floor=0.05)
    assert len(found["scores"]) > 200 and early > 0.9 * len(found["scores"])


def test_what_waits_does_not_grow_with_the_video():
    windows = windows_of(1, 150, 12, 2.5, classes=1, decimals=None)
    suppression, sizes = StreamingSuppression(floor=0.05, class_agnostic=True, voting_threshold=0.9), []
    for number, window in enumerate(windows):
        suppression.add(*window)
        suppression.settle((number + 1) * HOP - 2.5, now=number * HOP + LENGTH)
        sizes.append(len(suppression) + len(suppression.voters.live))
    assert max(sizes[75:]) <= 2 * max(sizes[10:75])


def one(start, end, score, label=0):
    return torch.tensor([[start, end]]), torch.tensor([score]), torch.tensor([label])


def test_doubt_spreads_from_better_to_worse_only():
    suppression = StreamingSuppression()
    suppression.add(torch.tensor([[0.0, 4.0], [3.0, 8.0], [7.0, 12.0]]), torch.tensor([0.9, 0.5, 0.7]), torch.zeros(3))
    # 12 lies beyond the horizon: the last is not sure, so the second is not; but the first is better than both
    assert suppression.settle(10.0)["scores"].tolist() == pytest.approx([0.9])
    assert len(suppression) == 2 and suppression.ends.tolist() == [8.0, 12.0]
    suppression.add(*one(10.5, 12.0, 0.8))
    assert suppression.settle(20.0)["segments"].tolist() == [[10.5, 12.0], [7.0, 12.0], [3.0, 8.0]]


def test_another_class_waits_for_nobody():
    suppression = StreamingSuppression()
    suppression.add(*one(0.0, 12.0, 0.9, label=0))
    suppression.add(*one(2.0, 5.0, 0.4, label=1))
    assert suppression.settle(6.0)["labels"].tolist() == [1]
