"""The comparison itself: it sees what it should see."""

import pytest
import torch

from hf_effvid.export.parity import Clip, clips_to_try, compare, shapes_to_try


def clips(*batches):
    return [Clip("noise", torch.full((batch, 2, 3, 4, 4), float(batch))) for batch in batches]


def logits(pixels):
    return pixels.mean(dim=(1, 2, 3, 4))[:, None] * torch.tensor([[1.0, 2.0, 4.0]])


def test_equal_answers():
    parity = compare(logits, logits, clips(1, 3))
    assert parity.max_difference == 0 and parity.agreement == 1
    assert parity.num_clips == 4 and parity.shapes == ((1, 2, 3, 4, 4), (3, 2, 3, 4, 4))


def test_a_difference_is_relative_to_large_logits_only():
    parity = compare(logits, lambda pixels: logits(pixels) + 0.01, clips(1, 3))
    assert parity.max_difference == pytest.approx(0.01, rel=1e-3)
    assert parity.max_relative == pytest.approx(0.01 / 4, rel=1e-3) and parity.worst == "noise of shape 1x2x3x4x4"
    small = compare(lambda p: 0.01 * logits(p), lambda p: 0.01 * logits(p) + 0.01, clips(1))
    assert small.max_relative == pytest.approx(0.01, rel=1e-3)


def test_another_class_on_top_counts():
    parity = compare(logits, lambda pixels: -logits(pixels), clips(1, 3))
    assert parity.same_top1 == 0 and parity.agreement == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_infinitely_far(value):
    parity = compare(logits, lambda pixels: logits(pixels) * value, clips(1))
    assert parity.max_relative == float("inf") and not parity.max_relative <= 1e-4


def test_shapes_cover_batches_lengths_and_sizes_that_no_patch_divides():
    everything = shapes_to_try((8, 3, 32, 48), ("batch", "frames", "height", "width"), {}, lambda shape: True)
    assert everything[0] == (1, 8, 3, 32, 48)
    assert {shape[0] for shape in everything} == {1, 2, 3}
    assert {shape[1] for shape in everything} >= {5, 8, 9, 16}
    assert any(shape[3] % 2 and shape[4] % 2 for shape in everything) and any(shape[3] < 32 for shape in everything)
    assert shapes_to_try((8, 3, 32, 48), (), {}, lambda shape: True) == [(1, 8, 3, 32, 48)]
    smallest = shapes_to_try((8, 3, 32, 48), ("height", "width"), {"height": 32, "width": 40}, lambda shape: True)
    assert all(shape[3] >= 32 and shape[4] >= 40 for shape in smallest)
    odd_refused = shapes_to_try((8, 3, 32, 48), ("height", "width"), {}, lambda shape: shape[3] % 2 == 0)
    assert all(shape[3] % 2 == 0 for shape in odd_refused)


def test_every_shape_is_asked_with_noise_and_with_the_video():
    video = torch.arange(2 * 4 * 3 * 8 * 8.0).reshape(2, 4, 3, 8, 8)
    found = clips_to_try([(3, 4, 3, 8, 8), (1, 7, 3, 5, 12)], video)
    assert [(clip.kind, tuple(clip.pixels.shape)) for clip in found] == [
        ("noise", (3, 4, 3, 8, 8)), ("video", (3, 4, 3, 8, 8)), ("noise", (1, 7, 3, 5, 12)), ("video", (1, 7, 3, 5, 12)),
    ]  # fmt: skip
    assert torch.equal(found[1].pixels, video[[0, 1, 0]])
    assert torch.equal(found[0].pixels, clips_to_try([(3, 4, 3, 8, 8)], video)[0].pixels)
