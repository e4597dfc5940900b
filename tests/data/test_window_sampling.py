"""Training windows: inside the video, of the length that was asked for, with what they show of the annotations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.data.randomness import derive_rng
from hf_effvid.data.window_sampling import WindowSampling, cut_segments, draw_window


def segments(*pairs):
    return torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2)


@given(
    total=st.integers(1, 300),
    longest=st.integers(1, 300),
    seed=st.integers(0, 1000),
    ratio=st.sampled_from([None, (0.9, 1.0), (0.3, 0.5)]),
    starts=st.lists(st.floats(0, 290), max_size=5),
)
def test_windows_lie_in_the_video(total, longest, seed, ratio, starts):
    sampling = WindowSampling(crop_ratio=ratio)
    actions = segments(*[(start, start + 8) for start in starts])
    first, length = draw_window(derive_rng(seed), total, longest, actions, sampling)
    assert 0 <= first and first + length <= total and 1 <= length <= longest
    if total > longest:
        assert length == longest
    elif ratio is None:
        assert (first, length) == (0, total)
    else:
        assert max(1, round(ratio[0] * total)) <= length <= max(1, round(ratio[1] * total))
    assert (first, length) == draw_window(derive_rng(seed), total, longest, actions, sampling)


def test_a_window_shows_an_action_where_the_video_has_one():
    actions = segments((500, 520))
    for seed in range(30):
        first, length = draw_window(derive_rng(seed), 2000, 100, actions, WindowSampling())
        assert len(cut_segments(actions, first, length, 0.5)[0]) == 1
    anywhere = WindowSampling(require_action=False)
    shown = [draw_window(derive_rng(seed), 2000, 100, actions, anywhere)[0] for seed in range(200)]
    assert max(shown) > 1500 and min(shown) < 300, "drawn evenly"
    assert sum(400 < first < 520 for first in shown) < 40


def test_videos_without_annotations_give_windows_too():
    first, length = draw_window(derive_rng(1), 500, 64, segments(), WindowSampling())
    assert length == 64 and 0 <= first <= 436


def test_what_is_left_of_annotations():
    actions = segments((0, 10), (8, 28), (26, 30), (90, 95))
    cut, kept = cut_segments(actions, first=10, length=20, min_visible=0.5)
    assert kept.tolist() == [1, 2] and cut.tolist() == [[0, 18], [16, 20]]
    # 9 of 10 frames of the first one are outside; with a margin of 6 more than half counts as visible
    cut, kept = cut_segments(actions, first=10, length=20, min_visible=0.5, margin=6.0)
    assert kept.tolist() == [0, 1, 2] and cut[0].tolist() == [-6, 0]


@given(st.floats(0.05, 1.0), st.floats(0, 100), st.floats(0.5, 60))
def test_kept_annotations_are_visible_enough(min_visible, start, length):
    actions = segments((start, start + length))
    cut, kept = cut_segments(actions, 30, 40, min_visible)
    visible = max(0.0, min(start + length, 70) - max(start, 30)) / length
    if abs(visible - min_visible) > 1e-6:
        assert len(kept) == (visible >= min_visible)
    assert all(0 <= a < b <= 40 for a, b in cut.tolist())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_ratio": (1.0, 0.9)}, "crop_ratio"),
        ({"min_visible": 0}, "min_visible"),
        ({"windows_per_video": 0}, "windows_per_video"),
        ({"max_steps": 2.5}, "max_steps"),
        ({"size": 3}, r"unknown keys \['size'\]"),
    ],
)
def test_settings_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        WindowSampling.from_fields(fields)


def test_settings_from_a_file():
    assert WindowSampling.from_fields({"crop_ratio": [0.8, 1.0]}).crop_ratio == (0.8, 1.0)
    assert WindowSampling.from_fields(None) == WindowSampling()
