"""VideoMAE with token selection: checkpoints both ways, what is computed, outputs, precision, compilation."""

import copy
import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VivitConfig,
)
from transformers.utils import logging as transformers_logging

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    LiteVideoMAEConfig,
    LiteVideoMAEForVideoClassification,
    LiteVideoMAEModel,
)
from hf_effvid.models.selection_scope import SelectionScopeError
from hf_effvid.models.token_selection import (
    SCORERS,
    TokenSelectionError,
    needs_embeddings,
    register_scorer,
    top_k_indices,
)
from hf_effvid.pipelines import interpolate_positions

from .tiny_videomae import NUM_TOKENS, TINY_VIDEOMAE, fill_biases, qv_biases, tiny_clips, tiny_videomae


WITHOUT_EXTRAS = sorted(set(SCORERS) - {"oracle", "motion_vectors", "position_prior"})


@pytest.fixture(scope="module")
def stock():
    return tiny_videomae()


@pytest.fixture(scope="module")
def stock_folder(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    stock.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lite(stock_folder):
    """The stock checkpoint with random selection at half the tokens; tests pass their options per call."""
    return LiteVideoMAEForVideoClassification.from_pretrained(stock_folder, keep_ratio=0.5, scorer="random").eval()


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def masked_stock(model, clips, kept_indices):
    """transformers' own way to leave tokens out: True means dropped."""
    dropped = torch.ones(len(clips), NUM_TOKENS, dtype=torch.bool).scatter(1, kept_indices, False)
    return model(clips, bool_masked_pos=dropped)


# --- checkpoints ---


def test_the_file_of_a_stock_checkpoint_has_the_names_that_need_renaming(stock_folder):
    """Otherwise the tests below would prove nothing."""
    names = load_file(stock_folder / "model.safetensors")
    assert any(name.endswith("q_bias") for name in names)
    assert not any(name.endswith("query.bias") for name in names)


def test_stock_to_lite_to_disk_to_stock(stock, stock_folder, tmp_path):
    clips, expected = tiny_clips(), stock(tiny_clips()).logits
    lite, info = LiteVideoMAEForVideoClassification.from_pretrained(
        stock_folder, keep_ratio=0.5, scorer="random", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert (lite.config.keep_ratio, lite.config.scorer, lite.config.model_type) == (0.5, "random", "lite_videomae")
    assert torch.equal(qv_biases(lite), qv_biases(stock)) and qv_biases(stock).abs().min() > 0
    assert torch.equal(lite(clips, keep_ratio=1).logits, expected)
    kept = lite(clips)

    lite.save_pretrained(tmp_path)
    on_disk = set(load_file(tmp_path / "model.safetensors"))
    assert {name for name in on_disk if not name.startswith("selector.")} == set(stock.state_dict())
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model_type"], saved["keep_ratio"]) == ("lite_videomae", 0.5)

    again, info = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(again(clips).logits, kept.logits)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in lite.state_dict().items())

    opened, info = VideoMAEForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert info["unexpected_keys"] and all(name.startswith("selector.") for name in info["unexpected_keys"])
    assert torch.equal(opened(clips).logits, expected)


def test_only_the_selector_is_new(stock, lite):
    assert {name for name in lite.state_dict() if not name.startswith("selector.")} == set(stock.state_dict())


def test_a_stock_checkpoint_loads_without_a_report_and_the_untrained_selector_is_named_once(stock_folder, caplog):
    loggers = [logging.getLogger(name) for name in ("transformers", "hf_effvid")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = True
    try:
        with caplog.at_level(logging.WARNING):
            model = LiteVideoMAEForVideoClassification.from_pretrained(stock_folder, keep_ratio=0.5)
            assert not caplog.records
            # once per text and process: another test may have used it up
            transformers_logging.warning_once.cache_clear()
            model.eval()(tiny_clips())
            model(tiny_clips())
        texts = [record.getMessage() for record in caplog.records]
        assert len(texts) == 1 and "not trained" in texts[0] and 'scorer="random"' in texts[0]
    finally:
        for logger, value in zip(loggers, before, strict=True):
            logger.propagate = value


def test_a_trained_selector_that_is_not_in_the_file_is_reported(stock_folder):
    _, info = LiteVideoMAEForVideoClassification.from_pretrained(
        stock_folder, selector_trained=True, output_loading_info=True
    )
    assert info["missing_keys"] and all(name.startswith("selector.") for name in info["missing_keys"])


def test_base_model_and_classifier_share_checkpoints(lite, stock_folder, tmp_path):
    lite.save_pretrained(tmp_path / "classifier")
    base, info = LiteVideoMAEModel.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert not info["missing_keys"]
    assert all(name.startswith(("fc_norm.", "classifier.")) for name in info["unexpected_keys"])
    for name, value in base.state_dict().items():
        assert torch.equal(value, lite.state_dict()[name if name.startswith("selector.") else f"videomae.{name}"])
    base.save_pretrained(tmp_path / "base")
    _, info = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert all(name.startswith(("fc_norm.", "classifier.")) for name in info["missing_keys"])
    stock_base = VideoMAEModel.from_pretrained(stock_folder).eval()
    outputs = base.eval()(tiny_clips(), keep_ratio=1)
    assert torch.equal(outputs.last_hidden_state, stock_base(tiny_clips()).last_hidden_state)


def test_auto_classes_on_both_kinds_of_folder(stock_folder, lite, tmp_path):
    lite.save_pretrained(tmp_path)
    assert type(AutoModelForVideoClassification.from_pretrained(tmp_path)) is LiteVideoMAEForVideoClassification
    assert type(AutoModel.from_pretrained(tmp_path)) is LiteVideoMAEModel
    assert type(AutoConfig.from_pretrained(tmp_path)) is LiteVideoMAEConfig
    assert type(AutoModelForVideoClassification.from_pretrained(stock_folder)) is VideoMAEForVideoClassification


def test_a_configuration_of_another_architecture_is_refused(tmp_path):
    VivitConfig().save_pretrained(tmp_path)
    for make in (
        lambda: LiteVideoMAEConfig.from_pretrained(tmp_path),
        lambda: LiteVideoMAEConfig(model_type="vivit"),
        lambda: LiteVideoMAEConfig.from_dict(VivitConfig().to_dict()),
    ):
        with pytest.raises(
            TokenSelectionError, match="opens checkpoints of videomae and lite_videomae, got one of 'vivit'"
        ):
            make()


def test_a_stock_configuration_becomes_a_lite_one():
    config = LiteVideoMAEConfig(**VideoMAEConfig(**TINY_VIDEOMAE).to_dict(), keep_ratio=0.3, scorer="grid")
    assert "model_type" not in vars(config)
    assert (config.model_type, config.hidden_size, config.num_labels, config.keep_ratio) == (
        "lite_videomae",
        32,
        5,
        0.3,
    )


@pytest.mark.parametrize(("options", "message"), [
    ({"keep_ratio": 0.0}, "above 0 and at most 1, got 0.0"),
    ({"keep_ratio": 1.5}, "above 0 and at most 1, got 1.5"),
    ({"scorer": "magic"}, "got 'magic'"),
    ({"selector_kind": "conv"}, "got 'conv'"),
    ({"selector_hidden_sizes": []}, "one width above 0"),
    ({"budget_policy": {"low": 0.9, "high": 0.1}}, "low"),
])  # fmt: skip
def test_fields_are_checked(options, message):
    with pytest.raises(Exception, match=message):
        LiteVideoMAEConfig(**options)


# --- what is computed ---


@pytest.mark.parametrize("scorer", WITHOUT_EXTRAS)
def test_every_scorer_equals_the_stock_model_with_those_tokens_left_out(stock, lite, scorer):
    clips = tiny_clips()
    outputs = lite(clips, scorer=scorer, keep_ratio=0.4)
    assert outputs.kept_indices.shape == (2, 12) and outputs.token_scores.shape == (2, NUM_TOKENS)
    assert (outputs.kept_indices.diff(dim=1) > 0).all()
    assert torch.equal(outputs.kept_indices, top_k_indices(outputs.token_scores, 12))
    assert outputs.realised_keep_ratio.tolist() == [0.375, 0.375]
    torch.testing.assert_close(
        outputs.logits, masked_stock(stock, clips, outputs.kept_indices).logits, rtol=1e-4, atol=1e-5
    )


def test_keeping_everything_is_the_stock_model_bit_for_bit(stock, lite):
    clips = tiny_clips()
    for scorer in WITHOUT_EXTRAS:
        outputs = lite(clips, keep_ratio=1.0, scorer=scorer, output_hidden_states=True)
        expected = stock(clips, output_hidden_states=True)
        assert torch.equal(outputs.logits, expected.logits)
        assert all(torch.equal(a, b) for a, b in zip(outputs.hidden_states, expected.hidden_states, strict=True))
    assert outputs.token_scores is None
    assert outputs.kept_indices.tolist() == [list(range(NUM_TOKENS))] * 2
    assert outputs.realised_keep_ratio.tolist() == [1.0, 1.0]


def test_only_kept_patches_are_embedded_unless_the_scorer_reads_embeddings(lite):
    convolution = lite.videomae.embeddings.patch_embeddings.projection
    calls = []
    handle = convolution.register_forward_hook(lambda *_: calls.append(1))
    try:
        for scorer in WITHOUT_EXTRAS:
            calls.clear()
            lite(tiny_clips(), scorer=scorer)
            assert bool(calls) == (needs_embeddings(scorer) or scorer == "attention"), scorer
    finally:
        handle.remove()


def test_the_order_of_kept_tokens_does_not_matter(lite):
    selected = lite._select_tokens(tiny_clips(), 0.5, "random")
    shuffled = copy.copy(selected)
    shuffled.states = selected.states[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    means = [lite.videomae(selected=tokens).last_hidden_state.mean(1) for tokens in (selected, shuffled)]
    torch.testing.assert_close(*means, rtol=1e-5, atol=1e-5)


def test_a_clip_keeps_its_tokens_in_any_batch(lite):
    clips = tiny_clips(batch=3)
    together = lite(clips)
    for row in range(3):
        alone = lite(clips[row : row + 1])
        assert torch.equal(alone.kept_indices[0], together.kept_indices[row])
        torch.testing.assert_close(alone.logits[0], together.logits[row])


def test_draws_follow_the_seed_of_the_configuration_or_of_the_call(lite):
    first = lite(tiny_clips()).kept_indices
    assert torch.equal(first, lite(tiny_clips()).kept_indices)
    other = lite(tiny_clips(), selection_extras={"seed": 1}).kept_indices
    assert not torch.equal(first, other)
    lite.config.selection_seed = 1
    try:
        assert torch.equal(other, lite(tiny_clips()).kept_indices)
    finally:
        lite.config.selection_seed = 0
    generators = [{"generator": torch.Generator().manual_seed(2)} for _ in range(2)]
    drawn = [lite(tiny_clips(), selection_extras=extras).kept_indices for extras in generators]
    assert torch.equal(*drawn) and not torch.equal(drawn[0], first)


def test_training_draws_anew_at_every_step(lite):
    try:
        lite.train()
        torch.manual_seed(0)
        draws = [lite(tiny_clips()).kept_indices for _ in range(2)]
    finally:
        lite.eval()
    assert not torch.equal(*draws)


def test_given_scores_decide(lite):
    scores = torch.arange(2.0 * NUM_TOKENS).reshape(2, NUM_TOKENS)
    kept = lite(tiny_clips(), scorer="oracle", selection_extras={"oracle": scores}).kept_indices
    assert kept.tolist() == [list(range(16, 32))] * 2
    prior = LiteVideoMAEForVideoClassification(
        LiteVideoMAEConfig(
            **TINY_VIDEOMAE, keep_ratio=0.25, scorer="position_prior", position_prior=scores[0].tolist()
        )
    ).eval()
    assert prior(tiny_clips()).kept_indices.tolist() == [list(range(24, 32))] * 2


def test_attention_is_what_tokens_receive_in_the_last_block(stock, lite):
    clips = tiny_clips()
    attentions = copy.deepcopy(stock)
    attentions.set_attn_implementation("eager")
    received = attentions(clips, output_attentions=True).attentions[-1].mean(dim=(1, 2))
    torch.testing.assert_close(lite(clips, scorer="attention").token_scores, received)


def test_token_scores_without_the_blocks_are_those_of_the_output(lite):
    for scorer in ("random", "lite", "embedding_difference", "frame_difference"):
        assert torch.equal(lite.token_scores(tiny_clips(), scorer), lite(tiny_clips(), scorer=scorer).token_scores)


@pytest.mark.parametrize("kind", ["deep", "transformer", "global"])
def test_other_selectors(kind, tmp_path):
    config = LiteVideoMAEConfig(**TINY_VIDEOMAE, keep_ratio=0.5, selector_kind=kind, selector_hidden_sizes=[8, 6])
    model = LiteVideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    again = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path).eval()
    first = model(tiny_clips())
    assert torch.equal(first.logits, again(tiny_clips()).logits)
    assert first.token_scores.unique().numel() == 2 * NUM_TOKENS


def test_a_head_on_the_first_token_keeps_that_token():
    stock = tiny_videomae(use_mean_pooling=False)
    lite = LiteVideoMAEForVideoClassification(
        LiteVideoMAEConfig(**stock.config.to_dict(), keep_ratio=0.25, scorer="oracle")
    ).eval()
    missing = lite.load_state_dict(stock.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(name.startswith("selector.") for name in missing.missing_keys)
    clips, scores = tiny_clips(), torch.arange(2.0 * NUM_TOKENS).reshape(2, NUM_TOKENS)
    outputs = lite(clips, selection_extras={"oracle": scores})
    assert outputs.kept_indices.tolist() == [[0, *range(25, 32)]] * 2
    torch.testing.assert_close(outputs.logits, masked_stock(stock, clips, outputs.kept_indices).logits)
    assert torch.equal(lite(clips, keep_ratio=1).logits, stock(clips).logits)


# --- inputs and outputs ---


@pytest.mark.parametrize(("clips", "message"), [
    (torch.randn(4, 3, 32, 32), r"pixel_values of shape \(batch, frames, 3, 32, 32\), got \(4, 3, 32, 32\)"),
    (torch.randn(1, 4, 3, 32, 40), r"got \(1, 4, 3, 32, 40\)"),
    (torch.randn(1, 4, 1, 32, 32), r"got \(1, 4, 1, 32, 32\)"),
    (torch.randn(1, 2, 3, 32, 32), "positions for 32 tokens.*have 16"),
])  # fmt: skip
def test_wrong_clips_are_named(lite, clips, message):
    with pytest.raises(TokenSelectionError, match=message):
        lite(clips)


def test_longer_clips_by_interpolated_positions(lite, stock):
    longer, whole = copy.deepcopy(lite), copy.deepcopy(stock)
    for model in (longer, whole):
        interpolate_positions(model, num_frames=8)
    clips = tiny_clips(frames=8)
    outputs = longer(clips, scorer="embedding_norm")
    assert outputs.kept_indices.shape == (2, 32) and outputs.token_scores.shape == (2, 64)
    dropped = torch.ones(2, 64, dtype=torch.bool).scatter(1, outputs.kept_indices, False)
    torch.testing.assert_close(outputs.logits, whole(clips, bool_masked_pos=dropped).logits, rtol=1e-4, atol=1e-5)


def test_a_window_of_several_clips_is_refused(lite):
    with pytest.raises(SelectionScopeError, match="one clip of 4 frames, got 8"):
        lite(tiny_clips(frames=8))


def test_a_detector_that_would_select_over_its_windows_is_refused():
    """Tokens that are gone leave holes in the features per time, so that a detector takes the whole trunk."""
    backbone = LiteVideoMAEConfig(**TINY_VIDEOMAE, keep_ratio=0.5)
    config = ActionFormerConfig(backbone_config=backbone, num_labels=2, clip_frames=4, frames_per_step=2)
    with pytest.raises(ValueError, match="no trunk of model_type 'lite_videomae'.*features"):
        ActionFormerForTemporalActionDetection(config)


def test_a_scorer_that_does_not_exist_is_named(lite):
    with pytest.raises(TokenSelectionError, match="got 'magic'"):
        lite(tiny_clips(), scorer="magic")
    with pytest.raises(TokenSelectionError, match=r"selection_extras\['motion_vectors'\]"):
        lite(tiny_clips(), scorer="motion_vectors")


def test_a_registered_scorer_serves_the_model(lite, monkeypatch):
    monkeypatch.setattr("hf_effvid.models.token_selection.SCORERS", dict(SCORERS))
    register_scorer("backwards")(lambda inputs: torch.arange(NUM_TOKENS).expand(len(inputs.pixel_values), -1))
    assert lite(tiny_clips(), scorer="backwards", keep_ratio=0.1).kept_indices.tolist() == [[29, 30, 31]] * 2


def test_hidden_states_and_attentions_are_those_of_the_kept_tokens(stock, lite):
    clips = tiny_clips()
    lite.set_attn_implementation("eager")
    try:
        outputs = lite(clips, output_hidden_states=True, output_attentions=True)
        expected = masked_stock(stock, clips, outputs.kept_indices)
        assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 16, 32)] * 3
        assert [tuple(attention.shape) for attention in outputs.attentions] == [(2, 4, 16, 16)] * 2
        torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-4, atol=1e-5)
    finally:
        lite.set_attn_implementation("sdpa")


def test_outputs_as_a_tuple(lite):
    logits, scores, kept, ratio = lite(tiny_clips(), return_dict=False)
    outputs = lite(tiny_clips())
    assert torch.equal(logits, outputs.logits) and torch.equal(kept, outputs.kept_indices)
    assert torch.equal(scores, outputs.token_scores) and torch.equal(ratio, outputs.realised_keep_ratio)


def test_budgets_of_a_mixed_batch_equal_the_loop(lite):
    clips = tiny_clips(batch=3)
    mixed = lite(clips, keep_ratio=[0.5, 0.25, 1.0])
    for row, ratio in enumerate([0.5, 0.25, 1.0]):
        alone = lite(clips[row : row + 1], keep_ratio=ratio)
        torch.testing.assert_close(mixed.logits[row], alone.logits[0])
        k = alone.kept_indices.shape[1]
        assert mixed.kept_indices[row].tolist() == alone.kept_indices[0].tolist() + [-1] * (NUM_TOKENS - k)
    torch.testing.assert_close(mixed.realised_keep_ratio, torch.tensor([0.5, 0.25, 1.0]))


def test_run_length_keeps_what_changes_in_each_clip(lite):
    clips = tiny_clips(batch=3)
    clips[1:] = clips[1:, :1]
    clips[2, 2:, :, 8:16, 8:16] += (
        5.0  # one token of the second step moves in the last clip, nothing in the one before
    )
    ratios = lite.run_length_ratios(clips, threshold=0.5)
    outputs = lite(clips, scorer="run_length", keep_ratio=ratios)
    kept = [row[row >= 0].tolist() for row in outputs.kept_indices]
    assert kept == [list(range(32)), list(range(16)), [*range(16), 16 + 5]]
    assert outputs.realised_keep_ratio.tolist() == [1.0, 16 / 32, 17 / 32]


# --- attention, precision, training, compilation ---


@pytest.mark.parametrize("implementation", ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)])
def test_attention_implementations_agree(stock, lite, implementation):
    clips, expected = tiny_clips(), lite(tiny_clips()).logits
    model = copy.deepcopy(lite)
    model.set_attn_implementation(implementation)
    torch.testing.assert_close(model(clips).logits, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_chooses_what_single_precision_scores(stock_folder):
    half = LiteVideoMAEForVideoClassification.from_pretrained(
        stock_folder, keep_ratio=0.5, dtype=torch.bfloat16
    ).eval()
    for scorer in ("lite", "embedding_norm", "frame_difference"):
        outputs = half(tiny_clips(), scorer=scorer)
        assert outputs.logits.dtype == torch.bfloat16 and outputs.token_scores.dtype == torch.float32
        assert outputs.logits.isfinite().all()
    embeddings = half.embed_patches(tiny_clips())
    assert embeddings.dtype == torch.bfloat16
    norms = half(tiny_clips(), scorer="embedding_norm").token_scores
    assert torch.equal(norms, embeddings.float().norm(dim=-1))
    # pixels are not rounded before they are scored
    pixels_of_single = LiteVideoMAEForVideoClassification.from_pretrained(stock_folder).eval()
    assert torch.equal(
        half(tiny_clips(), scorer="random").kept_indices,
        pixels_of_single(tiny_clips(), scorer="random", keep_ratio=0.5).kept_indices,
    )


def test_autocast_scores_in_single_precision(lite):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = lite(tiny_clips(), scorer="lite")
    assert outputs.token_scores.dtype == torch.float32 and outputs.logits.isfinite().all()


def test_the_host_learns_and_the_selector_waits_for_its_own_training(lite):
    model = copy.deepcopy(lite).train()
    with torch.enable_grad():
        outputs = model(tiny_clips(), labels=torch.tensor([0, 3]), scorer="lite")
        outputs.loss.backward()
    assert outputs.loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(outputs.logits, torch.tensor([0, 3])).item(), rel=1e-6
    )
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("selector."), name
    model.zero_grad()
    model.selector.requires_grad_(True)
    with torch.enable_grad():
        model.token_scores(tiny_clips(), "lite").sum().backward()
    assert all(parameter.grad is not None for parameter in model.selector.parameters())


def test_the_selector_is_frozen_after_loading_too(lite, tmp_path):
    """transformers lets whatever it read from a file require a gradient."""
    lite.save_pretrained(tmp_path)
    for cls in (LiteVideoMAEForVideoClassification, LiteVideoMAEModel):
        model = cls.from_pretrained(tmp_path)
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable == {name for name in model.state_dict() if not name.startswith("selector.")}


def test_gradient_checkpointing_gives_the_same_gradients(lite):
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(lite).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with torch.enable_grad():
            model(tiny_clips(), labels=torch.tensor([0, 3]), scorer="embedding_norm").loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_predictions_of_trainer_are_the_logits(lite):
    hidden = set(lite.config.keys_to_ignore_at_inference)
    assert [name for name in lite(tiny_clips()) if name not in hidden] == ["logits"]


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["random", "lite", "grid", "stratified", "embedding_difference", "run_length"])
def test_compiles_as_one_graph(lite, scorer):
    torch._dynamo.reset()
    model = copy.deepcopy(lite)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(tiny_clips(), scorer=scorer)
    outputs = compiled(tiny_clips(), scorer=scorer)
    assert torch.equal(outputs.kept_indices, expected.kept_indices)
    torch.testing.assert_close(outputs.logits, expected.logits)


def test_runs_on_shapes_alone(lite):
    with torch.device("meta"):
        model = fill_biases(LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**TINY_VIDEOMAE)))
        for scorer in WITHOUT_EXTRAS:
            outputs = model.eval()(torch.empty(2, 4, 3, 32, 32), keep_ratio=0.5, scorer=scorer)
            assert outputs.logits.shape == (2, 5) and outputs.kept_indices.shape == (2, 16)
