"""What can be benchmarked, in what form, and on clips of which shape."""

import pytest
import torch
from torch import nn
from transformers import (
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VivitConfig,
    VivitForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
)

from hf_effvid.evaluation.benchmark_execution import BenchmarkError, NumberType
from hf_effvid.evaluation.benchmark_inputs import clip_shape, random_clips
from hf_effvid.evaluation.benchmark_variants import (
    BenchmarkVariant,
    as_variants,
    built,
    in_every_form,
    processor_of,
    with_defaults,
)
from hf_effvid.models.configuration_video_focalnet import VideoFocalNetConfig
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


CPU = torch.device("cpu")
FLOAT32 = NumberType.parse("float32")
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

CLASSIFIERS = {
    "videomae": lambda: VideoMAEForVideoClassification(
        VideoMAEConfig(image_size=32, patch_size=16, num_frames=4, **TINY)
    ),
    "timesformer": lambda: TimesformerForVideoClassification(
        TimesformerConfig(image_size=48, patch_size=16, num_frames=3, **TINY)
    ),
    "vivit": lambda: VivitForVideoClassification(
        VivitConfig(image_size=32, tubelet_size=[2, 16, 16], num_frames=6, **TINY)
    ),
    "vjepa2": lambda: VJEPA2ForVideoClassification(
        VJEPA2Config(
            crop_size=32, frames_per_clip=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_pooler_layers=1, pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1,
        )
    ),
    "video_focalnet": lambda: VideoFocalNetForVideoClassification(
        VideoFocalNetConfig(
            embed_dim=8, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3], image_size=64, num_frames=5
        )
    ),
}  # fmt: skip
SHAPES = {
    "videomae": (4, 3, 32, 32),
    "timesformer": (3, 3, 48, 48),
    "vivit": (6, 3, 32, 32),
    "vjepa2": (8, 3, 32, 32),
    "video_focalnet": (5, 3, 64, 64),
}


@pytest.fixture(scope="module")
def videomae():
    return CLASSIFIERS["videomae"]()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_any_video_classifier_takes_the_clips_that_its_configuration_names(name):
    model = CLASSIFIERS[name]().eval()
    shape = clip_shape(BenchmarkVariant(name, model), model.config)
    assert shape == SHAPES[name]
    with torch.no_grad():
        output = model(**random_clips(model, shape, 2, torch.float32, "cpu"))
    assert output.logits.shape == (2, model.config.num_labels)


def test_clips_are_a_function_of_the_seed(videomae):
    first, second, other = (random_clips(videomae, (4, 3, 8, 8), 2, torch.float32, "cpu", seed) for seed in (0, 0, 1))
    assert list(first) == ["pixel_values"] and first["pixel_values"].shape == (2, 4, 3, 8, 8)
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert not torch.equal(first["pixel_values"], other["pixel_values"])


def test_the_recipe_goes_before_the_configuration_and_the_request_before_both():
    config = VideoFocalNetConfig(num_frames=8, image_size=224)
    variant = BenchmarkVariant("m", "somewhere")
    recipe = EffVidVideoProcessor(num_frames=16, size={"shortest_edge": 128}, crop_size={"height": 96, "width": 112})
    assert clip_shape(variant, config, recipe) == (16, 3, 96, 112)
    resized = EffVidVideoProcessor(num_frames=16, size={"height": 64, "width": 80}, do_center_crop=False)
    assert clip_shape(variant, config, resized) == (16, 3, 64, 80)
    # the short side alone leaves the long one to the video
    open_ended = EffVidVideoProcessor(num_frames=16, size={"shortest_edge": 64}, do_center_crop=False)
    assert clip_shape(variant, config, open_ended) == (16, 3, 224, 224)
    stock = VideoMAEImageProcessor(crop_size={"height": 160, "width": 160})
    assert clip_shape(variant, config, stock) == (8, 3, 160, 160)
    asked = BenchmarkVariant("m", "somewhere", clip_shape=(2, 1, 8, 8))
    assert clip_shape(asked, config, recipe) == (2, 1, 8, 8)


def test_a_shape_that_nobody_knows():
    with pytest.raises(BenchmarkError, match="m: neither.*number of frames.*clip_shape="):
        clip_shape(BenchmarkVariant("m", nn.Linear(1, 1)), None)
    with pytest.raises(BenchmarkError, match="clip_shape must be"):
        clip_shape(BenchmarkVariant("m", nn.Linear(1, 1), clip_shape=(8, 8)), None)


def test_models_in_every_form(tmp_path, videomae):
    folder = tmp_path / "my-model"
    folder.mkdir()
    variant = BenchmarkVariant("given", videomae, dtype="bf16")
    variants = as_variants(
        [str(folder), "org/name", videomae, ("factory", CLASSIFIERS["vivit"]), ["b", folder], variant]
    )
    assert [v.name for v in variants] == [
        "my-model",
        "org/name",
        "VideoMAEForVideoClassification",
        "factory",
        "b",
        "given",
    ]
    assert variants[-1] is variant and variants[2].model is videomae
    for alone in ("org/name", folder, videomae, ("x", videomae), variant):
        assert len(as_variants(alone)) == 1
    assert [v.name for v in as_variants({"x": videomae, "y": "org/name"})] == ["x", "y"]


def test_folders_of_one_name_are_told_apart_by_their_parents(tmp_path):
    folders = [tmp_path / parent / "model" for parent in ("step-0", "step-1")]
    for folder in folders:
        folder.mkdir(parents=True)
    assert [variant.name for variant in as_variants(folders)] == ["step-0/model", "step-1/model"]
    assert [variant.name for variant in as_variants(folders[:1])] == ["model"]
    with pytest.raises(BenchmarkError, match="two models are called 'step-0/model'"):
        as_variants([folders[0], folders[0]])


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "at least one model"),
        (["org/a", "org/a"], "two models are called 'org/a'"),
        ([("a", "b", "c")], "expected \\(name, model\\)"),
        ([("a", 3)], "a: expected a Hub id"),
        ([("", "org/a")], "needs a name"),
    ],
)
def test_what_cannot_be_benchmarked(models, message):
    with pytest.raises(BenchmarkError, match=message):
        as_variants(models)


def test_defaults_fill_only_what_is_open():
    assert with_defaults(BenchmarkVariant("m", "x"), "float32", "default").compile == "default"
    own = with_defaults(BenchmarkVariant("m", "x", dtype="bf16", compile="max-autotune"), "float32", "default")
    assert (own.dtype, own.compile) == ("bf16", "max-autotune")


def test_a_model_that_fits_is_used_as_it_is_and_gets_its_flags_back(videomae):
    videomae.train()
    videomae.classifier.eval()
    with built(BenchmarkVariant("m", videomae), FLOAT32, CPU) as model:
        assert model is videomae
        assert not any(module.training for module in model.modules())
    assert videomae.training and videomae.videomae.training and not videomae.classifier.training


def test_a_model_that_has_to_be_cast_is_copied(videomae):
    with built(BenchmarkVariant("m", videomae), NumberType.parse("bfloat16"), CPU) as model:
        assert model is not videomae and model.dtype == torch.bfloat16
    assert videomae.dtype == torch.float32


def test_models_from_folders_and_functions(tmp_path, videomae):
    videomae.save_pretrained(tmp_path)
    with built(BenchmarkVariant("m", tmp_path), NumberType.parse("bfloat16"), CPU) as model:
        assert isinstance(model, VideoMAEForVideoClassification) and model.dtype == torch.bfloat16
    with built(BenchmarkVariant("m", CLASSIFIERS["vivit"]), FLOAT32, CPU) as model:
        assert isinstance(model, VivitForVideoClassification)


def test_what_does_not_open(tmp_path):
    with pytest.raises(BenchmarkError, match="m: .* does not open as a video classifier"):
        with built(BenchmarkVariant("m", tmp_path), FLOAT32, CPU):
            pass
    with pytest.raises(BenchmarkError, match="m: its function gave dict"):
        with built(BenchmarkVariant("m", dict), FLOAT32, CPU):
            pass


def test_processors(tmp_path, videomae):
    videomae.save_pretrained(tmp_path)
    assert processor_of(BenchmarkVariant("m", tmp_path)) is None
    assert processor_of(BenchmarkVariant("m", videomae)) is None
    VideoMAEImageProcessor(crop_size={"height": 96, "width": 96}).save_pretrained(tmp_path)
    assert processor_of(BenchmarkVariant("m", tmp_path)).crop_size["height"] == 96
    own = EffVidVideoProcessor()
    assert processor_of(BenchmarkVariant("m", tmp_path, processor=own)) is own
    assert processor_of(BenchmarkVariant("m", videomae, processor=tmp_path)).crop_size["height"] == 96
    with pytest.raises(BenchmarkError, match="m: no processor in"):
        processor_of(BenchmarkVariant("m", videomae, processor=tmp_path / "nothing"))


def test_every_form_of_every_model():
    variants = in_every_form(["a", "b"], ["float32", "bfloat16"], [None, "default"])
    assert [v.name for v in variants][:4] == [
        "a",
        "a (bfloat16)",
        "a (compile default)",
        "a (bfloat16, compile default)",
    ]
    assert [(v.dtype, v.compile) for v in variants][4:6] == [("float32", None), ("bfloat16", None)]
    with pytest.raises(BenchmarkError, match="two models are called 'a'"):
        in_every_form(["a"], ["float32", "float32"], [None])
