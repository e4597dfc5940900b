"""ViViT, V-JEPA 2 and TimeSformer that read a share of their tokens: exact against stock models that see everything."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import TimesformerForVideoClassification
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2RopeAttention

from hf_effvid.models.modeling_lite_timesformer import LiteTimesformerModel, host_order, tube_indices
from hf_effvid.models.modeling_lite_vivit import LiteVivitModel
from hf_effvid.models.modeling_lite_vjepa2 import LiteVJEPA2Model
from hf_effvid.models.selection_scope import SelectionScopeError
from hf_effvid.models.token_budget import BudgetPolicy
from hf_effvid.models.token_selection import TokenGrid, TokenSelectionError
from hf_effvid.pipelines import interpolate_positions

from ..pipelines.hosts import randomise
from .lite_hosts import FRAMES, HOSTS, PATCH, SIZE, lite_of, make_clips


BASES = {"vivit": LiteVivitModel, "vjepa2": LiteVJEPA2Model, "timesformer_divided": LiteTimesformerModel}


@pytest.fixture(params=HOSTS)
def name(request):
    return request.param


@pytest.fixture
def host(name):
    return HOSTS[name]


@pytest.fixture
def stock(host):
    return host.build()


# --- all tokens ---


def test_all_tokens_are_the_stock_model_bit_for_bit(host, stock):
    lite = lite_of(host, stock, scorer="random")
    asked = {"output_hidden_states": True, "output_attentions": True}
    for model in (stock, lite):
        with contextlib.suppress(ValueError):  # TimeSformer has one attention, which is eager
            model.set_attn_implementation("eager")
    with torch.no_grad():
        expected, given = stock(make_clips(), **asked), lite(make_clips(), **asked)
    assert torch.equal(given.logits, expected.logits)
    for field in ("hidden_states", "attentions"):
        states, wanted = getattr(given, field), getattr(expected, field)
        assert len(states) == len(wanted) > 0
        assert all(torch.equal(one, other) for one, other in zip(states, wanted, strict=True))
    num_tokens = TokenGrid(*host.grid()).num_tokens
    assert torch.equal(given.kept_indices, torch.arange(num_tokens).expand(3, -1))
    assert given.token_scores is None
    assert torch.equal(given.realised_keep_ratio, torch.ones(3))


# --- some tokens ---


@pytest.mark.parametrize("scorer", ["random", "embedding_difference", "lite"])
@pytest.mark.parametrize("keep_ratio", [0.7, 0.25])
def test_dropped_tokens_leave_no_trace(host, stock, scorer, keep_ratio):
    lite, clips = lite_of(host, stock, keep_ratio=keep_ratio, scorer=scorer), make_clips()
    with torch.no_grad():
        given = lite(clips)
        expected = host.reference(stock, clips, given.kept_indices, host.grid()).logits
        torch.testing.assert_close(given.logits, expected, rtol=1e-4, atol=1e-5)
        assert (given.logits - stock(clips).logits).abs().max() > 1e-2


@pytest.mark.parametrize("name", HOSTS)
@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_only_the_pixels_of_kept_tokens_matter(name, data):
    """Ties places to pixels: (t, y, x) means the same for a host that numbers its tokens in another way."""
    host = HOSTS[name]
    frames, height, width = grid = host.grid()
    lite = lite_of(host, host.build(), scorer="oracle")
    t, y, x = (data.draw(st.integers(0, size - 1)) for size in grid)
    scores = torch.zeros(1, frames, height, width)
    scores[0, t, y, x] = 1.0
    asked = {"keep_ratio": 0.07, "selection_extras": {"oracle": scores.flatten(1)}}
    clips = make_clips(batch=1)
    with torch.no_grad():
        before = lite(clips, **asked)
        kept = torch.zeros(grid, dtype=torch.bool).flatten()
        kept[before.kept_indices[0]] = True
        kept = kept.reshape(grid)
        assert kept[t, y, x]
        pixels = kept.repeat_interleave(host.tubelet, 0).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
        noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(3))
        elsewhere = torch.where(pixels[None, :, None], clips, noise)
        torch.testing.assert_close(lite(elsewhere, **asked).logits, before.logits, rtol=0, atol=1e-6)
        there = torch.where(pixels[None, :, None], noise, clips)
        assert (lite(there, **asked).logits - before.logits).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["vivit", "vjepa2", "timesformer_joint"])
def test_the_order_of_kept_tokens_does_not_matter(name):
    host = HOSTS[name]
    lite = lite_of(host, host.build(), keep_ratio=0.5, scorer="random")
    with torch.no_grad():
        selected = lite._select_tokens(make_clips())
        expected = lite._backbone(selected=selected).last_hidden_state
        first = expected.shape[1] - selected.kept_indices.shape[1]  # a class token stays in front
        order = torch.randperm(selected.kept_indices.shape[1], generator=torch.Generator().manual_seed(2))
        rows = torch.cat((torch.arange(first), first + order))
        selected.states, selected.kept_indices = selected.states[:, rows], selected.kept_indices[:, order]
        given = lite._backbone(selected=selected).last_hidden_state
    torch.testing.assert_close(given, expected[:, rows], rtol=1e-4, atol=1e-5)


def test_vjepa2_without_the_places_of_its_tokens_is_wrong(monkeypatch):
    """What `position_mask` is for: without it the kept tokens rotate as the first k of the clip."""
    host = HOSTS["vjepa2"]
    stock, clips = host.build(), make_clips()
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="random")
    with torch.no_grad():
        right = lite(clips)
        attend = VJEPA2RopeAttention.forward
        monkeypatch.setattr(
            VJEPA2RopeAttention, "forward", lambda self, states, position_mask=None: attend(self, states)
        )
        wrong = lite(clips)
        monkeypatch.undo()
        reference = host.reference(stock, clips, right.kept_indices, host.grid()).logits
    assert (wrong.logits - reference).abs().max() > 1e-2
    torch.testing.assert_close(right.logits, reference, rtol=1e-4, atol=1e-5)


def test_masked_tokens_of_vivit_stay_masked():
    host = HOSTS["vivit"]
    stock, clips = host.build(), make_clips()
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="random")
    mask = torch.rand(3, 33, generator=torch.Generator().manual_seed(4)) < 0.6
    mask[:, 0] = True
    with torch.no_grad():
        given = lite(clips, attention_mask=mask.long())
        kept = torch.zeros_like(mask).scatter(
            1, torch.cat((torch.zeros(3, 1, dtype=torch.long), given.kept_indices + 1), 1), True
        )
        expected = stock(clips, attention_mask=(mask & kept).long()).logits
    torch.testing.assert_close(given.logits, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TokenSelectionError, match=r"attention_mask should be \(B, 33\).* got \(3, 17\)"):
        lite(clips, attention_mask=mask[:, :17])


def test_outputs_tell_what_was_kept(host, stock):
    lite = lite_of(host, stock, keep_ratio=0.3, scorer="lite")
    frames, height, width = host.grid()
    with torch.no_grad():
        output = lite(make_clips(), output_hidden_states=True)
    num_tokens = frames * height * width
    kept = int(0.3 * height * width) * frames if host.tubes else int(0.3 * num_tokens)
    assert output.kept_indices.shape == (3, kept)
    assert (output.kept_indices.diff(dim=1) > 0).all()
    torch.testing.assert_close(output.realised_keep_ratio, torch.full((3,), kept / num_tokens))
    assert output.token_scores.shape == (3, num_tokens) and output.token_scores.dtype == torch.float32
    assert all(len(state[0]) - kept in (0, 1) for state in output.hidden_states)
    torch.testing.assert_close(lite.token_scores(make_clips(), "lite"), output.token_scores)
    assert lite.embed_patches(make_clips()).shape == (3, num_tokens, lite.config.hidden_size)


def test_attention_is_what_tokens_receive_in_the_last_block(name, host, stock):
    with contextlib.suppress(ValueError):
        stock.set_attn_implementation("eager")
    frames, height, width = host.grid()
    with torch.no_grad():
        given = lite_of(host, stock, keep_ratio=0.5, scorer="attention")(make_clips()).token_scores
        received = stock(make_clips(), output_attentions=True).attentions[-1].mean(dim=(1, 2))
    if name == "vjepa2":
        expected = received
    elif name == "timesformer_joint":
        expected = received[:, 1:].reshape(3, height * width, frames).transpose(1, 2).reshape(3, -1)
    else:  # a row per clip, or per frame of one
        expected = received[:, 1:].reshape(3, -1)
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-6)


def test_each_clip_may_have_its_own_budget(host, stock):
    lite, clips = lite_of(host, stock, keep_ratio=0.9, scorer="random"), make_clips()
    ratios = [0.5, 1.0, 0.25]
    with torch.no_grad():
        together = lite(clips, keep_ratio=ratios)
        alone = [lite(clip[None], keep_ratio=ratio) for clip, ratio in zip(clips, ratios, strict=True)]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together.realised_keep_ratio, torch.cat([one.realised_keep_ratio for one in alone]))


def test_a_cascade_of_budgets(host, stock):
    """LITE++ through the input name of the host: sure clips keep the answer of the small budget, others run again."""
    lite, clips = lite_of(host, stock, keep_ratio=0.75, scorer="random"), make_clips()
    with torch.no_grad():
        small, base = (lite(clips, keep_ratio=ratio) for ratio in (0.25, 0.75))
        sureness = small.logits.softmax(-1).amax(-1)
        lite.set_budget_policy(
            BudgetPolicy(low=0.0, high=sureness.median().item(), easy_keep_ratio=0.25, gauge="cascade")
        )
        given = lite(**{lite.main_input_name: clips})
    easy = sureness > sureness.median()
    assert easy.sum() == 1
    torch.testing.assert_close(
        given.logits, torch.where(easy[:, None], small.logits, base.logits), rtol=1e-5, atol=1e-6
    )
    expected = torch.where(easy, small.realised_keep_ratio, base.realised_keep_ratio)
    torch.testing.assert_close(given.realised_keep_ratio, expected)


# --- TimeSformer ---


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.data())
@settings(deadline=None, max_examples=30)
def test_tubes_are_whole_and_the_best_on_average(frames, height, width, data):
    grid = TokenGrid(frames, height, width)
    num_places = data.draw(st.integers(1, height * width))
    scores = torch.rand(2, grid.num_tokens, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    kept = tube_indices(scores, grid, num_places)
    for clip, indices in zip(scores, kept, strict=True):
        means = clip.reshape(frames, -1).mean(0)
        places = sorted(means.argsort(descending=True)[:num_places].tolist())
        assert indices.tolist() == [t * height * width + place for t in range(frames) for place in places]
    numbers = (
        torch.arange(grid.num_tokens).reshape(height * width, frames).T.flatten()
    )  # the host's number of every token
    assert (numbers[kept].gather(1, host_order(kept, grid)).diff(dim=1) > 0).all()


def test_timesformer_refuses_what_would_mix_places_and_frames():
    host = HOSTS["timesformer_divided"]
    lite = lite_of(host, host.build(), keep_ratio=0.5, scorer="random")
    with pytest.raises(TokenSelectionError, match="exactly 4 frames"):
        lite(make_clips(frames=3), keep_ratio=1.0)  # the stock model would mix them, or fail in a reshape
    config = host.build().config
    config.attention_type = "space_only"
    stock = randomise(TimesformerForVideoClassification(config))
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="random")
    with pytest.raises(TokenSelectionError, match="space_only.*once per frame"):
        lite(make_clips())
    with torch.no_grad():
        assert torch.equal(lite(make_clips(), keep_ratio=1.0).logits, stock(make_clips()).logits)


# --- other sizes ---


@pytest.mark.parametrize(("frames", "size"), [(3, SIZE), (FRAMES, 48)])
def test_joint_timesformer_takes_other_sizes_as_the_stock_model_does(frames, size):
    host = HOSTS["timesformer_joint"]
    stock, clips = host.build(), make_clips(frames=frames, size=size)
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="embedding_norm")
    with torch.no_grad():
        assert torch.equal(lite(clips, keep_ratio=1.0).logits, stock(clips).logits)
        given = lite(clips)
        expected = host.reference(stock, clips, given.kept_indices, host.grid(frames, size)).logits
    torch.testing.assert_close(given.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("frames", "size"), [(8, SIZE), (FRAMES, 48)])
def test_interpolated_positions(host, stock, frames, size):
    lite, clips = lite_of(host, stock, keep_ratio=0.5, scorer="random"), make_clips(frames=frames, size=size)
    for model in (stock, lite):
        interpolate_positions(model, num_frames=frames, image_size=size)
    with torch.no_grad():
        assert torch.equal(lite(clips, keep_ratio=1.0).logits, stock(clips).logits)
        given = lite(clips)
        expected = host.reference(stock, clips, given.kept_indices, host.grid(frames, size)).logits
    torch.testing.assert_close(given.logits, expected, rtol=1e-4, atol=1e-5)


def test_a_picture_is_a_clip_of_vjepa2():
    host = HOSTS["vjepa2"]
    stock, picture = host.build(), make_clips(frames=1)
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="frame_difference")
    with torch.no_grad():
        given = lite(pixel_values_videos=picture)
        assert torch.equal(lite(picture, keep_ratio=1.0).logits, stock(picture).logits)
        expected = host.reference(stock, picture, given.kept_indices, (1, 4, 4)).logits
    torch.testing.assert_close(given.logits, expected, rtol=1e-4, atol=1e-5)


def test_more_than_a_clip_is_refused(name, host, stock):
    lite, window = lite_of(host, stock, keep_ratio=0.5, scorer="random"), make_clips(frames=8)
    if host.tubes:
        with pytest.raises(TokenSelectionError, match="exactly 4 frames"):
            lite(window)
        return
    with pytest.raises(SelectionScopeError, match="one clip of 4 frames, got 8"):
        lite(window)
    if name != "vivit":  # its positions end with the clip
        with torch.no_grad():
            assert torch.equal(lite(window, keep_ratio=1.0).logits, stock(window).logits)


def test_vivit_names_the_size_that_it_takes():
    host = HOSTS["vivit"]
    lite = lite_of(host, host.build(), keep_ratio=0.5, scorer="random")
    with pytest.raises(TokenSelectionError, match=r"frames of \(32, 32\) pixels, got \(48, 48\)"):
        lite(make_clips(size=48))
    with pytest.raises(TokenSelectionError, match="positions for 32 tokens"):
        lite(make_clips(frames=2))


# --- files ---


def test_checkpoints_open_both_ways(host, stock, tmp_path):
    clips = make_clips()
    with torch.no_grad():
        expected = stock(clips).logits
    stock.save_pretrained(tmp_path / "stock")
    lite, info = host.lite.from_pretrained(
        tmp_path / "stock", keep_ratio=0.5, scorer="random", output_loading_info=True
    )
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert all(key.startswith("selector.") for key in info["missing_keys"])
    assert {key for key in lite.state_dict() if not key.startswith("selector.")} == set(stock.state_dict())
    lite.save_pretrained(tmp_path / "lite")
    again, info = host.lite.from_pretrained(tmp_path / "lite", output_loading_info=True)
    assert not any(info.values())
    assert again.config.keep_ratio == 0.5 and again.config.model_type == host.lite.config_class.model_type
    back, info = type(stock).from_pretrained(tmp_path / "lite", output_loading_info=True)
    assert info["unexpected_keys"] and all(key.startswith("selector.") for key in info["unexpected_keys"])
    assert not info["missing_keys"]
    with torch.no_grad():
        assert torch.equal(back.eval()(clips).logits, expected)
        assert torch.equal(again.eval()(clips, keep_ratio=1.0).logits, expected)
        assert torch.equal(again(clips).logits, lite.eval()(clips).logits)


@pytest.mark.parametrize("name", BASES)
def test_base_models_open_classifiers(name, tmp_path):
    host = HOSTS[name]
    lite = lite_of(host, host.build(), keep_ratio=0.5, scorer="lite", selector_trained=True)
    lite.save_pretrained(tmp_path)
    base = BASES[name].from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = lite(make_clips(), output_hidden_states=True)
        given = base(make_clips(), output_hidden_states=True)
    assert torch.equal(given.kept_indices, expected.kept_indices)  # the selector came along
    assert torch.equal(given.hidden_states[-1], expected.hidden_states[-1])
    assert given.last_hidden_state.shape[1] - given.kept_indices.shape[1] == (0 if name == "vjepa2" else 1)


def test_files_of_vivit_hold_old_names(tmp_path):
    """What the renaming in modeling_lite_vivit.py is for; without it such a file opens with random blocks."""
    host = HOSTS["vivit"]
    stock = host.build()
    stock.save_pretrained(tmp_path / "stock")
    with safe_open(tmp_path / "stock" / "model.safetensors", "pt") as file:
        assert any(key.startswith("vivit.encoder.layer.0.attention.attention.query") for key in file.keys())
    lite = host.lite.from_pretrained(tmp_path / "stock")
    assert torch.equal(lite.vivit.layers[1].attention.q_proj.bias, stock.vivit.layers[1].attention.q_proj.bias)


# --- training, precision, attention functions, graphs ---


def test_a_step_of_training_reaches_the_host_and_not_the_selector(host, stock):
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="lite").train()
    losses = []
    for checkpointing in (False, True):
        if checkpointing:
            lite.gradient_checkpointing_enable()
        lite.zero_grad()
        loss = lite(make_clips(), labels=torch.tensor([0, 1, 2])).loss
        loss.backward()
        losses.append(loss.item())
        without = {key for key, parameter in lite.named_parameters() if parameter.grad is None}
        unused = ("selector.", "vjepa2.predictor.")
        assert without == {key for key, parameter in lite.named_parameters() if not parameter.requires_grad}
        assert without and all(key.startswith(unused) for key in without)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_half_precision_scores_in_single(host, stock):
    lite = lite_of(host, stock, keep_ratio=0.5, scorer="lite").to(torch.bfloat16)
    with torch.no_grad():
        output = lite(make_clips())
    assert output.logits.dtype == torch.bfloat16 and output.logits.isfinite().all()
    assert output.token_scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "attention"),
    # flex attention is compiled
    [("vivit", "eager"), pytest.param("vivit", "flex_attention", marks=pytest.mark.slow), ("vjepa2", "eager")],
)
def test_other_attention_functions_agree(name, attention):
    host = HOSTS[name]
    lite = lite_of(host, host.build(), keep_ratio=0.5, scorer="random")
    assert lite.config._attn_implementation == "sdpa"
    with torch.no_grad():
        expected = lite(make_clips()).logits
        lite.set_attn_implementation(attention)
        torch.testing.assert_close(lite(make_clips()).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["random", "lite"])
def test_one_graph_at_a_fixed_ratio(host, stock, scorer):
    lite = lite_of(host, stock, keep_ratio=0.5, scorer=scorer, selector_trained=True)
    compiled = torch.compile(lite, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(make_clips()).logits, lite(make_clips()).logits)
