"""The recipes of ActionFormer: every file and choice parses, builds the published network, and trains two steps on data in its layout."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoVideoProcessor, VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor
from typer.testing import CliRunner

from hf_effvid.cli import app
from hf_effvid.data.synthetic_streams import make_action_streams
from hf_effvid.models.configuration_actionformer import ActionFormerConfig
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_effvid.models.video_processing_actionformer import ActionFormerProcessor
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.detection import train_detector
from hf_effvid.training.recipe import RecipeFileError, load_recipe


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "configs" / "actionformer"
# file -> total batch, epochs, and for each choice the values to go through
RECIPES = {
    "thumos14_i3d": (2, 35, [[]]),
    "thumos14_videomae": (2, 60, [[f"choose.tuning={name}"] for name in ("adapters", "frozen", "lora", "full")]),
    "activitynet_tsp": (16, 15, [[f"choose.head={name}"] for name in ("one_class", "classes")]),
    "activitynet_videomae": (16, 15, [[f"choose.head={name}"] for name in ("one_class", "classes")]),
    "epic100": (2, 21, [[f"choose.of={name}"] for name in ("verb", "noun")]),
    "fineaction": (16, 20, [[]]),
}
CASES = [(name, choice) for name, (_, _, choices) in RECIPES.items() for choice in choices]
NAMES = [" ".join([name, *choice]) for name, choice in CASES]
QUIET = ["training.use_cpu=true", "training.report_to=none", "training.save_strategy=no", "training.disable_tqdm=true"]
SHRUNK = ["model.hidden_size=16", "training.max_steps=2", "training.per_device_train_batch_size=2"]
LABELS = ["dive", "jump", "throw"]


def videomae_small():
    return VideoMAEConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)


def test_there_is_one_test_per_file():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted([*RECIPES, "published"])


@pytest.mark.parametrize(("name", "choice"), CASES, ids=NAMES)
def test_what_the_files_say(tmp_path, name, choice):
    loaded = load_recipe(FOLDER / f"{name}.yaml", choice)
    batch, epochs, _ = RECIPES[name]
    args = EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training)
    assert (args.per_device_train_batch_size, args.num_train_epochs, args.warmup_epochs) == (batch, epochs, 5)
    assert (args.max_grad_norm, args.weight_decay, args.ema_decay, args.lr_schedule) == (1.0, 0.05, 0.999, "cosine")
    processor = ActionFormerProcessor(**loaded.detector_processor_fields())
    assert processor.nms_method == "soft" and processor.min_score == 0.001
    # what is reported on is not what anything is chosen on
    assert loaded.validation_share == 0 and args.load_best_model_at_end is False and args.eval_strategy == "no"
    fields = loaded.detector_fields() | ({"backbone_config": videomae_small()} if loaded.backbone else {})
    with torch.device("meta"):
        model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**fields))
    config = model.config
    assert (config.num_levels, config.num_attention_heads, config.num_embedding_layers) == (6, 4, 2)
    if loaded.backbone:
        trunk = sum(p.numel() for p in model.actionformer.backbone.trunk.parameters())
        assert trunk == pytest.approx(21.88e6, rel=1e-3), "VideoMAE-S"
        assert config.max_sequence_length * config.frames_per_step == 768, "frames of a window"
    else:
        assert loaded.features["stride"] and sum(config.feature_sizes) in (2048, 512, 2304, 1280)
    if "one_class" in str(choice):
        assert loaded.detection["one_class"] and processor.class_agnostic and config.regression_loss_weight == 2.0


def test_thumos_is_trained_on_its_validation_split_and_epic_has_overlapping_ranges():
    assert load_recipe(FOLDER / "thumos14_i3d.yaml").detection["train_split"] == "validation"
    epic = load_recipe(FOLDER / "epic100.yaml")
    assert epic.detector_fields()["regression_ranges"][1] == [2, 8] and epic.windows["min_visible"] == 0.3
    sizes = {name: load_recipe(FOLDER / "thumos14_videomae.yaml", [f"choose.size={name}"]).backbone for name in ("small", "base", "large")}  # fmt: skip
    assert sizes == {name: f"MCG-NJU/videomae-{name}-finetuned-kinetics" for name in sizes}


def test_sections_of_a_detector_are_checked(tmp_path):
    for override, message in (
        ("task=detecting", "expected one of classification, detection"),
        ("windows.length=3", "windows: unknown keys"),
        ("features.hop=3", "features: unknown keys"),
        ("detection.classes=3", "detection: unknown keys"),
    ):
        with pytest.raises(RecipeFileError, match=message):
            load_recipe(FOLDER / "thumos14_i3d.yaml", [override])
    with pytest.raises(RecipeFileError, match="model: unknown keys"):
        load_recipe(FOLDER / "thumos14_i3d.yaml", ["model.width=3"]).detector_fields()
    with pytest.raises(RecipeFileError, match="processor: unknown keys"):
        load_recipe(FOLDER / "thumos14_i3d.yaml", ["processor.sigma=3"]).detector_processor_fields()
    with pytest.raises(RecipeFileError, match="a detector is an actionformer"):
        load_recipe(None, ["model.model_type=video_focalnet"]).detector_fields()


# ---- two steps --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    make_action_streams(root, {"train": 3}, size=32, seconds=(9, 10), seed=4, progress=False)
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A VideoMAE of 16 channels as a checkpoint, with its image processor."""
    folder = tmp_path_factory.mktemp("videomae")
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, num_labels=3, use_mean_pooling=True
    )  # fmt: skip
    model = VideoMAEForVideoClassification(config)
    for layer in model.videomae.encoder.layer:
        for linear in (layer.attention.attention.query, layer.attention.attention.value):
            torch.nn.init.normal_(linear.bias)
    model.save_pretrained(folder)
    VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def features_in_their_layout(folder, name):
    """One .npy per video and the annotations, as the data set publishes them."""
    generator = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    subset = {"thumos14_i3d": "Validation"}.get(name, "training")
    names = [f"P01_0{number}" if name == "epic100" else f"video_{number}" for number in range(3)]
    for video in names:
        np.save(folder / "features" / f"{video}.npy", generator.standard_normal((40, 8)).astype("f4"))
    rate = 30.0
    spans = [(2.0, 4.0, 0), (5.0, 9.0, 1), (10.0, 14.0, 2)]
    if name == "epic100":
        columns = ["video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class"]
        for split, listed in (("train", names), ("validation", [])):
            with open(folder / f"EPIC_100_{split}.csv", "w", newline="") as handle:
                rows = csv.writer(handle)
                rows.writerow(columns)
                for video in listed:
                    rows.writerows([video, f"00:00:{a:05.2f}", f"00:00:{b:05.2f}", c, c + 1] for a, b, c in spans)
        return folder
    database = {
        video: {
            "subset": subset,
            "duration": 21.0,
            "fps": rate,
            "annotations": [{"segment": [a, b], "label": LABELS[c]} for a, b, c in spans],
        }
        for video in names
    }
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return folder / "annotations.json"


def videos_in_their_layout(folder, root, name):
    database = json.loads((root / "annotations.json").read_text())["database"]
    for entry in database.values():
        entry["subset"] = "Validation" if name.startswith("thumos") else "training"
    path = folder / "annotations.json"
    path.write_text(json.dumps({"database": database}))
    return path


def test_files_of_features_from_the_command_line(tmp_path):
    """What the head of thumos14_i3d.yaml says: train on one split, measure on the other; the recipe goes with the model."""
    data = features_in_their_layout(tmp_path / "data", "thumos14_i3d")
    database = json.loads(data.read_text())["database"]
    database["video_2"]["subset"] = "Test"
    data.write_text(json.dumps({"database": database}))
    overrides = [*SHRUNK, *QUIET, "model.input_size=8", "model.max_sequence_length=32"]
    overrides = [part for override in overrides for part in ("--set", override)]
    features = ["--features", str(tmp_path / "data" / "features"), "--quiet", "--json"]
    config = ["--config", str(FOLDER / "thumos14_i3d.yaml")]
    trained = CliRunner().invoke(
        app, ["train", str(data), "-o", str(tmp_path / "run"), *config, *features, *overrides], catch_exceptions=False
    )
    assert trained.exit_code == 0 and json.loads(trained.stdout)["num_train"] == 2
    model = str(tmp_path / "run" / "model")
    measured = CliRunner().invoke(
        app, ["evaluate", model, str(data), "--split", "test", *features], catch_exceptions=False
    )
    assert measured.exit_code == 0
    result = json.loads(measured.stdout)
    assert result["num_videos"] == 1 and result["run"]["recipe"]["feature_stride"] == 4 and not result["errors"]


# the first choice of each file by default, the others with the slow tests
QUICK = [(name, choices[0]) for name, (_, _, choices) in RECIPES.items()]
RUNS = [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("name", "choice"), RUNS, ids=NAMES)
def test_two_steps_of_a_shrunken_network(tmp_path, videos, backbone, name, choice):
    pixels = name.endswith("videomae")
    overrides = [*choice, *SHRUNK, *QUIET]
    if pixels:
        steps = 16 if name.startswith("thumos") else 8
        overrides += [f"backbone={backbone}", f"model.max_sequence_length={steps}"]
        overrides += ["processor.size={shortest_edge: 32}", "processor.crop_size={height: 32, width: 32}"]
        overrides += (
            [f"processor.window_length={steps}"] if name.startswith("thumos") else [f"processor.resize_length={steps}"]
        )
        overrides += ["training.lora_r=2", "training.lora_alpha=2"] if "lora" in str(choice) else []
        data, options = videos_in_their_layout(tmp_path, videos, name), {"root": videos}
        recipe = load_recipe(FOLDER / f"{name}.yaml", overrides)
    else:
        overrides += ["model.input_size=8", "model.max_sequence_length=32"]
        overrides += ["processor.resize_length=32"] if name in ("activitynet_tsp", "fineaction") else []
        data = features_in_their_layout(tmp_path / "data", name)
        recipe = load_recipe(FOLDER / f"{name}.yaml", overrides)
        options = {"features": recipe.open_features(tmp_path / "data" / "features")}
    outcome = train_detector(
        recipe.backbone,
        data,
        output_dir=tmp_path / "run",
        config=recipe.detector_fields(),
        processor=recipe.detector_processor_fields(),
        windows=recipe.windows,
        augmentation=recipe.build_augmentation(),
        validation_share=recipe.validation_share,
        args=recipe.training,
        progress=False,
        **recipe.detection,
        **recipe.data,
        **options,
    )
    assert outcome.steps == 2 and math.isfinite(outcome.train_loss) and not outcome.skipped
    expected = {"one_class": 1, "fineaction": 1, "noun": 4}
    classes = next((count for key, count in expected.items() if key in f"{name} {choice}"), 3 if not pixels else None)
    assert classes is None or len(outcome.class_names) == classes
    saved = AutoVideoProcessor.from_pretrained(outcome.model_dir)
    assert saved.nms_sigma == recipe.processor["nms_sigma"] and saved.max_segments == recipe.processor["max_segments"]
    assert saved.resize_length == recipe.processor.get("resize_length")
    model = ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir)
    assert (outcome.num_trainable < outcome.num_parameters) == any(
        word in str(choice) for word in ("adapters", "frozen", "lora")
    ) or name == "activitynet_videomae"
    assert model.config.temporal_adapters == recipe.detector_fields().get("temporal_adapters", False)
