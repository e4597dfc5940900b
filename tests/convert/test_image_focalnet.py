"""Video-FocalNets that start from image FocalNets of three layouts: the published procedure, and the start that loses nothing."""

import json

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    FocalNetConfig,
    FocalNetForImageClassification,
    FocalNetModel,
)
from typer.testing import CliRunner

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.cli import app
from hf_effvid.convert import CheckpointError, convert_image_focalnet, video_from_image_focalnet
from hf_effvid.convert.image_focalnet import read_image_focalnet
from hf_effvid.convert.video_focalnet import convert_key
from hf_effvid.training.model_setup import open_classifier, open_processor


SHAPE = {"embed_dim": 8, "depths": [1, 2, 1], "focal_levels": [2, 1, 2], "focal_windows": [3, 5, 3]}
OPTIONS = {
    "plain": {},
    "all": {
        "use_conv_embed": True, "use_layerscale": True, "layerscale_value": 0.5, "use_post_layernorm": True,
        "use_post_layernorm_in_modulation": True, "normalize_modulator": True, "layer_norm_eps": 1e-3, "mlp_ratio": 2.0,
    },
}  # fmt: skip
DESIGNS = {
    "parallel": {},
    "none": {"temporal_encoding": "none"},
    "sequential": {"temporal_encoding": "sequential"},
    "joint": {"temporal_encoding": "joint"},
    "sum": {"modulator_fusion": "sum"},
    "learned": {"modulator_fusion": "learned"},
}


def of_transformers(**options):
    torch.manual_seed(0)
    labels = {index: f"thing {index}" for index in range(6)}
    config = FocalNetConfig(**SHAPE, **{"drop_path_rate": 0.0, "image_size": 32, "id2label": labels, **options})
    return shaken(FocalNetForImageClassification(config))


def shaken(model):
    """Every weight random and large enough to matter: zero biases and unit norms would hide mistakes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim < 2 or "gamma" in name else 1.2 / value[0].numel() ** 0.5
            value.copy_(
                torch.randn(value.shape, generator=generator) * spread + float("norm" in name and value.ndim == 1)
            )
    return model.double().eval()


def of_timm(**options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return shaken(timm.models.focalnet.FocalNet(num_classes=6, **SHAPE, **{"drop_path_rate": 0.0, **options}))


def images(batch=2, height=32, width=48):
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def double(model):
    """Converted models are in single precision, where checkpoints live; comparisons are made in double precision."""
    return model.double().eval()


# --- the three layouts ---


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_single_frame_gives_what_transformers_gives(options):
    image, pixels = of_transformers(**options), images()
    video = double(video_from_image_focalnet(image.float(), start="preserve"))
    with torch.no_grad():
        expected = image.double()(pixels).logits
        torch.testing.assert_close(video(pixels[:, None]).logits, expected, rtol=0, atol=1e-9)
    assert expected.std() > 0.1 and video.config.id2label[3] == "thing 3"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_overlap_down": True, "use_post_norm": True, "layerscale_value": 0.5},
        {"use_post_norm_in_modulation": True, "normalize_modulator": True},
    ],
    ids=["plain", "large", "in-modulation"],
)
@pytest.mark.parametrize("size", [(32, 48), (39, 50)], ids=["even", "odd"])
def test_a_single_frame_gives_what_timm_gives(options, size):
    """At odd sizes too: timm cuts like the authors' code and like us, transformers pads."""
    image, pixels = of_timm(**options).float(), images(height=size[0], width=size[1])
    video = double(video_from_image_focalnet(image, start="preserve"))
    with torch.no_grad():
        expected = image.double()(pixels)
        torch.testing.assert_close(video(pixels[:, None]).logits, expected, rtol=0, atol=1e-9)
    assert expected.std() > 0.1


def test_transformers_pads_odd_sizes_and_video_focalnet_cuts():
    """The one case where the image function cannot be kept."""
    image, pixels = of_transformers().float(), images(height=36, width=36)
    video = double(video_from_image_focalnet(image, start="preserve"))
    with torch.no_grad():
        difference = (video(pixels[:, None]).logits - image.double()(pixels).logits).abs().max()
    assert difference > 1e-3


def official_of(model):
    """The same weights under the authors' names, checked against the table of the video converter, which recorded weights test."""
    ours, official = video_from_image_focalnet(model).state_dict(), read_image_focalnet(model).weights
    for key, value in official.items():
        torch.testing.assert_close(ours[convert_key(key)].flatten(), value.flatten())
    return official


@pytest.mark.parametrize("make", [of_transformers, of_timm])
def test_every_layout_becomes_the_official_one(make, tmp_path):
    model = make().float()
    official = official_of(model)
    assert official["layers.0.downsample.proj.weight"].shape == (16, 8, 2, 2)
    assert official["layers.1.blocks.1.modulation.f.weight"].shape == (2 * 16 + 2, 16)
    torch.save({"model": official, "epoch": 300}, tmp_path / "focalnet.pth")
    again = read_image_focalnet(tmp_path / "focalnet.pth")
    assert again.layout == "official" and again.weights.keys() == official.keys()
    pixels = images().float()[:, None]
    with torch.no_grad():
        from_file = video_from_image_focalnet(tmp_path / "focalnet.pth", start="preserve")(pixels).logits
        torch.testing.assert_close(
            from_file, video_from_image_focalnet(model, start="preserve")(pixels).logits, rtol=0, atol=0
        )


def test_folders_of_transformers_and_timm(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    pixels = images().float()
    for name, model in (("transformers", of_transformers(**OPTIONS["all"]).float()), ("timm", of_timm().float())):
        folder = tmp_path / name
        if name == "transformers":
            model.save_pretrained(folder)
        else:
            folder.mkdir()
            safetensors.save_file(model.state_dict(), folder / "model.safetensors")
            (folder / "config.json").write_text('{"architecture": "focalnet_tiny_srf", "num_classes": 6}')
        video = video_from_image_focalnet(str(folder), start="preserve")
        with torch.no_grad():
            expected = model(pixels)
            expected = getattr(expected, "logits", expected)
            torch.testing.assert_close(video(pixels[:, None]).logits, expected, rtol=0, atol=1e-4)


def test_the_released_tiny_has_212_image_weights_under_every_name():
    """And 72 more in the video model: six for each of its 12 blocks, all of them temporal."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        models = FocalNetForImageClassification(FocalNetConfig()), timm.create_model("focalnet_tiny_srf")
        video = VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset("tiny", num_labels=400))
    first, second = (read_image_focalnet(model).weights for model in models)
    assert first.keys() == second.keys() and len(first) == 212
    new = video.state_dict().keys() - {convert_key(key) for key in first}
    assert len(new) == 72 and all("temporal" in name for name in new)


# --- the published start ---


def test_published_start_is_the_published_procedure():
    """Image weights by name, the mean-inflated tubelet, temporal weights as drawn for a new model, a head random in weight and bias."""
    image = of_transformers().float()
    classes = [f"action {index}" for index in range(40)]
    model = video_from_image_focalnet(image, id2label=classes, tubelet_size=2, num_frames=16, seed=7)
    assert (model.config.tubelet_size, model.config.num_frames, model.config.initialization) == (2, 16, "published")
    assert model.config.id2label[39] == "action 39" and model.config.num_labels == 40

    official, ours = read_image_focalnet(image).weights, model.state_dict()
    copied = {convert_key(key) for key in official if not key.startswith(("head.", "patch_embed.proj.weight"))}
    for key in official.keys() - {"head.weight", "head.bias", "patch_embed.proj.weight"}:
        torch.testing.assert_close(ours[convert_key(key)].flatten(), official[key].flatten(), rtol=0, atol=0)
    stem = ours["video_focalnet.embeddings.projection.weight"]
    torch.testing.assert_close(stem[:, :, 0], official["patch_embed.proj.weight"] / 2, rtol=0, atol=0)
    torch.testing.assert_close(stem[:, :, 1], stem[:, :, 0], rtol=0, atol=0)

    left = ours.keys() - copied - {"video_focalnet.embeddings.projection.weight"}
    assert {name for name in left if "temporal" not in name} == {"classifier.weight", "classifier.bias"}
    assert {name.rsplit(".modulation.", 1)[1].split(".")[0] for name in left if "temporal" in name} == {
        "projection_in_temporal", "projection_context_temporal", "temporal_kernel_0", "temporal_kernel_1",
    }  # fmt: skip
    for name in ("classifier.weight", "classifier.bias"):
        assert 0.01 < ours[name].std() < 0.03 and ours[name].abs().max() < 0.1, name
    context = model.video_focalnet.encoder.stages[0].layers[0].modulation.projection_context_temporal
    assert context.weight.any() and context.bias.any()


def test_published_start_loses_the_image_function():
    image, pixels = of_transformers().float(), images().float()
    with torch.no_grad():
        kept, lost = (
            video_from_image_focalnet(image, start=s)(pixels[:, None]).logits for s in ("preserve", "published")
        )
    assert (kept - lost).abs().max() > 0.1


def test_what_is_drawn_depends_on_the_seed_alone():
    image = of_transformers().float()
    first = video_from_image_focalnet(image, id2label=["a", "b"], seed=1).state_dict()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    second = video_from_image_focalnet(image, id2label=["a", "b"], seed=1).state_dict()
    other = video_from_image_focalnet(image, id2label=["a", "b"], seed=2).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} >= {
        "classifier.weight",
        "classifier.bias",
    }


@pytest.mark.parametrize(
    ("size", "rate"),
    [({"embed_dim": 96, "depths": [2, 2, 6, 2]}, 0.2), ({"embed_dim": 128, "depths": [2, 2, 18, 2]}, 0.5)],
)
def test_released_sizes_get_their_published_stochastic_depth(size, rate):
    from hf_effvid.convert.image_initialization import _config_for

    with torch.device("meta"):
        image = FocalNetForImageClassification(FocalNetConfig(**size))
    assert _config_for(read_image_focalnet(image), {}, {}, "image").drop_path_rate == rate


# --- the start that preserves ---


@pytest.mark.parametrize("design", DESIGNS)
def test_the_image_function_is_kept(design):
    """On moving clips: the mean over frames of the image model's logits; for the joint design on clips of equal frames."""
    image = of_transformers(use_layerscale=True, layerscale_value=0.5).float()
    video = double(video_from_image_focalnet(image, start="preserve", **DESIGNS[design]))
    frames = images(batch=2 * 5)
    clips = frames.unflatten(0, (2, 5))
    if design == "joint":
        clips = clips[:, :1].expand(-1, 5, -1, -1, -1)
    with torch.no_grad():
        expected = image.double()(clips.flatten(0, 1)).logits.unflatten(0, (2, 5)).mean(1)
        outputs = video(clips, output_modulators=True)
    torch.testing.assert_close(outputs.logits, expected, rtol=0, atol=1e-9)
    if design in ("parallel", "sequential"):
        assert all((modulator == 1).all() for modulator in outputs.temporal_modulators), "exactly 1"


@pytest.mark.parametrize("design", ["parallel", "joint"])
def test_static_clips_of_any_length_and_tubelet(design):
    image, pixels = of_transformers().float(), images()
    video = double(video_from_image_focalnet(image, start="preserve", tubelet_size=2, **DESIGNS[design]))
    with torch.no_grad():
        expected = image.double()(pixels).logits
        for frames in (2, 8):
            static = pixels[:, None].expand(-1, frames, -1, -1, -1)
            torch.testing.assert_close(video(static).logits, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "none"])
def test_time_is_learned_from_the_neutral_start(design):
    """Every temporal weight has a gradient after a step, and some twenty later a clip and its reversal have names of their own."""
    model = video_from_image_focalnet(
        of_transformers().float(), start="preserve", id2label=["a", "b"], **DESIGNS[design]
    )
    clips = torch.randn(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    clips[2:] = clips[:2].flip(1)
    labels = torch.tensor([0, 0, 1, 1])
    with torch.no_grad():
        before = model(clips).logits
    torch.testing.assert_close(before[:2], before[2:], atol=1e-5, rtol=0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for step in range(25):
        optimizer.zero_grad()
        loss = model(clips, labels=labels).loss
        loss.backward()
        if step == 2:
            new = {n: value.grad for n, value in model.named_parameters() if "temporal" in n or "joint" in n}
            assert new and all(gradient.any() for gradient in new.values())
        optimizer.step()
    assert loss.item() < 0.5, "chance is 0.69"


# --- the folder ---


def test_a_converted_folder_opens_and_says_where_it_comes_from(tmp_path):
    of_transformers().float().save_pretrained(tmp_path / "image")
    (tmp_path / "labels.csv").write_text("id,name\n0,left\n1,right\n")
    folder = convert_image_focalnet(
        tmp_path / "image",
        tmp_path / "video",
        id2label=tmp_path / "labels.csv",
        horizontal_flip_safe=False,
        num_frames=4,
    )
    model = AutoModelForVideoClassification.from_pretrained(folder)
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert model.config.id2label == {0: "left", 1: "right"} and processor.num_frames == 4
    assert processor.horizontal_flip_safe is False and processor.sampling == "segment"
    record = json.loads((folder / "conversion.json").read_text())
    assert record["source"]["layout"] == "transformers" and len(record["source"]["sha256"]) == 64
    assert (record["start"], record["head"], record["preset"]) == ("published", "fresh", None)


def test_the_command_converts_images(tmp_path):
    of_transformers().float().save_pretrained(tmp_path / "image")
    arguments = ["convert", str(tmp_path / "image"), str(tmp_path / "video"), "--from-image"]
    done = CliRunner().invoke(app, [*arguments, "preserve"])
    assert done.exit_code == 0 and "converted: " in done.stdout
    assert json.loads((tmp_path / "video" / "conversion.json").read_text())["start"] == "preserve"
    assert "start is one of" in str(CliRunner().invoke(app, [*arguments, "anything"]).exception)


def test_training_takes_an_image_focalnet_by_name(tmp_path):
    """`effvid train DATA --model image:FOLDER`, or `model: image:FOLDER` in a recipe."""
    of_transformers().float().save_pretrained(tmp_path)
    published, preserved = (
        open_classifier(f"{kind}:{tmp_path}", ["a", "b", "c"], seed=4) for kind in ("image", "image-preserve")
    )
    for model, start in ((published, "published"), (preserved, "preserve")):
        expected = video_from_image_focalnet(tmp_path, start, id2label=["a", "b", "c"], seed=4)
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
        assert model.config.problem_type == "single_label_classification"
        processor = open_processor(None, model, f"image:{tmp_path}")
        assert (processor.num_frames, processor.crop_size["height"]) == (8, 32)


# --- what is refused ---


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)


def test_other_weights_are_refused():
    with pytest.raises(CheckpointError, match="Recurrent: not an image FocalNet .* it begins with layer.bias"):
        video_from_image_focalnet(Recurrent())
    with pytest.raises(CheckpointError, match="already a Video-FocalNet"):
        video_from_image_focalnet({"layers.0.blocks.0.modulation.f_temporal.weight": torch.zeros(1)})
    with pytest.raises(FileNotFoundError, match=r"holds neither of model.safetensors"):
        video_from_image_focalnet("/")
    with pytest.raises(CheckpointError, match="exact GELU, got hidden_act='relu'"):
        video_from_image_focalnet(of_transformers(hidden_act="relu"))
    with pytest.raises(CheckpointError, match="hidden layer"):
        video_from_image_focalnet(of_timm(head_hidden_size=4))
    incomplete = dict(read_image_focalnet(of_transformers()).weights)
    del incomplete["layers.1.blocks.1.mlp.fc1.weight"]
    with pytest.raises(CheckpointError, match=r"missing: video_focalnet.encoder.stages.1.layers.1.mlp.fc1.weight"):
        video_from_image_focalnet(incomplete)


def test_wrong_requests_are_named():
    image = of_transformers()
    with pytest.raises(ValueError, match="start is one of published, preserve, got 'zero'"):
        video_from_image_focalnet(image, start="zero")
    with pytest.raises(ValueError, match="no head to keep"):
        video_from_image_focalnet(FocalNetModel(image.config))
    with pytest.raises(ValueError, match="no field 'frames'"):
        video_from_image_focalnet(image, frames=3)
    with pytest.raises(ValueError, match="indices 0 to 1"):
        video_from_image_focalnet(image, id2label={1: "a", 2: "b"})
    model = video_from_image_focalnet(FocalNetModel(image.config), id2label=["a", "b"])
    assert model.config.num_labels == 2
