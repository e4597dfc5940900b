"""One model in two places of a distillation is refused before anything is opened."""

import pytest

from hf_effvid.training.distillation_settings import DistillationError
from hf_effvid.training.distillation_sources import check_sources
from tests.training.small_run import tiny_model


def test_two_teachers_and_a_student_of_their_own(tmp_path):
    (tmp_path / "a").mkdir()
    check_sources("tsm:resnet18", "org/vit", tmp_path / "a")
    check_sources(tmp_path / "a", None, None)
    check_sources(tiny_model(), tiny_model(), tmp_path / "nowhere")


def test_the_same_teacher_twice(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for vit, cnn in (
        ("org/a", "org/a"),
        (tmp_path / "a", f"{tmp_path}/./a/"),
        (str(tmp_path / "a"), tmp_path / "link"),
    ):
        with pytest.raises(DistillationError, match="both .*a.*leave one out"):
            check_sources("tsm:resnet18", vit, cnn)
    model = tiny_model()
    with pytest.raises(DistillationError, match="both one VideoFocalNetForVideoClassification"):
        check_sources("tsm:resnet18", model, model)


@pytest.mark.parametrize("role", ["vit", "cnn"])
def test_a_student_that_is_its_teacher(tmp_path, role):
    model = tiny_model()
    for student in ("org/a", tmp_path, model):
        with pytest.raises(DistillationError, match=f"also its {'ViT' if role == 'vit' else 'CNN'} teacher"):
            check_sources(student, **{f"teacher_{role}": student})
