"""What a distillation may be told, and which outputs of which teacher it then reads."""

import dataclasses

import pytest

from hf_effvid.training.distillation_settings import DistillationError, DistillationSettings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weighting": "best"}, "weighting must be one of discrepancy_aware, uniform"),
        ({"kd_loss": "kl"}, "kd_loss must be one of kd, dkd, dist, ofa"),
        ({"residual": "both"}, "residual must be one of discrepancy, vit, none"),
        ({"projection": "learned"}, "projection must be one of aux_ce, orthogonal"),
        ({"kd_weight": -1}, "kd_weight must be a number, at least 0, got -1"),
        ({"relation_weight": "1"}, "relation_weight must be a number"),
        ({"temperature": 0}, "temperature must be a number above 0, got 0"),
        ({"weight_temperature": None}, "weight_temperature must be a number above 0"),
        ({"gather_relations": 1}, "gather_relations must be true or false"),
        ({"ramp": 1.5}, "ramp is a share of the steps"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(DistillationError, match=message):
        DistillationSettings(**fields)


def test_temperatures_follow_the_loss():
    assert [DistillationSettings(kd_loss=loss).kd_temperature for loss in ("kd", "dkd", "dist", "ofa")] == [4, 4, 1, 1]
    assert DistillationSettings(kd_loss="dist", temperature=2).kd_temperature == 2


def test_terms_of_a_missing_teacher_are_left_out():
    full = DistillationSettings(cnn_feature_weight=1.0, feature_loss="fitnet", feature_teacher="vit")
    assert full.terms == ("kd", "residual", "cnn_feature", "relation", "feature")
    assert full.for_teachers(["cnn", "vit"]) == full
    assert full.for_teachers(["vit"]).terms == ("kd", "relation", "feature")
    assert full.for_teachers(["cnn"]).terms == ("kd", "cnn_feature")
    alone = dataclasses.replace(full, residual="vit", relation_teacher="cnn", feature_teacher="both")
    assert alone.for_teachers(["vit"]).terms == ("kd", "residual", "feature")
    assert alone.for_teachers(["cnn"]).terms == ("kd", "cnn_feature", "relation", "feature")
    assert full.for_teachers([]).terms == alone.for_teachers([]).terms == ()
    with pytest.raises(DistillationError, match="Teachers are 'vit' and 'cnn', got 'rnn', 'vit'"):
        full.for_teachers(["vit", "rnn"])


@pytest.mark.parametrize(
    ("fields", "of_the_vit", "of_the_cnn"),
    [
        ({}, {"logits", "features", "embeddings"}, {"logits", "features"}),
        ({"residual": "none"}, {"logits", "embeddings"}, {"logits"}),
        ({"residual": "vit"}, {"logits", "features", "embeddings"}, {"logits"}),
        ({"residual": "vit", "kd_weight": 0}, {"features", "embeddings"}, set()),
        ({"residual_weight": 0, "relation_weight": 0}, {"logits"}, {"logits"}),
        ({"residual": "none", "rkd_distance_weight": 0, "rkd_angle_weight": 0}, {"logits"}, {"logits"}),
        ({"residual": "none", "relation_teacher": "cnn"}, {"logits"}, {"logits", "embeddings"}),
        ({"residual": "none", "feature_loss": "mse"}, {"logits", "embeddings"}, {"logits", "embeddings"}),
        (
            {"residual": "none", "relation_weight": 0, "feature_loss": "attention", "feature_teacher": "cnn"},
            {"logits"},
            {"logits", "features"},
        ),
        ({"residual": "none", "relation_weight": 0, "cnn_feature_weight": 0.5}, {"logits"}, {"logits", "features"}),
    ],
)
def test_what_is_read_of_each_teacher(fields, of_the_vit, of_the_cnn):
    settings = DistillationSettings(**fields)
    assert settings.needed_of("vit") == of_the_vit
    assert settings.needed_of("cnn") == of_the_cnn


def test_made_of_a_dictionary():
    assert DistillationSettings.of(None) == DistillationSettings.of({}) == DistillationSettings()
    made = DistillationSettings.of({"kd_weight": 2})
    assert made.kd_weight == 2 and DistillationSettings.of(made) is made
    with pytest.raises(DistillationError, match="There are no settings kd_wait; there are weighting, combine"):
        DistillationSettings.of({"kd_wait": 2})
