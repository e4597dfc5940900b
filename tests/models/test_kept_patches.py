"""Embedding only the kept patches: the same numbers as embedding all of them, for tubelets and for patches of single frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_effvid.models.kept_patches import ClipPatches, cut_patches, select_and_embed
from hf_effvid.models.token_selection import TokenGrid, TokenSelectionError, gather_tokens


@st.composite
def clips(draw):
    """A projection with a bias and a clip that its patches need not divide."""
    tubelet, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    grid = TokenGrid(*(draw(st.integers(1, 3)) for _ in range(3)))
    spare = [draw(st.integers(0, size - 1)) for size in (tubelet, height, width)]
    if tubelet == 1 and draw(st.booleans()):
        projection = nn.Conv2d(2, 5, (height, width), stride=(height, width))
    else:
        size = (tubelet, height, width)
        projection = nn.Conv3d(2, 5, size, stride=size)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    for parameter in projection.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    sizes = [count * patch + rest for count, patch, rest in zip(grid, (tubelet, height, width), spare, strict=True)]
    pixels = torch.randn(2, sizes[0], 2, *sizes[1:], generator=generator)
    kept = torch.stack([torch.randperm(grid.num_tokens, generator=generator) for _ in range(2)])
    return ClipPatches(pixels, projection), grid, kept[:, : draw(st.integers(1, grid.num_tokens))]


@given(clips())
@settings(deadline=None, max_examples=40)
def test_kept_patches_are_embedded_as_all_are(drawn):
    patches, grid, kept = drawn
    assert patches.grid == grid
    with torch.no_grad():
        torch.testing.assert_close(
            patches.embed_kept(kept), gather_tokens(patches.embed(), kept), rtol=1e-4, atol=1e-5
        )


def test_tokens_are_numbered_by_time_row_and_column():
    pixels = torch.zeros(1, 4, 1, 4, 6)
    for t in range(2):
        for y in range(2):
            for x in range(3):
                pixels[0, 2 * t : 2 * t + 2, 0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = 6 * t + 3 * y + x
    cut = cut_patches(pixels, TokenGrid(2, 2, 3), 2, 2, 2)
    assert cut.shape == (1, 12, 8)
    assert torch.equal(cut[0], torch.arange(12.0)[:, None].expand(-1, 8))


@pytest.mark.parametrize("scorer", ["random", "embedding_norm"])
def test_positions_belong_to_the_place_and_not_to_the_rank(scorer):
    projection = nn.Conv3d(1, 3, 2, stride=2)
    positions = torch.randn(1, 8, 3)
    patches = ClipPatches(torch.randn(2, 4, 1, 4, 4), projection, positions)
    kept = torch.tensor([[1, 6], [0, 7]])
    tokens, indices, scores = select_and_embed(patches, scorer, lambda bare, placed: (kept, "scores"))
    expected = gather_tokens(patches.embed() + positions, kept)
    torch.testing.assert_close(tokens, expected)
    assert indices is kept and scores == "scores"


def test_patches_are_embedded_before_the_choice_only_for_who_looks_at_them():
    patches = ClipPatches(torch.randn(1, 2, 1, 4, 4), nn.Conv3d(1, 3, 2, stride=2), torch.ones(1, 4, 3))
    seen = {}

    def choose(name):
        def select(bare, placed):
            seen[name] = (bare, placed)
            return torch.zeros(1, 1, dtype=torch.long), None

        return select

    for scorer in ("frame_difference", "lite"):
        select_and_embed(patches, scorer, choose(scorer))
    assert seen["frame_difference"] == (None, None)
    bare, placed = seen["lite"]
    torch.testing.assert_close(placed, bare + 1)


def test_clips_of_another_size_than_the_positions_are_refused():
    with pytest.raises(TokenSelectionError, match=r"positions for 4 tokens, clips \(1, 4, 1, 4, 4\) have 8"):
        ClipPatches(torch.randn(1, 4, 1, 4, 4), nn.Conv3d(1, 3, 2, stride=2), torch.ones(1, 4, 3))
