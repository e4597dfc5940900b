"""LITE++: the rule, the gauges and the buckets, as plain arithmetic. What a model does with them: test_adaptive_lite_videomae.py."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import ModelOutput

from hf_effvid.models.budget_gauges import BudgetProbe, confidence_of, pool_embeddings
from hf_effvid.models.selection_scope import SelectionScopeError, check_one_clip, fold_clips, unfold_clips
from hf_effvid.models.token_budget import (
    BudgetPolicy,
    budget_buckets,
    fill_bucket,
    merge_outputs,
    merge_rows,
    published_easy_keep_ratio,
    ratios_per_clip,
    rows_of_batch,
)


# ---- the rule ---------------------------------------------------------------------------------------------------------


def test_the_published_rule():
    policy = BudgetPolicy(low=0.2, high=0.8)
    confidence = torch.tensor([0.0, 0.19, 0.2, 0.5, 0.8, 0.81, 1.0, math.nan], dtype=torch.float64)
    assert policy.is_easy(confidence).tolist() == [True, True, False, False, False, True, True, False]
    for base, easy in ((0.9, 0.3), (0.7, 0.3), (0.5, 0.3), (0.3, 0.2)):
        assert policy.keep_ratios(confidence, base)[:3] == [easy, easy, base]
    with pytest.raises(ValueError, match=r"got 0\.6: set easy_keep_ratio"):
        published_easy_keep_ratio(0.6)
    assert BudgetPolicy(0.2, 0.8, easy_keep_ratio=0.25).keep_ratios([0.9], 0.6) == [0.25]


def test_the_ends_of_the_scale_call_nothing_easy():
    confidence = torch.linspace(0, 1, 21)
    assert not BudgetPolicy(low=0.0, high=1.0).is_easy(confidence).any()


def test_thresholds_between_neighbouring_floats():
    """A threshold in double precision lies between two confidences that differ in the last bit."""
    lower = torch.tensor([0.7])
    upper = torch.nextafter(lower, torch.ones(1))
    middle = (float(lower.double()) + float(upper.double())) / 2
    policy = BudgetPolicy(low=0.0, high=middle)
    assert policy.is_easy(torch.cat([lower, upper])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 0.5, "high": 0.4}, "0 <= low <= high <= 1"),
        ({"low": 20, "high": 80}, "0 <= low <= high <= 1"),
        ({"low": 0.1, "high": 0.9, "easy_keep_ratio": 0}, "easy_keep_ratio must be a number in"),
        ({"low": 0.1, "high": 0.9, "easy_keep_ratio": True}, "easy_keep_ratio must be a number in"),
        ({"low": 0.1, "high": 0.9, "gauge": "movinet"}, "gauge must be one of"),
        ({"low": 0.1, "high": 0.9, "probe_pooling": "max"}, "probe_pooling must be one of"),
        ({"low": 0.1, "high": 0.9, "bucket_multiple": 0}, "bucket_multiple must be"),
    ],
)
def test_policies_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        BudgetPolicy(**fields)


def test_an_easy_budget_above_the_base_budget():
    with pytest.raises(ValueError, match=r"easy_keep_ratio=0\.6 is above keep_ratio=0\.5"):
        BudgetPolicy(0.1, 0.9, easy_keep_ratio=0.6).easy_ratio(0.5)


def test_a_policy_survives_a_configuration():
    policy = BudgetPolicy(0.1, 0.9, easy_keep_ratio=0.2, gauge="cascade", bucket_multiple=4)
    assert BudgetPolicy(**policy.to_dict()) == policy


# ---- buckets ----------------------------------------------------------------------------------------------------------

RATIOS = st.lists(st.sampled_from([0.2, 0.3, 0.5, 1.0]), min_size=1, max_size=9)


@dataclass
class Answer(ModelOutput):
    logits: torch.Tensor | None = None
    token_scores: torch.Tensor | None = None
    kept_indices: torch.Tensor | None = None
    realised_keep_ratio: torch.Tensor | None = None
    hidden_states: tuple | None = None
    attentions: tuple | None = None


def answer(clips, ratio):
    """What a model could say about clips (B, 10) at one ratio: every line depends on its clip and the ratio alone."""
    k = math.floor(round(ratio * 10, 6))
    kept = clips.topk(k, dim=1).indices.sort(dim=1).values
    return Answer(
        logits=torch.stack([clips.gather(1, kept).sum(1), clips[:, 0] * ratio], dim=1),
        token_scores=None if ratio == 1 else clips,
        kept_indices=kept,
        realised_keep_ratio=torch.full((len(clips),), k / 10),
    )


@settings(max_examples=60, deadline=None)
@given(RATIOS, st.integers(1, 4), st.integers(0, 99))
def test_buckets_are_the_loop_over_clips(ratios, multiple, seed):
    clips = torch.randn(len(ratios), 10, generator=torch.Generator().manual_seed(seed))
    parts = []
    for ratio, rows in budget_buckets(ratios):
        filled = fill_bucket(rows, multiple)
        assert len(filled) % multiple == 0 and filled[: len(rows)] == rows and set(filled) == set(rows)
        parts.append((rows, answer(rows_of_batch(filled, clips, None)[0], ratio)))
    assert sorted(row for rows, _ in parts for row in rows) == list(range(len(ratios)))
    merged = merge_outputs(parts, len(ratios))
    assert merged.logits.shape == (len(ratios), 2)
    for row, ratio in enumerate(ratios):
        alone = answer(clips[row : row + 1], ratio)
        assert torch.equal(merged.logits[row], alone.logits[0])
        assert merged.realised_keep_ratio[row] == alone.realised_keep_ratio[0]
        kept = merged.kept_indices[row]
        assert torch.equal(kept[kept >= 0], alone.kept_indices[0])
        assert (kept[alone.kept_indices.shape[1] :] == -1).all()
        if merged.token_scores is not None:
            assert torch.equal(merged.token_scores[row], clips[row]) != (ratio == 1)
            assert bool(merged.token_scores[row].isnan().all()) == (ratio == 1)


def test_one_bucket_is_left_as_it_is():
    output = answer(torch.randn(3, 10), 0.5)
    output.hidden_states = (torch.zeros(3, 5, 2),)
    assert merge_outputs([([0, 1, 2], output)], 3) is output


def test_hidden_states_of_several_lengths_are_refused():
    clips = torch.randn(2, 10)
    parts = [([0], answer(clips[:1], 0.3)), ([1], answer(clips[1:], 0.5))]
    parts[1][1].hidden_states = (torch.zeros(1, 5, 2),)
    with pytest.raises(ValueError, match="no common hidden states or attentions"):
        merge_outputs(parts, 2)


def test_later_parts_win_and_leave_no_trace_of_earlier_ones():
    """A cascade answers twice: the second answer of a clip replaces the first, also where it is shorter."""
    first = torch.arange(6).reshape(2, 3)
    merged = merge_rows([([0, 1], first), ([1], torch.tensor([[7, 8]]))], 2, -1)
    assert merged.tolist() == [[0, 1, 2], [7, 8, -1]]


def test_ratios_per_clip():
    assert ratios_per_clip([0.7, 0.3], 2) == [0.7, 0.3]
    assert ratios_per_clip(torch.tensor([0.7, 0.3]), 2) == [0.7, 0.3]
    assert ratios_per_clip(torch.tensor([0.7], dtype=torch.float64), 1) == [0.7]
    with pytest.raises(ValueError, match="or 3, one per clip, got 2"):
        ratios_per_clip([0.5, 0.5], 3)
    with pytest.raises(ValueError, match="keep_ratio of clip 1 must be a number in"):
        budget_buckets([0.5, 1.5])


def test_extras_of_some_rows():
    clips = torch.randn(3, 4)
    extras = {"oracle": torch.arange(12).reshape(3, 4), "position_prior": torch.arange(3), "confidence": torch.ones(3)}
    cut, own = rows_of_batch([2, 0, 0], clips, extras)
    assert torch.equal(cut, clips[[2, 0, 0]])
    assert own.keys() == {"oracle", "position_prior"}
    assert own["oracle"][:, 0].tolist() == [8, 0, 0] and own["position_prior"] is extras["position_prior"]


# ---- gauges -----------------------------------------------------------------------------------------------------------


def test_confidence_is_the_largest_probability_in_single_precision():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]], dtype=torch.bfloat16)
    assert confidence_of(logits).dtype == torch.float32
    torch.testing.assert_close(confidence_of(logits), torch.tensor([0.5, 0.75]), atol=2e-3, rtol=0)


def test_a_probe_sees_mean_and_deviation_of_the_embeddings():
    embeddings = torch.randn(3, 7, 5)
    pooled = pool_embeddings(embeddings)
    torch.testing.assert_close(pooled[:, :5], embeddings.mean(1))
    torch.testing.assert_close(pooled[:, 5:], ((embeddings - embeddings.mean(1, keepdim=True)) ** 2).mean(1).sqrt())
    probe = BudgetProbe(5, 4)
    torch.testing.assert_close(probe(embeddings), pooled @ probe.weight.T + probe.bias)
    assert BudgetProbe(5, 4, "mean")(embeddings).shape == (3, 4)
    half = BudgetProbe(5, 4).to(torch.bfloat16)
    assert half(embeddings.bfloat16()).dtype == torch.float32
    permuted = embeddings[:, torch.randperm(7)]
    torch.testing.assert_close(probe(permuted), probe(embeddings))


# ---- one clip at a time -----------------------------------------------------------------------------------------------


def test_selection_over_a_window_is_refused():
    config = type("Config", (), {"num_frames": 16})()
    check_one_clip(config, 16)
    with pytest.raises(SelectionScopeError, match=r"within one clip of 16 frames, got 64 frames.*fold_clips"):
        check_one_clip(config, 64)
    check_one_clip(type("Config", (), {})(), 64)  # a host that says nothing of its clips
    with pytest.raises(SelectionScopeError):
        check_one_clip(type("Config", (), {"frames_per_clip": 8})(), 16)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_windows_fold_into_clips_and_back(windows, clips, frames):
    pixels = torch.randn(windows, clips * frames, 3, 2, 2)
    folded, num_clips = fold_clips(pixels, frames)
    assert folded.shape == (windows * clips, frames, 3, 2, 2) and num_clips == clips
    assert torch.equal(folded[0], pixels[0, :frames])
    assert torch.equal(unfold_clips(folded, num_clips).flatten(1, 2), pixels)


def test_a_window_of_no_whole_number_of_clips():
    with pytest.raises(SelectionScopeError, match="40 frames is no whole number of clips of 16"):
        fold_clips(torch.zeros(1, 40, 3, 2, 2), 16)
