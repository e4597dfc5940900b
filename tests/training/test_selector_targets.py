"""Variants of a selector's targets, against slow definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.training.selector_targets import (
    PEAK_LEVEL,
    PEAK_MIN_TOKENS,
    check_variants,
    of_other_clips,
    remove_peaks,
    sharpen,
    varied,
    weaken_edges,
)


GRIDS = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def draw(grid, seed, batch=2):
    number = grid[0] * grid[1] * grid[2]
    return torch.rand(batch, number, generator=torch.Generator().manual_seed(seed))


def islands(high):
    """Sets of high tokens that touch, by flooding."""
    left, found = {tuple(place) for place in high.nonzero().tolist()}, []
    while left:
        island, edge = set(), [left.pop()]
        while edge:
            place = edge.pop()
            island.add(place)
            near = {p for p in left if all(abs(a - b) <= 1 for a, b in zip(p, place, strict=True))}
            left -= near
            edge += near
        found.append(island)
    return found


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, seed=st.integers(0, 2**31 - 1), level=st.floats(0, 0.5))
def test_peaks_are_islands_of_few_tokens(grid, seed, level):
    targets = (draw(grid, seed) - level).clamp(0, 1)
    found = remove_peaks(targets, grid)
    for before, after in zip(targets, found, strict=True):
        expected = before.clone().reshape(grid)
        for island in islands(before.reshape(grid) > PEAK_LEVEL):
            if len(island) < PEAK_MIN_TOKENS:
                for place in island:
                    expected[place] = 0
        assert torch.equal(after, expected.flatten())


@settings(max_examples=30, deadline=None)
@given(grid=GRIDS, seed=st.integers(0, 2**31 - 1))
def test_edges_count_half(grid, seed):
    targets = draw(grid, seed)
    ratio = (weaken_edges(targets, grid) / targets).reshape(2, *grid)
    inner = torch.zeros(grid, dtype=torch.bool)
    inner[:, 1:-1, 1:-1] = True
    torch.testing.assert_close(ratio[:, inner], torch.ones_like(ratio[:, inner]))
    torch.testing.assert_close(ratio[:, ~inner], torch.full_like(ratio[:, ~inner], 0.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=10))
def test_sharpening_moves_away_from_one_half_and_keeps_the_order(values):
    before = torch.tensor([sorted(values)])
    after = sharpen(before)
    assert (after.diff() >= -1e-6).all() and after.min() >= 0 and after.max() <= 1
    assert ((after - 0.5).abs() >= (before - 0.5).abs() - 1e-6).all()
    assert torch.equal(sharpen(torch.tensor([[0.0, 0.5, 1.0]])), torch.tensor([[0.0, 0.5, 1.0]]))


def test_variants_are_applied_in_the_order_given():
    targets, grid = draw((2, 4, 4), 0), (2, 4, 4)
    assert torch.equal(varied(targets, grid, ("edges", "sharpen")), sharpen(weaken_edges(targets, grid)))
    assert not torch.equal(varied(targets, grid, ("sharpen", "edges")), sharpen(weaken_edges(targets, grid)))
    assert varied(targets, grid, ()) is targets
    assert check_variants("edges") == ("edges",)
    with pytest.raises(ValueError, match="edges, peaks, sharpen, got 'blur'"):
        check_variants(("edges", "blur"))


def test_every_clip_gets_the_targets_of_another():
    targets = draw((1, 2, 2), 0, batch=5)
    other = of_other_clips(targets)
    assert not any(torch.equal(*pair) for pair in zip(targets, other, strict=True))
    assert torch.equal(other.sort(0).values, targets.sort(0).values)
    with pytest.raises(ValueError, match="at least two clips"):
        of_other_clips(targets[:1])
