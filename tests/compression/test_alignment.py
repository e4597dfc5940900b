"""Losses of block-drop alignment on plain tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.compression.alignment import (
    ALIGNMENT_PRESETS,
    AlignmentSettings,
    boundary_alignment_loss,
    classification_alignment_loss,
    feature_alignment_loss,
)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class TestFeatures:
    def test_mean_over_blocks_of_the_mean_squared_difference(self):
        student = {0: draw(2, 3, 4), 3: draw(2, 3, 4, seed=1)}
        teacher = {index: draw(2, 3, 4, seed=10 + index) for index in range(4)}
        expected = torch.stack([((student[index] - teacher[index]) ** 2).mean() for index in student]).mean()
        torch.testing.assert_close(feature_alignment_loss(student, teacher), expected)

    def test_passes_of_clips_are_one_batch(self):
        own, other = draw(5, 3, 4), draw(5, 3, 4, seed=1)
        whole = feature_alignment_loss({0: own}, {0: other})
        # passes of unequal size: a mean of their means would be another number
        split = feature_alignment_loss({0: own.split((3, 2))}, {0: other.split((3, 2))})
        elsewhere = feature_alignment_loss({0: own.split((3, 2))}, {0: other.split((1, 1, 3))})
        torch.testing.assert_close(split, whole)
        torch.testing.assert_close(elsewhere, whole)

    def test_padding_does_not_count(self):
        own, other = draw(2, 4, 3), draw(2, 4, 3, seed=1)
        mask = torch.tensor([[True] * 4, [True, False, False, False]])
        expected = ((own - other) ** 2)[mask].mean()
        torch.testing.assert_close(feature_alignment_loss({0: own}, {0: other}, {0: mask}), expected)

    def test_half_precision_is_lifted(self):
        own = draw(2, 3, 4, dtype=torch.bfloat16).requires_grad_()
        loss = feature_alignment_loss({0: own}, {0: 300 + draw(2, 3, 4, seed=1, dtype=torch.bfloat16)})
        assert loss.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            inside = feature_alignment_loss({0: own}, {0: 300 + draw(2, 3, 4, seed=1, dtype=torch.bfloat16)})
        assert torch.equal(inside, loss)

    @pytest.mark.parametrize(
        ("student", "teacher", "message"),
        [
            ({}, {0: draw(1, 1, 1)}, "at least one block"),
            ({2: draw(1, 1, 1)}, {0: draw(1, 1, 1)}, r"lacks the blocks \[2\]"),
            ({0: draw(1, 2, 1)}, {0: draw(1, 3, 1)}, "same clips, tokens and width"),
        ],
    )
    def test_what_does_not_match_is_named(self, student, teacher, message):
        with pytest.raises(ValueError, match=message):
            feature_alignment_loss(student, teacher)


class TestClasses:
    @settings(deadline=None, max_examples=30)
    @given(st.integers(1, 6), st.floats(0.5, 5.0), st.sampled_from([None, True, False]), st.integers(0, 2**16))
    def test_never_negative_and_zero_at_the_teacher(self, classes, temperature, exclusive, seed):
        student, teacher = (3 * draw(7, classes, seed=s, dtype=torch.float64) for s in (seed, seed + 1))
        values = classification_alignment_loss(student, teacher, temperature, exclusive)
        assert values.shape == (7,) and bool((values >= -1e-12).all())
        same = classification_alignment_loss(teacher, teacher, temperature, exclusive)
        torch.testing.assert_close(same, torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)

    def test_softmax_over_one_class_is_blind_and_bernoulli_is_not(self):
        student, teacher = draw(9, 1).requires_grad_(), draw(9, 1, seed=1)
        assert classification_alignment_loss(student, teacher, 3.5, exclusive=True).abs().max() == 0
        values = classification_alignment_loss(student, teacher, 3.5)  # what one class gets by itself
        assert values.min() > 0
        values.sum().backward()
        assert student.grad.abs().min() > 0

    def test_bernoulli_is_softmax_over_yes_and_no(self):
        student, teacher = draw(5, 3, dtype=torch.float64), draw(5, 3, seed=1, dtype=torch.float64)
        zeros = torch.zeros_like(student)
        as_pairs = classification_alignment_loss(
            torch.stack([student, zeros], -1), torch.stack([teacher, zeros], -1), 2.0, exclusive=True
        )
        ours = classification_alignment_loss(student, teacher, 2.0, exclusive=False)
        torch.testing.assert_close(ours, as_pairs.mean(-1))

    def test_gradients_keep_their_size_as_temperature_grows(self):
        """That is what tau^2 is for: the gradient tends to (z_student - z_teacher) / K, centred."""
        student, teacher = draw(4, 5, dtype=torch.float64).requires_grad_(), draw(4, 5, seed=1, dtype=torch.float64)
        classification_alignment_loss(student, teacher, 1e3).sum().backward()
        difference = (student - teacher).detach()
        centred = (difference - difference.mean(-1, keepdim=True)) / 5
        torch.testing.assert_close(student.grad, centred, rtol=1e-2, atol=1e-3)

    def test_large_logits_stay_finite(self):
        student, teacher = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
        for exclusive in (True, False):
            assert classification_alignment_loss(student, teacher, 1.0, exclusive).isfinite().all()


class TestBoundaries:
    @settings(deadline=None, max_examples=30)
    @given(st.sampled_from(["giou", "diou"]), st.integers(0, 2**16), st.floats(0.1, 50))
    def test_between_zero_and_two_and_the_same_in_every_unit(self, boundary, seed, stride):
        own, other = draw(8, 2, seed=seed).abs(), draw(8, 2, seed=seed + 1).abs()
        values = boundary_alignment_loss(own, other, boundary)
        assert bool((values >= 0).all()) and bool((values <= 2).all())
        assert boundary_alignment_loss(other, other, boundary).abs().max() < 1e-6
        torch.testing.assert_close(
            boundary_alignment_loss(stride * own, stride * other, boundary), values, atol=1e-5, rtol=0
        )

    def test_a_collapsed_segment_has_a_finite_gradient(self):
        own = torch.zeros(1, 2, requires_grad=True)
        boundary_alignment_loss(own, torch.zeros(1, 2), "diou").sum().backward()
        assert own.grad.isfinite().all()


class TestPresets:
    def test_the_two_that_are_published(self):
        paper, released = ALIGNMENT_PRESETS["paper"], ALIGNMENT_PRESETS["released"]
        assert (paper.boundary, paper.temperature, paper.dynamic_teacher) == ("giou", 1.0, False)
        assert (released.boundary, released.temperature, released.dynamic_teacher) == ("diou", 3.5, True)
        weights = ("feature_weight", "classification_weight", "boundary_weight")
        assert all(getattr(preset, name) == 1.0 for preset in (paper, released) for name in weights)

    @pytest.mark.parametrize(
        ("wrong", "message"), [({"boundary": "iou"}, "diou, giou"), ({"temperature": 0}, "above 0")]
    )
    def test_impossible_settings_are_named(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            AlignmentSettings(**wrong)
