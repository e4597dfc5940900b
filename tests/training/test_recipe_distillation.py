"""The section `distillation` of a recipe, and the recipes of distillation."""

import pytest

from hf_effvid.training.distillation_settings import DistillationError, DistillationSettings
from hf_effvid.training.recipe import RecipeFileError, load_recipe


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
