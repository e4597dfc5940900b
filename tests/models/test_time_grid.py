"""Seconds and steps there and back; windows that cover a sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.time_grid import TimeGrid, window_starts


positive = st.floats(0.01, 1e3, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(stride=positive, num_frames=positive, fps=positive, seconds=st.floats(-10, 2e4))
def test_there_and_back(stride, num_frames, fps, seconds):
    grid = TimeGrid.from_frames(stride, num_frames, fps)
    assert grid.to_seconds(grid.to_steps(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-9)
    assert grid.to_steps(grid.to_seconds(7.25)) == pytest.approx(7.25, rel=1e-9, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(stride=positive, num_frames=positive, fps=positive, first=st.integers(0, 10**5), step=st.floats(0, 1e4))
def test_a_window_says_the_same_second(stride, num_frames, fps, first, step):
    grid = TimeGrid.from_frames(stride, num_frames, fps)
    assert grid.shifted(first).to_seconds(step) == pytest.approx(grid.to_seconds(first + step), rel=1e-9)


def test_what_the_numbers_mean():
    # frames 0 to 15 at 30 per second have their middle at 8 / 30 seconds; the next feature begins 4 frames later
    grid = TimeGrid.from_frames(4, 16, 30)
    assert grid.to_seconds(0) == pytest.approx(8 / 30)
    assert grid.to_seconds(torch.tensor([1.0, 2.0])).tolist() == pytest.approx([12 / 30, 16 / 30])
    # 192 steps over a span that 100 features cover: from half a new step to half a new step before the end
    span = (99 * 4 + 16) / 30
    stretched = grid.stretched(100, 192)
    assert stretched.to_seconds(-0.5) == pytest.approx(0)
    assert stretched.to_seconds(191.5) == pytest.approx(span)


@pytest.mark.parametrize("change", [{"stride": 0}, {"num_frames": -1}, {"fps": float("nan")}, {"fps": None}])
def test_numbers_that_mean_nothing(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TimeGrid.from_frames(**{"stride": 4, "num_frames": 16, "fps": 30} | change)


@settings(max_examples=200, deadline=None)
@given(num_steps=st.integers(1, 500), length=st.integers(1, 100), overlap=st.floats(0, 0.99))
def test_windows_cover_every_step_and_overlap_as_much_as_asked(num_steps, length, overlap):
    starts = window_starts(num_steps, length, overlap)
    assert starts == sorted(set(starts)) and starts[0] == 0
    assert max(starts) + min(length, num_steps) == num_steps
    hops = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    assert all(1 <= hop <= max(1, round(length * (1 - overlap))) for hop in hops)
    assert all(hop <= length for hop in hops)


def test_windows():
    assert window_starts(10, None) == [0]
    assert window_starts(10, 10) == [0]
    assert window_starts(11, 4) == [0, 2, 4, 6, 7]
    for arguments in ((0, 4), (5, 0), (5, 4, 1.0)):
        with pytest.raises(ValueError):
            window_starts(*arguments)
