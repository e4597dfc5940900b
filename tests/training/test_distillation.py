"""`distill_classifier` from video files and teachers' folders to a Hub folder of the student alone."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification

from hf_effvid.data import TeacherCacheError, tiny_motion_dataset
from hf_effvid.training import distill_classifier, train_classifier
from hf_effvid.training.distillation_record import DistillationRecord
from hf_effvid.training.distillation_settings import DistillationError, DistillationSettings
from hf_effvid.training.model_setup import processor_for, save_classifier

from .small_teaching import tiny_vit, tiny_x3d


QUIET = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "report_to": "none",
}
CLASSES = ("grows", "moves_left", "moves_right")
NO_TEACHER = {"kd_weight": 0, "residual": "none", "relation_weight": 0}


def distil(student, data, output_dir, args=None, **options):
    torch.set_num_threads(1)
    return distill_classifier(
        student, data, output_dir=output_dir, args={**QUIET, **(args or {})}, progress=False, **options
    )


def small_student():
    return tiny_x3d(num_frames=4, image_size=32).config


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("motion") / "data", classes=CLASSES)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folders of a ViT of 4 frames of 24 pixels and of a CNN of 2 frames of 16."""
    folders = {}
    for role, model in (("vit", tiny_vit()), ("cnn", tiny_x3d(seed=5, hidden_sizes=[8, 20]))):
        model.config.id2label = dict(enumerate(CLASSES))
        model.config.label2id = {name: index for index, name in enumerate(CLASSES)}
        folders[role] = str(tmp_path_factory.mktemp(role) / f"{role}-teacher")
        save_classifier(model, processor_for(model.config), folders[role])
    return folders


@pytest.fixture(scope="module")
def run(motion, teachers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = DistillationSettings(cnn_feature_weight=0.5)
    both = {"teacher_vit": teachers["vit"], "teacher_cnn": teachers["cnn"]}
    return distil(small_student(), motion, folder, settings=settings, **both), folder


class TestARun:
    def test_the_folder_is_the_student_alone(self, run):
        outcome, _ = run
        model, info = AutoModelForVideoClassification.from_pretrained(outcome.model_dir, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert model.config.model_type == "x3d"
        assert [model.config.id2label[index] for index in range(3)] == list(CLASSES)
        weights = load_file(f"{outcome.model_dir}/model.safetensors")
        assert set(weights) == set(tiny_x3d(num_frames=4, image_size=32).state_dict())

    def test_what_is_recorded(self, run, teachers):
        outcome, folder = run
        saved = json.loads((folder / "training.json").read_text())["distillation"]
        assert saved == json.loads(json.dumps(outcome.distillation))
        assert [(one["role"], one["name"], one["model_type"]) for one in saved["teachers"]] == [
            ("vit", teachers["vit"], "videomae"),
            ("cnn", teachers["cnn"], "x3d"),
        ]
        assert saved["settings"]["cnn_feature_weight"] == 0.5
        assert saved["data"] == {
            "name": "data", "terms": ["kd", "residual", "cnn_feature", "relation"], "view_seed": 0, "views": None
        }  # fmt: skip
        assert json.loads(json.dumps(DistillationRecord.load(outcome.model_dir).to_dict())) == saved
        assert f"{teachers['cnn']} (cnn): kd, residual, cnn_feature, relation" in outcome.summary()
        assert DistillationRecord.load(outcome.model_dir).teacher("cnn").model_type == "x3d"

    def test_terms_are_logged_and_every_one_of_them_counts(self, run):
        outcome, _ = run
        steps = [entry for entry in outcome.history if "kd_loss" in entry]
        assert len(steps) == outcome.steps
        for entry in steps:
            assert all(entry[name] > 0 for name in ("kd_loss", "residual_loss", "cnn_feature_loss", "auxiliary_loss"))
            assert entry["weight_vit"] + entry["weight_cnn"] == pytest.approx(1, abs=1e-5)
        assert set(outcome.metrics) == {"loss", "top1", "mean_class_accuracy"}


class TestStoredAnswers:
    def test_as_good_as_live_ones_and_asked_once(self, motion, teachers, tmp_path, monkeypatch):
        both = {"teacher_vit": teachers["vit"], "teacher_cnn": teachers["cnn"], "views": 2}
        live = distil(small_student(), motion, tmp_path / "live", **both)
        stored = distil(small_student(), motion, tmp_path / "stored", cache_teachers=tmp_path / "answers", **both)
        assert {path.name for path in (tmp_path / "answers").iterdir()} == {"vit", "cnn"}
        names = ("loss", "kd_loss", "residual_loss", "relation_angle", "weight_vit")
        for first, second in zip(live.history, stored.history, strict=True):
            for name in set(names) & set(first):
                # answers are stored in half precision
                assert second[name] == pytest.approx(first[name], rel=5e-3, abs=2e-3), name

        def refuse(*_):
            raise AssertionError("a teacher was asked again")

        monkeypatch.setattr("hf_effvid.compression.teachers.Teacher.__call__", refuse)
        again = distil(small_student(), motion, tmp_path / "again", cache_teachers=tmp_path / "answers", **both)
        assert [entry.get("loss") for entry in again.history] == [entry.get("loss") for entry in stored.history]

    @pytest.mark.slow
    def test_serve_runs_that_read_less_and_refuse_those_that_read_more(self, motion, teachers, tmp_path, monkeypatch):
        both = {"teacher_vit": teachers["vit"], "teacher_cnn": teachers["cnn"], "views": 2, "args": {"max_steps": 1}}
        logits_alone = {"settings": {"residual": "none", "relation_weight": 0, "weighting": "uniform"}}
        distil(
            small_student(),
            motion,
            tmp_path / "less",
            cache_teachers=tmp_path / "less_answers",
            **both,
            **logits_alone,
        )
        with pytest.raises(TeacherCacheError, match="outputs"):
            distil(small_student(), motion, tmp_path / "more", cache_teachers=tmp_path / "less_answers", **both)
        distil(small_student(), motion, tmp_path / "full", cache_teachers=tmp_path / "answers", **both)

        def refuse(*_):
            raise AssertionError("a teacher was asked again")

        monkeypatch.setattr("hf_effvid.compression.teachers.Teacher.__call__", refuse)
        again = {**both, "cache_teachers": tmp_path / "answers"}
        uniform = distil(small_student(), motion, tmp_path / "uniform", **again, **logits_alone)
        assert uniform.history[0]["weight_vit"] == 0.5
        for role, other in (("vit", "teacher_cnn"), ("cnn", "teacher_vit")):
            outcome = distil(small_student(), motion, tmp_path / role, **{**again, other: None})
            assert outcome.history[0][f"weight_{role}"] == 1

    def test_need_a_number_of_views(self, motion, teachers, tmp_path):
        with pytest.raises(DistillationError, match="set views, such as views=4"):
            distil(
                small_student(),
                motion,
                tmp_path / "run",
                teacher_cnn=teachers["cnn"],
                cache_teachers=tmp_path / "answers",
            )


def test_clips_of_a_stream(motion, teachers, tmp_path):
    options = {"streaming": True, "validation_share": 0, "args": {"max_steps": 1}}
    outcome = distil(small_student(), motion, tmp_path, teacher_cnn=teachers["cnn"], **options)
    assert outcome.num_train is None and outcome.history[0]["kd_loss"] > 0


class TestWithOneTeacherOrNone:
    @pytest.mark.parametrize(("role", "terms"), [("vit", ["kd", "relation"]), ("cnn", ["kd"])])
    def test_one_teacher(self, motion, teachers, tmp_path, role, terms):
        outcome = distil(
            small_student(), motion, tmp_path, args={"max_steps": 1}, **{f"teacher_{role}": teachers[role]}
        )
        assert outcome.distillation["data"]["terms"] == terms
        assert [one["role"] for one in outcome.distillation["teachers"]] == [role]
        assert outcome.history[0][f"weight_{role}"] == 1

    @pytest.mark.slow
    def test_the_student_alone_is_plain_training(self, motion, tmp_path):
        alone = distil(small_student(), motion, tmp_path / "a", settings=NO_TEACHER, augmentation="none")
        torch.set_num_threads(1)
        plain = train_classifier(
            small_student(), motion, output_dir=tmp_path / "b", args=QUIET, augmentation="none", progress=False
        )
        assert alone.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=0.2)
        assert alone.distillation["teachers"] == [] and alone.num_parameters == plain.num_parameters

    @pytest.mark.slow
    def test_the_student_sees_the_same_views_with_and_without_teachers(self, motion, teachers, tmp_path):
        options = {"views": 2, "args": {"max_steps": 1}}
        alone = distil(small_student(), motion, tmp_path / "a", settings=NO_TEACHER, **options)
        taught = distil(small_student(), motion, tmp_path / "b", teacher_vit=teachers["vit"], **options)
        assert taught.history[0]["task_loss"] == pytest.approx(alone.history[0]["loss"], abs=1e-6)

    def test_a_teacher_that_nothing_is_read_of_is_not_opened(self, motion, teachers, tmp_path, monkeypatch):
        monkeypatch.setattr("hf_effvid.compression.teachers.Teacher.open", None)
        outcome = distil(
            small_student(), motion, tmp_path, args={"max_steps": 1}, settings=NO_TEACHER, teacher_vit=teachers["vit"]
        )
        assert outcome.distillation["teachers"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "The terms kd, residual, relation need a teacher"),
        ({"settings": {"residual": "vit", "relation_weight": 0}}, "The terms kd, residual need a teacher"),
        ({"teacher_cnn": "cnn", "args": {"mixup_alpha": 0.4}, "settings": {"kd_loss": "dkd"}}, "mixup_alpha=0"),
        ({"teacher_cnn": "cnn", "args": {"random_keep_ratios": [0.5]}}, "random_keep_ratios"),
        ({"teacher_cnn": "cnn", "teacher_vit": "cnn"}, "are both"),
    ],
)
def test_what_cannot_be_is_told_before_training(motion, teachers, tmp_path, options, message):
    options = {
        name: teachers.get(value, value) if isinstance(value, str) else value for name, value in options.items()
    }
    with pytest.raises(DistillationError, match=message):
        distil(small_student(), motion, tmp_path / "run", **options)
    assert not list(tmp_path.glob("run/checkpoint-*"))


def test_teachers_of_other_classes_are_refused(motion, teachers, tmp_path):
    other = tiny_motion_dataset(tmp_path / "other", classes=("shrinks", "moves_up"))
    with pytest.raises(ValueError, match="class"):
        distil(small_student(), other, tmp_path / "run", teacher_cnn=teachers["cnn"])
