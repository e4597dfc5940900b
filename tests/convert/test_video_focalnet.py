"""Video-FocalNet checkpoints of the original project become folders that the auto classes open."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_effvid import VideoFocalNetConfig
from hf_effvid.convert import CONVERTERS, CheckpointError, convert_checkpoint
from hf_effvid.convert.video_focalnet import config_for, convert_key
from tests.parity.video_focalnet_reference import FIXTURES, TINY_CASES


def upstream_arguments(case):
    return json.loads((FIXTURES / f"{case}.json").read_text())["kwargs"]


@pytest.fixture(params=TINY_CASES)
def case(request):
    return request.param


# what the weights do not show
TRACELESS = ("use_postln", "normalize_modulator")


def test_from_the_checkpoint_file_to_the_recorded_logits(case, tmp_path):
    source = tmp_path / "reference.pth"
    torch.save({"model": load_file(FIXTURES / f"{case}.weights.safetensors"), "epoch": 1}, source)
    arguments = {name: value for name, value in upstream_arguments(case).items() if name in TRACELESS}
    folder = convert_checkpoint(
        source, tmp_path / "out", num_labels=11, id2label=[f"class {i}" for i in range(11)], arguments=arguments
    )
    model = AutoModelForVideoClassification.from_pretrained(folder)
    recorded = load_file(FIXTURES / f"{case}.io.safetensors")
    with torch.no_grad():
        logits = model(recorded["input"]).logits
    torch.testing.assert_close(logits, recorded["logits"], rtol=0, atol=5e-5)
    assert model.config.id2label[10] == "class 10"
    assert model.config.label2id["class 3"] == 3
    assert list(folder.glob("*.bin")) == [] and (folder / "model.safetensors").exists()


def test_the_record_says_where_the_weights_came_from(tmp_path):
    source = FIXTURES / "tiny_default.weights.safetensors"
    folder = convert_checkpoint(source, tmp_path)
    record = json.loads((folder / "conversion.json").read_text())
    assert record["source"] == {
        "name": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "bytes": source.stat().st_size,
    }
    assert record["parameters"] == 359_105
    assert record["preset"] is None
    assert "39eba99" in record["reference"]


def test_the_recipe_is_the_published_one(tmp_path):
    folder = convert_checkpoint(FIXTURES / "tiny_default.weights.safetensors", tmp_path, horizontal_flip_safe=False)
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.sampling, processor.frame_stride) == (8, "segment", 4)
    assert (processor.num_clips, processor.num_crops, processor.aggregation) == (4, 3, "softmax_mean")
    assert processor.image_mean == pytest.approx([0.485, 0.456, 0.406], abs=1e-9)
    assert processor.horizontal_flip_safe is False
    clips = processor(torch.zeros(30, 3, 64, 96, dtype=torch.uint8), multi_view=True)["pixel_values"]
    assert clips.shape == (12, 8, 3, 224, 224)


def test_configuration_from_upstream_arguments(case):
    build_config, _ = CONVERTERS["video_focalnet"]
    arguments = upstream_arguments(case)
    config = build_config(arguments)
    assert config.num_labels == 11
    assert config.drop_path_rate == arguments["drop_path_rate"]
    for name in ("embed_dim", "use_postln", "normalize_modulator", "tubelet_size", "focal_levels", "layerscale_value"):
        assert getattr(config, name) == arguments[name]


def test_configuration_with_upstream_defaults():
    build_config, _ = CONVERTERS["video_focalnet"]
    config = build_config({})
    assert (config.num_labels, config.drop_path_rate, config.image_size) == (1000, 0.1, 224)
    with pytest.raises(ValueError, match="no argument 'focal_factor'"):
        build_config({"focal_factor": 2})


def test_configuration_is_read_off_the_weights(case):
    arguments = upstream_arguments(case)
    inferred = config_for(load_file(FIXTURES / f"{case}.weights.safetensors"))
    expected = CONVERTERS["video_focalnet"][0](arguments)
    for name in (
        "embed_dim", "depths", "focal_levels", "focal_windows", "mlp_ratio", "tubelet_size", "patch_size", "patch_norm",
        "num_channels", "use_layerscale", "use_postln_in_modulation", "use_conv_embed", "num_labels",
    ):  # fmt: skip
        assert getattr(inferred, name) == getattr(expected, name), name


def test_released_sizes_are_recognised():
    """From the names and shapes of a real-size checkpoint, without its numbers."""
    shapes = json.loads((FIXTURES / "T_k400_recipe.json").read_text())["state_dict_shapes"]
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = config_for(weights, preset="tiny")
    expected = VideoFocalNetConfig.from_preset("tiny", num_labels=400)
    assert (config.depths, config.embed_dim, config.drop_path_rate) == (expected.depths, 96, 0.2)
    with pytest.raises(ValueError, match="not of preset 'base'.*which is 'tiny'"):
        config_for(weights, preset="base")
    with pytest.raises(ValueError, match="one of tiny, small, base"):
        config_for(weights, preset="large")


def test_conversion_is_pure_and_leaves_our_own_weights_alone(case):
    _, convert_state_dict = CONVERTERS["video_focalnet"]
    weights = load_file(FIXTURES / f"{case}.weights.safetensors")
    before = {name: value.clone() for name, value in weights.items()}
    converted = convert_state_dict(weights)
    again = convert_state_dict(converted)
    assert weights.keys() == before.keys() and all((weights[name] == before[name]).all() for name in before)
    assert again.keys() == converted.keys() and all(again[name] is converted[name] for name in converted)
    assert len(converted) == len(weights)


@pytest.mark.parametrize(
    ("upstream", "ours"),
    [
        ("head.bias", "classifier.bias"),
        ("norm.weight", "video_focalnet.layernorm.weight"),
        ("patch_embed.norm.bias", "video_focalnet.embeddings.norm.bias"),
        ("layers.1.downsample.proj.weight", "video_focalnet.encoder.stages.2.downsample.projection.weight"),
        ("layers.2.blocks.11.gamma_2", "video_focalnet.encoder.stages.2.layers.11.layer_scale2"),
        (
            "layers.0.blocks.1.modulation.focal_layers_temporal.1.0.weight",
            "video_focalnet.encoder.stages.0.layers.1.modulation.temporal_kernel_1",
        ),
    ],
)
def test_names(upstream, ours):
    assert convert_key(upstream) == ours


def damaged(change):
    weights = load_file(FIXTURES / "tiny_default.weights.safetensors")
    change(weights)
    return weights


DAMAGE = [
    (lambda w: w.pop("norm.bias"), "missing: video_focalnet.layernorm.bias"),
    (
        lambda w: w.update({"norm.extra": torch.zeros(1)}),
        "not part of the architecture: video_focalnet.layernorm.extra",
    ),
    (lambda w: w.update({"norm.bias": torch.zeros(5)}), r"layernorm.bias: expected shape \(96,\), got \(5,\)"),
    (
        lambda w: w.update({"norm.bias": torch.zeros(96, dtype=torch.int64)}),
        "expected floating-point numbers, got torch.int64",
    ),
    (lambda w: w["norm.bias"].fill_(float("nan")), "holds NaN or infinity"),
    (
        lambda w: w.update({"blocks.0.attn.qkv.weight": torch.zeros(1)}),
        "'blocks.0.attn.qkv.weight' is not a parameter",
    ),
    (lambda w: w.pop("layers.0.blocks.0.modulation.f_temporal.weight"), "not a video_focalnet checkpoint, it has no"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGE)
def test_weights_that_do_not_fit_are_named_and_nothing_is_written(tmp_path, change, message):
    source = tmp_path / "weights.pth"
    torch.save(damaged(change), source)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 400}, "has 11 classes, num_labels=400 was asked for"),
        ({"id2label": ["a", "b"]}, "has 11 classes, the labels name 2"),
        ({"model_type": "videomae"}, "No converter for model_type 'videomae'"),
        ({"preset": "tiny"}, "not of preset 'tiny'"),
    ],
)
def test_contradictory_requests_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(FIXTURES / "tiny_default.weights.safetensors", tmp_path / "out", **options)


def test_our_own_checkpoints_need_no_conversion(tmp_path):
    folder = convert_checkpoint(FIXTURES / "tiny_default.weights.safetensors", tmp_path / "out")
    with pytest.raises(CheckpointError, match="open it with from_pretrained"):
        convert_checkpoint(folder / "model.safetensors", tmp_path / "again")


def test_half_precision_weights_become_single_precision(tmp_path):
    weights = load_file(FIXTURES / "tiny_default.weights.safetensors")
    torch.save({name: value.half() for name, value in weights.items()}, tmp_path / "half.pth")
    folder = convert_checkpoint(tmp_path / "half.pth", tmp_path / "out")
    assert AutoModelForVideoClassification.from_pretrained(folder).dtype == torch.float32
