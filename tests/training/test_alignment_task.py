"""A student that trains with its task's loss and with what pulls it towards the model that it came from."""

import copy

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, drop_blocks, select_tokens
from hf_effvid.compression.alignment import (
    boundary_alignment_loss,
    classification_alignment_loss,
    feature_alignment_loss,
)
from hf_effvid.compression.block_outputs import record_block_outputs
from hf_effvid.compression.block_table import kept_blocks
from hf_effvid.compression.recovery import merge_recovery_lora, recovery_lora
from hf_effvid.training import ClassificationTask, DetectionTask, EffVidTrainer
from hf_effvid.training.alignment_task import AlignmentTask

from ..models.tiny_videomae import fill_biases, tiny_clips, tiny_videomae
from .small_detection import build_trainer as build_detection_trainer
from .small_detection import tiny_detector
from .small_run import RandomClips, arguments, weights


DEPTH, DROPPED = 4, [1]
VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8, "image_size": 16}


def moved(model, amount=0.05, seed=11):
    """The model with other weights: a student that is not its teacher."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return model


def classifiers(**options):
    teacher = tiny_videomae(num_hidden_layers=DEPTH, **options)
    return moved(drop_blocks(copy.deepcopy(teacher), DROPPED)), teacher


def clip_batch(num_labels=5):
    return {"pixel_values": tiny_clips(3), "labels": torch.arange(3) % num_labels}


def pixel_detector(num_labels=3, **fields):
    torch.manual_seed(0)
    trunk = VideoMAEConfig(**VIT, num_hidden_layers=DEPTH, num_frames=4, tubelet_size=2).to_dict()
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_stem_layers": 1,
        "num_branch_layers": 2,
        "attention_window": 3,
    }
    config = ActionFormerConfig(
        **sizes, max_sequence_length=24, num_labels=num_labels, drop_path_rate=0.0, use_layer_scale=False,
        backbone_config=trunk, **fields,
    )  # fmt: skip
    return fill_biases(moved(ActionFormerForTemporalActionDetection(config), 0.2, seed=1)).eval()


def pixel_batch(frames=(20, 7), num_labels=3):
    """Two videos of other lengths in one batch: 5 and 2 clips of 4 frames."""
    longest = max(frames)
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(len(frames), longest, 3, 16, 16, generator=generator)
    mask = torch.arange(longest)[None] < torch.tensor(frames)[:, None]
    labels = [
        {"grid_segments": torch.tensor([[0.5, frame / 2 - 0.6]]), "class_labels": torch.tensor([n % num_labels])}
        for n, frame in enumerate(frames)
    ]
    return {"pixel_values": pixels, "pixel_mask": mask.long(), "labels": labels}


def training_task(task, teacher, **options):
    return AlignmentTask(task, teacher, **options).train()


class TestClassifier:
    def test_the_sum_of_its_terms_on_retained_original_blocks(self):
        student, teacher = classifiers()
        batch = clip_batch()
        weights_of = {"task_weight": 0.5, "feature_weight": 2.0, "classification_weight": 3.0}
        task = training_task(ClassificationTask(student), teacher, temperature=2.0, **weights_of)
        outputs = task(batch)
        with torch.no_grad(), record_block_outputs(student) as own, record_block_outputs(teacher) as other:
            logits, wanted = (model(batch["pixel_values"]).logits for model in (student, teacher))
        assert list(own) == [0, 2, 3] and list(other) == [0, 1, 2, 3]
        expected = {
            "task_loss": torch.nn.functional.cross_entropy(logits, batch["labels"]),
            "feature_alignment": feature_alignment_loss(own, other),
            "classification_alignment": classification_alignment_loss(logits, wanted, 2.0).mean(),
        }
        for name, value in expected.items():
            torch.testing.assert_close(outputs[name].detach(), value)
            assert value > 1e-3
        total = sum(factor * value for factor, value in zip((0.5, 2.0, 3.0), expected.values(), strict=True))
        torch.testing.assert_close(outputs["loss"].detach(), total)
        assert "boundary_alignment" not in outputs

    def test_a_student_that_is_its_teacher_is_aligned(self):
        _, teacher = classifiers()
        outputs = training_task(ClassificationTask(copy.deepcopy(teacher)), teacher)(clip_batch())
        assert outputs["feature_alignment"].item() == 0
        assert outputs["classification_alignment"].item() == pytest.approx(0, abs=1e-6)
        torch.testing.assert_close(outputs["loss"], outputs["task_loss"])

    def test_views_and_several_labels(self):
        student, teacher = classifiers(problem_type="multi_label_classification")
        clips = tiny_clips(6).unflatten(0, (3, 2))
        batch = {"pixel_values": clips, "labels": torch.eye(3, 5)}
        outputs = training_task(ClassificationTask(student), teacher)(batch)
        with torch.no_grad():
            logits, wanted = (model(clips.flatten(0, 1)).logits for model in (student, teacher))
        expected = classification_alignment_loss(logits, wanted, exclusive=False).mean()
        torch.testing.assert_close(outputs["classification_alignment"].detach(), expected)

    def test_a_dynamic_teacher_has_lost_blocks_too(self):
        student, teacher = classifiers()
        before = copy.deepcopy(student)
        student = drop_blocks(student, [1])  # original number 2
        task = training_task(ClassificationTask(student), moved(before, seed=5), preset="released")
        assert kept_blocks(student) == [0, 3] and task.settings.dynamic_teacher
        assert task(clip_batch())["feature_alignment"] > 0

    def test_tokens_of_a_selecting_teacher_are_the_students(self):
        _, plain = classifiers()
        teacher = select_tokens(plain, keep_ratio=0.5, scorer="embedding_norm")
        student = moved(drop_blocks(copy.deepcopy(teacher), DROPPED), 0.5)
        clips = tiny_clips(3)
        kept = [model(clips).kept_indices for model in (student, teacher)]
        assert not torch.equal(*kept), "the choice has to differ for this to be a test"
        seen = []
        hook = teacher.register_forward_hook(lambda module, args, output: seen.append(output.kept_indices))
        outputs = training_task(ClassificationTask(student), teacher)(clip_batch())
        hook.remove()
        assert torch.equal(seen[0], kept[0]) and outputs["feature_alignment"] > 0


@pytest.mark.parametrize("adapters", [False, True])
class TestDetector:
    def test_the_sum_of_its_terms_over_all_passes_of_clips(self, adapters):
        teacher = pixel_detector(temporal_adapters=adapters, clips_per_pass=3)
        student = moved(drop_blocks(copy.deepcopy(teacher), DROPPED))
        batch = pixel_batch()
        task = training_task(DetectionTask(student), teacher)
        outputs = task(batch)
        inputs = {name: batch[name] for name in ("pixel_values", "pixel_mask")}
        with torch.no_grad(), record_block_outputs(student) as own, record_block_outputs(teacher) as other:
            found, wanted = student(**inputs), teacher(**inputs)
        assert {len(passes) for passes in own.values()} == {1 if adapters else 3}
        assert sum(len(part) for part in own[0]) == 7, "clips of padding are not computed"
        positive = student.assign_targets(batch["labels"], found.points).positive & found.point_mask
        assert positive.sum() > 2
        expected = {
            "feature_alignment": feature_alignment_loss(own, other),
            "classification_alignment": classification_alignment_loss(found.logits, wanted.logits)[
                found.point_mask
            ].mean(),
            "boundary_alignment": boundary_alignment_loss(found.offsets[positive], wanted.offsets[positive]).mean(),
        }
        for name, value in expected.items():
            torch.testing.assert_close(outputs[name].detach(), value)
            assert value > 1e-4, name
        torch.testing.assert_close(outputs["loss"].detach(), outputs["task_loss"].detach() + sum(expected.values()))

    def test_one_class_is_aligned_as_well(self, adapters):
        teacher = pixel_detector(num_labels=1, temporal_adapters=adapters)
        student = moved(drop_blocks(copy.deepcopy(teacher), DROPPED))
        outputs = training_task(DetectionTask(student), teacher)(pixel_batch(num_labels=1))
        assert outputs["classification_alignment"] > 1e-5


class TestDetectorOnFeatures:
    def test_its_own_blocks_without_padding(self):
        teacher = tiny_detector(drop_path_rate=0.0, use_layer_scale=False)
        student = moved(copy.deepcopy(teacher))
        generator = torch.Generator().manual_seed(2)
        features = torch.randn(2, 23, teacher.config.input_size, generator=generator)
        mask = torch.arange(23)[None] < torch.tensor([23, 9])[:, None]
        labels = [{"grid_segments": torch.tensor([[2.0, 8.0]]), "class_labels": torch.tensor([1])}] * 2
        batch = {"input_features": features, "attention_mask": mask.long(), "labels": labels}
        outputs = training_task(DetectionTask(student), teacher)(batch)
        with torch.no_grad(), record_block_outputs(student) as own, record_block_outputs(teacher) as other:
            student(features, mask), teacher(features, mask)
        levels = [mask, mask[:, ::2], mask[:, ::4]]
        expected = [((own[n][0] - other[n][0]) ** 2)[levels[n]].mean() for n in range(3)]
        torch.testing.assert_close(outputs["feature_alignment"].detach(), torch.stack(expected).mean())


class TestTheTeacher:
    def trainer(self, tmp_path, tuning="lora", **options):
        student, teacher = classifiers(image_size=16, num_frames=2, num_labels=3)
        student = recovery_lora(student, tuning=tuning)
        task = AlignmentTask(ClassificationTask(student), teacher)
        options = {"max_steps": 3, "save_steps": 3, **options}
        return EffVidTrainer(task, args=arguments(tmp_path, **options), train_dataset=RandomClips()), teacher

    def test_is_neither_trained_nor_saved_nor_touched(self, tmp_path):
        trainer, teacher = self.trainer(tmp_path, weight_decay=0.1, ema_decay=0.9)
        before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
        start, mode = weights(trainer), teacher.training
        trainer.train()
        assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
        assert not teacher.training and mode is False
        assert all(parameter.grad is None for parameter in teacher.parameters())
        ours = {id(parameter) for parameter in trainer.task.parameters()}
        assert not ours & {id(parameter) for parameter in teacher.parameters()}
        assert set(start) == set(ClassificationTask(trainer.task.model).state_dict())
        after = weights(trainer)
        assert any(not torch.equal(start[name], after[name]) for name in start)
        written = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
        assert written < 4 * sum(tensor.nbytes for tensor in teacher.state_dict().values())
        logged = next(entry for entry in trainer.state.log_history if "train_loss" in entry)
        assert logged["train_loss"] > 0

    @pytest.mark.parametrize("tuning", ["lora", "full"])
    def test_resumed_equals_uninterrupted(self, tmp_path, tuning):
        options = {"max_steps": 4, "save_steps": 2, "save_total_limit": None}
        straight, _ = self.trainer(tmp_path / "a", tuning, **options)
        straight.train()
        resumed, _ = self.trainer(tmp_path / "b", tuning, **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
        left, right = weights(straight), weights(resumed)
        assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())
        merged = merge_recovery_lora(resumed.task.model)
        assert set(merged.state_dict()) == set(classifiers(image_size=16, num_frames=2, num_labels=3)[0].state_dict())

    def test_draws_nothing_from_the_students_randomness(self):
        student, teacher = classifiers(hidden_dropout_prob=0.3)
        losses = []
        for terms in (None, ()):
            torch.manual_seed(4)
            outputs = training_task(ClassificationTask(copy.deepcopy(student)), teacher, terms=terms)(clip_batch())
            losses.append((outputs.get("task_loss", outputs["loss"]), torch.rand(1)))
        assert torch.equal(losses[0][0], losses[1][0]) and torch.equal(losses[0][1], losses[1][1])

    @pytest.mark.parametrize("terms", [("feature",), ("classification",)])
    def test_answers_as_in_evaluation_whatever_mode_it_was_put_into(self, terms):
        student, teacher = classifiers(hidden_dropout_prob=0.3)
        task = training_task(ClassificationTask(student), teacher, terms=terms)
        values = []
        for _ in range(2):
            student.eval()  # no dropout of its own; the task trains
            teacher.train()
            values.append(task(clip_batch())[f"{terms[0]}_alignment"])
        assert torch.equal(*values) and not teacher.training
        assert set(task(clip_batch())) == {"loss", "losses", "logits", "task_loss", f"{terms[0]}_alignment"}

    def test_is_not_run_where_it_is_not_needed(self):
        student, teacher = classifiers()
        teacher.forward = None
        batch = clip_batch()
        task = training_task(ClassificationTask(student), teacher, terms=())
        torch.testing.assert_close(task(batch)["loss"], ClassificationTask(student).train()(batch)["loss"])
        evaluated = AlignmentTask(ClassificationTask(student), teacher).eval()
        outputs = evaluated(batch)
        assert set(outputs) == {"loss", "losses", "logits"}
        records = evaluated.records(outputs, batch)
        assert evaluated.metrics(records) == evaluated.wrapped.metrics(records)

    def test_frozen_parts_of_the_student_stay_in_evaluation_mode(self):
        student, teacher = classifiers()
        student.videomae.embeddings.requires_grad_(False)
        task = training_task(ClassificationTask(student), teacher)
        assert task.wrapped.training and student.training and not student.videomae.embeddings.training
        assert not task.eval().wrapped.training


class TestPrecisionAndMemory:
    def test_bfloat16_autocast_keeps_the_terms_in_single_precision(self):
        student, teacher = classifiers()
        task = training_task(ClassificationTask(student), teacher)
        plain = task(clip_batch())
        with torch.autocast("cpu", torch.bfloat16):
            outputs = task(clip_batch())
        for name in ("feature_alignment", "classification_alignment", "loss"):
            assert outputs[name].dtype == torch.float32
            assert outputs[name].item() == pytest.approx(plain[name].item(), rel=0.1)
        outputs["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters() if p.requires_grad)

    @pytest.mark.parametrize("kind", ["classifier", "detector"])
    def test_gradient_checkpointing_changes_no_gradient(self, kind):
        gradients = []
        for checkpoints in (False, True):
            if kind == "classifier":
                student, teacher = classifiers()
                task, batch = ClassificationTask(recovery_lora(student)), clip_batch()
            else:
                teacher = pixel_detector(clips_per_pass=3)
                student = moved(drop_blocks(copy.deepcopy(teacher), DROPPED))
                task, batch = DetectionTask(recovery_lora(student)), pixel_batch()
            moved(task.model)
            task = training_task(task, teacher)
            if checkpoints:
                task.gradient_checkpointing_enable()
                assert task.is_activation_checkpointing
            task(batch)["loss"].backward()
            gradients.append({n: p.grad for n, p in task.named_parameters() if p.requires_grad})
        assert len(gradients[0]) > 10
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_are_one_large_batch():
    """Batches of a detector hold other numbers of clips, points and positives: means of means would be another loss."""
    teacher = pixel_detector()
    one, two = (moved(drop_blocks(copy.deepcopy(teacher), DROPPED)) for _ in range(2))
    whole, parts = pixel_batch((20, 7)), [pixel_batch((20, 7)) for _ in range(2)]
    for number, part in enumerate(parts):
        for name in part:
            part[name] = part[name][number : number + 1]
    for model, batches in ((one, [whole]), (two, parts)):
        task = training_task(DetectionTask(model), teacher)
        task.prepare_step(batches, lambda value: value, 1)
        for batch in batches:
            (task(batch)["loss"] / len(batches)).backward()
    for (name, left), (_, right) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        torch.testing.assert_close(right.grad, left.grad, rtol=1e-3, atol=1e-5, msg=name)


class TestRefusals:
    def test_what_cannot_be_aligned_is_named(self):
        student, teacher = classifiers()
        with pytest.raises(ValueError, match="shares .* weights"):
            AlignmentTask(ClassificationTask(student), student)
        with pytest.raises(ValueError, match=r"lacks the blocks \[1\]"):
            AlignmentTask(ClassificationTask(teacher), student)
        for options, message in (
            ({"terms": ["features"]}, "feature, classification, boundary"),
            ({"preset": "ours"}, "paper, released"),
            ({"temperature": -1.0}, "above 0"),
        ):
            with pytest.raises(ValueError, match=message):
                AlignmentTask(ClassificationTask(student), teacher, **options)
        student.videomae.requires_grad_(False)
        with pytest.raises(ValueError, match="No gradient goes through the features"):
            training_task(ClassificationTask(student), teacher)(clip_batch())


def test_a_detector_trains_and_is_evaluated_as_before(tmp_path):
    teacher = tiny_detector(seed=1)
    trainer = build_detection_trainer(
        tmp_path,
        recovery_lora(moved(copy.deepcopy(teacher))),
        max_steps=3,
        save_strategy="no",
        gradient_accumulation_steps=2,
    )
    aligned = EffVidTrainer(
        AlignmentTask(trainer.task, teacher),
        args=trainer.args,
        train_dataset=trainer.train_dataset,
        eval_dataset=trainer.eval_dataset,
        data_collator=trainer.data_collator,
    )
    aligned.train()
    metrics = aligned.evaluate()
    assert metrics["eval_average_mAP"] == trainer.evaluate()["eval_average_mAP"]
    assert aligned.task.wrapped.report is not None
