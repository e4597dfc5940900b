"""Attention in a band: blocks, one masked matrix, and a loop over steps give the same numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.temporal_attention import attend_in_band, attend_to_all, eager_attention


def attend(query, key, value, mask):
    module = torch.nn.Identity().eval()
    return eager_attention(module, query, key, value, mask, scaling=query.shape[-1] ** -0.5)


def attend_sdpa(query, key, value, mask):
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return output.transpose(1, 2), None


def step_by_step(query, key, value, valid, window, bias=None):
    """The definition, one query at a time: (B, T, heads, d)."""
    batch, heads, steps, width = query.shape
    output = torch.zeros(batch, steps, heads, width, dtype=query.dtype)
    for video in range(batch):
        for step in range(steps):
            near = [j for j in range(steps) if abs(j - step) <= window // 2 and valid[video, j]]
            for head in range(heads):
                scores = key[video, head, near] @ query[video, head, step] / math.sqrt(width)
                if bias is not None:
                    scores = scores + bias[head, [j - step + window // 2 for j in near]]
                output[video, step, head] = scores.softmax(0) @ value[video, head, near]
    return output


def make(seed, steps, batch=2, heads=2, width=3):
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(batch, heads, steps, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    lengths[0] = steps
    return states, torch.arange(steps)[None] < lengths[:, None], generator


@settings(max_examples=25, deadline=None)
@given(steps=st.integers(1, 40), radius=st.integers(1, 9), biased=st.booleans(), seed=st.integers(0, 1000))
def test_equals_the_definition_for_any_length(steps, radius, biased, seed):
    states, valid, generator = make(seed, steps)
    window = 2 * radius + 1
    bias = torch.randn(2, window, generator=generator, dtype=torch.float64) if biased else None
    expected = step_by_step(*states, valid, window, bias)
    for dense in (True, False):
        output, _ = attend_in_band(attend, *states, valid, window, bias, dense=dense)
        torch.testing.assert_close(output[valid], expected[valid], rtol=1e-10, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 400), radius=st.integers(1, 150), biased=st.booleans(), seed=st.integers(0, 1000))
def test_blocks_equal_the_masked_matrix(steps, radius, biased, seed):
    states, valid, generator = make(seed, steps)
    window = 2 * radius + 1
    bias = torch.randn(2, window, generator=generator, dtype=torch.float64) if biased else None
    dense, _ = attend_in_band(attend_sdpa, *states, valid, window, bias, dense=True)
    blocks, _ = attend_in_band(attend_sdpa, *states, valid, window, bias, dense=False)
    torch.testing.assert_close(blocks[valid], dense[valid], rtol=1e-10, atol=1e-10)
    assert blocks.isfinite().all() and dense.isfinite().all()


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_are_those_of_the_definition(dense):
    states, valid, generator = make(3, 30)
    bias = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    weights = torch.randn(2, 30, 2, 3, generator=generator, dtype=torch.float64) * valid[:, :, None, None]
    gradients = []
    for function in (
        lambda *inputs: step_by_step(*inputs[:3], valid, 5, inputs[3]),
        lambda *inputs: attend_in_band(attend_sdpa, *inputs[:3], valid, 5, inputs[3], dense=dense)[0],
    ):
        inputs = [value.clone().requires_grad_() for value in (*states, bias)]
        gradients.append(torch.autograd.grad((function(*inputs) * weights).sum(), inputs))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_a_window_wider_than_the_sequence_sees_everything():
    states, valid, _ = make(0, 12)
    everything, _ = attend_to_all(attend, *states, valid)
    in_band, _ = attend_in_band(attend, *states, valid, 25)
    torch.testing.assert_close(in_band[valid], everything[valid])


def test_memory_of_blocks_grows_with_the_length_only():
    """The largest tensor that a function makes, for one length and for four times as much."""

    def largest(steps, dense):
        sizes = []

        def spy(query, key, value, mask):
            sizes.append(mask.numel())
            return attend_sdpa(query, key, value, mask)

        (query, key, value), _, _ = make(0, steps, batch=1, heads=1, width=1)
        attend_in_band(spy, query, key, value, torch.ones(1, steps, dtype=torch.bool), 19, dense=dense)
        return sizes[0]

    assert largest(2048, False) == 4 * largest(512, False)
    assert largest(2048, True) == 16 * largest(512, True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    states, valid, _ = make(1, 300)
    single, _ = attend_in_band(attend_sdpa, *(state.float() for state in states), valid, 9)
    half, _ = attend_in_band(attend_sdpa, *(state.to(dtype) for state in states), valid, 9)
    torch.testing.assert_close(half[valid].float(), single[valid], rtol=0.05, atol=0.05)
