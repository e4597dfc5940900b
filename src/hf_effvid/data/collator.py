"""Items of a clip data set to a batch, with mixup and cutmix where training asks for them."""

import numpy as np
import torch
import torch.nn.functional as F

from .randomness import derive_rng
from .transforms import AugmentationConfig


class ClipCollator:
    """Stacks clips and labels.

    With mixup or cutmix each clip is blended with another one of the batch (of which a box, the same in all frames, is
    shown), and labels become shares of both. What is drawn depends on (seed, epoch, rows of the batch) alone.

    Args:
        augmentation: an `AugmentationConfig` whose `mixup_alpha`, `cutmix_alpha` and `mix_probability` count; None: no
            mixing, as for testing.
        num_labels: number of classes; needed for mixing.
        seed: the seed of mixing.
        keep_index: also give "index", the rows of the batch.
    """

    def __init__(
        self,
        augmentation: AugmentationConfig | None = None,
        num_labels: int | None = None,
        seed: int = 0,
        keep_index: bool = False,
    ):
        self.augmentation, self.num_labels, self.seed, self.keep_index = augmentation, num_labels, seed, keep_index
        self.mixes = augmentation is not None and augmentation.mixes
        if self.mixes and not num_labels:
            raise ValueError("mixup and cutmix need `num_labels`, the number of classes")

    def __call__(self, items: list[dict]) -> dict:
        """Make a batch.

        Args:
            items: what `ClipDataset` gives.

        Returns:
            "pixel_values": float (B, T, C, H, W), or (B, V, T, C, H, W); "labels": int64 (B,), or float (B, K) for
            several labels and where batches may be mixed.
        """
        pixels = torch.stack([item["pixel_values"] for item in items])
        labels = torch.stack([torch.as_tensor(item["labels"]) for item in items])
        if self.mixes:
            rows = [item["index"] for item in items]
            pixels, labels = self._mix(pixels, labels, derive_rng(self.seed, items[0].get("epoch", 0), *rows))
        batch = {"pixel_values": pixels, "labels": labels}
        if self.keep_index:
            batch["index"] = torch.tensor([item["index"] for item in items])
        return batch

    def _mix(self, pixels, labels, rng: np.random.Generator):
        config = self.augmentation
        # Also an unmixed batch gets soft labels: the loss sees one kind of target.
        soft = labels if labels.is_floating_point() else F.one_hot(labels, self.num_labels).to(pixels.dtype)
        if rng.random() >= config.mix_probability or len(pixels) < 2:
            return pixels, soft
        partner = torch.as_tensor(rng.permutation(len(pixels)))
        cut = config.cutmix_alpha > 0 and (config.mixup_alpha == 0 or rng.random() < 0.5)
        share = rng.beta(*[config.cutmix_alpha if cut else config.mixup_alpha] * 2)
        if cut:
            pixels, share = paste_box(pixels, pixels[partner], share, rng, clipped=config.cutmix_box == "clipped")
        else:
            pixels = share * pixels + (1 - share) * pixels[partner]
        return pixels, share * soft + (1 - share) * soft[partner]


def paste_box(
    pixels: torch.Tensor, other: torch.Tensor, share: float, rng: np.random.Generator, clipped: bool = False
):
    """Show `other` in a random box that takes 1 - share of the area, in every frame.

    Args:
        pixels: (..., H, W).
        other: the same shape.
        share: part of the area that `pixels` keeps.
        rng: where the place of the box comes from.
        clipped: only the centre of the box has to lie in the picture; what is outside is cut off.

    Returns:
        The pixels, and the share of the area that the box really left (boxes are whole pixels).
    """
    height, width = pixels.shape[-2:]
    side = max(0.0, 1 - share) ** 0.5
    if clipped:
        (top, bottom), (left, right) = (
            _around_a_centre(rng, length, int(side * length)) for length in (height, width)
        )
    else:
        box_height, box_width = round(side * height), round(side * width)
        top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
        bottom, right = top + box_height, left + box_width
    pixels = pixels.clone()
    box = (..., slice(top, bottom), slice(left, right))
    pixels[box] = other[box]
    return pixels, 1 - (bottom - top) * (right - left) / (height * width)


def _around_a_centre(rng: np.random.Generator, length: int, size: int) -> tuple[int, int]:
    centre = int(rng.integers(length))
    return max(centre - size // 2, 0), min(centre + size // 2, length)
