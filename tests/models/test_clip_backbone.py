"""Pixels end to end: clips, positions, time, adapters, and what padding and chunks may not change."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VivitConfig,
    VJEPA2Config,
)

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    ActionFormerModel,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
)
from hf_effvid.convert.videomae_mmaction import convert_videomae
from hf_effvid.models.clip_backbone import ClipBackbone
from hf_effvid.models.clip_trunks import embed_videomae, run_trunk, videomae_positions
from hf_effvid.models.temporal_resize import resized_places, sample_between


FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures" / "actionformer"
VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "patch_size": 8}
TRUNKS = {
    "videomae": VideoMAEConfig(**VIT, image_size=32, num_frames=4, tubelet_size=2),
    "video_focalnet": VideoFocalNetConfig(
        embed_dim=8, depths=[1], focal_levels=[1], focal_windows=[3], num_frames=4, initialization="fan_in"
    ),
    "vivit": VivitConfig(**{**VIT, "patch_size": None}, image_size=16, num_frames=4, tubelet_size=[2, 8, 8]),
    "vjepa2": VJEPA2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=1, patch_size=8, crop_size=16, frames_per_clip=4
    ),
    "timesformer": TimesformerConfig(**VIT, image_size=16, num_frames=4),
}
TINY = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_stem_layers": 1,
    "num_branch_layers": 1,
    "attention_window": 3,
    "max_sequence_length": 24,
    "num_labels": 3,
}
trunks = pytest.mark.parametrize("trunk", TRUNKS)


def make_model(trunk="videomae", cls=ActionFormerForTemporalActionDetection, **options):
    torch.manual_seed(0)
    config = TRUNKS[trunk].to_dict()
    model = cls(ActionFormerConfig(**{**TINY, **options}, backbone_config=config)).eval()
    for parameter in model.parameters():  # non-zero biases everywhere, those of VideoMAE's attention above all
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def make_video(frames, size=16, batch=1, seed=1):
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


def at_valid_points(outputs, video=0):
    return outputs.logits[video][outputs.point_mask[video]]


# --- trunks and time ---


@trunks
def test_a_clip_of_the_video_is_the_trunk_on_that_clip(trunk):
    model, video = make_model(trunk, ActionFormerModel), make_video(12)
    with torch.no_grad():
        features, mask = model.backbone(video)
        parts = [run_trunk(model.backbone.trunk, video[:, start : start + 4]).per_step() for start in (0, 4, 8)]
    source = torch.cat(parts, dim=1).transpose(1, 2)
    expected = torch.nn.functional.interpolate(source, size=12, mode="linear", align_corners=False).transpose(1, 2)
    assert mask is None
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


# Video-FocalNet mixes time within its blocks and has one grid in and out: the tests of the model hold that
@pytest.mark.parametrize("trunk", sorted(TRUNKS.keys() - {"video_focalnet"}))
def test_tokens_of_a_step_are_those_of_its_frames(trunk):
    """With blocks that pass their input on no token sees another: other pixels in the second half of a clip change that half alone."""
    model = make_model(trunk, ActionFormerModel).backbone.trunk
    for module in model.modules():
        if type(module).__name__ in ("VideoMAELayer", "VivitLayer"):
            module.forward = lambda states, *args, **kwargs: states
        if type(module).__name__ in ("VJEPA2Layer", "TimesformerLayer"):
            module.forward = lambda states, *args, **kwargs: (states,)
    clip = make_video(4)
    changed = clip.clone()
    changed[:, 2:] += 1.0
    with torch.no_grad():
        before, after = run_trunk(model, clip).per_step(), run_trunk(model, changed).per_step()
    half = before.shape[1] // 2
    torch.testing.assert_close(after[:, :half], before[:, :half], rtol=0, atol=1e-6)
    assert (after[:, half:] - before[:, half:]).abs().min(dim=-1).values.max() > 1e-4


@pytest.mark.parametrize(
    ("frames", "frames_per_step", "steps"), [(12, 1, 12), (12, 4, 3), (10, 1, 10), (10, 4, 3), (1, 2, 1)]
)
def test_steps_of_the_grid(frames, frames_per_step, steps):
    model = make_model(frames_per_step=frames_per_step)
    with torch.no_grad():
        outputs = model(pixel_values=make_video(frames))
    assert int((outputs.points[:, 3] == 1).sum()) == steps


def test_time_is_stretched_as_torch_does_it():
    values = torch.randn(1, 24, 5, generator=torch.Generator().manual_seed(0))
    for steps in (48, 12, 24, 96):
        places = resized_places(steps, 24 / steps, torch.tensor([[24]]))
        expected = torch.nn.functional.interpolate(
            values.transpose(1, 2), size=steps, mode="linear", align_corners=False
        )
        torch.testing.assert_close(sample_between(values, places), expected.transpose(1, 2), rtol=1e-5, atol=1e-6)


# --- VideoMAE's positions: the recorded reference ---


def test_videomae_on_smaller_frames_is_the_published_backbone():
    """Recorded with the backbone of AdaTAD-like detectors (a table for 64 x 64, frames of 48 x 48, no norm after the last block)."""
    record = json.loads((FIXTURES / "videomae_backbone.json").read_text())
    recorded = load_file(FIXTURES / "videomae_backbone.safetensors")
    arguments = record["kwargs"]
    config = VideoMAEConfig(
        image_size=arguments["img_size"],
        patch_size=arguments["patch_size"],
        hidden_size=arguments["embed_dims"],
        num_hidden_layers=arguments["depth"],
        num_attention_heads=arguments["num_heads"],
        intermediate_size=arguments["embed_dims"] * arguments["mlp_ratio"],
        num_frames=arguments["num_frames"],
        layer_norm_eps=arguments["norm_cfg"]["eps"],
    )
    trunk = VideoMAEModel(config).eval()
    weights = {
        name.removeprefix("teacher."): value
        for name, value in recorded.items()
        if name.startswith("teacher.") and "feature_map" not in name
    }
    trunk.load_state_dict(convert_videomae(weights))
    clips = recorded["input"].transpose(1, 2)  # recorded as (N, C, F, H, W)
    with torch.no_grad():
        found = run_trunk(trunk, clips)
    expected = recorded["teacher.feature_map"]  # (N, D, t, h, w)
    torch.testing.assert_close(found.tokens.transpose(1, 2), expected.flatten(2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.per_step().transpose(1, 2), expected.mean(dim=(3, 4)), rtol=1e-4, atol=1e-5)
    # the table that VideoMAE would build for such frames is another one
    other = VideoMAEModel(VideoMAEConfig(**{**config.to_dict(), "image_size": 48}))
    resized = videomae_positions(trunk, (2, 3, 3))
    assert (resized - other.embeddings.position_embeddings).abs().max() > 0.3


def test_positions_at_the_trained_size_are_the_table_itself():
    trunk = make_model(cls=ActionFormerModel).backbone.trunk
    assert videomae_positions(trunk, (2, 4, 4)) is trunk.embeddings.position_embeddings
    with pytest.raises(ValueError, match="2 steps of time .num_frames=4., the clips make 3"):
        videomae_positions(trunk, (3, 4, 4))


def test_at_the_trained_size_the_trunk_is_the_stock_model():
    trunk = make_model(cls=ActionFormerModel).backbone.trunk
    clips = make_video(4, size=32, batch=2)
    with torch.no_grad():
        torch.testing.assert_close(run_trunk(trunk, clips).tokens, trunk(clips).last_hidden_state)


# --- padding, batches, passes ---


@trunks
def test_a_video_in_a_batch_gives_what_it_gives_alone(trunk):
    model, videos = make_model(trunk), [make_video(frames, seed=frames) for frames in (14, 6)]
    padded = torch.full((2, 14, 3, 16, 16), 9.0)
    mask = torch.zeros(2, 14, dtype=torch.long)
    for row, video in enumerate(videos):
        padded[row, : video.shape[1]] = video
        mask[row, : video.shape[1]] = 1
    with torch.no_grad():
        together = model(pixel_values=padded, pixel_mask=mask)
        for row, video in enumerate(videos):
            alone = model(pixel_values=video)
            torch.testing.assert_close(at_valid_points(together, row), at_valid_points(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapters", [False, True])
def test_clips_in_passes_give_what_all_at_once_give(adapters):
    video = make_video(18)
    outputs = []
    for clips_per_pass in (0, 1, 2):
        model = make_model(clips_per_pass=clips_per_pass, temporal_adapters=adapters)
        with torch.no_grad():
            outputs.append(model(pixel_values=video).logits)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-5, atol=1e-5)


def test_padding_is_not_computed():
    model, seen = make_model(), []
    model.actionformer.backbone.trunk.encoder.layer[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(len(inputs[0]))
    )
    mask = torch.zeros(2, 20, dtype=torch.long)
    mask[0, :5] = mask[1, :20] = 1
    with torch.no_grad():
        model(pixel_values=make_video(20, batch=2), pixel_mask=mask)
    assert seen == [2 + 5]


# --- adapters, freezing, gradients ---


def test_new_adapters_change_nothing_and_trained_ones_join_clips():
    torch.manual_seed(0)
    config = ActionFormerConfig(**TINY, backbone_config=TRUNKS["videomae"].to_dict(), temporal_adapters=True)
    backbone = ActionFormerModel(config).eval().backbone
    video = make_video(12)
    with torch.no_grad():
        with_them = backbone(video)[0]
        adapters, backbone.adapters = backbone.adapters, None
        torch.testing.assert_close(backbone(video)[0], with_them, rtol=1e-5, atol=1e-6)
        backbone.adapters = adapters
        for parameter in adapters.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        before = backbone(video)[0]
        changed = video.clone()
        changed[:, 8:] += 1.0  # the last clip
        after = backbone(changed)[0]
        backbone.adapters = None
        without = [backbone(clip)[0] for clip in (video, changed)]
    # one block per adapter widens the view by one step of time: the middle clip sees the last one, but only through adapters
    assert (after - before)[:, 5].abs().max() > 1e-4
    assert torch.equal(without[0][:, :6], without[1][:, :6])


LABELS = [{"grid_segments": torch.tensor([[1.0, 6.0]]), "class_labels": torch.tensor([1])}]


def gradients_of(model, **options):
    model.train()
    model(pixel_values=make_video(12), labels=LABELS, **options).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@trunks
def test_every_parameter_gets_a_gradient(trunk):
    without = [name for name, value in gradients_of(make_model(trunk, drop_path_rate=0.0)).items() if value is None]
    assert without == []


def test_a_frozen_trunk_gets_none_and_stays_in_evaluation_mode(tmp_path):
    model = make_model(freeze_backbone=True, drop_path_rate=0.0)
    gradients = gradients_of(model)
    assert not model.actionformer.backbone.trunk.training
    for name, value in gradients.items():
        assert (value is None) == ("backbone.trunk" in name), name
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).actionformer.backbone
    assert not any(parameter.requires_grad for parameter in again.trunk.parameters())


def test_adapters_of_a_frozen_trunk_learn():
    gradients = gradients_of(make_model(freeze_backbone=True, temporal_adapters=True, drop_path_rate=0.0))
    for name, value in gradients.items():
        assert (value is None) == ("backbone.trunk" in name), name


@pytest.mark.parametrize("adapters", [False, True])
def test_gradient_checkpointing_changes_no_gradient(adapters):
    options = {"drop_path_rate": 0.0, "temporal_adapters": adapters}
    plain, checkpointed = make_model(**options), make_model(**options)
    checkpointed.gradient_checkpointing_enable()
    assert all(layer.gradient_checkpointing for layer in checkpointed.actionformer.backbone.trunk.encoder.layer)
    for with_it, without in zip(gradients_of(checkpointed).values(), gradients_of(plain).values(), strict=True):
        torch.testing.assert_close(with_it, without, rtol=1e-4, atol=1e-6)


def test_lora_on_the_trunk_trains_and_merges():
    peft = pytest.importorskip("peft")
    model = make_model(drop_path_rate=0.0)
    heads = ["neck", "classification_head", "regression_head"]
    config = peft.LoraConfig(
        r=2,
        target_modules=r".*backbone\.trunk\..*\.(query|value|dense)",
        modules_to_save=heads,
        init_lora_weights=False,
    )
    adapted = peft.get_peft_model(model, config)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert all("lora_" in name for name in trained if "backbone.trunk" in name)
    adapted.train()(pixel_values=make_video(8), labels=LABELS).loss.backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if "lora_" in name)
    adapted.eval()
    with torch.no_grad():
        expected = adapted(pixel_values=make_video(8)).logits
        merged = adapted.merge_and_unload()
        torch.testing.assert_close(merged(pixel_values=make_video(8)).logits, expected, rtol=1e-4, atol=1e-4)


# --- from trained classifiers, and files ---


@pytest.mark.parametrize("by", ["model", "folder"])
def test_from_a_trained_videomae(by, tmp_path):
    torch.manual_seed(3)
    classifier = VideoMAEForVideoClassification(TRUNKS["videomae"]).eval()
    for parameter in classifier.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    classifier.save_pretrained(tmp_path)
    source = classifier if by == "model" else tmp_path
    detector = ActionFormerForTemporalActionDetection.from_backbone(source, **TINY)
    clip = make_video(4, size=32)
    with torch.no_grad():
        expected = classifier.videomae(clip).last_hidden_state
        torch.testing.assert_close(run_trunk(detector.actionformer.backbone.trunk, clip).tokens, expected)
    assert detector.config.clip_frames == 4 and detector.config.input_size == 8


def test_from_a_trained_video_focalnet():
    classifier = VideoFocalNetForVideoClassification(TRUNKS["video_focalnet"]).eval()
    detector = ActionFormerForTemporalActionDetection.from_backbone(classifier, **TINY)
    clip = make_video(4, size=32)
    with torch.no_grad():
        expected = classifier.video_focalnet(clip).last_hidden_state
        torch.testing.assert_close(run_trunk(detector.actionformer.backbone.trunk, clip).tokens, expected)


@trunks
def test_save_and_load(trunk, tmp_path):
    """Every bias of the trunk is away from zero: VideoMAE's are renamed on disk by `model_type`, which the detector has another of."""
    model = make_model(trunk, temporal_adapters=trunk == "videomae")
    model.save_pretrained(tmp_path)
    again, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(again.config.backbone_config) is type(TRUNKS[trunk])
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    with torch.no_grad():
        video = make_video(9)
        torch.testing.assert_close(again(pixel_values=video).logits, model(pixel_values=video).logits, rtol=0, atol=0)


def test_half_precision_trunk():
    model, video = make_model(), make_video(8)
    with torch.no_grad():
        expected = model(pixel_values=video).logits
        torch.testing.assert_close(model.bfloat16()(pixel_values=video).logits.float(), expected, rtol=0.2, atol=0.5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "got neither"),
        ({"pixel_values": torch.randn(4, 3, 16, 16)}, r"got torch.float32 \(4, 3, 16, 16\)"),
        ({"pixel_values": torch.zeros(1, 4, 3, 16, 16, dtype=torch.uint8)}, "floating-point"),
        ({"pixel_values": torch.randn(1, 4, 3, 16, 16), "input_features": torch.randn(1, 4, 8)}, "got both"),
        ({"pixel_values": torch.randn(1, 4, 3, 16, 16), "pixel_mask": torch.ones(1, 5)}, r"shape \(1, 4\)"),
    ],
)
def test_wrong_input_is_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_model()(**inputs)


def test_contradictions_are_named():
    without_trunk = ActionFormerForTemporalActionDetection(ActionFormerConfig(**TINY, input_size=8))
    with pytest.raises(ValueError, match="no trunk for pixel_values"):
        without_trunk(pixel_values=make_video(4))
    with pytest.raises(StrictDataclassError, match="between the blocks of a VideoMAE"):
        make_model("vivit", temporal_adapters=True)
    with pytest.raises(ValueError, match="needs a model_type"):
        ActionFormerConfig(**TINY, backbone_config={"hidden_size": 8})
    with pytest.raises(ValueError, match="no trunk of model_type 'vit'"):
        ClipBackbone(ActionFormerConfig(**TINY, backbone_config={"model_type": "vit", "num_frames": 1}))


def test_clips_of_another_length_need_another_table():
    with pytest.raises(ValueError, match="give clips of num_frames frames"):
        make_model(clip_frames=6)(pixel_values=make_video(6))
    embedded = embed_videomae(make_model(cls=ActionFormerModel).backbone.trunk, make_video(4, batch=2))
    assert embedded.tokens.shape == (2, 2 * 2 * 2, 8) and embedded.steps == 2
