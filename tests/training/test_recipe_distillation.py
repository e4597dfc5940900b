"""The section `distillation` of a recipe, and the recipes of distillation."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.distillation_settings import ROLES, DistillationError, DistillationSettings
from hf_effvid.training.recipe import RecipeFileError, load_recipe


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
