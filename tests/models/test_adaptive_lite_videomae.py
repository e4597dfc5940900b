"""LITE++ in a model: every clip gets the answer that it would get alone at its own budget, whichever gauge decides."""

import pytest
import torch
from transformers import VideoMAEForVideoClassification

from hf_effvid import EffVidVideoProcessor, LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.models.budget_gauges import BudgetProbe, confidence_of
from hf_effvid.models.difficulty_gauge import VideoDifficultyGauge
from hf_effvid.models.selection_scope import SelectionScopeError, fold_clips, unfold_clips
from hf_effvid.models.token_budget import BudgetPolicy

from .lite_hosts import HOSTS, lite_of, make_clips


def tiny_model(scorer="embedding_norm", seed=0, **fields):
    """Four blocks over 4 x 4 x 4 tokens; no bias is zero, logits differ between clips."""
    config = LiteVideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=8,
        tubelet_size=2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=5,
        keep_ratio=0.5,
        scorer=scorer,
        selector_trained=True,
        **fields,
    )
    torch.manual_seed(seed)
    model = LiteVideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.classifier.weight.mul_(3)
    return model


@pytest.fixture
def clips():
    return torch.randn(6, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def loop(model, clips, ratios, **kwargs):
    """The clips one by one."""
    return [model(clip[None], keep_ratio=ratio, **kwargs) for clip, ratio in zip(clips, ratios, strict=True)]


def assert_same(output, alone):
    """A mixed output against one output per clip."""
    torch.testing.assert_close(output.logits, torch.cat([one.logits for one in alone]), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(output.realised_keep_ratio, torch.cat([one.realised_keep_ratio for one in alone]))
    for row, one in zip(output.kept_indices, alone, strict=True):
        assert torch.equal(row[row >= 0], one.kept_indices[0])
    widest = max(one.kept_indices.shape[1] for one in alone)
    assert output.kept_indices.shape == (len(alone), widest)


@pytest.mark.parametrize("scorer", ["random", "grid", "embedding_norm", "frame_difference", "lite"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_mixed_budgets_are_the_loop(clips, scorer, attention):
    model = tiny_model(scorer)
    model.set_attn_implementation(attention)
    ratios = [0.3, 0.5, 1.0, 0.3, 0.2, 0.5]
    with torch.no_grad():
        output = model(clips, keep_ratio=ratios)
    assert_same(output, loop(model, clips, ratios))
    assert output.realised_keep_ratio.tolist() == pytest.approx([19 / 64, 0.5, 1.0, 19 / 64, 12 / 64, 0.5])
    with torch.no_grad():
        given = model(clips, keep_ratio=torch.tensor(ratios))
    assert torch.equal(given.logits, output.logits)


def test_extras_follow_their_clips(clips):
    model, values = tiny_model("oracle"), torch.randn(6, 64)
    ratios = [0.3, 0.5, 0.3, 0.5, 0.5, 0.3]
    with torch.no_grad():
        output = model(clips, keep_ratio=ratios, selection_extras={"oracle": values})
        alone = [
            model(clip[None], keep_ratio=ratio, selection_extras={"oracle": value[None]})
            for clip, ratio, value in zip(clips, ratios, values, strict=True)
        ]
    assert_same(output, alone)
    prior = torch.randn(64)
    with torch.no_grad():
        output = model(clips, keep_ratio=ratios, scorer="position_prior", selection_extras={"position_prior": prior})
    assert_same(
        output, loop(model, clips, ratios, scorer="position_prior", selection_extras={"position_prior": prior})
    )


def test_the_loss_is_that_of_the_whole_batch(clips):
    model, labels = tiny_model(), torch.tensor([0, 1, 2, 3, 4, 0])
    mixed = model(clips, labels=labels, keep_ratio=[0.5, 0.3] * 3)
    torch.testing.assert_close(mixed.loss, torch.nn.functional.cross_entropy(mixed.logits, labels))
    mixed.loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0
    same = model(clips, labels=labels, keep_ratio=[0.5] * 6)
    torch.testing.assert_close(same.loss, model(clips, labels=labels, keep_ratio=0.5).loss)


def test_hidden_states_of_mixed_budgets_are_refused(clips):
    model = tiny_model()
    with pytest.raises(ValueError, match="no common hidden states or attentions"):
        model(clips, keep_ratio=[0.5, 0.3] * 3, output_hidden_states=True)
    states = model(clips, keep_ratio=[0.5] * 6, output_hidden_states=True).hidden_states
    assert states[-1].shape == (6, 32, 32)


def test_a_tuple_instead_of_an_output(clips):
    model = tiny_model()
    with torch.no_grad():
        logits = model(clips, keep_ratio=[0.5, 0.3] * 3, return_dict=False)[0]
        assert torch.equal(logits, model(clips, keep_ratio=[0.5, 0.3] * 3).logits)


# ---- gauges -----------------------------------------------------------------------------------------------------------


def middle(confidence):
    """A policy's thresholds that part confidences: a third hopeless, a third easy."""
    values = confidence.double().sort().values
    third = len(values) // 3
    return {
        "low": float((values[third - 1] + values[third]) / 2),
        "high": float((values[-third - 1] + values[-third]) / 2),
    }


def assert_follows(model, clips, confidence, policy, **kwargs):
    """The policy's output is that of the loop over the budgets that the rule gives for these confidences."""
    with torch.no_grad():
        output = model(clips, **kwargs)
    ratios = policy.keep_ratios(confidence, 0.5)
    assert sorted(set(ratios)) == [0.3, 0.5] and ratios.count(0.3) == 4
    assert_same(output, loop(model, clips, ratios))


def test_a_probe_decides_and_is_saved_with_the_model(tmp_path, clips):
    model = tiny_model()
    probe = BudgetProbe(32, 5)
    with torch.no_grad():
        probe.weight.copy_(torch.randn(5, 64, generator=torch.Generator().manual_seed(3)))
        confidence = confidence_of(probe(model.embed_patches(clips)))
    policy = BudgetPolicy(**middle(confidence), gauge="probe")
    model.set_budget_policy(policy, probe=probe)
    torch.testing.assert_close(model.gauge_confidence(clips), confidence)
    assert_follows(model, clips, confidence, policy)
    # one number for all clips overrules the policy, and training goes without it
    with torch.no_grad():
        assert model(clips, keep_ratio=0.5).kept_indices.shape == (6, 32)
        assert model.train()(clips).kept_indices.shape == (6, 32)
        wanted = model.eval()(clips).logits
    model.save_pretrained(tmp_path)
    loaded, info = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert BudgetPolicy(**loaded.config.budget_policy) == policy
    with torch.no_grad():
        assert torch.equal(loaded.eval()(clips).logits, wanted)
    # the stock class still opens it, with the probe and the selector left over
    stock, info = VideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert {name.split(".")[0] for name in info["unexpected_keys"]} == {"selector", "budget_probe"}
    with torch.no_grad():
        torch.testing.assert_close(stock.eval()(clips).logits, model(clips, keep_ratio=1.0).logits)
    model.set_budget_policy(None)
    assert model.config.budget_policy is None and "budget_probe.weight" not in model.state_dict()


@pytest.mark.parametrize("scorer", ["embedding_norm", "random", "lite"])
def test_the_probe_reads_what_the_host_embeds_anyway(clips, scorer):
    """One patch embedding for the gauge, the scorer and both buckets."""
    model = tiny_model(scorer)
    torch.manual_seed(3)
    model.set_budget_policy(BudgetPolicy(0.0, 0.3), probe=BudgetProbe(32, 5))
    confidence = model.gauge_confidence(clips)
    policy = BudgetPolicy(0.0, float(confidence.median()))
    model.set_budget_policy(policy)
    embedded = []
    patch_embedding = model.get_input_embeddings().projection
    handle = patch_embedding.register_forward_hook(lambda *call: embedded.append(len(call[1][0])))
    with torch.no_grad():
        output = model(clips)
    handle.remove()
    assert embedded == [6]
    assert_same(output, loop(model, clips, policy.keep_ratios(confidence, 0.5)))


def test_a_cascade_asks_the_small_budget_first(clips):
    model = tiny_model()
    with torch.no_grad():
        confidence = confidence_of(model(clips, keep_ratio=0.3).logits)
    policy = BudgetPolicy(**middle(confidence), gauge="cascade")
    model.set_budget_policy(policy)
    assert model.gauge_confidence(clips) is None
    assert_follows(model, clips, confidence, policy)
    # all easy, none easy
    model.set_budget_policy(BudgetPolicy(low=1.0, high=1.0, gauge="cascade"))
    with torch.no_grad():
        assert torch.equal(model(clips).logits, model(clips, keep_ratio=0.3).logits)
    model.set_budget_policy(BudgetPolicy(low=0.0, high=1.0, gauge="cascade"))
    with torch.no_grad():
        output = model(clips)
        torch.testing.assert_close(output.logits, model(clips, keep_ratio=0.5).logits)
    assert output.kept_indices.min() >= 0


def test_another_classifier_decides_and_stays_outside(tmp_path, clips):
    model, other = tiny_model(), tiny_model(seed=7)
    other.config.keep_ratio = 1.0
    recipe = {"crop_size": 32, "num_frames": 8}
    own = EffVidVideoProcessor(image_mean=[0.5] * 3, image_std=[0.3] * 3, **recipe)
    gauge = VideoDifficultyGauge(other, own, EffVidVideoProcessor(image_mean=[0.4] * 3, image_std=[0.2] * 3, **recipe))
    confidence = gauge(clips)
    with torch.no_grad():
        pixels = (clips * 0.2 + 0.4 - 0.5) / 0.3
        torch.testing.assert_close(confidence, confidence_of(other(pixels).logits))
    policy = BudgetPolicy(**middle(confidence), gauge="model")
    before = set(model.state_dict())
    model.set_budget_policy(policy, gauge=gauge)
    assert set(model.state_dict()) == before
    assert_follows(model, clips, confidence, policy)
    model.save_pretrained(tmp_path)
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path).eval()
    with pytest.raises(ValueError, match="a classifier that is not part of it"):
        loaded(clips)
    assert_follows(loaded, clips, confidence, policy, selection_extras={"confidence": confidence})
    with pytest.raises(ValueError, match=r"one number per clip, \(6,\), got \(3,\)"):
        loaded(clips, selection_extras={"confidence": confidence[:3]})


def test_buckets_of_a_few_sizes_only(clips, monkeypatch):
    """Filled up to a multiple, so that a compiled model meets few shapes; the numbers stay."""
    model = tiny_model()
    confidence = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.9, 0.5])
    seen = []
    encode = model.videomae.encoder.forward
    monkeypatch.setattr(
        model.videomae.encoder, "forward", lambda x, **kw: seen.append(tuple(x.shape[:2])) or encode(x, **kw)
    )
    model.set_budget_policy(BudgetPolicy(low=0.0, high=0.8, gauge="model", bucket_multiple=4))
    with torch.no_grad():
        output = model(clips, selection_extras={"confidence": confidence})
        assert seen == [(4, 19), (4, 32)]
        assert_same(output, loop(model, clips, [0.3, 0.5, 0.5, 0.5, 0.3, 0.5]))
        seen.clear()
        model.set_budget_policy(BudgetPolicy(low=0.0, high=1.0, gauge="cascade", bucket_multiple=4))
        assert_same(model(clips), loop(model, clips, [0.5] * 6))
        assert seen[:2] == [(8, 19), (8, 32)]


@pytest.mark.parametrize(
    ("policy", "arguments", "message"),
    [
        (BudgetPolicy(0.2, 0.8), {}, "needs the trained probe"),
        (BudgetPolicy(0.2, 0.8, easy_keep_ratio=0.7, gauge="cascade"), {}, "is above keep_ratio"),
    ],
)
def test_policies_that_do_not_fit_the_model(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().set_budget_policy(policy, **arguments)


def test_a_configuration_with_a_policy_that_makes_no_sense():
    with pytest.raises(Exception, match="0 <= low <= high <= 1"):
        LiteVideoMAEConfig(budget_policy={"low": 0.9, "high": 0.1})


# ---- windows of a detector --------------------------------------------------------------------------------------------


def test_a_window_is_folded_into_clips_or_refused(clips):
    model = tiny_model()
    windows = torch.cat([clips[:3], clips[3:]], dim=1)  # (3, 16, ...)
    with pytest.raises(SelectionScopeError, match="within one clip of 8 frames, got 16"):
        model(windows)
    with pytest.raises(SelectionScopeError):
        model.videomae(windows)
    folded, num_clips = fold_clips(windows, model.config.num_frames)
    with torch.no_grad():
        logits = unfold_clips(model(folded).logits, num_clips)
        assert logits.shape == (3, 2, 5)
        torch.testing.assert_close(logits[:, 1], model(clips[3:]).logits)


# ---- compiled ---------------------------------------------------------------------------------------------------------


def test_one_graph_per_budget(clips):
    """Which clips get which budget changes with every batch; what is compiled does not."""
    model, graphs = tiny_model(), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, dynamic=False, backend=count)
    with torch.no_grad():
        for ratios in ([0.3, 0.5] * 3, [0.5, 0.3] * 3, [0.3] * 3 + [0.5] * 3):
            mixed = compiled(clips, keep_ratio=torch.tensor(ratios)).logits
            torch.testing.assert_close(mixed, model(clips, keep_ratio=ratios).logits)
            assert len(graphs) == 2
        model.set_budget_policy(BudgetPolicy(low=0.0, high=0.8, gauge="model"))
        for confidence in ([0.9, 0.5] * 3, [0.5, 0.9] * 3):
            compiled(clips, selection_extras={"confidence": torch.tensor(confidence)})
        assert len(graphs) == 2


# ---- other hosts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_has_budgets_per_clip(name):
    host, pixels = HOSTS[name], make_clips(batch=4)
    model = lite_of(host, host.build(), keep_ratio=0.7, scorer="embedding_norm").eval()
    name = model.main_input_name

    def alone(ratios):
        return [model(**{name: clip[None]}, keep_ratio=ratio) for clip, ratio in zip(pixels, ratios, strict=True)]

    with torch.no_grad():
        ratios = [0.7, 0.3, 0.3, 0.7]
        assert_same(model(**{name: pixels}, keep_ratio=ratios), alone(ratios))
        probe = BudgetProbe(model.config.hidden_size, model.config.num_labels)
        confidence = confidence_of(probe(model.embed_patches(pixels)))
        policy = BudgetPolicy(0.0, float(confidence.median()))
        model.set_budget_policy(policy, probe=probe)
        ratios = policy.keep_ratios(confidence, 0.7)
        assert sorted(ratios)[0] == 0.3 and sorted(ratios)[-1] == 0.7
        assert_same(model(**{name: pixels}), alone(ratios))
        longer = torch.cat([pixels, pixels], dim=1)
        with pytest.raises((SelectionScopeError, ValueError), match="8"):
            model(**{name: longer}, keep_ratio=0.5)
