"""Losses, weights and training-only modules of distillation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hf_effvid.compression.distillation import dist_loss, dkd_loss, kd_loss, ofa_loss, standardise_logits
from hf_effvid.compression.distillation_relations import rkd_angle_loss, rkd_distance_loss, rkd_loss
from hf_effvid.compression.feature_distillation import attention_transfer_loss, feature_mse_loss, fitnet_loss
from hf_effvid.compression.non_local import NonLocal3d
from hf_effvid.compression.structure_discrepancy import (
    ResidualTarget,
    StructureDiscrepancy,
    StructureDiscrepancyBranch,
    tokens_to_map,
)
from hf_effvid.compression.teacher_weighting import MODES, mix_teachers, teacher_weights


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


LABELS = torch.tensor([0, 3, 1, 4, 2, 0])
# of logits (6, 5) twice
SOFT_LOSSES = {
    "kd": kd_loss,
    "dkd": lambda student, teacher: dkd_loss(student, teacher, LABELS),
    "dist": dist_loss,
    "ofa": lambda student, teacher: ofa_loss(student, teacher, LABELS, eps=1.5),
    "rkd": rkd_loss,
}


class TestLosses:
    @pytest.mark.parametrize("name", ["kd", "dkd", "dist", "rkd"])
    def test_a_student_equal_to_its_teacher_owes_nothing(self, name):
        logits = draw(6, 5)
        student = logits.clone().requires_grad_()
        loss = SOFT_LOSSES[name](student, logits)
        loss.backward()
        assert abs(loss.item()) < 1e-5
        assert student.grad.abs().max() < 1e-5

    @pytest.mark.parametrize("name", SOFT_LOSSES)
    def test_only_the_student_gets_a_gradient(self, name):
        student, teacher = draw(6, 5).requires_grad_(), draw(6, 5, seed=1).requires_grad_()
        SOFT_LOSSES[name](student, teacher).backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    @pytest.mark.parametrize("name", SOFT_LOSSES)
    def test_autocast_changes_nothing_and_half_precision_little(self, name):
        student, teacher = draw(6, 5), draw(6, 5, seed=1)
        loss = SOFT_LOSSES[name](student, teacher)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(SOFT_LOSSES[name](student, teacher), loss, rtol=0, atol=0)
        half = SOFT_LOSSES[name](student.bfloat16(), teacher.bfloat16())
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, loss, rtol=0.03, atol=1e-3)

    def test_dkd_with_equal_parts_is_kd(self):
        """KL = TCKD + (1 - p_t) NCKD, per sample: equation 7 of the paper."""
        student, teacher = draw(1, 5, dtype=torch.float64), draw(1, 5, seed=1, dtype=torch.float64)
        rest = 1 - (teacher / 4).softmax(-1)[0, 2].item()
        parts = dkd_loss(student, teacher, torch.tensor([2]), alpha=1.0, beta=rest)
        torch.testing.assert_close(parts, kd_loss(student, teacher))

    def test_arguments_by_name(self):
        student, teacher = draw(6, 5), draw(6, 5, seed=1)
        by_name = kd_loss(temperature=4.0, teacher_logits=teacher, student_logits=student.bfloat16())
        torch.testing.assert_close(by_name, kd_loss(student.bfloat16(), teacher))
        weights = teacher_weights(teacher_logits=[teacher, student], student_logits=student, labels=LABELS)
        torch.testing.assert_close(weights, teacher_weights(student, [teacher, student]))

    def test_huge_logits_stay_finite(self):
        student = (1e4 * draw(6, 5)).requires_grad_()
        for name in ("kd", "dkd", "dist", "ofa"):
            loss = SOFT_LOSSES[name](student, -1e4 * draw(6, 5, seed=1))
            (gradient,) = torch.autograd.grad(loss, student)
            assert loss.isfinite() and gradient.isfinite().all(), name

    def test_dist_of_one_sample_has_no_relation_over_the_batch(self):
        logits = draw(1, 5)
        assert abs(dist_loss(logits, logits).item()) < 1e-5

    @pytest.mark.parametrize(
        "call",
        [
            lambda: kd_loss(draw(2, 5), draw(2, 6)),
            lambda: kd_loss(draw(2, 5), draw(2, 5), temperature=0),
            lambda: dkd_loss(draw(2, 1), draw(2, 1), torch.zeros(2, dtype=torch.long)),
            lambda: ofa_loss(draw(2, 5), draw(2, 5), draw(2, 5)),
            lambda: rkd_distance_loss(draw(2, 5, 1), draw(2, 5)),
            lambda: rkd_angle_loss(draw(4, 5), draw(3, 5)),
            lambda: feature_mse_loss(draw(2, 5), draw(2, 6)),
        ],
    )
    def test_what_does_not_fit_is_refused(self, call):
        with pytest.raises(ValueError, match="got|must be"):
            call()


class TestRelations:
    @pytest.mark.parametrize("batch", [1, 2])
    def test_small_batches_give_a_zero_that_trains(self, batch):
        student = draw(batch, 4).requires_grad_()
        loss = rkd_loss(student, draw(batch, 7, seed=1))
        loss.backward()
        assert loss.item() == 0
        assert (student.grad == 0).all()

    @settings(max_examples=25, deadline=None)
    @given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
    def test_scale_shift_and_rotation_do_not_count(self, scale, seed):
        student, teacher = draw(5, 4, seed=seed, dtype=torch.float64), draw(5, 7, seed=seed + 1, dtype=torch.float64)
        rotation = torch.linalg.qr(draw(4, 4, seed=seed + 2, dtype=torch.float64)).Q
        moved = scale * student @ rotation + 3
        torch.testing.assert_close(rkd_loss(moved, teacher), rkd_loss(student, teacher))

    def test_coincident_samples_have_bounded_gradients(self):
        student = draw(4, 6)
        student[2] = student[1]
        student.requires_grad_()
        (gradient,) = torch.autograd.grad(rkd_loss(student, draw(4, 6, seed=1)), student)
        assert gradient.abs().max() < 10
        collapsed = torch.ones(4, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(rkd_loss(collapsed, draw(4, 6, seed=1)), collapsed)
        assert gradient.abs().max() < 10

    def test_single_precision_far_from_the_origin(self):
        student, teacher = draw(5, 4, dtype=torch.float64), draw(5, 7, seed=1, dtype=torch.float64)
        far = (student + 100).float()
        torch.testing.assert_close(
            rkd_loss(far, teacher.float()).double(), rkd_loss(student, teacher), rtol=1e-3, atol=1e-5
        )


class TestWeights:
    @settings(max_examples=40, deadline=None)
    @given(
        mode=st.sampled_from(MODES),
        teachers=st.integers(1, 4),
        combine=st.sampled_from(["product", "sum"]),
        normalise=st.sampled_from(["ratio", "softmax"]),
        label_gate=st.booleans(),
        seed=st.integers(0, 1000),
    )
    def test_rows_sum_to_one_whatever_the_order_of_teachers(
        self, mode, teachers, combine, normalise, label_gate, seed
    ):
        student, known = draw(6, 5, seed=seed), 3 * draw(teachers, 6, 5, seed=seed + 1)
        order = torch.randperm(teachers, generator=torch.Generator().manual_seed(seed))

        def weights_of(logits):
            return teacher_weights(
                student, logits, LABELS, mode, combine=combine, normalise=normalise, label_gate=label_gate
            )

        weights = weights_of(known)
        assert weights.shape == (6, teachers) and (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(6))
        torch.testing.assert_close(weights_of(known[order]), weights[:, order])
        torch.testing.assert_close(weights_of(list(known)), weights)

    @pytest.mark.parametrize("mode", MODES)
    def test_no_gradient_goes_through_the_weights(self, mode):
        student, teachers = draw(6, 5).requires_grad_(), draw(2, 6, 5, seed=1).requires_grad_()
        weights = teacher_weights(student, teachers, LABELS, mode)
        assert not weights.requires_grad
        target = mix_teachers(weights, teachers)
        assert not target.requires_grad
        (gradient,) = torch.autograd.grad(kd_loss(student, target), student)
        fixed = kd_loss(student, target.clone())
        torch.testing.assert_close(gradient, torch.autograd.grad(fixed, student)[0])

    def test_a_uniform_teacher_is_ignored(self):
        weights = teacher_weights(draw(6, 5), [3 * draw(6, 5, seed=1), torch.full((6, 5), 2.0)])
        assert (weights[:, 1] < 1e-4).all()

    def test_a_student_that_agrees_with_all_lets_them_share(self):
        logits = 5 * draw(6, 51)
        torch.testing.assert_close(teacher_weights(logits, [logits, logits]), torch.full((6, 2), 0.5))

    def test_confident_and_disagreeing_counts_for_more(self):
        student = torch.tensor([[2.0, 0.0, 0.0]])
        sure, unsure = torch.tensor([[0.0, 6.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
        assert teacher_weights(student, [sure, unsure])[0, 0] > 0.8
        agreeing = 3 * student
        assert teacher_weights(student, [sure, agreeing])[0, 0] > 0.9

    def test_label_gate(self):
        labels = torch.tensor([0, 0])
        right, wrong = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])
        weights = teacher_weights(torch.zeros(2, 2), [right, wrong], labels, label_gate=True)
        torch.testing.assert_close(weights[0], torch.tensor([1.0, 0.0]))
        assert (weights[1] > 0).all()  # both wrong: as without the gate

    def test_standardised_teachers_mix_evenly(self):
        small, large = draw(6, 5), 100 * draw(6, 5, seed=1)
        even = torch.full((6, 2), 0.5)
        mixed = mix_teachers(even, [small, large], logit_norm="zscore")
        torch.testing.assert_close(mixed, (standardise_logits(small) + standardise_logits(large)) / 2)

    def test_half_precision(self):
        student, teachers = draw(6, 5), [3 * draw(6, 5, seed=1), 3 * draw(6, 5, seed=2)]
        weights = teacher_weights(student, teachers)
        half = teacher_weights(student.bfloat16(), [logits.bfloat16() for logits in teachers])
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, weights, rtol=0.05, atol=0.02)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: teacher_weights(draw(2, 5), [draw(2, 5)], mode="best"),
            lambda: teacher_weights(draw(2, 5), [draw(2, 5)], combine="mean"),
            lambda: teacher_weights(draw(2, 5), [draw(2, 6)]),
            lambda: teacher_weights(draw(2, 5), []),
            lambda: teacher_weights(draw(2, 5), [draw(2, 5), draw(2, 6)]),
            lambda: teacher_weights(draw(2, 5), [draw(2, 5)], mode="ca_mkd"),
            lambda: teacher_weights(draw(2, 5), [draw(2, 5)], label_gate=True),
            lambda: mix_teachers(draw(2, 3), [draw(2, 5)]),
            lambda: mix_teachers(draw(2, 1), [draw(2, 5)], logit_norm="mean"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, call):
        with pytest.raises(ValueError, match="got|pass labels|do not fit"):
            call()


class TestFeatures:
    def test_baselines_vanish_where_they_should(self):
        student, teacher = draw(2, 4, 2, 3, 3), draw(2, 6, 4, 6, 6, seed=1)
        assert feature_mse_loss(student, student).item() == 0
        assert fitnet_loss(student, student, nn.Identity()).item() == 0
        assert attention_transfer_loss(student, -3 * student).item() < 1e-12  # energy, of unit length
        assert attention_transfer_loss(student, teacher) > 0

    def test_fitnet_trains_student_and_projection(self):
        student, projection = draw(2, 4, 2, 3, 3).requires_grad_(), nn.Conv3d(4, 6, 1)
        teacher = draw(2, 6, 4, 6, 6, seed=1).requires_grad_()
        fitnet_loss(student, teacher, projection).backward()
        assert student.grad.abs().sum() > 0 and projection.weight.grad.abs().sum() > 0
        assert teacher.grad is None


class TestNonLocal:
    @pytest.mark.parametrize("kind", ["embedded_gaussian", "dot_product"])
    @pytest.mark.parametrize("sub_sample", [False, True])
    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_starts_as_the_identity_and_learns(self, kind, sub_sample, batch_norm):
        block, features = NonLocal3d(6, None, sub_sample, batch_norm, kind), draw(2, 6, 2, 4, 4)
        torch.testing.assert_close(block(features), features)
        (block(features) * draw(2, 6, 2, 4, 4, seed=1)).sum().backward()
        last = block.norm if batch_norm else block.project
        assert last.weight.grad.abs().sum() > 0

    def test_dot_product_is_the_mean_over_positions(self):
        block, features = NonLocal3d(4, batch_norm=False, kind="dot_product").double(), draw(1, 4, 1, 2, 3).double()
        nn.init.normal_(block.project.weight, generator=torch.Generator().manual_seed(0))
        theta, phi, g = (layer(features)[0].flatten(1) for layer in (block.theta, block.phi, block.g))
        expected = torch.stack(
            [sum((theta[:, i] @ phi[:, j]) * g[:, j] for j in range(6)) / 6 for i in range(6)], dim=1
        )
        expected = features + block.project(expected.view(1, 2, 1, 2, 3))
        torch.testing.assert_close(block(features), expected)

    def test_unknown_kind(self):
        with pytest.raises(ValueError, match="kind must be one of"):
            NonLocal3d(4, kind="gaussian")


def teachers_and_student(seed=0, batch=32):
    """Maps of one factor (u, v): the ViT sees both, the CNN and the student's first layer u alone; labels depend on v."""
    u, v = (
        draw(batch, 8, 2, 2, 2, seed=seed),
        draw(batch, 8, seed=seed + 1)[..., None, None, None].expand(-1, -1, 2, 2, 2),
    )
    mix_vit, mix_cnn = draw(16, 16, seed=90), draw(12, 8, seed=91)
    vit = torch.einsum("oc,bcthw->bothw", mix_vit, torch.cat([u, v], 1))
    cnn = torch.einsum("oc,bcthw->bothw", mix_cnn, u).relu()
    return vit, cnn, torch.cat([u, v], 1), (v.mean((2, 3, 4))[:, 0] > 0).long()


class TestStructureDiscrepancy:
    def test_the_student_is_trained_through_the_branch_and_phi_is_not(self):
        vit, cnn, student, labels = teachers_and_student()
        student.requires_grad_()
        module = StructureDiscrepancy(16, 16, 12, num_labels=2)
        terms = module(student, vit, cnn, labels)
        terms["residual_loss"].backward()
        assert student.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in module.target.parameters())
        terms["auxiliary_loss"].backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in module.target.parameters())
        assert not terms["residual_rms"].requires_grad and not terms["residual_explained"].requires_grad

    def test_residual_explained_is_one_for_a_perfect_branch_and_not_above_zero_for_a_constant(self):
        vit, cnn, student, labels = teachers_and_student()
        module = StructureDiscrepancy(16, 16, 12, projection="orthogonal")
        residual = torch.sub(*module.target.project(vit, cnn, (2, 2, 2)))
        module.branch = nn.Identity()
        assert module(residual, vit, cnn)["residual_explained"].item() == pytest.approx(1)
        flat = module(torch.full_like(residual, residual.mean().item()), vit, cnn)
        assert flat["residual_explained"].item() == pytest.approx(0, abs=1e-5)
        assert flat["residual_rms"].item() == pytest.approx(residual.square().mean().sqrt().item())

    def test_orthogonal_projections_are_drawn_from_the_seed_and_frozen(self):
        first, again, other = (ResidualTarget(16, 12, 8, projection="orthogonal", seed=seed) for seed in (3, 3, 4))
        torch.testing.assert_close(first.vit_projection.weight, again.vit_projection.weight, rtol=0, atol=0)
        assert not torch.equal(first.vit_projection.weight, other.vit_projection.weight)
        assert list(first.parameters()) == []
        assert set(first.state_dict()) == {"vit_projection.weight", "cnn_projection.weight"}
        weight = first.vit_projection.weight
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
        assert first.auxiliary_loss(first.project(draw(2, 16, 1, 2, 2), draw(2, 12, 1, 2, 2), (1, 2, 2))) == 0

    def test_frozen_projections_do_not_depend_on_the_default_device(self):
        with torch.device("meta"):
            elsewhere = ResidualTarget(16, 12, 8, projection="orthogonal", seed=3)
        here = ResidualTarget(16, 12, 8, projection="orthogonal", seed=3)
        torch.testing.assert_close(elsewhere.cnn_projection.weight, here.cnn_projection.weight, rtol=0, atol=0)

    def test_without_labels_phi_learns_each_teachers_own_logits(self):
        vit, cnn, _, _ = teachers_and_student(batch=4)
        target = ResidualTarget(16, 12, 8, num_labels=3)
        projected = target.project(vit, cnn, (2, 2, 2))
        own = [
            head(maps.mean(dim=(2, 3, 4))).detach()
            for head, maps in zip((target.vit_head, target.cnn_head), projected, strict=True)
        ]
        assert abs(target.auxiliary_loss(projected, teacher_logits=own).item()) < 1e-6
        assert target.auxiliary_loss(projected, teacher_logits=own[::-1]) > 1e-4
        with pytest.raises(ValueError, match="pass one of them"):
            target.auxiliary_loss(projected)

    def test_autocast_leaves_the_target_alone(self):
        vit, cnn, student, labels = teachers_and_student(batch=4)
        module = StructureDiscrepancy(16, 16, 12, num_labels=2)
        terms = module(student, vit, cnn, labels)
        with torch.autocast("cpu", torch.bfloat16):
            half = module(student, vit, cnn, labels)
        assert half["residual_loss"].dtype == torch.float32
        torch.testing.assert_close(half["residual_rms"], terms["residual_rms"], rtol=0, atol=0)
        torch.testing.assert_close(half["residual_loss"], terms["residual_loss"], rtol=0.03, atol=1e-3)

    def test_the_vit_alone_as_a_target(self):
        vit, cnn, student, labels = teachers_and_student()
        torch.manual_seed(0)
        module = StructureDiscrepancy(16, 16, num_labels=2, residual="vit")
        assert module.target.cnn_projection is None and module.target.cnn_head is None
        terms = module(student, vit, labels=labels)
        (target, absent) = module.target.project(vit, None, (2, 2, 2))
        assert absent is None
        torch.testing.assert_close(terms["residual_rms"], target.square().mean().sqrt().detach())
        torch.testing.assert_close(terms["residual_loss"], F.mse_loss(module.branch(student), target.detach()))
        torch.testing.assert_close(
            terms["auxiliary_loss"], F.cross_entropy(module.target.vit_head(target.mean((2, 3, 4))), labels)
        )

    @pytest.mark.parametrize("residual", ["discrepancy", "none"])
    def test_the_cnns_map_itself_beside_the_residual_or_alone(self, residual):
        vit, cnn, student, labels = teachers_and_student()
        student.requires_grad_()
        options = {"vit_channels": 16} if residual == "discrepancy" else {}
        module = StructureDiscrepancy(
            16, cnn_channels=12, num_labels=2, residual=residual, cnn_feature=True, **options
        )
        terms = module(student, vit, cnn, labels)
        wanted = module.target.project(vit, cnn, (2, 2, 2))[1].detach()
        torch.testing.assert_close(terms["cnn_feature_loss"], F.mse_loss(module.cnn_predictor(student), wanted))
        assert ("residual_loss" in terms) == (residual == "discrepancy")
        terms["cnn_feature_loss"].backward()
        assert student.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in module.target.parameters())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"residual": "cnn"}, "residual must be one of discrepancy, vit, none"),
            ({"vit_channels": 4}, "need cnn_channels, got None"),
            ({"residual": "vit", "cnn_channels": 4}, "need vit_channels, got None"),
            ({"residual": "none", "cnn_feature": True}, "need cnn_channels, got None"),
            ({"residual": "none", "num_labels": 2}, "needs the map of a teacher"),
        ],
    )
    def test_maps_that_are_missing_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            StructureDiscrepancy(4, **options)

    def test_class_tokens_are_dropped(self):
        tokens = draw(2, 1 + 12, 5)
        maps = tokens_to_map(tokens, (3, 2, 2), num_prefix_tokens=1)
        torch.testing.assert_close(maps[1, :, 2, 1, 0], tokens[1, 1 + 2 * 4 + 1 * 2 + 0])
        with pytest.raises(ValueError, match="12 positions, got 13 tokens"):
            tokens_to_map(tokens, (3, 2, 2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"projection": "joint", "num_labels": 2}, "projection must be one of"), ({}, "pass num_labels")],
    )
    def test_choices_are_checked(self, options, message):
        with pytest.raises(ValueError, match=message):
            ResidualTarget(4, 4, 4, **options)

    def test_a_target_trained_by_its_own_loss_vanishes_and_the_shipped_ones_do_not(self):
        kept = {how: self.trained_rms(how) for how in ("own_loss", "aux_ce", "orthogonal")}
        assert kept["own_loss"] < 1 / 5
        assert kept["aux_ce"] > 0.7
        assert kept["orthogonal"] == pytest.approx(1, abs=0.05)  # frozen; other clips

    def trained_rms(self, how):
        """rms of the residual after training, as a share of that before."""
        torch.manual_seed(0)
        projection = "orthogonal" if how == "orthogonal" else "aux_ce"
        target = ResidualTarget(16, 12, 16, num_labels=2, projection=projection)
        # a student whose map cannot tell v
        branch, student_layer = StructureDiscrepancyBranch(16), nn.Conv3d(8, 16, 1)
        optimizer = torch.optim.Adam(nn.ModuleList([target, branch, student_layer]).parameters(), lr=0.02)
        sizes = []
        for step in range(100):
            vit, cnn, factors, labels = teachers_and_student(seed=2 * step)
            projected = target.project(vit, cnn, (2, 2, 2))
            residual = projected[0] - projected[1]
            predicted = branch(student_layer(factors[:, :8]))
            if how == "own_loss":
                loss = F.mse_loss(predicted, residual)
            else:
                loss = F.mse_loss(predicted, residual.detach()) + target.auxiliary_loss(projected, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sizes.append(residual.detach().square().mean().sqrt().item())
        return sum(sizes[-10:]) / 10 / sizes[0]
