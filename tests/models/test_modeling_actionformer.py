"""ActionFormer: inputs, what padding may and may not do, options, losses, and what trainers and tools do with it."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerModel


TINY = {
    "input_size": 6,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_stem_layers": 1,
    "num_branch_layers": 2,
    "attention_window": 5,
    "max_sequence_length": 24,
    "num_labels": 3,
}
VARIANTS = {
    "local": {},
    "global": {"attention_window": -1},
    "windows per level": {"attention_window": [7, 5, -1]},
    "relative positions": {"use_relative_positions": True},
    "absolute positions": {"use_absolute_positions": True},
    "fpn": {"neck_type": "fpn", "neck_size": 12, "head_size": 10},
    "convolutions": {"block_type": "convolution"},
    "no layer scale": {"use_layer_scale": False},
    "two kinds of features": {"input_size": [4, 2], "projection_sizes": [5, 3]},
    "wide kernels, long heads": {"embedding_kernel_size": 5, "head_kernel_size": 1, "num_head_layers": 2},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def make_model(cls=ActionFormerForTemporalActionDetection, **options):
    torch.manual_seed(0)
    model = cls(ActionFormerConfig(**{**TINY, **options})).eval()
    for parameter in model.parameters():  # at the published initialisation blocks and biases hardly count
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def make_features(*lengths, channels=6, seed=1):
    """Features (T, C) of videos."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, channels, generator=generator) for length in lengths]


def batch_of(videos, steps, filling=0.0):
    features = torch.stack([torch.nn.functional.pad(v, (0, 0, 0, steps - len(v)), value=filling) for v in videos])
    mask = torch.stack([torch.arange(steps) < len(video) for video in videos])
    return features, mask


def at_valid_points(outputs, video=0):
    mask = outputs.point_mask[video]
    return outputs.logits[video][mask], outputs.offsets[video][mask]


def label(*segments):
    rows = torch.tensor([row[:2] for row in segments], dtype=torch.float32).reshape(-1, 2)
    return {"grid_segments": rows, "class_labels": torch.tensor([row[2] for row in segments], dtype=torch.long)}


# --- padding and batches ---


@variants
def test_a_video_in_a_batch_gives_what_it_gives_alone(options):
    """Whatever stands in the padding: zeros, large numbers or NaN."""
    model, videos = make_model(**options), make_features(9, 31, 16)  # 31 is longer than the table of positions
    with torch.no_grad():
        alone = [model(video[None]) for video in videos]
        for filling in (0.0, 1e6, torch.nan):
            together = model(*batch_of(videos, 31, filling))
            assert together.logits.isfinite().all() and together.offsets.isfinite().all()
            for index, expected in enumerate(alone):
                for ours, theirs in zip(at_valid_points(together, index), at_valid_points(expected), strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 40), padding=st.integers(0, 40), variant=st.sampled_from(sorted(VARIANTS)))
def test_the_amount_of_padding_changes_nothing(length, padding, variant):
    model = make_model(**VARIANTS[variant])
    (video,) = make_features(length)
    with torch.no_grad():
        alone, padded = model(video[None]), model(*batch_of([video], length + padding))
    for ours, theirs in zip(at_valid_points(padded), at_valid_points(alone), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mask_after_norm", ["nowhere", "convolutions"])
def test_in_the_released_codes_the_presence_of_padding_matters_but_not_its_amount(mask_after_norm):
    model, videos = make_model(mask_after_norm=mask_after_norm), make_features(18)
    with torch.no_grad():
        alone = at_valid_points(model(videos[0][None]))[0]
        padded = [at_valid_points(model(*batch_of(videos, 18 + amount)))[0] for amount in (14, 46, 78)]
    for other in padded[1:]:
        torch.testing.assert_close(other, padded[0], rtol=0, atol=1e-5)
    assert (padded[0] - alone).abs().max() > 1e-2


def test_without_padding_all_three_are_the_same_model():
    videos = make_features(21)
    with torch.no_grad():
        logits = [
            make_model(mask_after_norm=value)(videos[0][None]).logits
            for value in ("nowhere", "convolutions", "everywhere")
        ]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    torch.testing.assert_close(logits[2], logits[0], rtol=0, atol=0)


# --- lengths, attention ---


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 50])
def test_any_length(steps):
    outputs = make_model()(torch.randn(2, steps, 6))
    sizes = [steps, -(-steps // 2), -(-steps // 4)]
    assert outputs.logits.shape == (2, sum(sizes), 3) and outputs.offsets.shape == (2, sum(sizes), 2)
    assert outputs.points.shape == (sum(sizes), 4) and outputs.point_mask.all()
    assert (outputs.offsets >= 0).all()


@pytest.mark.parametrize("relative", [False, True])
def test_long_inputs_take_the_lean_path_and_give_the_same(relative):
    model, videos = make_model(use_relative_positions=relative), make_features(700, 433)
    batch = batch_of(videos, 700)
    with torch.no_grad():
        lean = model(*batch)
        model.set_attn_implementation("eager")
        dense = model(*batch, output_attentions=True)
    for ours, theirs in zip(at_valid_points(lean, 1), at_valid_points(dense, 1), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [tuple(weights.shape) for weights in dense.attentions] == [
        (2, 2, 700, 700),
        (2, 2, 350, 350),
        (2, 2, 175, 175),
    ]
    steps = torch.arange(700)
    outside = (steps[:, None] - steps).abs() > 2
    assert dense.attentions[0][0][:, outside].max() == 0


def test_hidden_states_of_every_block():
    outputs = make_model(ActionFormerModel)(torch.randn(1, 9, 6), output_hidden_states=True)
    assert [state.shape[1] for state in outputs.hidden_states] == [9, 9, 5, 3]
    assert [level.shape[1] for level in outputs.feature_maps] == [9, 5, 3]
    assert torch.equal(outputs.last_hidden_state, outputs.feature_maps[-1])


def test_kinds_of_features_have_projections_of_their_own():
    model = make_model(**VARIANTS["two kinds of features"])
    embeddings = model.actionformer.embeddings
    assert [tuple(p.weight.shape) for p in embeddings.projections] == [(5, 4), (3, 2)]
    features = torch.randn(1, 9, 6)
    changed = features.clone()
    changed[..., 4:] += 1.0
    mask = torch.ones(1, 9, dtype=torch.bool)
    seen = []
    embeddings.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embeddings(features, mask), embeddings(changed, mask)
    assert torch.equal(seen[0][..., :5], seen[1][..., :5]) and not torch.equal(seen[0][..., 5:], seen[1][..., 5:])


def test_positions_are_the_table_and_its_stretched_rows():
    embeddings = make_model(use_absolute_positions=True).actionformer.embeddings
    table = embeddings.position_table
    mask = torch.tensor([[True] * 20 + [False] * 80, [True] * 100])
    positions = embeddings._positions(mask)
    torch.testing.assert_close(positions[0, :20], table[:20], rtol=0, atol=0)
    stretched = torch.nn.functional.interpolate(table.T[None], size=100, mode="linear", align_corners=False)
    torch.testing.assert_close(positions[1], stretched[0].T, rtol=1e-5, atol=1e-6)


# --- losses ---


LABELS = [label((2.0, 9.5, 1), (4.0, 6.0, 0)), label()]


def loss_of(model, labels=LABELS, **options):
    features, mask = batch_of(make_features(20, 13), 20)
    return model(features, mask, labels=labels, **options)


def test_evaluation_leaves_no_trace_and_training_moves_the_count():
    model = make_model(drop_path_rate=0.0)
    first, again = loss_of(model), loss_of(model)
    assert first.loss == again.loss and model.loss_normalizer.value == 100
    model.train()
    positive = (model.assign_targets(LABELS, first.points).positive & first.point_mask).sum().item()
    assert positive > 0
    loss_of(model)
    assert model.loss_normalizer.value.item() == pytest.approx(90 + 0.1 * positive)


def test_padding_is_no_background():
    model = make_model()
    features, mask = batch_of(make_features(20, 13), 20)
    wider = batch_of(make_features(20, 13), 60)
    losses = [model(features, mask, labels=LABELS).loss, model(*wider, labels=LABELS).loss]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


def test_segments_in_the_padding_have_no_positive_points():
    model = make_model()
    inside, beyond = [label((2.0, 9.5, 1)), label()], [label((2.0, 9.5, 1)), label((15.0, 18.0, 2))]
    assert loss_of(model, inside).loss == loss_of(model, beyond).loss


def test_weights_of_the_two_losses():
    plain = loss_of(make_model())
    assert plain.loss == plain.classification_loss + plain.regression_loss
    heavy = loss_of(make_model(regression_loss_weight=2.0))
    torch.testing.assert_close(heavy.loss, heavy.classification_loss + 2 * heavy.regression_loss)
    balanced = loss_of(make_model(regression_loss_weight=-1.0))
    weight = balanced.classification_loss / balanced.regression_loss.clamp(min=0.01)
    torch.testing.assert_close(balanced.loss, balanced.classification_loss + weight * balanced.regression_loss)
    gradients = [
        torch.autograd.grad(value, model_parameter)[0]
        for value, model_parameter in _balanced_and_by_hand(weight.detach())
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def _balanced_and_by_hand(weight):
    model = make_model(regression_loss_weight=-1.0)
    yield loss_of(model).loss, model.classification_head.output.weight
    outputs = loss_of(model)
    yield outputs.classification_loss + weight * outputs.regression_loss, model.classification_head.output.weight


def test_options_of_the_losses_do_something():
    plain = loss_of(make_model())
    smoothed = loss_of(make_model(label_smoothing=0.1))
    giou = loss_of(make_model(regression_loss="giou"))
    narrow = loss_of(make_model(center_sampling_radius=0.5))
    everywhere = loss_of(make_model(center_sampling_radius=0.5, center_sampling="none"))
    overlapping = loss_of(make_model(regression_ranges=[[0, 4], [2, 8], [4, 10000]]))
    assert smoothed.classification_loss != plain.classification_loss
    assert smoothed.regression_loss == plain.regression_loss
    assert 0 < giou.regression_loss < plain.regression_loss
    assert everywhere.regression_loss > narrow.regression_loss
    assert overlapping.regression_loss > plain.regression_loss


@variants
def test_every_parameter_gets_a_gradient_even_without_segments(options):
    model = make_model(drop_path_rate=0.0, **options).train()
    for labels in (LABELS, [label(), label()]):
        model.zero_grad()
        loss_of(model, labels).loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_labels_for_another_number_of_videos():
    with pytest.raises(ValueError, match="labels for each of 2 videos, got 1"):
        loss_of(make_model(), LABELS[:1])


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = make_model(drop_path_rate=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        loss_of(model).loss.backward()
        assert model.loss_normalizer.value < 100  # counted once
        gradients.append([parameter.grad for parameter in model.parameters()])
    for with_it, without in zip(*gradients, strict=True):
        torch.testing.assert_close(with_it, without)


def test_it_learns_to_find_a_segment():
    """Two segments that the features show: after a few steps the best points say where they are."""
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**TINY, layer_scale_init_value=0.1)).train()
    features = 0.1 * torch.randn(1, 32, 6)
    features[0, 3:9, 0] += 2.0
    features[0, 14:30, 1] += 2.0
    labels = [label((3.0, 9.0, 0), (14.0, 30.0, 2))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model(features, labels=labels).loss.backward()
        optimizer.step()
    with torch.no_grad():
        outputs = model.eval()(features)
    scores = outputs.logits[0].sigmoid()
    for start, end, kind in ((3, 9, 0), (14, 30, 2)):
        best = scores[:, kind].argmax()
        time, _, _, stride = outputs.points[best].tolist()
        to_start, to_end = outputs.offsets[0, best].tolist()
        assert scores[best, kind] > 0.5
        assert time - to_start * stride == pytest.approx(start, abs=1.0)
        assert time + to_end * stride == pytest.approx(end, abs=1.0)


# --- configuration, initialisation, files ---


def test_initialisation():
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**TINY, empty_classes=[2]))
    prior = model.classification_head.output.bias.sigmoid()
    torch.testing.assert_close(prior, torch.tensor([0.01, 0.01, 1e-6]), rtol=1e-3, atol=0)
    assert torch.equal(model.level_scales, torch.ones(3))
    layer = model.actionformer.encoder.branch[0]
    assert torch.equal(layer.layer_scale1, torch.full((8,), 1e-4)) and not layer.attention.query.bias.any()
    assert layer.attention.query.weight.std() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"attention_window": [5, 5]}, "3 levels, got 2"),
        ({"regression_ranges": [[0, 4]]}, "3 levels, got 1"),
        ({"neck_size": 4}, 'only neck_type="fpn"'),
        ({"input_size": [4, 2], "projection_sizes": [4, 2]}, "sum hidden_size=8"),
        ({"input_size": [2, 2, 2]}, "cannot be shared out evenly"),
        ({"empty_classes": [3]}, "do not exist among num_labels=3"),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        ActionFormerConfig(**{**TINY, **options})
    config = ActionFormerConfig(**TINY)
    for name, value in options.items():
        setattr(config, name, value)  # as keyword arguments of from_pretrained do
    with pytest.raises(ValueError, match=message):
        ActionFormerForTemporalActionDetection(config)


@pytest.mark.parametrize(
    "options",
    [
        {"attention_window": 4},
        {"head_kernel_size": 2},
        {"input_size": []},
        {"drop_path_rate": 1.0},
        {"class_prior": 0},
        {"regression_ranges": [[4, 0], [0, 4], [0, 4]]},
        {"mask_after_norm": "somewhere"},
        {"num_stem_layers": -1},
        {"loss_normalizer_init": 0},
    ],
)
def test_bad_fields_are_refused(options):
    with pytest.raises(StrictDataclassError):
        ActionFormerConfig(**{**TINY, **options})


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        (torch.randn(5, 6), None, r"shape \(batch, steps, 6\), got \(5, 6\)"),
        (torch.randn(1, 5, 7), None, r"got \(1, 5, 7\)"),
        (torch.ones(1, 5, 6, dtype=torch.long), None, "floating-point"),
        (torch.randn(1, 0, 6), None, "at least one step"),
        (torch.randn(1, 5, 6), torch.ones(1, 6), r"shape \(1, 5\), as input_features, got \(1, 6\)"),
    ],
)
def test_wrong_input_is_named(features, mask, message):
    with pytest.raises(ValueError, match=message):
        make_model()(features, mask)


@variants
def test_save_and_load(options, tmp_path):
    model = make_model(**options)
    model.loss_normalizer.value.fill_(41.25)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert type(again) is ActionFormerForTemporalActionDetection
    features = torch.randn(1, 30, 6)
    with torch.no_grad():
        torch.testing.assert_close(again(features).logits, model(features).logits, rtol=0, atol=0)
    assert again.loss_normalizer.value == 41.25
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == again.config.to_dict()


def test_a_folder_saved_by_either_class_opens_by_name(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "detector")
    ActionFormerModel.from_pretrained(tmp_path / "detector").save_pretrained(tmp_path / "base")
    base = ActionFormerModel.from_pretrained(tmp_path / "base").eval()
    features = torch.randn(1, 12, 6)
    with torch.no_grad():
        expected = model.actionformer(features).last_hidden_state
        torch.testing.assert_close(base(features).last_hidden_state, expected, rtol=0, atol=0)


def test_another_number_of_classes_from_a_checkpoint(tmp_path):
    make_model().save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model(torch.randn(1, 12, 6)).logits.shape[-1] == 7
    torch.testing.assert_close(model.classification_head.output.bias.sigmoid(), torch.full((7,), 0.01))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_count(dtype, tmp_path):
    model = make_model(use_absolute_positions=True, use_relative_positions=True)
    model.loss_normalizer.value.fill_(100.3)
    model.save_pretrained(tmp_path)
    half = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert half.dtype == dtype
    assert half.loss_normalizer.value == model.loss_normalizer.value
    (video,) = make_features(20)
    with torch.no_grad():
        # features come in single precision from files
        logits = half(video[None]).logits
        torch.testing.assert_close(logits.float(), model(video[None]).logits, rtol=0.1, atol=0.3)
    assert loss_of(half.train()).loss.dtype == torch.float32


def test_the_configuration_is_plain_json(tmp_path):
    ActionFormerConfig(**TINY).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["regression_ranges"] == [[0.0, 4.0], [4.0, 8.0], [8.0, 10000.0]]
    assert written["model_type"] == "actionformer"


@pytest.mark.slow
def test_torch_export_with_open_batch_and_length():
    model = make_model()
    axes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    shapes = {"input_features": axes, "attention_mask": axes}
    example = batch_of(make_features(40, 20), 40)
    exported = torch.export.export(model, example, dynamic_shapes=shapes, strict=False).module()
    features, mask = batch_of(make_features(33, 21, 9), 33)
    with torch.no_grad():
        torch.testing.assert_close(exported(features, mask).logits, model(features, mask).logits)
