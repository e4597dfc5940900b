"""The recipes of Progressive Block Drop: every file and choice parses and says what the paper says, and runs two steps on generated data."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    ActionFormerProcessor,
    CompressionOutcome,
)
from hf_effvid.cli import app
from hf_effvid.data.synthetic_streams import make_action_streams
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.block_drop_settings import BlockDropSettings
from hf_effvid.training.recipe import RecipeFileError, load_recipe


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "configs" / "block_drop"
STUDIES = {  # study -> what it changes of the compression; in parentheses where the paper has it
    "progressive": {},  # Tables 1, 2, 4, 5
    "loss": {"criterion": "loss"},  # D
    "discrepancy": {"criterion": "discrepancy"},  # D
    "at_once_2_5_9": {"order": "at_once", "blocks": (2, 5, 9)},  # 3, B
    "at_once_0_4_7": {"order": "at_once", "blocks": (0, 4, 7)},  # 3, B
    "at_once_1_3_8": {"order": "at_once", "blocks": (1, 3, 8)},  # 3
    "at_once_6_7_10": {"order": "at_once", "blocks": (6, 7, 10)},  # 3
    "random": {"order": "random"},
    "random_at_once": {"order": "random_at_once"},
    "no_recovery": {"recovery": False},  # E
    "full_tuning": {"tuning": "full"},  # F
    "frozen_head": {"head": "frozen"},  # F.4
    "no_alignment": {"align": ()},  # G
    "align_features": {"align": ("feature",)},  # G
    "align_predictions": {"align": ("classification", "boundary")},  # G
    "relu": {"relu": True},  # C
    "blocks_of_figure_2": {"recovery": False},
    "change_of_figure_2": {"recovery": False, "criterion": "discrepancy"},
}
# of VideoMAE-S; study -> blocks, and channels of the MLPs that leave the share of all multiply-accumulates
PRUNED = {"pruned": (0, 760, 0.758), "pruned_a_tenth": (0, 1216, 0.9), "dropped_and_pruned": (3, 1288, 0.7)}
ORDERS = {"thumos14": (7, 10, 6, 3), "activitynet": (6, 3), "thumos14_i3d": (0, 1, 2)}
# file -> total batch, blocks that go, other choices
FILES = {
    "thumos14": (2, 4, ["base=large", "base=adatad", "preset=released"]),
    "activitynet": (16, 2, ["recovery=late", "preset=released"]),
    "fineaction": (16, 3, []),
    "thumos14_i3d": (2, 3, []),
}


def recipe(name, *choices, overrides=()):
    return load_recipe(FOLDER / f"{name}.yaml", [*(f"choose.{choice}" for choice in choices), *overrides])


def test_every_file_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == {*FILES, "published", "real_videomae", "real_detector"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("study", [*STUDIES, "published_order"])
def test_what_the_files_say(tmp_path, name, study):
    loaded = recipe(name, f"study={study}")
    batch, drop, _ = FILES[name]
    settings = BlockDropSettings(**loaded.compression)
    args = EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training)
    assert (args.per_device_train_batch_size, args.weight_decay, args.max_grad_norm, args.ema_decay) == (
        batch,
        0.05,
        1.0,
        0.999,
    )
    assert args.lr_schedule == "cosine" and args.eval_strategy == "no" and not args.load_best_model_at_end
    assert settings.score_on == "train" and settings.part == ("detector" if name == "thumos14_i3d" else None)
    assert settings.metric == ("mAP@0.5" if name.startswith("thumos") else "average_mAP")
    plain = BlockDropSettings(**recipe(name).compression).to_dict()
    expected = STUDIES.get(study, {"blocks": ORDERS[name]} if name in ORDERS else {})
    changed = {key: value for key, value in settings.to_dict().items() if value != plain[key]} | {
        "drop": settings.drop
    }
    wanted = {key: list(value) if isinstance(value, tuple) else value for key, value in expected.items()}
    # the tables of the ablations are those of three blocks
    assert changed == wanted | {
        "drop": 1 if "figure" in study else drop if study in ("progressive", "published_order") else 3
    }


@pytest.mark.parametrize("study", PRUNED)
def test_pruned_arms_take_the_arithmetic_they_name(study):
    drop, width, share = PRUNED[study]
    settings = BlockDropSettings(**recipe("thumos14", f"study={study}").compression)
    assert (settings.drop, settings.mlp_width) == (drop, width)
    whole, block, mlp = 1135.6, 91.54, 48 * 800 * 2 * 1536 * 384 / 1e9  # on 768 frames, in units of 1e9
    left = whole - drop * block - (12 - drop) * mlp * (1 - width / 1536)
    assert left / whole == pytest.approx(share, abs=0.003)


def test_choices_of_base_and_schedule(tmp_path):
    assert [recipe("thumos14", f"base={size}").compression["drop"] for size in ("small", "large", "adatad")] == [
        4,
        6,
        2,
    ]
    assert [recipe("thumos14", f"base={size}").training["schedule_epochs"] for size in ("small", "large")] == [65, 80]
    late = recipe("activitynet", "recovery=late").training
    assert (late["num_train_epochs"], recipe("activitynet").training["num_train_epochs"]) == (15, 8)
    presets = {name: recipe(name, "preset=released").compression for name in ("thumos14", "activitynet")}
    assert all(compression["preset"] == "released" for compression in presets.values())
    # the released code keeps the teacher on THUMOS14, and takes the model before each drop on ActivityNet
    assert presets["thumos14"]["teacher"] == "static" and "teacher" not in presets["activitynet"]


def test_unknown_keys_are_refused():
    with pytest.raises(RecipeFileError, match="compression: unknown keys"):
        recipe("thumos14", overrides=["compression.blocks_to_drop=3"])
    with pytest.raises(RecipeFileError, match="choose.study: expected one of"):
        recipe("thumos14", "study=table9")


# ---- two steps --------------------------------------------------------------------------------------------------------------

QUIET = ["training.use_cpu=true", "training.report_to=none", "training.save_strategy=no", "training.disable_tqdm=true"]
SHRUNK = [
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
    "compression.timing_rounds=0",
    "validation_share=0.34",
]
CASES = [("thumos14", [f"study={study}"]) for study in STUDIES]
CASES += [("thumos14", [f"study={study}"]) for study in PRUNED]
CASES += [(name, [choice]) for name, (_, _, choices) in FILES.items() for choice in choices]
CASES += [("activitynet", []), ("fineaction", []), ("thumos14_i3d", []), ("thumos14_i3d", ["study=published_order"])]
CASES += [
    ("thumos14_i3d", ["study=full_tuning"]),
    ("activitynet", ["study=published_order"]),
    ("thumos14", ["study=published_order"]),
]


def labels(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    make_action_streams(root, {"train": 4}, size=32, seconds=(9, 10), seed=4, progress=False)
    return root


@pytest.fixture(scope="module")
def names(videos):
    database = json.loads((videos / "annotations.json").read_text())["database"]
    return sorted({one["label"] for entry in database.values() for one in entry["annotations"]})


def randomised(model):
    """Random biases, too: zero ones hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") and "output" not in name:
                parameter.normal_(std=0.1)
    return model


def base_model(folder, one_class, adapters, names):
    """A detector of 12 thin blocks on pixels, as a checkpoint."""
    backbone = {
        "model_type": "videomae", "hidden_size": 8, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 16,
        "image_size": 32, "patch_size": 16, "num_frames": 16,
    }  # fmt: skip
    config = ActionFormerConfig(
        backbone_config=backbone, clip_frames=16, frames_per_step=2, hidden_size=16, num_stem_layers=1, num_branch_layers=2,
        attention_window=-1, max_sequence_length=16, temporal_adapters=adapters, freeze_backbone=adapters, **labels(["action"] if one_class else names),
    )  # fmt: skip
    randomised(ActionFormerForTemporalActionDetection(config)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    ActionFormerProcessor(
        feature_stride=2,
        feature_num_frames=2,
        feature_fps=6,
        window_length=16,
        size=size,
        crop_size=size,
        class_agnostic=one_class,
    ).save_pretrained(folder)
    return folder


def feature_model(folder):
    config = ActionFormerConfig(
        input_size=8, hidden_size=16, num_stem_layers=2, num_branch_layers=5, attention_window=5, max_sequence_length=64,
        **labels(["dive", "jump", "throw"]),
    )  # fmt: skip
    randomised(ActionFormerForTemporalActionDetection(config)).save_pretrained(folder)
    ActionFormerProcessor(feature_stride=4, feature_num_frames=16, feature_fps=30).save_pretrained(folder)
    return folder


def annotations_of(folder, database, split):
    for entry in database.values():
        entry["subset"] = split
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    return folder / "annotations.json"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "choices"), CASES, ids=[" ".join([name, *choices]) for name, choices in CASES])
def test_two_steps_of_a_shrunken_network(tmp_path, videos, names, name, choices):
    features = name == "thumos14_i3d"
    drop = 2 if "study=published_order" in choices else 1
    together = any("at_once" in choice for choice in choices)
    pruned = any("pruned" in choice for choice in choices)
    if pruned:
        pytest.importorskip("torch_pruning")
        drop = int("study=dropped_and_pruned" in choices)
    overrides = [*QUIET, *SHRUNK, *([] if together else [f"compression.drop={drop}"])]
    overrides += ["compression.mlp_width=9"] if pruned else []
    split = "validation" if name.startswith("thumos") else "training"
    command = ["compress"]
    if features:
        generator = np.random.default_rng(0)
        (tmp_path / "features").mkdir()
        database = {}
        for number in range(4):
            np.save(tmp_path / "features" / f"video_{number}.npy", generator.standard_normal((40, 8)).astype("f4"))
            spans = [(0.5, 1.5, "dive"), (2.0, 3.0, "jump"), (3.5, 4.5, "throw")]
            marks = [{"segment": [start, end], "label": label} for start, end, label in spans]
            database[f"video_{number}"] = {"duration": 5.3, "fps": 30.0, "annotations": marks}
        command += [feature_model(tmp_path / "base"), "--features", tmp_path / "features"]
    else:
        database = json.loads((videos / "annotations.json").read_text())["database"]
        one_class = name in ("activitynet", "fineaction")
        command += [base_model(tmp_path / "base", one_class, "base=adatad" in choices, names), "--root", videos]
    command += ["--data", annotations_of(tmp_path, database, split), "-o", tmp_path / "out", "--quiet"]
    command += ["--config", FOLDER / f"{name}.yaml"]
    command += [
        part for choice in [*(f"choose.{choice}" for choice in choices), *overrides] for part in ("--set", choice)
    ]
    done = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    outcome = CompressionOutcome.load(tmp_path / "out")
    settings = BlockDropSettings(**recipe(name, *choices, overrides=overrides).compression)
    start, final = outcome.steps[0], outcome.steps[-1]
    assert len(start.kept) - len(final.kept) == settings.drop == (3 if together else drop)
    if settings.blocks:
        lost = settings.blocks[: settings.drop]
        assert sorted(set(start.kept) - set(final.kept)) == sorted(lost)
    assert math.isfinite(final.after.value)
    model = ActionFormerForTemporalActionDetection.from_pretrained(outcome.model_dir)
    depth = len(model.actionformer.encoder.stem) + len(model.actionformer.encoder.branch) if features else None
    assert features or model.config.backbone_config.num_hidden_layers == 12 - settings.drop
    assert not features or model.config.num_levels == 6, f"levels stay, {depth} layers"
    assert not pruned or (final.kind, model.config.backbone_config.intermediate_size) == ("prune", 9)
    if settings.relu:
        assert model.config.backbone_config.hidden_act == "relu"
