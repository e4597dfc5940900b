"""Losses against their definitions, class weights, and the classification task."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.training import ClassificationTask, losses
from hf_effvid.training.class_balance import class_weights, label_matrix, log_prior, sampling_weights
from hf_effvid.training.metrics import multi_label_metrics, single_label_metrics

from .small_run import RandomClips, tiny_model


def logits_and_labels(seed=0, batch=6, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator) * 3
    return logits, torch.randint(classes, (batch,), generator=generator)


class TestSingleLabelLosses:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_cross_entropy_is_torchs(self, smoothing):
        logits, labels = logits_and_labels()
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        torch.testing.assert_close(losses.cross_entropy(logits, labels, smoothing), expected)

    def test_soft_targets_are_torchs(self):
        logits, _ = logits_and_labels()
        targets = torch.rand(6, 4).softmax(-1)
        expected = F.cross_entropy(logits, targets, reduction="none")
        torch.testing.assert_close(losses.cross_entropy(logits, targets), expected)

    def test_class_weights_multiply_a_clip_by_its_class(self):
        logits, labels = logits_and_labels()
        weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
        expected = F.cross_entropy(logits, labels, reduction="none") * weights[labels]
        torch.testing.assert_close(losses.cross_entropy(logits, labels, class_weights=weights), expected)

    def test_focal_loss(self):
        logits, labels = logits_and_labels()
        plain = F.cross_entropy(logits, labels, reduction="none")
        torch.testing.assert_close(losses.focal_loss(logits, labels, gamma=0.0), plain)
        p = logits.softmax(-1)[torch.arange(6), labels]
        torch.testing.assert_close(losses.focal_loss(logits, labels, gamma=2.0), (1 - p) ** 2 * plain)

    def test_focal_loss_of_a_certain_clip_has_a_finite_gradient(self):
        logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
        losses.focal_loss(logits, torch.tensor([0]), gamma=0.5).sum().backward()
        assert torch.isfinite(logits.grad).all()

    def test_logit_adjustment_is_undone_by_a_flat_prior_and_helps_rare_classes(self):
        logits, labels = logits_and_labels()
        flat = torch.full((4,), 0.25).log()
        plain = losses.cross_entropy(logits, labels)
        torch.testing.assert_close(losses.logit_adjusted_cross_entropy(logits, labels, flat), plain)
        prior = log_prior(torch.tensor([97.0, 1.0, 1.0, 1.0]))
        rare = losses.logit_adjusted_cross_entropy(torch.zeros(1, 4), torch.tensor([1]), prior)
        common = losses.logit_adjusted_cross_entropy(torch.zeros(1, 4), torch.tensor([0]), prior)
        assert rare > common

    def test_labels_of_another_model_are_refused(self):
        with pytest.raises(ValueError, match=r"must be in \[0, 4\).*got 0 to 4"):
            losses.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 4]))
        with pytest.raises(ValueError, match="soft targets"):
            losses.cross_entropy(torch.zeros(2, 4), torch.zeros(2, 3))


class TestMultiLabelLosses:
    def test_bce_is_torchs(self):
        logits, _ = logits_and_labels()
        labels = (torch.rand(6, 4) > 0.5).float()
        weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
        expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="none").mean(-1)
        torch.testing.assert_close(losses.binary_cross_entropy(logits, labels, weights), expected)

    def test_asymmetric_loss_without_its_asymmetry_is_bce(self):
        logits, _ = logits_and_labels()
        labels = (torch.rand(6, 4) > 0.5).float()
        plain = losses.asymmetric_loss(logits, labels, gamma_negative=0.0, gamma_positive=0.0, margin=0.0)
        torch.testing.assert_close(plain, losses.binary_cross_entropy(logits, labels), atol=1e-5, rtol=1e-4)

    def test_easy_negatives_cost_nothing(self):
        easy = torch.full((1, 3), -3.5)
        assert losses.asymmetric_loss(easy, torch.zeros(1, 3)).item() == 0.0
        assert losses.asymmetric_loss(-easy, torch.zeros(1, 3)).item() > 1.0

    def test_indices_are_refused(self):
        with pytest.raises(ValueError, match=r"must be \(B, 4\)"):
            losses.binary_cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1]))


class TestClassBalance:
    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.integers(0, 500), min_size=2, max_size=8).filter(any),
        st.sampled_from(["balanced", "effective_number"]),
    )
    def test_weights_average_to_one_over_the_data(self, counts, kind):
        counts = torch.tensor(counts, dtype=torch.float)
        weights = class_weights(counts, kind, beta=0.99)
        assert torch.isfinite(weights).all() and (weights > 0).all()
        assert ((weights * counts).sum() / counts.sum()).item() == pytest.approx(1.0, rel=1e-5)
        for a in range(len(counts)):
            for b in range(len(counts)):
                if counts[a] > counts[b] > 0:
                    assert weights[a] <= weights[b]

    def test_balanced_is_inverse_frequency(self):
        weights = class_weights(torch.tensor([30.0, 10.0]), "balanced")
        assert weights[1] / weights[0] == pytest.approx(3.0)

    def test_label_matrix_takes_indices_lists_and_rows(self):
        assert label_matrix([0, 2], 3).tolist() == [[1, 0, 0], [0, 0, 1]]
        assert label_matrix([[0, 2], []], 3).tolist() == [[1, 0, 1], [0, 0, 0]]
        assert label_matrix([torch.tensor([0.0, 1.0, 1.0])], 3).tolist() == [[0, 1, 1]]
        with pytest.raises(ValueError, match=r"outside \[0, 3\)"):
            label_matrix([3], 3)

    def test_sampling_weights_give_every_class_the_same_mass(self):
        matrix = label_matrix([0] * 90 + [1] * 10, 2)
        weights = sampling_weights(matrix)
        assert weights[:90].sum().item() == pytest.approx(weights[90:].sum().item())
        unlabelled = sampling_weights(label_matrix([[0], [], [1]], 2))
        assert (unlabelled > 0).all()


class TestClassificationTask:
    def test_weights_smoothing_and_prior_act_in_training_only(self):
        model = tiny_model(drop_path_rate=0.0, hidden_dropout_prob=0.0)
        batch = torch.utils.data.default_collate([RandomClips(3)[i] for i in range(3)])
        options = {"label_smoothing": 0.2, "class_weights": torch.tensor([0.1, 1.0, 5.0])}
        task = ClassificationTask(model, **options)
        with torch.no_grad():
            evaluated, plain = task.eval()(batch), ClassificationTask(model).eval()(batch)
            trained = task.train()(batch)
        assert torch.equal(evaluated["losses"], plain["losses"])
        assert not torch.allclose(trained["losses"], plain["losses"])
        expected = losses.cross_entropy(plain["logits"], batch["labels"], **options)
        torch.testing.assert_close(trained["losses"], expected)

    def test_state_dict_is_the_models(self):
        model = tiny_model()
        task = ClassificationTask(model, class_weights=torch.ones(3), log_prior=torch.zeros(3))
        assert set(task.state_dict()) == {f"model.{name}" for name in model.state_dict()}

    @pytest.mark.parametrize("aggregation", ["softmax_mean", "logit_mean"])
    def test_views_are_aggregated(self, aggregation):
        task = ClassificationTask(tiny_model(), aggregation=aggregation).eval()
        views = torch.randn(2, 3, 2, 3, 16, 16)
        with torch.no_grad():
            together = task({"pixel_values": views})["logits"]
            single = torch.stack([task({"pixel_values": views[:, v]})["logits"] for v in range(3)])
        if aggregation == "softmax_mean":
            torch.testing.assert_close(together.softmax(-1), single.softmax(-1).mean(0))
            torch.testing.assert_close(together.exp().sum(-1), torch.ones(2))
        else:
            torch.testing.assert_close(together, single.mean(0))

    def test_multi_label_views_average_probabilities(self):
        task = ClassificationTask(tiny_model(problem_type="multi_label_classification")).eval()
        views = torch.randn(2, 3, 2, 3, 16, 16)
        with torch.no_grad():
            together = task({"pixel_values": views})["logits"].sigmoid()
            single = torch.stack([task({"pixel_values": views[:, v]})["logits"].sigmoid() for v in range(3)])
        torch.testing.assert_close(together, single.mean(0), atol=1e-5, rtol=1e-4)

    def test_loss_and_problem_must_fit(self):
        with pytest.raises(ValueError, match="does not fit a single-label model"):
            ClassificationTask(tiny_model(), loss="bce")
        with pytest.raises(ValueError, match="does not fit a multi-label model"):
            ClassificationTask(tiny_model(problem_type="multi_label_classification"), loss="focal")
        with pytest.raises(ValueError, match="needs log_prior"):
            ClassificationTask(tiny_model(), loss="logit_adjusted")

    @pytest.mark.parametrize(
        ("loss", "options"),
        [("focal", {}), ("logit_adjusted", {"log_prior": torch.tensor([-0.1, -2.0, -4.0])}), ("cross_entropy", {})],
    )
    def test_every_loss_learns(self, tmp_path, loss, options):
        from .small_run import build_trainer

        model = tiny_model(drop_path_rate=0.0, hidden_dropout_prob=0.0)
        trainer = build_trainer(
            tmp_path,
            model,
            train=RandomClips(6, augment=False),
            validation=RandomClips(6, augment=False),
            task_options={"loss": loss, **options},
            save_strategy="no",
            max_steps=25,
            learning_rate=1e-2,
            load_best_model_at_end=False,
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
        assert after["eval_top1"] == 1.0
        assert after["eval_loss"] < 0.5 * before["eval_loss"]

    def test_half_precision_weights_take_float_pixels(self):
        task = ClassificationTask(tiny_model().to(torch.bfloat16)).eval()
        with torch.no_grad():
            outputs = task({"pixel_values": torch.randn(1, 2, 3, 16, 16), "labels": torch.tensor([0])})
        assert outputs["logits"].dtype == torch.float32
        assert torch.isfinite(outputs["loss"])


class TestMetrics:
    def test_single_label(self):
        logits = torch.eye(6)[[0, 1, 2, 3, 4, 5, 0, 0]]
        labels = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1])
        metrics = single_label_metrics(logits, labels)
        assert metrics["top1"] == 7 / 8
        assert metrics["mean_class_accuracy"] == pytest.approx((1 + 0.5 + 4) / 6)
        assert set(metrics) == {"top1", "top5", "mean_class_accuracy"}

    def test_a_broken_model_scores_nothing(self):
        assert single_label_metrics(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))["top1"] == 0.0
        assert multi_label_metrics(torch.full((2, 3), float("nan")), torch.ones(2, 3))["mAP"] == 0.0

    def test_multi_label(self):
        labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        perfect = multi_label_metrics(labels * 10 - 5, labels)
        assert perfect == {"mAP": 1.0, "micro_f1": 1.0}
        wrong = multi_label_metrics(5 - labels * 10, labels)
        assert wrong["micro_f1"] == 0.0 and wrong["mAP"] < 1.0
        assert np.isfinite(list(multi_label_metrics(torch.zeros(2, 2) - 5, torch.zeros(2, 2)).values())).all()
