"""Items of a clip data set to a batch, with mixup and cutmix where training asks for them."""

import numpy as np
import torch
import torch.nn.functional as F

from .randomness import derive_rng
from .transforms import AugmentationConfig, scale_box


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
            items: what `ClipDataset` or `DistillationClipDataset` gives.

        Returns:
            "pixel_values": float (B, T, C, H, W), or (B, V, T, C, H, W); "labels": int64 (B,), or float (B, K) for
            several labels and where batches may be mixed; whatever else of the items is a tensor, stacked. The clips
            of teachers are mixed like those of the student: the same partner, share and box.

        Raises:
            ValueError: mixing, and items with the stored answers of a teacher, which are about clips as they were.
        """
        names = [name for name, value in items[0].items() if torch.is_tensor(value) and name != "labels"]
        batch = {name: torch.stack([item[name] for item in items]) for name in names}
        labels = torch.stack([torch.as_tensor(item["labels"]) for item in items])
        if self.mixes:
            rows = [item["index"] for item in items]
            batch, labels = self._mix(batch, labels, derive_rng(self.seed, items[0].get("epoch", 0), *rows))
        batch["labels"] = labels
        if self.keep_index:
            batch["index"] = torch.tensor([item["index"] for item in items])
        return batch

    def _mix(self, batch, labels, rng: np.random.Generator):
        config, pixels = self.augmentation, batch["pixel_values"]
        others = [name for name in batch if not name.endswith("pixel_values")]
        if others:
            raise ValueError(
                f"mixed clips have no stored {', '.join(others)}: ask the teachers live, or set mixup_alpha=0 and cutmix_alpha=0"
            )
        # Also an unmixed batch gets soft labels: the loss sees one kind of target.
        soft = labels if labels.is_floating_point() else F.one_hot(labels, self.num_labels).to(pixels.dtype)
        if rng.random() >= config.mix_probability or len(pixels) < 2:
            return batch, soft
        partner = torch.as_tensor(rng.permutation(len(pixels)))
        cut = config.cutmix_alpha > 0 and (config.mixup_alpha == 0 or rng.random() < 0.5)
        share = rng.beta(*[config.cutmix_alpha if cut else config.mixup_alpha] * 2)
        if cut:
            size = pixels.shape[-2:]
            box = draw_mixing_box(*size, share, rng, clipped=config.cutmix_box == "clipped")
            share = 1 - box[2] * box[3] / (size[0] * size[1])
            mixed = {name: paste_box(clips, clips[partner], box, size) for name, clips in batch.items()}
        else:
            mixed = {name: share * clips + (1 - share) * clips[partner] for name, clips in batch.items()}
        return mixed, share * soft + (1 - share) * soft[partner]


def draw_mixing_box(
    height: int, width: int, share: float, rng: np.random.Generator, clipped: bool = False
) -> tuple[int, int, int, int]:
    """Draw a box that takes about 1 - share of a picture's area (boxes are whole pixels).

    Args:
        height, width: of the picture.
        share: what the box leaves.
        rng: where the place of the box comes from.
        clipped: only the centre of the box has to lie in the picture; what is outside is cut off.

    Returns:
        (top, left, height, width) in pixels.
    """
    side = max(0.0, 1 - share) ** 0.5
    if clipped:
        (top, bottom), (left, right) = (
            _around_a_centre(rng, length, int(side * length)) for length in (height, width)
        )
        return top, left, bottom - top, right - left
    box_height, box_width = round(side * height), round(side * width)
    top, left = int(rng.integers(height - box_height + 1)), int(rng.integers(width - box_width + 1))
    return top, left, box_height, box_width


def paste_box(
    pixels: torch.Tensor, other: torch.Tensor, box: tuple[int, int, int, int], size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Show `other` in a box, in every frame.

    Args:
        pixels: (..., H, W).
        other: the same shape.
        box: (top, left, height, width) in pixels.
        size: (height, width) of the picture that the box is about, where that is another: the box is scaled.
    """
    height, width = pixels.shape[-2:]
    top, left, box_height, box_width = box if size is None else scale_box(box, (height / size[0], width / size[1]))
    pixels = pixels.clone()
    place = (..., slice(top, top + box_height), slice(left, left + box_width))
    pixels[place] = other[place]
    return pixels


def _around_a_centre(rng: np.random.Generator, length: int, size: int) -> tuple[int, int]:
    centre = int(rng.integers(length))
    return max(centre - size // 2, 0), min(centre + size // 2, length)
