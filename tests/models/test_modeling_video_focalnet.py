"""Video-FocalNet: inputs, options, outputs, initialisation, and what trainers and tools do with it."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hf_effvid import (
    VideoFocalNetBackbone,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
)
from hf_effvid.models.layers import FrameDropPath, linear_drop_path_rates


TINY = {
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_frames": 4,
    "image_size": 32,
    "num_labels": 5,
    # with the published initialisation the output hardly depends on anything but the bias of the classifier
    "initialization": "fan_in",
}


def make_model(cls=VideoFocalNetForVideoClassification, **options):
    torch.manual_seed(0)
    return cls(VideoFocalNetConfig(**{**TINY, **options})).eval()


def make_clips(batch=2, frames=4, height=32, width=32, channels=3):
    return torch.randn(batch, frames, channels, height, width, generator=torch.Generator().manual_seed(1))


# --- inputs ---


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (3, 33, 47), (9, 64, 32), (4, 100, 35)])
def test_any_number_of_frames_and_any_size(frames, height, width):
    logits = make_model()(make_clips(frames=frames, height=height, width=width)).logits
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_a_clip_does_not_see_the_others_in_its_batch():
    model, clips = make_model(), make_clips(batch=3)
    with torch.no_grad():
        together = model(clips).logits
        alone = torch.cat([model(clip[None]).logits for clip in clips])
    torch.testing.assert_close(together, alone)


def test_the_order_of_frames_matters():
    model, clips = make_model(), make_clips()
    with torch.no_grad():
        assert (model(clips).logits - model(clips.flip(1)).logits).abs().max() > 1e-3


def test_frames_that_tubelets_do_not_divide_are_left_out():
    model, clips = make_model(tubelet_size=3), make_clips(frames=8)
    with torch.no_grad():
        torch.testing.assert_close(model(clips).logits, model(clips[:, :6]).logits, rtol=0, atol=0)


def test_sizes_are_floored_and_not_padded():
    model, clips = make_model(), make_clips(height=39, width=34)
    with torch.no_grad():
        outputs = model(clips, output_hidden_states=True)
        # the embedding covers 36 of 39 rows and 32 of 34 columns
        changed = clips.clone()
        changed[..., 36:, :] = 7.0
        changed[..., 32:] = 7.0
        torch.testing.assert_close(model(changed).logits, outputs.logits, rtol=0, atol=0)
    assert [tuple(state.shape[-2:]) for state in outputs.reshaped_hidden_states] == [
        (9, 8),
        (9, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ]


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 20),
    height=st.integers(8, 200),
    width=st.integers(8, 200),
    tubelet=st.integers(1, 4),
    overlapping=st.booleans(),
)
def test_grids_are_what_the_convolutions_leave(frames, height, width, tubelet, overlapping):
    assume(frames >= tubelet and not (overlapping and tubelet > 1))
    config = VideoFocalNetConfig(
        **{**TINY, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]},
        tubelet_size=tubelet,
        use_conv_embed=overlapping,
    )
    with torch.device("meta"):
        outputs = VideoFocalNetModel(config)(torch.empty(1, frames, 3, height, width), output_hidden_states=True)
    if overlapping:
        first = [(size - 3) // 4 + 1 for size in (height, width)]
        second = [math.ceil(size / 2) for size in first]
    else:
        first = [size // 4 for size in (height, width)]
        second = [size // 2 for size in first]
    stem, stage1, stage2 = (tuple(grid.shape[2:]) for grid in outputs.reshaped_hidden_states)
    assert stem == stage1 == (frames // tubelet, *first)
    assert stage2 == (frames // tubelet, *second)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.randn(4, 3, 32, 32), r"expects pixel_values of shape \(batch, frames, channels.*got \(4, 3, 32, 32\)"),
        (torch.randn(1, 3, 4, 32, 32), r"expects 3 channels, got 4\. The order is"),
        (torch.randn(1, 4, 1, 32, 32), r"expects 3 channels, got 1\.$"),
        (torch.randn(1, 4, 3, 32, 31), "at least 32x32 pixels, got 32x31"),
        (torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8), r"floating-point pixel_values, got torch\.uint8"),
        (torch.randn(1, 0, 3, 32, 32), "at least 1 frames"),
    ],
)
def test_wrong_input_is_named(clips, message):
    with pytest.raises(ValueError, match=message):
        make_model()(clips)


def test_too_few_frames_for_a_tubelet_is_named():
    with pytest.raises(ValueError, match=r"at least 2 frames \(tubelet_size\), got 1"):
        make_model(tubelet_size=2)(make_clips(frames=1))


def test_smallest_input_depends_on_the_number_of_stages():
    model = make_model(depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3])
    assert model(make_clips(height=8, width=8)).logits.shape == (2, 5)
    with pytest.raises(ValueError, match="with 2 stages expects frames of at least 8x8"):
        model(make_clips(height=7, width=8))
    assert make_model(use_conv_embed=True)(make_clips(height=3, width=3)).logits.shape == (2, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_single_precision_pixels_serve_a_model_of_any_precision(dtype):
    outputs = make_model().to(dtype)(make_clips())
    assert outputs.logits.dtype == dtype
    assert outputs.logits.isfinite().all()


# --- options ---

OPTIONS = [
    {"tubelet_size": 2},
    {"use_conv_embed": True},
    {"patch_norm": False},
    {"use_layerscale": True, "layerscale_value": 0.1},
    {"use_postln": True},
    {"use_postln_in_modulation": True},
    {"normalize_modulator": True},
    {"focal_levels": [0, 1, 2, 3], "focal_windows": [1, 3, 5, 3]},
    {"depths": [2, 1], "focal_levels": [2, 1], "focal_windows": [3, 5], "mlp_ratio": 2},
    {"num_channels": 1},
    {"patch_size": 2},
    {"use_layerscale": True, "use_postln": True, "use_postln_in_modulation": True, "normalize_modulator": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_every_option_trains_all_its_parameters(options, tmp_path):
    model = make_model(**options).train()
    clips = make_clips(channels=model.config.num_channels)
    model(clips, labels=torch.tensor([0, 3])).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []
    model.eval().save_pretrained(tmp_path)
    again = VideoFocalNetForVideoClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(clips).logits, model(clips).logits, rtol=0, atol=0)


def test_options_change_the_parameters_they_name():
    names = lambda **options: set(dict(make_model(**options).named_parameters()))  # noqa: E731
    plain = names()
    assert {name.rsplit(".", 1)[1] for name in names(use_layerscale=True) - plain} == {"layer_scale1", "layer_scale2"}
    assert all(".modulation.norm." in name for name in names(use_postln_in_modulation=True) - plain)
    assert {name for name in plain - names(patch_norm=False)} == {
        "video_focalnet.embeddings.norm.weight",
        "video_focalnet.embeddings.norm.bias",
    }


def test_overlapping_embedding_has_its_kernels():
    model = make_model(use_conv_embed=True)
    embedding = model.video_focalnet.embeddings.projection
    assert (embedding.kernel_size, embedding.stride, embedding.padding) == ((7, 7), (4, 4), (2, 2))
    downsample = model.video_focalnet.encoder.stages[1].downsample.projection
    assert (downsample.kernel_size, downsample.stride, downsample.padding) == ((3, 3), (2, 2), (1, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_windows": [3, 4, 3, 3]}, "expected odd windows"),
        ({"focal_levels": [2, 2]}, r"focal_levels needs one number per stage.*got focal_levels=\[2, 2\]"),
        ({"focal_windows": [3] * 5}, "focal_windows needs one number per stage"),
        ({"focal_levels": [2, 2, -1, 2]}, "0 or more focal levels"),
        ({"use_conv_embed": True, "tubelet_size": 2}, "works on single frames, got tubelet_size=2"),
        ({"use_conv_embed": True, "patch_size": 8}, "fixed stride of 4, got patch_size=8"),
        ({"depths": [2, 0, 2, 2]}, "at least one block"),
        ({"depths": []}, "at least one stage"),
        ({"drop_path_rate": 1.0}, r"probability in \[0, 1\), got 1.0"),
        ({"tubelet_size": 0}, "at least 1, got 0"),
        ({"mlp_ratio": 0}, "above 0"),
        ({"image_size": 0}, "size in pixels"),
        ({"initialization": "xavier"}, "initialization"),
        ({"num_frames": "8"}, "num_frames"),
    ],
)
def test_contradictory_configurations_are_refused(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        VideoFocalNetConfig(**{**TINY, **options})


def test_fields_set_after_construction_are_checked_by_the_model(tmp_path):
    """`from_pretrained(folder, depths=...)` sets them when the configuration's own check is over."""
    make_model().save_pretrained(tmp_path)
    for options, message in (
        ({"focal_levels": [2, 2, 2]}, "focal_levels needs one number per stage"),
        ({"depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}, "stage_names"),
    ):
        with pytest.raises(ValueError, match=message):
            VideoFocalNetForVideoClassification.from_pretrained(tmp_path, **options)
    with pytest.raises(StrictDataclassError, match="odd windows"):
        VideoFocalNetForVideoClassification.from_pretrained(tmp_path, focal_windows=[2, 2, 2, 2])


def test_presets():
    config = VideoFocalNetConfig.from_preset("base", num_labels=7, num_frames=16)
    assert (config.embed_dim, list(config.depths), config.drop_path_rate) == (128, [2, 2, 18, 2], 0.5)
    assert (config.num_labels, config.num_frames, config.hidden_size, config.num_hidden_layers) == (7, 16, 1024, 24)
    config.depths[0] = 99
    assert list(VideoFocalNetConfig.from_preset("base").depths) == [2, 2, 18, 2], "presets are not shared"
    with pytest.raises(ValueError, match="one of tiny, small, base, got 'huge'"):
        VideoFocalNetConfig.from_preset("huge")


# --- outputs ---


def test_hidden_states_are_tokens_and_grids():
    model, clips = make_model(VideoFocalNetModel, tubelet_size=2), make_clips(frames=4, height=64)
    outputs = model(clips, output_hidden_states=True)
    shapes = [(8, 16, 8), (8, 16, 8), (16, 8, 4), (32, 4, 2), (64, 2, 1)]
    assert len(outputs.hidden_states) == 5
    for tokens, grid, (channels, height, width) in zip(
        outputs.hidden_states, outputs.reshaped_hidden_states, shapes, strict=True
    ):
        assert tokens.shape == (2, 2 * height * width, channels)
        assert grid.shape == (2, channels, 2, height, width)
        torch.testing.assert_close(grid.permute(0, 2, 3, 4, 1).reshape(tokens.shape), tokens, rtol=0, atol=0)
    torch.testing.assert_close(outputs.last_hidden_state, model.layernorm(outputs.hidden_states[-1]))
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state.mean(dim=1))


def test_modulators_and_gates_are_outputs_and_leave_no_trace():
    model = make_model(focal_levels=[1, 2, 3, 0])
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    with torch.no_grad():
        outputs = model(make_clips(height=64), output_modulators=True)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    grids = [(4, 16, 8), (4, 8, 4), (4, 4, 2), (4, 2, 1)]
    for index, (grid, channels, levels) in enumerate(zip(grids, [8, 16, 32, 64], [1, 2, 3, 0], strict=True)):
        for modulators in (outputs.spatial_modulators, outputs.temporal_modulators):
            assert modulators[index].shape == (2, *grid, channels)
        for gates in (outputs.spatial_gates, outputs.temporal_gates):
            assert gates[index].shape == (2, *grid, levels + 1)
    assert model(make_clips()).spatial_modulators is None
    assert len(make_model(output_modulators=True)(make_clips()).temporal_gates) == 4


def test_modulators_explain_the_modulation():
    """The returned modulators are the ones that were multiplied with the query."""
    model, clips = make_model(VideoFocalNetModel), make_clips()
    modulation = model.encoder.stages[2].layers[0].modulation
    seen = {}
    modulation.projection_in.register_forward_hook(lambda module, inputs, output: seen.update(query=output[..., :32]))
    modulation.projection_out.register_forward_hook(lambda module, inputs, output: seen.update(modulated=inputs[0]))
    with torch.no_grad():
        outputs = model(clips, output_modulators=True)
    expected = seen["query"] * outputs.spatial_modulators[2] * outputs.temporal_modulators[2]
    torch.testing.assert_close(seen["modulated"], expected)


def test_backbone_returns_the_stages_it_is_asked_for():
    backbone = make_model(VideoFocalNetBackbone, out_features=["stem", "stage2", "stage4"])
    assert backbone.channels == [8, 16, 64]
    clips = make_clips(height=64)
    with torch.no_grad():
        maps = backbone(clips).feature_maps
        grids = backbone.video_focalnet(clips, output_hidden_states=True).reshaped_hidden_states
    for feature_map, grid, channels in zip(maps, (grids[0], grids[2], grids[4]), backbone.channels, strict=True):
        torch.testing.assert_close(feature_map, grid, rtol=0, atol=0)
        assert feature_map.shape[:3] == (2, channels, 4)


@pytest.mark.parametrize(
    ("problem_type", "labels"),
    [
        ("single_label_classification", torch.tensor([1, 4])),
        ("multi_label_classification", torch.tensor([[0.0, 1, 1, 0, 0], [1, 0, 0, 0, 0]])),
        ("regression", torch.randn(2, 5)),
    ],
)
def test_losses(problem_type, labels):
    model, clips = make_model(problem_type=problem_type), make_clips()
    outputs = model(clips, labels=labels)
    expected = {
        "single_label_classification": nn.functional.cross_entropy,
        "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
        "regression": nn.functional.mse_loss,
    }[problem_type](outputs.logits, labels)
    torch.testing.assert_close(outputs.loss, expected)


def test_a_new_head_keeps_the_body(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    other = VideoFocalNetForVideoClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert other(make_clips()).logits.shape == (2, 3)
    for name, parameter in other.video_focalnet.named_parameters():
        torch.testing.assert_close(parameter, model.video_focalnet.get_parameter(name), rtol=0, atol=0)


# --- initialisation ---


def test_published_initialisation():
    model = make_model(embed_dim=32, depths=[1], focal_levels=[1], focal_windows=[3], initialization="published")
    modulation = model.video_focalnet.encoder.stages[0].layers[0].modulation
    for linear in (modulation.projection_in, modulation.projection_out, model.classifier):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.25)
        assert not linear.bias.any()
    # convolutions upstream, which keep PyTorch's default: uniform within 1 / sqrt(fan-in)
    bound = 1 / math.sqrt(32)
    for projection in (modulation.projection_context, modulation.projection_context_temporal):
        assert 0.9 * bound < projection.weight.abs().max() <= bound
        assert 0.5 * bound < projection.bias.abs().max() <= bound
    assert 0.9 / 3 < modulation.spatial_kernel_0.abs().max() <= 1 / 3
    assert 0.9 / math.sqrt(96) < modulation.temporal_kernel_0.abs().max() <= 1 / math.sqrt(96)


def test_fan_in_initialisation_has_unit_gain():
    model = make_model(embed_dim=32, depths=[1], focal_levels=[1], focal_windows=[3])
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and parameter.numel() > 500:
            assert parameter.std().item() * math.sqrt(parameter[0].numel()) == pytest.approx(1.0, rel=0.15), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_layer_scale_starts_where_the_configuration_says():
    model = make_model(use_layerscale=True, layerscale_value=0.25)
    layer = model.video_focalnet.encoder.stages[1].layers[0]
    assert (layer.layer_scale1 == 0.25).all() and (layer.layer_scale2 == 0.25).all()


def test_published_initialisation_is_blind_to_time_and_fan_in_is_not():
    """Why small models from scratch need the other one."""

    def sensitivity(**options):
        model, clips = make_model(**options).double(), make_clips().double()
        with torch.no_grad():
            forward, backward = model.video_focalnet(clips), model.video_focalnet(clips.flip(1))
        return (forward.pooler_output - backward.pooler_output).abs().max().item()

    assert sensitivity(initialization="published") < 1e-3
    assert sensitivity(initialization="fan_in") > 1e-2


# --- training ---


def test_drop_path_rates_grow_linearly():
    rates = linear_drop_path_rates(0.2, 12)
    assert rates == pytest.approx([0.2 * index / 11 for index in range(12)])
    assert linear_drop_path_rates(0.3, 1) == [0.0]
    model = make_model(depths=[1, 2, 1, 1], drop_path_rate=0.4)
    layers = [layer for stage in model.video_focalnet.encoder.stages for layer in stage.layers]
    assert [layer.drop_path.rate for layer in layers] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_drop_path_is_drawn_per_frame_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = FrameDropPath(0.25).train()
    tokens = torch.ones(200, 4 * 6, 5)
    dropped = drop(tokens, 4).unflatten(1, (4, 6))
    per_frame = dropped[:, :, 0, 0]
    assert (dropped == per_frame[..., None, None]).all(), "a frame is dropped as a whole"
    assert per_frame.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (per_frame != per_frame[:, :1]).any(), "frames of one clip are drawn independently"
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)
    assert drop.eval()(tokens, 4) is tokens


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    model, clips, labels = make_model(drop_path_rate=0.5), make_clips(), torch.tensor([0, 1])
    model.train()

    def gradients():
        model.zero_grad()
        torch.manual_seed(3)
        model(clips, labels=labels).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    plain = gradients()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    checkpointed = gradients()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_trainer_is_told_that_the_loss_is_a_mean():
    assert VideoFocalNetForVideoClassification.accepts_loss_kwargs is False


def test_lora_reaches_every_projection_and_merges_exactly():
    peft = pytest.importorskip("peft")
    targets = ["projection_in", "projection_in_temporal", "projection_context", "projection_context_temporal", "fc1"]
    model, clips = make_model(), make_clips()
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["classifier"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    adapted(pixel_values=clips, labels=torch.tensor([0, 1])).loss.backward()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trained if ".lora_" in name} == set(targets)
    with torch.no_grad():
        expected = adapted(pixel_values=clips).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(clips).logits, expected, rtol=1e-4, atol=1e-4)
    assert type(merged) is VideoFocalNetForVideoClassification


def test_weights_may_lie_elsewhere_until_a_block_runs():
    """Offloading moves the weights of a module when that module is called, and the kernels must be among them."""
    accelerate = pytest.importorskip("accelerate")
    model, clips = make_model(use_layerscale=True), make_clips()
    with torch.no_grad():
        expected = model(clips).logits
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        assert all(parameter.is_meta for parameter in model.parameters())
        torch.testing.assert_close(model(clips).logits, expected, rtol=0, atol=0)


# --- export ---


def test_torch_export_with_any_batch_size():
    model = make_model(VideoFocalNetForVideoClassification, tubelet_size=2)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (make_clips(batch=2),), dynamic_shapes={"pixel_values": {0: batch}}).module()
    clips = make_clips(batch=5)
    with torch.no_grad():
        torch.testing.assert_close(exported(clips)["logits"], model(clips).logits)


# --- without the temporal branch ---


def test_without_the_temporal_branch_the_order_of_frames_is_invisible():
    model, clips = make_model(temporal_encoding="none"), make_clips()
    with torch.no_grad():
        outputs, turned = model(clips, output_modulators=True), model(clips.flip(1))
    torch.testing.assert_close(outputs.logits, turned.logits)
    assert outputs.temporal_modulators is None and outputs.temporal_gates is None
    assert len(outputs.spatial_modulators) == 4
    assert not [name for name, _ in model.named_parameters() if "temporal" in name]


def test_the_model_without_the_temporal_branch_trains_and_comes_back(tmp_path):
    model = make_model(temporal_encoding="none", use_layerscale=True).train()
    model(make_clips(), labels=torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = VideoFocalNetForVideoClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(make_clips()).logits, model.eval()(make_clips()).logits, rtol=0, atol=0)


def test_an_unknown_temporal_encoding_is_refused():
    with pytest.raises(StrictDataclassError, match="temporal_encoding"):
        VideoFocalNetConfig(temporal_encoding="sequential-ish")
