"""VideoMAE that merges: nothing changes at r = 0, and every count is the one that the formula names."""

import copy

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel

from hf_effvid.evaluation.macs import count_macs
from hf_effvid.models.configuration_lite_videomae import LiteVideoMAEConfig
from hf_effvid.models.merging_videomae import block_reductions, merge_tokens, patch_grid, restore_tokens, token_counts
from hf_effvid.models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from hf_effvid.models.token_merging_cost import merging_gmacs, r_for_macs, selection_gmacs


BASE = VideoMAEConfig(num_labels=400)
METHODS = {"tome": 5, "sta": 3, "vid_tldr": (20, 8, 4)}


def tiny_config(**changes):
    settings = dict(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=40, image_size=32, patch_size=8,
        num_frames=8, num_labels=5, initializer_range=0.2,
    )  # fmt: skip
    return VideoMAEConfig(**settings | changes)


def tiny_model(seed=0, **changes):
    torch.manual_seed(seed)
    model = VideoMAEForVideoClassification(tiny_config(**changes)).eval()
    with torch.no_grad():  # biases that are zero hide that they were lost
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def states(model, clips, **kwargs):
    with torch.no_grad():
        return model(clips, output_hidden_states=True, **kwargs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_no_reduction_is_the_stock_model_bit_for_bit(method, attention, clips):
    model = tiny_model(attn_implementation=attention)
    expected = states(model, clips)
    merged = states(merge_tokens(model, method, 0), clips)
    assert torch.equal(merged.logits, expected.logits)
    assert all(torch.equal(a, b) for a, b in zip(merged.hidden_states, expected.hidden_states, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_tokens_become_fewer_as_counted(method, clips):
    model = merge_tokens(tiny_model(), method, METHODS[method])
    lengths = [state.shape[1] for state in states(model, clips).hidden_states[1:]]
    counts = token_counts(64, block_reductions(model.config, method, METHODS[method]))
    assert lengths == [after for _, _, after in counts] and lengths[-1] < 64
    last = model.videomae(clips).last_hidden_state
    assert last.shape[1] == (lengths[-1] if method == "sta" else 64)


@pytest.mark.parametrize("method", METHODS)
def test_the_batch_changes_nothing(method, clips):
    model = merge_tokens(tiny_model(), method, METHODS[method])
    with torch.no_grad():
        together, alone = model(clips).logits, torch.cat([model(clip[None]).logits for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_equal_tokens_merge_without_loss(clips):
    # without positions, patches of a clip whose right half repeats the left come in equal pairs: at positions 2i and 2i + 1
    # once the columns are interleaved. Merged by size, with proportional attention, nothing is lost: ToMe's claim exactly.
    model = tiny_model(num_hidden_layers=2).double()
    model.videomae.embeddings.position_embeddings.zero_()
    clips = clips.double().repeat_interleave(1, 0)
    doubled = clips.clone()
    for column in (1, 3):
        doubled[..., 8 * column : 8 * column + 8] = doubled[..., 8 * (column - 1) : 8 * column]
    with torch.no_grad():
        expected = model(doubled).logits
        merged = merge_tokens(model, "tome", [32, 0])(doubled).logits
        plain = merge_tokens(model, "tome", [32, 0], proportional_attention=False)(doubled).logits
        half = merge_tokens(model, "tome", [16, 0])(doubled)
        half_plain = merge_tokens(model, "tome", [16, 0], proportional_attention=False)(doubled)
    torch.testing.assert_close(merged, expected, rtol=1e-6, atol=1e-6)
    # all sizes are 2: a common factor of all keys falls out of the softmax
    torch.testing.assert_close(plain, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(half.logits, expected, rtol=1e-6, atol=1e-6)
    assert (half_plain.logits - expected).abs().max() > 1e-3


def test_proportional_attention_in_eager_and_sdpa_is_the_same(clips):
    results = {}
    for attention in ("eager", "sdpa"):
        model = merge_tokens(tiny_model(attn_implementation=attention), "tome", 9)
        results[attention] = states(model, clips).logits
    torch.testing.assert_close(results["eager"], results["sdpa"], rtol=1e-4, atol=1e-4)


def test_attention_that_takes_no_bias_is_refused(clips):
    model = merge_tokens(tiny_model(), "tome", 9)
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="proportional attention needs"):
        model(clips)


def test_restored_it_is_the_stock_model(clips):
    model = tiny_model()
    expected, keys = states(model, clips).logits, list(model.state_dict())
    merge_tokens(model, "tome", 9)
    assert list(model.state_dict()) == keys and not torch.equal(states(model, clips).logits, expected)
    copied = copy.deepcopy(model)
    assert torch.equal(states(restore_tokens(model), clips).logits, expected)
    assert not torch.equal(states(copied, clips).logits, expected)
    first = states(merge_tokens(model, "sta", 2), clips).logits
    assert torch.equal(states(merge_tokens(merge_tokens(model, "tome", 9), "sta", 2), clips).logits, first)


def test_it_is_saved_as_the_plain_model_that_it_is(clips, tmp_path):
    model = tiny_model()
    expected = states(model, clips).logits
    merge_tokens(model, "tome", 9).save_pretrained(tmp_path)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(states(again, clips).logits, expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(clips, checkpointing):
    model = tiny_model().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    merge_tokens(model, "tome", 9)(clips, labels=torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_attentions_are_recorded_at_their_own_sizes(clips):
    model = merge_tokens(tiny_model(attn_implementation="eager"), "tome", 9)
    recorded = model(clips, output_attentions=True).attentions
    assert [one.shape[-1] for one in recorded] == [64, 55, 46, 37]


def test_after_selection(clips):
    """ToMe merges whatever tokens were kept; STA needs whole frames, and says so even where the number would divide."""
    settings = tiny_config().to_diff_dict() | {"keep_ratio": 0.5, "scorer": "random"}
    model = LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**settings)).eval()
    expected = states(model, clips)
    assert torch.equal(states(merge_tokens(model, "tome", 0), clips).logits, expected.logits)
    merged = states(merge_tokens(model, "tome", 5), clips)
    assert torch.equal(merged.kept_indices, expected.kept_indices)
    assert [state.shape[1] for state in merged.hidden_states] == [32, 27, 22, 17, 12]
    with pytest.raises(ValueError, match="needs all 64 tokens of a clip, got 32"):
        merge_tokens(model, "sta", 2)(clips)
    assert merge_tokens(model, "sta", 2)(clips, keep_ratio=1.0).logits.shape == (2, 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_one_graph_for_the_compiler(method, clips):
    model = merge_tokens(tiny_model(), method, METHODS[method])
    with torch.no_grad():
        expected = model(clips).logits
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)(clips).logits
    torch.testing.assert_close(compiled, expected)


def test_the_backbone_alone_and_other_models():
    merge_tokens(VideoMAEModel(tiny_config()), "tome", 3)
    with pytest.raises(ValueError, match="expected a VideoMAE"):
        merge_tokens(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("method", "r", "message"),
    [
        ("drop", 1, "method must be one of"),
        ("tome", -1, ">= 0"),
        ("tome", [1, 2], "4 blocks"),
        ("sta", [1, 2], "one number"),
        ("sta", 10, "at most 9"),
        ("vid_tldr", [1] * 5, "4 blocks"),
    ],
)
def test_what_does_not_fit_is_refused(method, r, message):
    with pytest.raises(ValueError, match=message):
        block_reductions(tiny_config(), method, r)
    with pytest.raises(ValueError, match="STA needs"):
        block_reductions(tiny_config(num_frames=4), "sta", 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_formula_counts_what_the_counter_counts(method):
    model = merge_tokens(tiny_model(), method, METHODS[method])
    counted = count_macs(model, {"pixel_values": torch.zeros(1, 8, 3, 32, 32)})
    assert counted.uncounted == ()
    assert counted.total == pytest.approx(merging_gmacs(model.config, method, METHODS[method]) * 1e9, abs=0.5)


@pytest.mark.parametrize(
    ("method", "r", "gmacs"),
    [
        ("tome", 0, 180.345), ("tome", 65, 128.9), ("tome", 118, 91.8), ("tome", 127, 86.2), ("tome", 150, 74.1),
        ("sta", 16, 157.7), ("sta", 32, 136.1), ("sta", 48, 115.7), ("sta", 64, 96.4), ("sta", 80, 78.2),
    ],
)  # fmt: skip
def test_known_costs_of_videomae_base(method, r, gmacs):
    assert merging_gmacs(BASE, method, r, matching=False) == pytest.approx(gmacs, abs=0.05)
    with_search = merging_gmacs(BASE, method, r)
    assert 0 <= with_search - merging_gmacs(BASE, method, r, matching=False) < 1
    assert r_for_macs(BASE, method, with_search) == r


@pytest.fixture(scope="module")
def base_on_meta():
    with torch.device("meta"):
        return VideoMAEForVideoClassification(BASE)


@pytest.mark.parametrize(
    ("keep_ratio", "kept", "gmacs"),
    [(1, 1568, 180.345), (0.9, 1411, 158.389), (0.7, 1097, 117.204), (0.5, 784, 79.768), (0.3, 470, 45.841)],
)
def test_known_costs_of_selection(base_on_meta, keep_ratio, kept, gmacs):
    """The paper prints these rounded up: 181, 159, 118, 80, 46. By the formula, and by the counter with k of 1568 tokens kept."""
    assert selection_gmacs(BASE, keep_ratio) == pytest.approx(gmacs, abs=1e-3)
    counted = count_macs(
        KeepsTheFirst(base_on_meta, kept), {"pixel_values": torch.empty(1, 16, 3, 224, 224, device="meta")}
    )
    assert counted.uncounted == ()
    assert counted.gmacs == pytest.approx(selection_gmacs(BASE, keep_ratio), rel=1e-9)


class KeepsTheFirst(torch.nn.Module):
    """A stock VideoMAE whose blocks see the first k tokens: a count needs no more."""

    def __init__(self, model, kept):
        super().__init__()
        self.model, self.kept = model, kept

    def forward(self, pixel_values):
        embeddings = self.model.videomae.embeddings.patch_embeddings(pixel_values)
        states = self.model.videomae.encoder(embeddings[:, : self.kept]).last_hidden_state
        return self.model.classifier(self.model.fc_norm(states.mean(1)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [117.204, 79.768, 45.841])
def test_r_for_equal_costs(method, budget):
    r = r_for_macs(BASE, method, budget)
    assert merging_gmacs(BASE, method, r) == pytest.approx(budget, rel=0.01)


def test_a_budget_out_of_reach_is_refused():
    with pytest.raises(ValueError, match="reaches"):
        r_for_macs(BASE, "sta", 30.0)
    with pytest.raises(ValueError, match="reaches"):
        r_for_macs(BASE, "tome", 190.0)


def test_rectangular_patches_have_a_grid():
    assert patch_grid(VideoMAEConfig(image_size=(64, 32), patch_size=(8, 16))) == (8, 8, 2)
