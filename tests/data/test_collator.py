import pickle

import numpy as np
import pytest
import torch

from hf_effvid.data.collator import ClipCollator, draw_mixing_box, paste_box
from hf_effvid.data.transforms import AugmentationConfig


def items(count=4, epoch=0, labels=None):
    """Clips of one colour each: pixel value i."""
    labels = labels or [torch.tensor(i % 3) for i in range(count)]
    return [
        {"pixel_values": torch.full((2, 3, 12, 16), float(i)), "labels": labels[i], "index": 10 + i, "epoch": epoch}
        for i in range(count)
    ]


def config(**fields):
    return AugmentationConfig.from_preset("none", **fields)


def test_plain_batches():
    batch = ClipCollator(keep_index=True)(items())
    assert batch["pixel_values"].shape == (4, 2, 3, 12, 16)
    assert batch["labels"].tolist() == [0, 1, 2, 0] and batch["labels"].dtype == torch.int64
    assert batch["index"].tolist() == [10, 11, 12, 13]
    assert set(ClipCollator()(items())) == {"pixel_values", "labels"}


def test_mixup_blends_pictures_and_labels_by_the_same_share():
    labels = [torch.eye(4)[i] for i in range(4)]
    batch = ClipCollator(config(mixup_alpha=0.8), num_labels=4, seed=2)(items(labels=labels))
    colours = batch["pixel_values"][:, 0, 0, 0, 0]
    assert torch.equal(batch["pixel_values"], colours.view(4, 1, 1, 1, 1).expand_as(batch["pixel_values"]))
    assert torch.allclose(batch["labels"] @ torch.arange(4.0), colours)
    assert torch.allclose(batch["labels"].sum(1), torch.ones(4))


def test_cutmix_shows_one_box_in_all_frames_and_counts_its_area():
    labels = [torch.eye(4)[i] for i in range(4)]
    mixed = 0
    for seed in range(20):
        batch = ClipCollator(config(cutmix_alpha=1.0), num_labels=4, seed=seed)(items(labels=labels))
        pixels = batch["pixel_values"]
        assert torch.equal(pixels, pixels[:, :1, :1].expand_as(pixels))
        for own in range(4):
            shares = torch.stack([(pixels[own, 0, 0] == other).float().mean() for other in range(4)])
            assert torch.allclose(shares, batch["labels"][own], atol=1e-6)
            mixed += bool((shares > 0).sum() == 2)
    assert mixed > 20


def test_whole_numbers_become_soft_labels_whether_mixed_or_not():
    never = ClipCollator(config(mixup_alpha=0.8, mix_probability=0.5), num_labels=3)
    for epoch in range(6):
        labels = never(items(epoch=epoch))["labels"]
        assert labels.shape == (4, 3) and labels.is_floating_point()
    one = never(items(1))
    assert one["labels"].tolist() == [[1.0, 0.0, 0.0]] and one["pixel_values"].unique().tolist() == [0.0]


def test_mixing_is_a_function_of_seed_epoch_and_rows():
    def batch(seed=0, epoch=0, count=4):
        mix = ClipCollator(AugmentationConfig.from_preset("recipe"), num_labels=3, seed=seed)
        return pickle.loads(pickle.dumps(mix))(items(count, epoch))["pixel_values"]

    torch.manual_seed(0)
    first = batch()
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, batch())
    assert not torch.equal(first, batch(seed=1)) and not torch.equal(first, batch(epoch=1))


def test_mixup_and_cutmix_take_turns():
    both = AugmentationConfig.from_preset("recipe")
    kinds = []
    for seed in range(40):
        pixels = ClipCollator(both, num_labels=3, seed=seed)(items())["pixel_values"]
        kinds.append(bool(torch.all(pixels == pixels.round())))
    assert 8 < sum(kinds) < 32


def test_mixing_needs_the_number_of_classes():
    with pytest.raises(ValueError, match="num_labels"):
        ClipCollator(config(mixup_alpha=0.8))


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.3, 0.999, 1.0])
def test_boxes_of_every_size(share):
    box = draw_mixing_box(12, 16, share, np.random.default_rng(0))
    pixels = paste_box(torch.zeros(1, 1, 3, 12, 16), torch.ones(1, 1, 3, 12, 16), box)
    left = 1 - box[2] * box[3] / (12 * 16)
    assert 0 <= left <= 1 and abs(left - share) < 0.1
    assert pixels.mean().item() == pytest.approx(1 - left)


def test_clipped_boxes_have_their_centre_inside_and_count_what_is_left_of_them():
    black, white = torch.zeros(1, 2, 3, 12, 16), torch.ones(1, 2, 3, 12, 16)
    rows, columns, shares = [], [], []
    for seed in range(400):
        box = draw_mixing_box(12, 16, 0.75, np.random.default_rng(seed), clipped=True)
        mixed, share = paste_box(black, white, box), 1 - box[2] * box[3] / (12 * 16)
        assert mixed[0, 0, 0].sum() == pytest.approx((1 - share) * 12 * 16) and torch.equal(mixed[0, 0], mixed[0, 1])
        rows.append(int(mixed[0, 0, 0].any(1).sum()))
        columns.append(int(mixed[0, 0, 0].any(0).sum()))
        shares.append(share)
    # half the sides, 6 x 8; as little as half of that at the border
    assert (min(rows), max(rows), min(columns), max(columns)) == (3, 6, 4, 8)
    assert 0.75 < sum(shares) / len(shares) < 0.83
    assert draw_mixing_box(12, 16, 1.0, np.random.default_rng(0), clipped=True)[2:] == (0, 0)


def test_views_are_stacked():
    views = [{"pixel_values": torch.zeros(6, 2, 3, 8, 8), "labels": 1, "index": 0}] * 2
    assert ClipCollator()(views)["pixel_values"].shape == (2, 6, 2, 3, 8, 8)


@pytest.mark.parametrize(
    "mixing", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {"cutmix_alpha": 1.0, "cutmix_box": "clipped"}]
)
def test_the_clips_of_teachers_are_mixed_like_the_students(mixing):
    """Marked clips: value i everywhere, so that shares and boxes can be read off; the teacher's are twice as large."""
    batch, alone = items(), items()
    for item in batch:
        item["vit_pixel_values"] = torch.full((5, 3, 24, 32), item["pixel_values"][0, 0, 0, 0].item())
    for seed in range(10):
        mixed = ClipCollator(config(**mixing), num_labels=3, seed=seed)(batch)
        by_itself = ClipCollator(config(**mixing), num_labels=3, seed=seed)(alone)
        assert torch.equal(mixed["pixel_values"], by_itself["pixel_values"])
        assert torch.equal(mixed["labels"], by_itself["labels"])
        student = mixed["pixel_values"][:, :1].repeat_interleave(2, -1).repeat_interleave(2, -2)
        assert torch.equal(mixed["vit_pixel_values"], student.expand(-1, 5, -1, -1, -1))


def test_stored_answers_are_stacked_and_not_mixed():
    batch = [{**item, "vit_logits": torch.arange(3.0)} for item in items()]
    assert ClipCollator()(batch)["vit_logits"].shape == (4, 3)
    with pytest.raises(ValueError, match="vit_logits.*mixup_alpha=0"):
        ClipCollator(config(mixup_alpha=0.8), num_labels=3)(batch)
