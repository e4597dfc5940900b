"""Choosing tokens: how many, which, and the scores that need no learned weights."""

import math
from decimal import ROUND_FLOOR, Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.token_selection import (
    SCORERS,
    ScorerInputs,
    TokenGrid,
    TokenSelectionError,
    draw_uniform,
    gather_tokens,
    needs_embeddings,
    num_kept_tokens,
    pool_to_tokens,
    register_scorer,
    run_length_kept,
    score_tokens,
    top_k_indices,
)


GRID = TokenGrid(4, 6, 6)
TUBELET, PATCH = 2, (4, 4)


def make_inputs(pixel_values=None, grid=GRID, **fields):
    if pixel_values is None:
        shape = (2, grid.frames * TUBELET, 3, grid.height * PATCH[0], grid.width * PATCH[1])
        pixel_values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return ScorerInputs(grid=grid, pixel_values=pixel_values, tubelet_size=TUBELET, patch_size=PATCH, **fields)


def token_pixels(pixel_values, t, y, x):
    """The pixels of one token (B, frames, C, h, w), cut out by hand."""
    return pixel_values[
        :, TUBELET * t : TUBELET * (t + 1), :, PATCH[0] * y : PATCH[0] * (y + 1), PATCH[1] * x : PATCH[1] * (x + 1)
    ]


def kept_mask(scores, k, grid=GRID):
    mask = torch.zeros(scores.shape, dtype=torch.bool).scatter(1, top_k_indices(scores, k), True)
    return mask.unflatten(1, tuple(grid))


# --- how many ---


@settings(max_examples=200, deadline=None)
@given(num_tokens=st.integers(1, 4000), thousandths=st.integers(1, 1000))
def test_k_is_the_floor_of_the_decimal_that_was_written(num_tokens, thousandths):
    ratio = Decimal(thousandths) / 1000
    exact = int((ratio * num_tokens).to_integral_value(rounding=ROUND_FLOOR))
    assert num_kept_tokens(num_tokens, float(ratio)) == max(1, exact)


def test_k_of_the_papers_ratios():
    assert [num_kept_tokens(1568, ratio) for ratio in (1, 0.9, 0.7, 0.5, 0.3, 0.2, 0.1)] == [
        1568, 1411, 1097, 784, 470, 313, 156,
    ]  # fmt: skip
    assert num_kept_tokens(10, 0.7) == 7
    assert math.floor(0.57 * 100) == 56 and num_kept_tokens(100, 0.57) == 57


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(TokenSelectionError, match="keep_ratio should be above 0 and at most 1"):
        num_kept_tokens(10, ratio)


# --- which ---


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_tokens=st.integers(1, 60))
def test_top_k_is_a_stable_sort(data, num_tokens):
    values = data.draw(st.lists(st.integers(-3, 3), min_size=num_tokens, max_size=num_tokens))
    k = data.draw(st.integers(1, num_tokens))
    ranked = sorted(range(num_tokens), key=lambda index: (-values[index], index))
    assert top_k_indices(torch.tensor([values]), k)[0].tolist() == sorted(ranked[:k])


def test_nan_is_kept_last_and_infinity_first():
    scores = torch.tensor([[float("nan"), -5.0, float("inf"), -float("inf"), 0.0]])
    assert top_k_indices(scores, 3)[0].tolist() == [1, 2, 4]


def test_half_precision_scores_are_compared_exactly():
    scores = torch.tensor([[1.0, 1.0078125, 1.0]], dtype=torch.bfloat16)
    assert top_k_indices(scores, 1)[0].tolist() == [1]
    assert top_k_indices(scores, 2)[0].tolist() == [0, 1]


@pytest.mark.parametrize("k", [0, 6])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(TokenSelectionError, match="k should be from 1 to 5"):
        top_k_indices(torch.zeros(1, 5), k)


def test_gather_takes_whole_tokens():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    picked = gather_tokens(tokens, torch.tensor([[0, 2], [1, 3]]))
    assert torch.equal(picked, torch.stack([tokens[0, [0, 2]], tokens[1, [1, 3]]]))


def test_pooling_is_the_mean_over_the_pixels_of_a_token_in_the_order_of_time_then_rows():
    inputs = make_inputs()
    pooled = pool_to_tokens(inputs.pixel_values[:, :, 0], inputs).unflatten(1, tuple(GRID))
    for place in [(0, 0, 0), (1, 2, 3), (3, 5, 1)]:
        expected = token_pixels(inputs.pixel_values, *place)[:, :, 0].mean(dim=(1, 2, 3))
        torch.testing.assert_close(pooled[:, place[0], place[1], place[2]], expected)


def test_pixels_beyond_the_last_whole_token_do_not_count():
    inputs = make_inputs()
    padded = torch.nn.functional.pad(inputs.pixel_values, (0, 3, 0, 2), value=9.0)
    larger = make_inputs(torch.cat([padded, padded[:, :1]], dim=1))
    for name in ("frame_difference", "run_length"):
        torch.testing.assert_close(score_tokens(name, larger), score_tokens(name, inputs))


# --- drawing ---


def test_a_clip_keeps_its_tokens_in_any_batch_and_with_any_generator_state():
    inputs = make_inputs()
    together = score_tokens("random", inputs)
    torch.rand(7)
    alone = torch.cat([score_tokens("random", make_inputs(clip[None])) for clip in inputs.pixel_values])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_seeds_and_clips_draw_different_subsets():
    grid = TokenGrid(4, 14, 14)
    draws = torch.cat([draw_uniform(make_inputs(grid=grid, seed=seed)) for seed in range(60)])
    assert draws.shape == (120, 784)
    assert 0 <= draws.min() and draws.max() < 1
    # 94080 numbers: uniform, and no two draws alike
    assert draws.mean().item() == pytest.approx(0.5, abs=0.005)
    assert draws.var().item() == pytest.approx(1 / 12, abs=0.002)
    shares = torch.histc(draws, 20, 0, 1) / draws.numel()
    torch.testing.assert_close(shares, torch.full((20,), 0.05), atol=0.004, rtol=0)
    correlation = torch.corrcoef(draws) - torch.eye(120)
    assert correlation.abs().max() < 5 / math.sqrt(784)
    torch.testing.assert_close(draws.mean(dim=0), torch.full((784,), 0.5), atol=5 * 0.289 / math.sqrt(120), rtol=0)


@pytest.mark.parametrize("seed", [0, -1, 2**40])
def test_neighbouring_seeds_do_not_draw_the_same_numbers_elsewhere(seed):
    grid = TokenGrid(16, 24, 24)
    pixels = torch.randn(1, 32, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    one, next_one = (draw_uniform(make_inputs(pixels, grid, seed=s))[0].tolist() for s in (seed, seed + 1))
    # of 9216 numbers with 24 bits a handful coincides by chance
    assert len(set(one) & set(next_one)) < 30


def test_without_a_seed_draws_follow_the_global_generator():
    torch.manual_seed(3)
    first = draw_uniform(make_inputs(seed=None))
    torch.manual_seed(3)
    assert torch.equal(first, draw_uniform(make_inputs(seed=None)))
    assert not torch.equal(first, draw_uniform(make_inputs(seed=None)))


def test_a_given_generator_is_used_before_the_seed():
    draws = [draw_uniform(make_inputs(generator=torch.Generator().manual_seed(5))) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draw_uniform(make_inputs()))


@pytest.mark.parametrize("k", [1, 5, 36, 70, 71, 130, 144])
def test_stratified_keeps_as_many_of_every_step(k):
    counts = kept_mask(score_tokens("stratified", make_inputs()), k).sum(dim=(2, 3))
    assert counts.max() - counts.min() <= 1
    assert counts.sum(dim=1).tolist() == [k, k]


def test_stratified_leaves_no_place_out():
    kept = sum(kept_mask(score_tokens("stratified", make_inputs(seed=seed)), 71).float() for seed in range(80)) / 80
    torch.testing.assert_close(kept, torch.full_like(kept, 71 / 144), atol=0.25, rtol=0)


def test_grid_at_half_is_a_checkerboard_that_moves():
    mask = kept_mask(score_tokens("grid", make_inputs()), GRID.num_tokens // 2)[0]
    t, y, x = torch.meshgrid(*[torch.arange(size) for size in GRID], indexing="ij")
    parity = (t + y + x) % 2
    assert torch.equal(mask, parity == parity[mask][0])


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 8), height=st.integers(2, 14), width=st.integers(2, 14), data=st.data())
def test_grid_is_even_and_its_choices_are_nested(frames, height, width, data):
    grid = TokenGrid(frames, height, width)
    pixels = torch.zeros(1, TUBELET * frames, 3, PATCH[0] * height, PATCH[1] * width)
    scores = score_tokens("grid", make_inputs(pixels, grid))
    assert scores.unique().numel() == grid.num_tokens
    k = data.draw(st.integers(1, grid.num_tokens))
    counts = kept_mask(scores, k, grid).sum(dim=(2, 3))[0]
    # rows and columns that a power of two does not divide are uneven by a fringe
    assert counts.max() - counts.min() <= 2 + (height + width) / 2


# --- scores from pixels and embeddings ---


def test_embedding_norm_and_difference_by_hand():
    tokens = torch.randn(2, GRID.num_tokens, 5, generator=torch.Generator().manual_seed(0))
    inputs = make_inputs(patch_embeddings=tokens)
    torch.testing.assert_close(score_tokens("embedding_norm", inputs), tokens.square().sum(-1).sqrt())
    steps = tokens.reshape(2, 4, 36, 5)
    expected = torch.stack([(steps[:, max(t, 1)] - steps[:, max(t, 1) - 1]).norm(dim=-1) for t in range(4)], dim=1)
    torch.testing.assert_close(score_tokens("embedding_difference", inputs), expected.flatten(1))


def test_half_precision_embeddings_are_scored_in_single_precision():
    tokens = torch.randn(2, GRID.num_tokens, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    halves, singles = make_inputs(patch_embeddings=tokens), make_inputs(patch_embeddings=tokens.float())
    for name in ("embedding_norm", "embedding_difference"):
        assert torch.equal(score_tokens(name, halves), score_tokens(name, singles))


def moving_square():
    """Clips of one token's size bright square that jumps in the second half, at the same place otherwise."""
    pixels = torch.zeros(1, 8, 3, 24, 24)
    pixels[:, :4, :, 0:4, 0:4] = 1.0
    pixels[:, 4:, :, 8:12, 12:16] = 1.0
    return pixels


def test_frame_difference_finds_what_moves():
    scores = score_tokens("frame_difference", make_inputs(moving_square())).unflatten(1, tuple(GRID))[0]
    assert {tuple(place) for place in scores.nonzero().tolist()} == {(2, 0, 0), (2, 2, 3)}


def test_run_length_keeps_the_first_step_then_what_changed():
    inputs = make_inputs(moving_square())
    scores = score_tokens("run_length", inputs)
    kept = kept_mask(scores, 36 + 2)[0]
    assert kept[0].all()
    assert {tuple(place) for place in kept[1:].nonzero().tolist()} == {(1, 0, 0), (1, 2, 3)}
    assert run_length_kept(inputs, 0.1).tolist() == [38]
    assert run_length_kept(inputs, 1.5).tolist() == [36]
    # fewer than a step's tokens: those of the first step that change next come first
    assert scores.isfinite().all()


def test_run_length_compares_the_last_frame_with_the_first_of_the_step_before():
    pixels = torch.randn(1, 8, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    scores = score_tokens("run_length", make_inputs(pixels)).unflatten(1, tuple(GRID))
    change = (pixels[:, 5] - pixels[:, 2]).abs()
    torch.testing.assert_close(scores[:, 2, 1, 4], change[:, :, 4:8, 16:20].mean(dim=(1, 2, 3)))


def test_saliency_is_the_users_map_pooled():
    given_map = torch.rand(2, 8, 24, 24, generator=torch.Generator().manual_seed(0))
    inputs = make_inputs(extras={"saliency": given_map})
    torch.testing.assert_close(score_tokens("saliency", inputs), pool_to_tokens(given_map, inputs))
    per_token = torch.rand(2, GRID.num_tokens)
    assert torch.equal(score_tokens("saliency", make_inputs(extras={"saliency": per_token})), per_token)
    with pytest.raises(TokenSelectionError, match=r"should be \(B, N\) or \(B, T, H, W\) = \(2, 8, 24, 24\)"):
        score_tokens("saliency", make_inputs(extras={"saliency": given_map[:, :4]}))


@pytest.mark.parametrize("place", [(5, 2), (1, 6), (3, 3)])
def test_spectral_residual_sees_the_odd_one_out(place):
    """A small bright square before a scene that changes slowly and a little noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.linspace(0, 1, 64).expand(1, 2, 3, 64, 64) + 0.05 * torch.randn(
        1, 2, 3, 64, 64, generator=generator
    )
    top, left = 8 * place[0] + 2, 8 * place[1] + 2
    pixels[..., top : top + 4, left : left + 4] += 1.0
    inputs = ScorerInputs(grid=TokenGrid(1, 8, 8), pixel_values=pixels, tubelet_size=2, patch_size=(8, 8))
    scores = score_tokens("saliency", inputs).unflatten(1, (8, 8))[0]
    assert scores.isfinite().all()
    assert divmod(scores.argmax().item(), 8) == place


@pytest.mark.parametrize("name", ["motion_vectors", "attention", "oracle", "position_prior"])
def test_scores_from_elsewhere_must_be_given_and_fit(name):
    with pytest.raises(TokenSelectionError, match=rf"selection_extras\['{name}'\].*none was given"):
        score_tokens(name, make_inputs())
    shape = (GRID.num_tokens,) if name == "position_prior" else (2, GRID.num_tokens)
    values = torch.rand(shape)
    scores = score_tokens(name, make_inputs(extras={name: values}))
    assert torch.equal(scores, values.expand(2, -1))
    with pytest.raises(TokenSelectionError, match="should be"):
        score_tokens(name, make_inputs(extras={name: values[..., :-1]}))


def test_a_prior_may_be_the_list_of_a_configuration():
    prior = [float(index) for index in range(GRID.num_tokens)]
    scores = score_tokens("position_prior", make_inputs(extras={"position_prior": prior}))
    assert top_k_indices(scores, 2).tolist() == [[142, 143]] * 2


def test_a_single_step_in_time_has_no_change():
    grid = TokenGrid(1, 6, 6)
    inputs = make_inputs(grid=grid, patch_embeddings=torch.randn(2, 36, 5))
    for name in ("embedding_difference", "run_length"):
        assert torch.equal(score_tokens(name, inputs), torch.zeros(2, 36))
    assert score_tokens("frame_difference", inputs).abs().sum() > 0


# --- the registry ---


def test_the_registry_holds_every_scorer_and_knows_what_it_needs():
    assert set(SCORERS) == {
        "random", "stratified", "grid", "position_prior", "embedding_norm", "embedding_difference", "frame_difference",
        "motion_vectors", "run_length", "saliency", "attention", "lite", "oracle",
    }  # fmt: skip
    assert {name for name in SCORERS if needs_embeddings(name)} == {"embedding_norm", "embedding_difference", "lite"}


def test_a_scorer_of_ones_own(monkeypatch):
    monkeypatch.setattr("hf_effvid.models.token_selection.SCORERS", dict(SCORERS))

    @register_scorer("brightness")
    def brightness(inputs):
        return pool_to_tokens(inputs.pixel_values.mean(dim=2), inputs)

    assert score_tokens("brightness", make_inputs()).shape == (2, GRID.num_tokens)
    assert not needs_embeddings("brightness")

    register_scorer("short")(lambda inputs: torch.zeros(2, 3))
    with pytest.raises(TokenSelectionError, match=r"one score per clip and token, \(2, 144\), got \(2, 3\)"):
        score_tokens("short", make_inputs())


def test_an_unknown_scorer_is_named_with_those_that_exist():
    with pytest.raises(TokenSelectionError, match="scorer should be one of attention, .*got 'magic'"):
        score_tokens("magic", make_inputs())
    with pytest.raises(TokenSelectionError, match="got 'magic'"):
        needs_embeddings("magic")


def test_lite_without_a_selector_says_so():
    with pytest.raises(TokenSelectionError, match="needs a selector"):
        score_tokens("lite", make_inputs())
