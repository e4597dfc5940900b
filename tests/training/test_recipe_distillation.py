"""The section `distillation` of a recipe, and the recipes of distillation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.distillation_settings import ROLES, DistillationError, DistillationSettings
from hf_effvid.training.model_setup import open_classifier, processor_for, save_classifier
from hf_effvid.training.recipe import RecipeFileError, load_recipe
from tests.data.test_epic_annotations import HEADER as EPIC_HEADER
from tests.training.small_distillation import tiny_cnn, tiny_teachers
from tests.training.test_recipe_video_focalnet import call, official


FOLDER = Path(__file__).resolve().parents[2] / "examples" / "configs" / "distillation"


def test_the_section_holds_settings_and_what_else_a_run_is_told(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: tsm:mobilenetv2\ndistillation:\n  teacher_vit: org/vit\n  views: 4\n  weighting: uniform\n  residual: none\n"
        "  temperature: 2e0\n  ramp: 0\n"
    )
    recipe = load_recipe(path, ["distillation.view_seed=3", "distillation.rkd_angle_weight=5e-1"])
    assert recipe.distillation_options() == {"teacher_vit": "org/vit", "views": 4, "view_seed": 3}
    settings = DistillationSettings(**recipe.distillation_fields())
    assert (settings.weighting, settings.residual, settings.kd_temperature) == ("uniform", "none", 2.0)
    assert (settings.rkd_angle_weight, settings.ramp, settings.kd_loss) == (0.5, 0, "kd")
    assert load_recipe(None).distillation_options() == load_recipe(None).distillation_fields() == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distillation: {weight: uniform}", r"distillation: unknown keys \['weight'\]"),
        ("distillation: {cache_teachers: /etc}", "unknown keys"),  # where to write is for the command line
        ("distillation: {teacher_cnn: [a, b]}", "distillation.teacher_cnn: expected a word"),
        ("distillation: {views: true}", "distillation.views: expected a whole number"),
        ("distillation: uniform", "distillation: expected `key: value` lines"),
    ],
)
def test_what_a_recipe_cannot_say(tmp_path, text, said):
    (tmp_path / "recipe.yaml").write_text(text + "\n")
    with pytest.raises(RecipeFileError, match=said):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_choice_that_nobody_knows_is_named():
    recipe = load_recipe(None, ["distillation.weighting=loudest"])
    with pytest.raises(DistillationError, match="weighting must be one of discrepancy_aware, .*'loudest'"):
        DistillationSettings(**recipe.distillation_fields())


# ---- the files --------------------------------------------------------------------------------------------------------------

# recipe -> format, student, the choice that is its own
RECIPES = {
    "hmdb51": ("hmdb51", "start/x3d_s"),
    "epic100": ("epic100-verb", "start/x3d_s"),
    "kinetics400": ("kinetics", "x3d:s"),
    "hub_pair": ("kinetics", "tsm:mobilenetv4-small"),
}
# what each claim of the abstract, and each earlier method, leaves of the full method: terms, and the weighting of the teachers
STUDIES = {
    "full": (("kd", "residual", "relation"), "discrepancy_aware"),
    "uniform": (("kd", "residual", "relation"), "uniform"),
    "confidence": (("kd", "residual", "relation"), "confidence"),
    "discrepancy": (("kd", "residual", "relation"), "discrepancy"),
    "vit_alone": (("kd", "relation"), "discrepancy_aware"),
    "cnn_alone": (("kd",), "discrepancy_aware"),
    "no_branch": (("kd", "relation"), "discrepancy_aware"),
    "branch_on_vit": (("kd", "residual", "relation"), "discrepancy_aware"),
    "no_relations": (("kd", "residual"), "discrepancy_aware"),
    "alone": ((), "discrepancy_aware"),
    "ebkd": (("kd", "residual", "relation"), "ebkd"),
    "ca_mkd": (("kd", "residual", "relation"), "ca_mkd"),
    "sum": (("kd", "residual", "relation"), "discrepancy_aware"),
    "softmax": (("kd", "residual", "relation"), "discrepancy_aware"),
    "zscore": (("kd", "residual", "relation"), "discrepancy_aware"),
    "label_gate": (("kd", "residual", "relation"), "discrepancy_aware"),
    "orthogonal": (("kd", "residual", "relation"), "discrepancy_aware"),
    "cnn_features": (("kd", "residual", "cnn_feature", "relation"), "discrepancy_aware"),
    "kd": (("kd",), "uniform"),
    "dkd": (("kd",), "uniform"),
    "dist": (("kd",), "uniform"),
    "ofa": (("kd",), "uniform"),
    "rkd": (("relation",), "discrepancy_aware"),
    "mse": (("feature",), "discrepancy_aware"),
    "fitnet": (("feature",), "discrepancy_aware"),
    "attention": (("feature",), "discrepancy_aware"),
}


def recipe(name, *overrides):
    return load_recipe(FOLDER / f"{name}.yaml", overrides)


def settings_of(loaded):
    """The settings as a run has them: without the terms of a teacher that is left out."""
    named = loaded.distillation_options()
    roles = [role for role in ROLES if named.get(f"teacher_{role}")]
    return DistillationSettings(**loaded.distillation_fields()).for_teachers(roles)


@pytest.mark.parametrize("name", RECIPES)
def test_every_study_of_every_recipe(name):
    document = yaml.safe_load((FOLDER / "dual_teacher.yaml").read_text())
    assert set(document["choices"]["study"]) == set(STUDIES)
    for study, (terms, weighting) in STUDIES.items():
        settings = settings_of(recipe(name, f"choose.study={study}"))
        assert (settings.terms, settings.weighting) == (terms, weighting), study
    temperatures = {study: settings_of(recipe(name, f"choose.study={study}")).kd_temperature for study in STUDIES}
    assert {study for study, value in temperatures.items() if value != 4} == {"dist", "ofa"}


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_states(tmp_path, name):
    layout, student = RECIPES[name]
    loaded = recipe(name)
    assert (loaded.data["format"], loaded.model) == (layout, student)
    assert all(loaded.distillation_options()[f"teacher_{role}"] for role in ROLES)
    processor, augmentation = loaded.build_processor(), loaded.build_augmentation()
    frames = (8, "segment", 224) if name == "hub_pair" else (13, "dense", 160)
    assert (processor.num_frames, processor.sampling, processor.crop_size["height"]) == frames
    assert augmentation.flip_probability == 0.5 and augmentation.color_jitter_probability == 0
    args = EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training)
    assert (args.optim, args.optim_args, args.max_grad_norm) == ("sgd", "momentum=0.9", 40.0)
    rates = (args.learning_rate, loaded.distillation_fields()["rkd_angle_weight"])
    assert rates == {"hub_pair": (0.01, 50.0), "kinetics400": (0.05, 50.0)}.get(name, (5e-4, 2.0))


def test_labels_students_and_teachers_to_choose(tmp_path):
    for of in ("verb", "noun", "action"):
        assert recipe("epic100", f"choose.of={of}").data["format"] == f"epic100-{of}"
    for student, preset in (("resnet18", "tsm:resnet18"), ("mobilenetv2", "tsm:mobilenetv2")):
        assert recipe("hub_pair", f"choose.student={student}").model == preset
    for teacher, (preset, stride, optim) in {
        "mvit_v2_s": ("torchvision_video:mvit_v2_s", 4, "adamw_torch_fused"),
        "x3d_m": ("x3d:m", 5, "sgd"),
    }.items():
        loaded = recipe("teachers", f"choose.teacher={teacher}")
        args = EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training)
        assert (loaded.model, loaded.build_processor().frame_stride, str(args.optim.value)) == (preset, stride, optim)


def test_the_defaults_of_the_settings_are_the_full_method():
    fields = recipe("hmdb51").distillation_fields()
    assert DistillationSettings(**fields) == replace(DistillationSettings(), temperature=4.0)


# ---- two steps on official annotations -----------------------------------------------------------------------------------------

LAYOUTS = {"hmdb51": "hmdb51", "epic100": "epic100", "kinetics400": "kinetics", "hub_pair": "kinetics"}
SHRUNK = [
    "processor.num_frames=4",
    "processor.frame_stride=2",
    "processor.size={shortest_edge: 36}",
    "processor.crop_size={height: 32, width: 32}",
    "processor.num_clips=1",
    "processor.num_crops=1",
    "training.max_steps=2",
    "training.per_device_train_batch_size=4",
    "training.logging_steps=1",
    "training.use_cpu=true",
    "training.dataloader_pin_memory=false",
    "training.report_to=none",
    "training.load_best_model_at_end=false",
]
MOTIONS = ("grows", "moves_left")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    counts = {"train": 6, "validation": 2}
    folder = tmp_path_factory.mktemp("motion")
    return make_motion_dataset(folder, counts, size=40, num_frames=12, classes=MOTIONS, progress=False)


def laid_out(layout, videos, folder):
    """The generated clips in the annotation files of HMDB51 or EPIC-Kitchens-100."""
    if layout == "kinetics":
        return official(layout, videos, folder)
    (folder / "videos").mkdir(parents=True)
    clips = [(split, clip) for split in ("train", "validation") for clip in sorted((videos / split).rglob("*.mp4"))]
    lines = {}
    for number, (split, clip) in enumerate(clips):
        label = clip.parent.name
        name = f"{split}_{number}" if layout == "hmdb51" else f"P{number:02d}_01"
        shutil.copy(clip, folder / "videos" / f"{name}.mp4")
        if layout == "hmdb51":
            lines.setdefault(f"{label}_test_split1.txt", []).append(f"{name}.mp4 {1 + (split == 'validation')}\n")
        else:
            verb = MOTIONS.index(label)
            segment = (
                f"{name}_0,P{number:02d},{name},00:00:00.0,00:00:00.10,00:00:00.70,1,2,x,x,{verb},x,{verb},[],[]\n"
            )
            lines.setdefault(f"EPIC_100_{split}.csv", [EPIC_HEADER]).append(segment)
    if layout == "epic100":
        lines["EPIC_100_verb_classes.csv"] = ["id,key\n", *(f"{i},{name}\n" for i, name in enumerate(MOTIONS))]
    for name, text in lines.items():
        (folder / name).write_text("".join(text))
    return folder


@pytest.mark.parametrize(
    "name",
    ["hmdb51", "epic100", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kinetics400", "hub_pair"))],
)
def test_two_steps_on_official_annotations(tmp_path, videos, name):
    """The recipe trains: its sampling, optimiser and settings on small networks, which the flags name."""
    data = laid_out(LAYOUTS[name], videos, tmp_path / "data")
    vit, cnn = tiny_teachers(tmp_path, MOTIONS)
    tiny_cnn(tmp_path / "student", MOTIONS)
    overrides = [part for override in SHRUNK for part in ("--set", override)]
    done = call(
        "distill", "--student", tmp_path / "student", "--teacher-vit", vit, "--teacher-cnn", cnn, "--data", data, "--root", data / "videos",
        "--config", FOLDER / f"{name}.yaml", "-o", tmp_path / "run", "--json", "--quiet", *overrides,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert (outcome["steps"], outcome["class_names"]) == (2, list(MOTIONS))
    told = DistillationSettings(**outcome["distillation"]["settings"])
    assert told.terms == ("kd", "residual", "relation")
    assert told.rkd_angle_weight == (50 if name in ("kinetics400", "hub_pair") else 2)
    # HMDB51 has no validation split, and its test split stays unseen
    assert outcome["held_out"] is (name == "hmdb51") and outcome["num_train"] == (10 if name == "hmdb51" else 12)
    logged = [
        line for line in json.loads((tmp_path / "run" / "training.json").read_text())["history"] if "loss" in line
    ]
    assert len(logged) == 2
    assert all({"kd_loss", "residual_loss", "relation_angle", "weight_vit"} <= line.keys() for line in logged)


@pytest.mark.slow
def test_the_pair_of_the_paper_in_its_own_sizes(tmp_path, videos):
    """X3D-S, X3D-M and MViTv2-S with random weights and 51 classes: what a step costs, before anything is downloaded."""
    data = laid_out("hmdb51", videos, tmp_path / "data")
    for preset, folder in (("torchvision_video:mvit_v2_s", "vit"), ("x3d:m", "cnn")):
        model = open_classifier(preset, MOTIONS)
        save_classifier(model, processor_for(model.config), str(tmp_path / folder))
    done = call(
        "distill", "--student", "x3d:s", "--teacher-vit", tmp_path / "vit", "--teacher-cnn", tmp_path / "cnn", "--data", data, "--root",
        data / "videos", "--config", FOLDER / "hmdb51.yaml", "-o", tmp_path / "run", "--dry-run", "--json", "--quiet",
        "--set", "training.use_cpu=true",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    student, (vit, cnn) = plan["student"], plan["teachers"]
    assert (student["clip"], vit["clip"], cnn["clip"]) == ([13, 3, 160, 160], [16, 3, 224, 224], [16, 3, 224, 224])
    assert student["gmacs"] == pytest.approx(1.96, abs=0.02) and cnn["gmacs"] == pytest.approx(4.73, abs=0.05)
    assert vit["gmacs"] == pytest.approx(64.2, abs=0.5) and vit["parameters"] > 9 * student["parameters"]
