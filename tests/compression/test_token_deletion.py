"""Hosts without some of their tokens, and the oracles and statistics made from that, against slow references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.compression import OracleError, select_tokens
from hf_effvid.compression.token_deletion import (
    deletion_and_insertion,
    deletion_importance,
    gradient_norm,
    gradient_times_input,
    leave_one_out,
    logits_of_top,
    rank_correlation,
    with_ties_broken,
)
from hf_effvid.compression.token_importance import class_weights
from hf_effvid.models.token_selection import num_kept_tokens

from ..pipelines import hosts


NUM_TOKENS = 32


def host_and_clips(batch=2, **changes):
    model, _ = hosts.videomae(**changes)
    clips = torch.randn(batch, hosts.FRAMES, 3, hosts.SIZE, hosts.SIZE, generator=torch.Generator().manual_seed(1))
    return model.double(), clips.double()


def by_hand(model, clips, kept):
    """Logits from the kept embeddings alone, block by block. kept: (B, k) places."""
    states = model.videomae.embeddings(clips, None)
    states = torch.stack([clip[places] for clip, places in zip(states, kept, strict=True)])
    for layer in model.videomae.encoder.layer:
        states = layer(states)
    return model.classifier(model.fc_norm(states.mean(1)))


@settings(max_examples=10, deadline=None)
@given(num_kept=st.integers(1, NUM_TOKENS), seed=st.integers(0, 2**31 - 1))
def test_a_subset_is_what_the_blocks_see(num_kept, seed):
    model, clips = host_and_clips()
    scores = torch.rand(2, NUM_TOKENS, generator=torch.Generator().manual_seed(seed))
    kept = torch.stack([row.argsort(descending=True)[:num_kept].sort().values for row in scores])
    with torch.no_grad():
        found, expected = logits_of_top(model, clips, scores, num_kept), by_hand(model, clips, kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("num_kept", [1, 7, 31, 32])
def test_a_lite_model_answers_as_the_stock_one(num_kept):
    model, clips = host_and_clips()
    scores = torch.rand(2, NUM_TOKENS, generator=torch.Generator().manual_seed(num_kept))
    lite = select_tokens(model, keep_ratio=0.5, scorer="random")
    with torch.no_grad():
        found, expected = (logits_of_top(one, clips, scores, num_kept) for one in (lite, model))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))))
def test_every_number_of_tokens_can_be_asked_for_as_a_ratio(numbers):
    """What `logits_of_top` relies on for Lite models."""
    num_tokens, num_kept = numbers
    assert num_kept_tokens(num_tokens, (num_kept + 0.5) / num_tokens) == num_kept


@pytest.mark.parametrize("build", [hosts.vivit, hosts.vjepa2], ids=lambda build: build.__name__)
def test_tokens_of_other_hosts_can_be_deleted(build):
    """Their Lite classes take what is left; the class token of ViViT stays."""
    lite = select_tokens(build()[0], keep_ratio=0.5, scorer="random")
    _, clips = host_and_clips()
    found = deletion_importance(lite, clips.float(), torch.tensor([1, 2]))
    assert found.scores.shape == (2, NUM_TOKENS) and found.scores.max() > 0


def test_leave_one_out_is_the_difference_of_two_runs():
    model, clips = host_and_clips()
    labels = torch.tensor([2, 6])
    found = deletion_importance(model, clips, labels)
    with torch.no_grad():
        full = by_hand(model, clips, torch.arange(NUM_TOKENS).expand(2, -1)).log_softmax(-1)
        for token in (0, 13, 31):
            others = torch.cat([torch.arange(token), torch.arange(token + 1, NUM_TOKENS)]).expand(2, -1)
            drop = full - by_hand(model, clips, others).log_softmax(-1)
            expected = drop.gather(1, labels[:, None])[:, 0].clamp_min(0)
            torch.testing.assert_close(found.scores[:, token], expected.float(), rtol=0, atol=1e-5)
    assert found.scores.shape == (2, NUM_TOKENS) and found.scores.max() > 0


def test_leave_one_out_of_some_tokens_keeps_their_order():
    model, clips = host_and_clips()
    _, weights = class_weights(torch.zeros(2, hosts.LABELS), torch.tensor([2, 6]), "true")
    every = leave_one_out(model, clips, weights, torch.arange(NUM_TOKENS).expand(2, -1), NUM_TOKENS)
    some = torch.tensor([[5, 1, 30], [0, 31, 2]])
    torch.testing.assert_close(leave_one_out(model, clips, weights, some, NUM_TOKENS), every.gather(1, some))


def test_deletion_and_insertion_meet_their_definitions():
    model, clips = host_and_clips()
    scores = torch.rand(2, NUM_TOKENS, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([1, 4])
    _, weights = class_weights(torch.zeros(2, hosts.LABELS), labels, "true")
    found = deletion_and_insertion(model, clips, scores, weights, (0.25, 0.5))
    order = scores.argsort(1, descending=True)
    with torch.no_grad():
        for column, count in enumerate((8, 16)):
            for row, kept in enumerate((order[:, count:], order[:, :count])):
                expected = by_hand(model, clips, kept.sort(1).values).softmax(-1).gather(1, labels[:, None])[:, 0]
                torch.testing.assert_close(found[:, row, column], expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("oracle", [gradient_norm, gradient_times_input])
def test_gradients_at_the_embedding(oracle):
    """The derivative along a token, by finite differences."""
    model, clips = host_and_clips(batch=1)
    label = torch.tensor([3])
    found = oracle(model, clips, label).scores[0]
    states = model.videomae.embeddings(clips, None).detach()

    def score(states):
        for layer in model.videomae.encoder.layer:
            states = layer(states)
        return model.classifier(model.fc_norm(states.mean(1)))[0, 3].item()

    for token in (4, 20):
        slopes = torch.zeros(states.shape[-1], dtype=torch.float64)
        with torch.no_grad():
            for channel in range(states.shape[-1]):
                for sign in (1, -1):
                    moved = states.clone()
                    moved[0, token, channel] += sign * 1e-5
                    slopes[channel] += sign * score(moved) / 2e-5
        expected = slopes.norm() if oracle is gradient_norm else (slopes * states[0, token]).sum().clamp_min(0)
        torch.testing.assert_close(found[token], expected, rtol=1e-5, atol=1e-8)


def slow_ranks(values):
    return [sum(other < value for other in values) + (sum(o == value for o in values) - 1) / 2 for value in values]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), min_size=2, max_size=15))
def test_rank_correlation_is_pearson_of_mean_ranks(pairs):
    left, right = (torch.tensor([[pair[side] for pair in pairs]]) for side in (0, 1))
    ranks = torch.tensor([slow_ranks(left[0].tolist()), slow_ranks(right[0].tolist())], dtype=torch.float64)
    found = rank_correlation(left, right).item()
    if (ranks.std(1) == 0).any():
        assert found == 0
    else:
        assert found == pytest.approx(torch.corrcoef(ranks)[0, 1].item(), abs=1e-9)
    assert rank_correlation(left, left.exp()).item() == pytest.approx(1.0 if left.unique().numel() > 1 else 0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 2**31 - 1))
def test_ties_are_broken_by_chance_and_nothing_else_moves(values, seed):
    scores = torch.tensor([values, values])
    ranks = with_ties_broken(scores, torch.Generator().manual_seed(seed))
    assert torch.equal(ranks.sort(1).values, torch.arange(len(values)).expand(2, -1).float())
    higher = scores[:, :, None] > scores[:, None, :]
    assert (ranks[:, :, None] > ranks[:, None, :])[higher].all()


def test_ties_fall_differently():
    ranks = with_ties_broken(torch.zeros(2, 64), torch.Generator().manual_seed(0))
    assert not torch.equal(ranks[0], ranks[1]) and not torch.equal(ranks[0].argsort(), torch.arange(64))


def test_what_cannot_be_deleted_is_refused():
    model, clips = host_and_clips()
    with pytest.raises(OracleError, match="from 1 to 32 of its 32 tokens, got 0"):
        logits_of_top(model, clips, torch.rand(2, NUM_TOKENS), 0)
    vivit, _ = hosts.vivit()
    with pytest.raises(OracleError, match="select_tokens"):
        logits_of_top(vivit, clips.float(), torch.rand(2, NUM_TOKENS), 4)
    first, _ = hosts.videomae(use_mean_pooling=False)
    with pytest.raises(OracleError, match="reads its first token"):
        logits_of_top(first, clips.float(), torch.rand(2, NUM_TOKENS), 4)
