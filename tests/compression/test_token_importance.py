"""The oracle: closed form against autograd, what each host allows, and the corners where a naive one gives NaN or nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid.compression import OracleError, OracleSettings, oracle_host, oracle_importance
from hf_effvid.compression.oracle_hosts import ZeroGradientError
from hf_effvid.compression.token_importance import mean_head_gradient, stretched

from ..pipelines import hosts


TENSORS = ("block_out", "mlp_out", "mlp_hidden")


def host_and_clips(build=hosts.videomae, batch=2, **changes):
    model, _ = build(**changes)
    model = model.double()
    # dropout would make closed form and autograd two different networks
    model.train()
    frames = hosts.FRAMES
    clips = torch.randn(batch, frames, 3, hosts.SIZE, hosts.SIZE, generator=torch.Generator().manual_seed(1))
    return model, clips.double()


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("label_source", ["true", "predicted"])
def test_closed_form_equals_autograd(tensor, label_source):
    model, clips = host_and_clips(hidden_dropout_prob=0.3)
    assert all(p.abs().max() > 0 for name, p in model.named_parameters() if name.endswith("bias"))
    labels = torch.tensor([3, 5])
    closed, autograd = (
        oracle_importance(model, clips, labels, OracleSettings(-1, tensor, label_source, method))
        for method in ("closed_form", "autograd")
    )
    assert model.training and closed.scores.shape == (2, 32)
    assert closed.scores.max() > 1e-4, "all zero would make the comparison empty"
    torch.testing.assert_close(closed.scores, autograd.scores, rtol=0, atol=1e-10)
    torch.testing.assert_close(closed.targets, autograd.targets, rtol=0, atol=1e-6)
    assert torch.equal(closed.labels, autograd.labels)
    assert torch.equal(closed.labels, labels if label_source == "true" else closed.logits.argmax(-1))


def test_the_gradient_at_the_last_block_is_the_same_for_every_token():
    """The reason for the closed form, and that it holds at the last block alone."""
    from hf_effvid.compression.token_importance import token_gradient

    model, clips = host_and_clips()
    host = oracle_host(model.eval())
    for block, constant in ((1, True), (0, False)):
        _, gradient, _, _ = token_gradient(host, clips, torch.tensor([0, 1]), "true", block, "block_out")
        spread = (gradient - gradient.mean(1, keepdim=True)).abs().max() / gradient.abs().max()
        assert (spread < 1e-12) == constant, (block, spread)


def test_hidden_and_output_of_the_last_mlp_rank_alike_when_nothing_is_cut():
    """S at the hidden activation is S at the output without the output layer's bias: a shift before the ReLU."""
    model, clips = host_and_clips()
    with torch.no_grad():
        oracle_host(model).mlp_out[-1].bias.zero_()
    hidden, out = (
        oracle_importance(model, clips, torch.tensor([0, 1]), OracleSettings(oracle_tensor=tensor)).scores
        for tensor in ("mlp_hidden", "mlp_out")
    )
    torch.testing.assert_close(hidden, out, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 12),
    seed=st.integers(0, 2**31 - 1),
    eps=st.sampled_from([1e-12, 1e-5, 0.1]),
    with_norm=st.booleans(),
)
def test_the_gradient_of_a_mean_head_is_that_of_autograd(size, seed, eps, with_norm):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    norm = nn.LayerNorm(size, eps=eps).double() if with_norm else None
    classifier = nn.Linear(size, 3).double()
    for module in filter(None, (norm, classifier)):
        for parameter in module.parameters():
            parameter.data.copy_(draw(*parameter.shape))
    mean, weights = draw(4, size).requires_grad_(True), draw(4, 3)
    score = (classifier(norm(mean) if norm is not None else mean) * weights).sum()
    (expected,) = torch.autograd.grad(score, mean)
    found = mean_head_gradient(norm, classifier, mean.detach(), weights)
    scale = max(1.0, expected.abs().max().item())
    assert (found - expected).abs().max() < 1e-9 * scale


@pytest.mark.parametrize("build", [hosts.vivit, hosts.timesformer])
@pytest.mark.parametrize("tensor", TENSORS)
def test_a_cls_host_is_refused_at_its_last_block_only(build, tensor):
    model, clips = host_and_clips(build)
    labels = torch.tensor([1, 2])
    with pytest.raises(ZeroGradientError, match="oracle_block to -2"):
        oracle_importance(model, clips, labels, OracleSettings(oracle_tensor=tensor))
    earlier = oracle_importance(model, clips, labels, OracleSettings(oracle_block=-2, oracle_tensor=tensor))
    assert earlier.scores.shape == (2, hosts.FRAMES * 16 // (2 if build is hosts.vivit else 1))
    assert earlier.scores.max() > 0 and earlier.scores.isfinite().all()


@pytest.mark.parametrize("build", [hosts.vivit, hosts.timesformer])
def test_the_gradient_there_really_is_zero(build):
    """By value: what the check by kind stands for."""
    from hf_effvid.compression.token_importance import token_gradient

    model, clips = host_and_clips(build)
    host = oracle_host(model.eval())
    for tensor in TENSORS:
        with pytest.raises(ZeroGradientError, match="exactly 0 at all"):
            token_gradient(host, clips, torch.tensor([0, 1]), "true", len(host.blocks) - 1, tensor)


def test_a_videomae_that_reads_its_first_token_is_refused_too():
    model, clips = host_and_clips(use_mean_pooling=False)
    with pytest.raises(ZeroGradientError, match="reads one token"):
        oracle_importance(model, clips, torch.tensor([1, 2]))
    assert oracle_importance(model, clips, torch.tensor([1, 2]), OracleSettings(oracle_block=0)).scores.max() > 0


def test_v_jepa_reads_its_last_block_through_attention():
    model, clips = host_and_clips(hosts.vjepa2)
    found = oracle_importance(model, clips, torch.tensor([1, 2]))
    assert found.scores.shape[0] == 2 and found.scores.max() > 0
    with pytest.raises(OracleError, match="mean-pool head"):
        oracle_importance(model, clips, torch.tensor([1, 2]), OracleSettings(method="closed_form"))


def test_tokens_of_a_timesformer_come_in_the_order_of_the_others():
    """A change in one patch of one frame changes the score at (t, y, x) most, though TimeSformer itself counts (y, x, t)."""
    model, clips = host_and_clips(hosts.timesformer, batch=1)
    time, row, column = 2, 1, 3
    changed = clips.clone()
    changed[:, time, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 3.0
    options = OracleSettings(oracle_block=0)
    before, after = (oracle_importance(model, one, torch.tensor([4]), options) for one in (clips, changed))
    host = oracle_host(model)
    seen = []
    handle = host.blocks[0].register_forward_hook(lambda _, __, output: seen.append(output[0]))
    for one in (clips, changed):
        host.run(one)
    handle.remove()
    moved = (host.patch_tokens(seen[1] - seen[0], hosts.FRAMES)[0]).norm(dim=-1)
    assert before.scores.shape == after.scores.shape == (1, hosts.FRAMES * 16)
    assert moved.argmax().item() == time * 16 + row * 4 + column


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(2, 5), torch.full((1, 4), 0.3), torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])],
)
def test_stretching_equal_scores_gives_no_nan(scores):
    found = stretched(scores)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    flat = scores.amax(1) == scores.amin(1)
    assert (found[flat] == 0).all() and (found[~flat].amax(1) == 1).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=20), st.floats(0.1, 10))
def test_stretching_keeps_the_order_and_ignores_the_scale(values, factor):
    scores = torch.tensor([values], dtype=torch.float64)
    found = stretched(scores)[0]
    assert found.min() == 0 and found.max() in (0, 1)
    order = scores[0].argsort(stable=True)
    assert (found[order].diff() >= 0).all()
    torch.testing.assert_close(stretched(scores * factor)[0], found, rtol=1e-6, atol=1e-9)


def test_scores_come_in_fp32_and_without_gradients_from_a_host_in_bf16():
    model, _ = hosts.videomae()
    clips = torch.randn(2, hosts.FRAMES, 3, hosts.SIZE, hosts.SIZE).bfloat16()
    for method in ("closed_form", "autograd"):
        found = oracle_importance(model.bfloat16(), clips, torch.tensor([0, 1]), OracleSettings(method=method))
        assert found.scores.dtype == torch.float32 and not found.scores.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_several_labels_are_averaged():
    model, clips = host_and_clips()
    both = torch.zeros(2, hosts.LABELS, dtype=torch.float64)
    both[:, [1, 4]] = 1
    one, autograd = (
        oracle_importance(model, clips, both, OracleSettings(method=method)) for method in ("closed_form", "autograd")
    )
    torch.testing.assert_close(one.scores, autograd.scores, rtol=0, atol=1e-10)
    alone = both.clone()
    alone[:, 4] = 0
    single = oracle_importance(model, clips, torch.tensor([1, 1]))
    torch.testing.assert_close(oracle_importance(model, clips, alone).scores, single.scores)


def test_inside_inference_mode():
    model, clips = host_and_clips()
    with torch.inference_mode():
        found = oracle_importance(model, clips * 1.0, torch.tensor([0, 1]), OracleSettings(oracle_block=0))
    assert found.scores.max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oracle_tensor": "attention"}, "oracle_tensor must be one of block_out, mlp_out, mlp_hidden"),
        ({"label_source": "wrong"}, "label_source must be one of true, predicted, given"),
        ({"method": "magic"}, "method must be one of"),
        ({"oracle_block": 2}, "from -2 to 1, the host has 2 blocks; got 2"),
        ({"oracle_block": 0, "method": "closed_form"}, "mean-pool head"),
        ({"label_source": "given"}, "needs labels"),
    ],
)
def test_impossible_oracles_are_refused(options, message):
    model, clips = host_and_clips()
    with pytest.raises(OracleError, match=message):
        oracle_importance(
            model, clips, None if "given" in options.values() else torch.tensor([0, 1]), OracleSettings(**options)
        )


def test_unknown_hosts_and_labels_are_refused():
    model, clips = host_and_clips()
    with pytest.raises(OracleError, match=r"whole numbers or \(B, K\)"):
        oracle_importance(model, clips, torch.tensor([0, 1, 2]))
    with pytest.raises(OracleError, match="known for videomae, vivit, timesformer, vjepa2"):
        oracle_host(nn.Linear(2, 2))
    model.config.attention_type = "space_only"
    with pytest.raises(OracleError, match="space_only"):
        oracle_host(model)


def test_a_base_videomae_has_the_layout_that_is_read():
    """On the meta device: names, not numbers."""
    with torch.device("meta"):
        host = oracle_host(VideoMAEForVideoClassification(VideoMAEConfig()))
    assert len(host.blocks) == len(host.mlp_out) == 12 and host.mlp_out[0].in_features == 3072
