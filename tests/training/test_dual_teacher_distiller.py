"""A student beside two teachers: the sum of its terms, what each batch must hold, and what is left in the saved model."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hf_effvid.compression import kd_loss, mix_teachers, rkd_angle_loss, rkd_distance_loss, teacher_weights
from hf_effvid.compression.feature_taps import feature_spec, pooled, record_features
from hf_effvid.compression.teacher_weighting import MODES
from hf_effvid.compression.teachers import Teacher
from hf_effvid.training import ClassificationTask
from hf_effvid.training.distillation_settings import DistillationError, DistillationSettings
from hf_effvid.training.dual_teacher_distiller import DualTeacherDistiller
from hf_effvid.training.lora import add_lora

from .small_run import weights
from .small_teaching import (
    NAMES,
    ClipsForAll,
    build_trainer,
    freeze_statistics,
    make_batch,
    open_teachers,
    tiny_vit,
    tiny_x3d,
)


def make_task(settings=None, roles=("vit", "cnn"), student=None, **fields):
    settings = settings or DistillationSettings(**fields)
    return DualTeacherDistiller(student or tiny_x3d(), open_teachers(roles), settings).train()


def values(outputs):
    return {
        name: value.item() for name, value in outputs.items() if isinstance(value, torch.Tensor) and not value.ndim
    }


class CountingTeacher:
    """Stands before a teacher and notes how often it is asked."""

    def __init__(self, teacher):
        self.teacher, self.channels, self.calls = teacher, teacher.channels, 0

    def to(self, device):
        return self

    def __call__(self, pixels):
        self.calls += 1
        return self.teacher(pixels)


class TestTerms:
    def test_the_loss_is_the_sum_of_all_terms_with_their_weights(self):
        settings = DistillationSettings(
            ce_weight=0.5, kd_weight=2.0, residual_weight=3.0, auxiliary_weight=0.7, cnn_feature_weight=0.3, relation_weight=1.5,
            rkd_distance_weight=25, rkd_angle_weight=50, feature_loss="fitnet", feature_weight=0.2,
        )  # fmt: skip
        task, batch = make_task(settings), make_batch()
        outputs = task(batch)
        found = values(outputs)
        assert task.terms == ("kd", "residual", "cnn_feature", "relation", "feature")
        expected = (
            0.5 * found["task_loss"] + 2.0 * found["kd_loss"] + 3.0 * found["residual_loss"] + 0.7 * found["auxiliary_loss"]
            + 0.3 * found["cnn_feature_loss"] + 1.5 * (25 * found["relation_distance"] + 50 * found["relation_angle"])
            + 0.2 * found["feature_loss"]
        )  # fmt: skip
        assert found["loss"] == pytest.approx(expected, rel=1e-5)
        assert min(found[name] for name in found if name != "residual_explained") > 1e-4
        assert found["weight_vit"] + found["weight_cnn"] == pytest.approx(1)
        assert 0 <= found["confidence_vit"] <= 1 and 0 <= found["discrepancy_cnn"] <= 2
        outputs["loss"].backward()
        assert not [name for name, value in task.named_parameters() if value.grad is None]

    def test_terms_are_those_of_the_plain_functions(self):
        task, batch = make_task(temperature=3.0), make_batch()
        with torch.no_grad():
            found = task(batch)
            with record_features(task.model, feature_spec(task.model)) as recorded:
                logits = task.model(batch["pixel_values"]).logits
            answers = {role: task.teachers[role](batch[f"{role}_pixel_values"]) for role in ("vit", "cnn")}
        teacher_logits = [answers[role].logits for role in ("vit", "cnn")]
        shares = teacher_weights(logits, teacher_logits)
        torch.testing.assert_close(found["kd_loss"], kd_loss(logits, mix_teachers(shares, teacher_logits), 3.0))
        torch.testing.assert_close(found["weight_cnn"], shares[:, 1].mean())
        torch.testing.assert_close(found["task_loss"], F.cross_entropy(logits, batch["labels"]))
        own, other = pooled(recorded.map), answers["vit"].embeddings
        torch.testing.assert_close(found["relation_distance"], rkd_distance_loss(own, other))
        torch.testing.assert_close(found["relation_angle"], rkd_angle_loss(own, other))

    def test_weights_carry_no_gradient(self):
        task, batch = make_task(residual="none", relation_weight=0, ce_weight=0), make_batch()
        outputs = task(batch)
        outputs["loss"].backward()
        found = {name: value.grad.clone() for name, value in task.named_parameters()}
        task.zero_grad()
        logits = task.model(batch["pixel_values"]).logits
        teacher_logits = [task.teachers[role](batch[f"{role}_pixel_values"]).logits for role in ("vit", "cnn")]
        fixed = teacher_weights(logits.detach(), teacher_logits)
        kd_loss(logits, mix_teachers(fixed, teacher_logits), 4.0).backward()
        for name, value in task.named_parameters():
            torch.testing.assert_close(found[name], value.grad)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_teacher_that_is_the_student_leaves_no_soft_loss(self, mode):
        student = tiny_x3d()
        teachers = {"cnn": Teacher.open(copy.deepcopy(student), "cnn", NAMES)}
        settings = DistillationSettings(weighting=mode, relation_teacher="cnn", feature_loss="mse")
        task = DualTeacherDistiller(student, teachers, settings).train()
        # BatchNorm of a student in training sees the batch; here only the losses are looked at
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        found = values(task.train()(make_batch(roles=("cnn",))))
        for name in ("kd_loss", "relation_distance", "relation_angle", "feature_loss"):
            assert found[name] == pytest.approx(0, abs=1e-6), name
        assert found["loss"] == pytest.approx(found["task_loss"], abs=1e-5)

    def test_two_teachers_that_are_the_student_leave_no_soft_loss(self):
        student = tiny_x3d()
        teachers = {role: Teacher.open(copy.deepcopy(student), role, NAMES) for role in ("vit", "cnn")}
        task = DualTeacherDistiller(student, teachers)
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        batch = make_batch(roles=("cnn",))
        found = values(task.train()(batch | {"vit_pixel_values": batch["pixel_values"]}))
        assert found["kd_loss"] == pytest.approx(0, abs=1e-6)
        assert found["weight_vit"] == pytest.approx(0.5)
        assert found["relation_distance"] + found["relation_angle"] == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("kind", ["kd", "dkd", "dist", "ofa"])
    def test_every_loss_of_logits_trains_the_student(self, kind):
        task = make_task(kd_loss=kind, residual="none", relation_weight=0, ce_weight=0, logit_norm="zscore")
        outputs = task(make_batch())
        outputs["loss"].backward()
        assert math.isfinite(outputs["kd_loss"].item())
        assert all(value.grad.abs().sum() > 0 for value in task.model.classifier.parameters())

    @pytest.mark.parametrize(("residual", "widths"), [("discrepancy", {"vit", "cnn"}), ("vit", {"vit"})])
    def test_the_target_of_the_branch(self, residual, widths):
        task = make_task(residual=residual, kd_weight=0, relation_weight=0)
        target = task.discrepancy.target
        assert {role for role in ("vit", "cnn") if getattr(target, f"{role}_projection") is not None} == widths
        assert values(task(make_batch()))["residual_loss"] > 0

    def test_frozen_projections_have_no_auxiliary_loss(self):
        task = make_task(projection="orthogonal")
        found = values(task(make_batch()))
        assert found["auxiliary_loss"] == 0
        assert not [name for name, _ in task.discrepancy.target.named_parameters()]

    def test_features_of_another_width_are_named(self):
        task = make_task(feature_loss="mse")
        with pytest.raises(ValueError, match="fitnet_loss projects the student first"):
            task(make_batch())

    @pytest.mark.parametrize("size", [1, 2])
    def test_batches_without_an_angle_or_with_one_distance(self, size):
        task = make_task().eval()
        task.training = True  # a batch of one has no statistics for BatchNorm
        outputs = task(make_batch(size))
        outputs["loss"].backward()
        # of two samples the one distance is its own mean, whatever it is
        assert outputs["relation_angle"].item() == outputs["relation_distance"].item() == 0
        assert outputs["residual_loss"].item() > 0
        assert all(torch.isfinite(value.grad).all() for value in task.model.parameters())

    def test_bfloat16_is_close(self):
        task, batch = make_task(ramp=0.0), make_batch(6)
        single = values(task(batch))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = task(batch)
        half = values(outputs)
        for name in ("loss", "task_loss", "kd_loss", "residual_loss", "auxiliary_loss", "relation_distance"):
            assert half[name] == pytest.approx(single[name], rel=0.05, abs=0.02), name
        outputs["loss"].backward()
        assert all(torch.isfinite(value.grad).all() for value in task.parameters())

    def test_a_student_with_bfloat16_weights(self):
        batch, fields = make_batch(6), {"feature_loss": "fitnet", "cnn_feature_weight": 1.0}
        single = values(make_task(**fields)(batch))
        task = make_task(student=tiny_x3d().to(torch.bfloat16), **fields)
        outputs = task(batch)
        for name in ("kd_loss", "residual_loss", "cnn_feature_loss", "feature_loss", "relation_distance"):
            assert outputs[name].dtype == torch.float32
            assert outputs[name].item() == pytest.approx(single[name], rel=0.1, abs=0.03), name
        outputs["loss"].backward()
        assert all(torch.isfinite(value.grad).all() for value in task.parameters())


class TestHalvesOfABatch:
    """What data parallel training does with a batch: the mean of the gradients of its halves."""

    def furthest(self, task):
        """Between the gradients of the whole and the mean over both halves."""
        batch, found = make_batch(6), []
        for parts in ([slice(0, 6)], [slice(0, 3), slice(3, 6)]):
            task.zero_grad()
            for part in parts:
                (task({name: values[part] for name, values in batch.items()})["loss"] / len(parts)).backward()
            found.append([p.grad.clone() for p in task.parameters() if p.requires_grad])
        return max((whole - halves).abs().max().item() for whole, halves in zip(*found, strict=True))

    def test_are_the_whole_where_batch_norm_is_frozen(self):
        settings = {"relation_weight": 0, "feature_loss": "fitnet", "cnn_feature_weight": 0.5}
        assert self.furthest(freeze_statistics(make_task(**settings)).train()) < 1e-5

    def test_are_something_else_where_batch_norm_looks_at_them(self):
        """The documented difference of several processes."""
        assert self.furthest(make_task(relation_weight=0)) > 1e-3

    def test_are_something_else_to_relations_of_their_own(self):
        task = freeze_statistics(make_task(kd_weight=0, residual="none")).train()
        assert self.furthest(task) > 1e-3


class TestAdapters:
    def test_a_student_of_adapters_is_taught_through_them(self):
        student = add_lora(tiny_vit(image_size=16, num_frames=2), 2, 4, 0.0, ["query", "value"])
        task = make_task(student=student, feature_loss="fitnet")
        outputs = task(make_batch())
        outputs["loss"].backward()
        assert values(outputs)["residual_loss"] > 0
        adapters = [p for name, p in student.named_parameters() if "lora_B" in name]
        assert adapters and all(p.grad.abs().sum() > 0 for p in adapters)
        assert all(p.grad is None for name, p in student.named_parameters() if "base_layer" in name)


class TestRamp:
    def test_terms_of_teachers_rise_over_a_share_of_the_run(self):
        task = make_task(ramp=0.5)
        assert task.ramp_factor == 1
        found = []
        for step in range(8):
            task.begin_step(step, 8)
            found.append(task.ramp_factor)
        assert found == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
        task.begin_step(0, 8)
        outputs = values(task(make_batch()))
        soft = (
            outputs["kd_loss"]
            + outputs["residual_loss"]
            + outputs["relation_distance"]
            + 2 * outputs["relation_angle"]
        )
        expected = outputs["task_loss"] + outputs["auxiliary_loss"] + 0.25 * soft
        assert outputs["loss"] == pytest.approx(expected, rel=1e-5)
        assert outputs["ramp"] == 0.25

    def test_no_ramp(self):
        task = make_task(ramp=0.0)
        task.begin_step(0, 100)
        assert task.ramp_factor == 1


class TestWhatIsComputed:
    def test_stored_answers_are_as_good_as_live_ones(self):
        task, batch = make_task(), make_batch()
        live = values(task(batch))
        stored = {"pixel_values": batch["pixel_values"], "labels": batch["labels"]}
        for role in ("vit", "cnn"):
            outputs = task.teachers[role](batch[f"{role}_pixel_values"])
            stored |= {f"{role}_{name}": getattr(outputs, name) for name in ("logits", "features", "embeddings")}
        task._outside = ({role: None for role in task.roles},)  # nobody is there to be asked
        assert values(task(stored)) == live
        del stored["cnn_features"]
        with pytest.raises(DistillationError, match="neither cnn_pixel_values nor cnn_features"):
            task(stored)

    @pytest.mark.parametrize(
        ("fields", "calls", "hooks"),
        [
            ({}, {"vit": 1, "cnn": 1}, True),
            ({"residual": "none", "relation_weight": 0}, {"vit": 1, "cnn": 1}, False),
            ({"residual": "vit", "kd_weight": 0}, {"vit": 1, "cnn": 0}, True),
            ({"kd_weight": 0, "residual_weight": 0, "relation_weight": 0}, {"vit": 0, "cnn": 0}, False),
        ],
    )
    def test_nothing_that_no_term_needs(self, monkeypatch, fields, calls, hooks):
        recorded = []

        def noted(model, spec):
            recorded.append(spec)
            return record_features(model, spec)

        monkeypatch.setattr("hf_effvid.training.dual_teacher_distiller.record_features", noted)
        counted = {role: CountingTeacher(teacher) for role, teacher in open_teachers().items()}
        task = DualTeacherDistiller(tiny_x3d(), counted, DistillationSettings(**fields)).train()
        task(make_batch(roles=[role for role, number in calls.items() if number]))
        assert {role: teacher.calls for role, teacher in counted.items()} == calls
        assert bool(recorded) == hooks
        task.eval()(make_batch(roles=()))
        assert {role: teacher.calls for role, teacher in counted.items()} == calls, "evaluations ask no teacher"

    def test_evaluation_is_that_of_the_student_alone(self):
        task = make_task().eval()
        batch = make_batch(roles=())
        with torch.no_grad():
            outputs, plain = task(batch), ClassificationTask(task.model).eval()(batch)
        assert outputs.keys() == plain.keys()
        for name, value in plain.items():
            torch.testing.assert_close(outputs[name], value, rtol=0, atol=0)

    def test_teachers_stay_outside_and_frozen(self):
        task = make_task()
        before = {role: copy.deepcopy(teacher.model.state_dict()) for role, teacher in task.teachers.items()}
        task.train()
        task(make_batch())["loss"].backward()
        inside = {id(parameter) for parameter in task.parameters()}
        for role, teacher in task.teachers.items():
            assert not teacher.model.training
            assert all(
                id(p) not in inside and p.grad is None and not p.requires_grad for p in teacher.model.parameters()
            )
            for name, tensor in teacher.model.state_dict().items():
                assert torch.equal(tensor, before[role][name]), name

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            (
                {"pixel_values": torch.zeros(2, 1, 2, 3, 16, 16), "labels": torch.zeros(2, dtype=torch.long)},
                "one view",
            ),
            ({"pixel_values": torch.zeros(2, 2, 3, 16, 16)}, "without labels"),
        ],
    )
    def test_batches_that_cannot_be_taught_with(self, batch, message):
        with pytest.raises(DistillationError, match=message):
            make_task()(batch)

    def test_mixed_clips(self):
        batch = make_batch()
        batch["labels"] = F.one_hot(batch["labels"], 3).float() * 0.7 + 0.1
        assert values(make_task()(batch))["auxiliary_loss"] > 0
        for fields in ({"kd_loss": "dkd"}, {"kd_loss": "ofa"}, {"label_gate": True}):
            with pytest.raises(DistillationError, match="Switch mixing off"):
                make_task(**fields)(batch)

    def test_students_and_teachers_that_cannot_be(self):
        student = tiny_x3d()
        with pytest.raises(DistillationError, match="several labels"):
            DualTeacherDistiller(tiny_x3d(problem_type="multi_label_classification"), {})
        shared = copy.copy(student)
        with pytest.raises(DistillationError, match="cnn teacher shares weights"):
            DualTeacherDistiller(student, {"cnn": Teacher.open(shared, "cnn", NAMES)})


class TestTheStudentAlone:
    def test_the_graph_of_inference_is_untouched(self):
        plain, batch = tiny_x3d(), make_batch()
        student = copy.deepcopy(plain)
        clips = batch["pixel_values"]
        before = torch.export.export(plain, (clips,)).graph_module.code
        task = make_task(student=student)
        task(batch)["loss"].backward()
        assert set(student.state_dict()) == set(plain.state_dict())
        assert not [module for module in student.modules() if module._forward_hooks or module._forward_pre_hooks]
        student.load_state_dict(plain.state_dict())  # BatchNorm has counted
        task.eval()
        assert torch.export.export(student, (clips,)).graph_module.code == before
        with torch.no_grad():
            assert torch.equal(student(clips).logits, plain(clips).logits)

    def test_a_checkpoint_has_no_key_of_an_auxiliary_module(self, tmp_path):
        trainer = build_trainer(
            tmp_path, max_steps=2, save_steps=2, settings={"feature_loss": "fitnet", "cnn_feature_weight": 1}
        )
        trainer.train()
        folder = tmp_path / "checkpoint-2"
        assert set(load_file(folder / "model.safetensors")) == set(tiny_x3d().state_dict())
        state = load_file(folder / "task_state.safetensors")
        assert {name.split(".")[0] for name in state} == {"auxiliary"}
        auxiliaries = {name for name in trainer.task.state_dict() if not name.startswith("model.")}
        assert {name.removeprefix("auxiliary.") for name in state} == auxiliaries
        assert {name.split(".")[0] for name in auxiliaries} == {"discrepancy", "feature_projections"}

    def test_auxiliary_modules_resume(self, tmp_path):
        options = {"max_steps": 6, "save_steps": 4, "train": ClipsForAll()}
        straight = build_trainer(tmp_path / "a", **options)
        straight.train()
        resumed = build_trainer(tmp_path / "b", tiny_x3d(seed=9), **options)
        resumed.train(resume_from_checkpoint=tmp_path / "a" / "checkpoint-4")
        expected, found = weights(straight), weights(resumed)
        assert any(name.startswith("discrepancy.") for name in expected)
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), name

    def test_every_term_is_logged(self, tmp_path):
        trainer = build_trainer(tmp_path, max_steps=2, save_strategy="no", logging_steps=1)
        trainer.train()
        logged = trainer.state.log_history[1]
        wanted = {"task_loss", "kd_loss", "residual_loss", "auxiliary_loss", "residual_rms", "residual_explained"}
        wanted |= {
            "relation_distance",
            "relation_angle",
            "weight_vit",
            "weight_cnn",
            "confidence_vit",
            "discrepancy_cnn",
            "ramp",
        }
        assert wanted <= set(logged)
        assert logged["weight_vit"] + logged["weight_cnn"] == pytest.approx(1, abs=1e-5)
