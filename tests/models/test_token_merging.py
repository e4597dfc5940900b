"""Merging and dropping as pure tensors: what must hold for any input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.token_accumulation import accumulate_and_drop
from hf_effvid.models.token_merging import (
    attention_sharpness,
    match_tokens,
    merge_weighted,
    merged_positions,
    num_merged,
    take_tokens,
)


@st.composite
def sequences(draw):
    batch, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 13)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tokens = torch.randn(batch, length, width, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):  # equal tokens, as black frames give: ties everywhere
        tokens = tokens[:, torch.randint(length, (length,), generator=generator) // 2]
    sizes = torch.randint(1, 9, (batch, length), generator=generator).float()
    return tokens, sizes


@settings(max_examples=60, deadline=None)
@given(sequences(), st.integers(0, 20))
def test_merging_keeps_sums_and_every_patch(sequence, r):
    tokens, sizes = sequence
    length = tokens.shape[1]
    plan = match_tokens(tokens, r)
    merged, merged_sizes = merge_weighted(tokens, sizes, plan)
    gone = min(r, length // 2)
    assert num_merged(length, r) == gone and merged.shape[1] == merged_sizes.shape[1] == length - gone
    assert torch.equal(merged_sizes.sum(1), sizes.sum(1))
    torch.testing.assert_close((merged * merged_sizes[..., None]).sum(1), (tokens * sizes[..., None]).sum(1))
    # each new token is the weighted mean of the tokens that say they are in it
    positions = merged_positions(plan, length)
    for row in range(tokens.shape[0]):
        for place in range(length - gone):
            inside = positions[row] == place
            assert inside.any() and merged_sizes[row, place] == sizes[row, inside].sum()
            mean = (tokens[row, inside] * sizes[row, inside, None]).sum(0) / sizes[row, inside].sum()
            torch.testing.assert_close(merged[row, place], mean)
    assert all(torch.equal(a, b) for a, b in zip(plan, match_tokens(tokens.clone(), r), strict=True))


def test_nothing_to_merge_changes_nothing_but_the_order():
    tokens, sizes = torch.randn(2, 7, 3), torch.ones(2, 7)
    plan = match_tokens(tokens, 0)
    merged, _ = merge_weighted(tokens, sizes, plan)
    assert torch.equal(take_tokens(merged, merged_positions(plan, 7)), tokens)


def test_the_most_alike_pairs_go_first():
    directions = torch.eye(8)
    # even positions 0, 2, 4; 2 is the twin of 5, 4 nearly that of 1, 0 is alike to nobody
    tokens = torch.stack(
        [
            directions[0],
            directions[1],
            directions[2],
            directions[3],
            directions[1] + 0.2 * directions[4],
            3 * directions[2],
        ]
    )[None]
    plan = match_tokens(tokens, 2)
    assert plan.sources.tolist() == [[1, 2]] and plan.targets.tolist() == [[2, 0]] and plan.kept.tolist() == [[0]]


def test_several_tokens_can_become_one():
    tokens = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [0.0, 1.0]]])
    merged, sizes = merge_weighted(tokens, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), match_tokens(tokens, 2))
    assert sizes.tolist() == [[6.0, 4.0]]
    torch.testing.assert_close(merged, torch.tensor([[[(1 + 4 + 9) / 6, 0.0], [0.0, 1.0]]]))


def test_half_precision_means_are_taken_in_float32():
    tokens = torch.full((1, 4, 2), 300.0, dtype=torch.float16)
    merged, _ = merge_weighted(tokens, torch.full((1, 4), 1000.0), match_tokens(tokens, 2))
    assert merged.dtype == torch.float16 and torch.equal(merged, torch.full((1, 2, 2), 300.0, dtype=torch.float16))


def test_weights_decide_the_mean_and_background_falls_back_to_sizes():
    tokens = torch.tensor([[[1.0], [1.0], [3.0], [-1.0], [-3.0], [-1.0]]])
    sizes, weights = torch.ones(1, 6), torch.tensor([[0.0, 1.0, 3.0, 0.0, 0.0, 0.0]])
    plan = match_tokens(tokens, 3)
    merged, merged_sizes = merge_weighted(tokens, sizes, plan, weights)
    assert merged_sizes.sum() == 6 and torch.isfinite(merged).all()
    # 1 (weight 0) and 3 (weight 3) go to 1 (weight 1); -3 goes to -1 and neither weighs anything
    assert merged.flatten().tolist() == [2.5, -2.0, -1.0]


def test_sharpness_favours_tokens_that_look_at_one_place():
    uniform, sharp = torch.full((4,), 0.25), torch.tensor([1.0, 0.0, 0.0, 0.0])
    probabilities = torch.stack([uniform, sharp, uniform, uniform])[None, None].expand(1, 3, 4, 4)
    assert attention_sharpness(probabilities).tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert attention_sharpness(torch.full((2, 1, 4, 4), 0.25)).tolist() == [[0.0] * 4] * 2


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 9), st.integers(0, 8), st.booleans(), st.integers(0, 2**31)
)
def test_accumulation_drops_r_of_every_group(batch, groups, size, r, backwards, seed):
    tokens = torch.randn(batch, groups * size, 4, generator=torch.Generator().manual_seed(seed))
    if r >= size:
        with pytest.raises(ValueError, match="every group has"):
            accumulate_and_drop(tokens, groups, r, backwards)
        return
    kept = accumulate_and_drop(tokens, groups, r, backwards)
    assert kept.shape == (batch, groups * (size - r))
    assert torch.equal(kept // size, torch.arange(groups).repeat_interleave(size - r).expand(batch, -1))
    assert (kept.diff(dim=1) > 0).all()
    assert torch.equal(kept, accumulate_and_drop(tokens.clone(), groups, r, backwards))


@pytest.mark.parametrize("backwards", [False, True])
def test_accumulation_keeps_what_is_new(backwards):
    directions, size, groups = torch.eye(12), 6, 4
    tokens = directions[:size].repeat(groups, 1)  # all equally strong, so that redundancy alone decides
    new = 2 * size + 3  # a token of the third group that resembles nothing before it
    tokens[new] = directions[9]
    kept = accumulate_and_drop(tokens[None], groups, 1, backwards)
    assert new in kept[0].tolist()


def test_accumulation_refuses_tokens_without_frames():
    with pytest.raises(ValueError, match="do not make 4 groups"):
        accumulate_and_drop(torch.zeros(1, 10, 3), 4, 1)


def test_accumulation_keeps_what_is_strong():
    tokens = torch.eye(6).repeat(3, 1)
    tokens[6 + 4] *= 5.0  # as redundant as the others of the second group, but it means something
    kept = accumulate_and_drop(tokens[None], 3, 4)
    assert 6 + 4 in kept[0].tolist()
