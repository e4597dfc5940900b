"""Is an explanation faithful? Deletion and insertion curves, with intervals, against Grad-CAM, a centre prior and chance.

A map orders the cells of a clip (step in time x site). *Deletion* hides them, the most important first, and watches the probability of
the predicted class fall: the faster, the better the map knows what the model needs. *Insertion* starts with everything hidden and shows
them in the same order. The area under each curve, over the share of cells, is one number per clip; lower is better for deletion, higher
for insertion. Their difference, insertion minus deletion, does not depend on how strange scattered holes look to the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..explanation import require_modulators
from .clips import RowLoader, load_videos
from .faithfulness_report import FaithfulnessReport
from .opening import evaluation_mode, load_classifier, model_name, open_rows
from .protocol import describe_protocol
from .provenance import current_provenance
from .saliency import saliency_maps


FILLS = ("colour", "still", "blur")


@dataclass(frozen=True)
class Masking:
    """How cells are hidden.

    Attributes:
        fill: what is seen in a hidden cell: `"colour"` the mean colour of the clip, `"still"` the mean of this place over time (what
            moves disappears, the scene stays), `"blur"` the strongly blurred frame.
        num_steps: points of a curve, minus one: shares 0, 1 / num_steps, ..., 1.
        batch_size: clips per forward pass.
    """

    fill: str = "colour"
    num_steps: int = 16
    batch_size: int = 16

    def __post_init__(self):
        if self.fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, got {self.fill!r}.")
        for name in ("num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}.")

    def filled(self, pixel_values):
        """(1, T, C, H, W) with everything hidden."""
        if self.fill == "colour":
            return pixel_values.mean((1, 3, 4), keepdim=True).expand_as(pixel_values)
        if self.fill == "still":
            return pixel_values.mean(1, keepdim=True).expand_as(pixel_values)
        sigma = min(pixel_values.shape[-2:]) / 6
        # odd, and no wider than reflection at the border allows
        size = [min(int(4 * sigma), side - 1) // 2 * 2 + 1 for side in pixel_values.shape[:-3:-1]]
        return tvF.gaussian_blur(pixel_values, size, [sigma, sigma])


def score_explanations(
    model,
    dataset,
    processor=None,
    *,
    block: int = -1,
    fill: str = "colour",
    num_steps: int = 16,
    random_seeds: int = 5,
    batch_size: int = 16,
    device=None,
    max_videos: int | None = None,
    video_column: str = "video",
    label_column: str = "label",
    dataset_name: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    command: str | None = None,
    progress: bool = True,
) -> FaithfulnessReport:
    """Deletion and insertion curves of every method of `saliency.METHODS` on the videos of a data set.

    One view per video (the recipe's middle clip and centre crop); the class is the one the model predicts, right or wrong: a map
    explains the decision. Unreadable videos are left out and counted.

    Args:
        model: a Video-FocalNet classifier, or a folder or Hub id of one.
        dataset, processor, video_column, label_column, dataset_name, split, seed, command, progress: as in `evaluate_classifier`.
        block: block that the modulators come from.
        fill, num_steps, batch_size: see `Masking`.
        random_seeds: random orders per video, averaged.
        device: torch device; default: where the model is.
        max_videos: the first so many videos only.

    Returns:
        A `FaithfulnessReport`.

    Raises:
        NoModulatorsError: the model has no modulators.
        ValueError: not one video could be read, or an argument of the wrong kind.
    """
    masking = Masking(fill, num_steps, batch_size)
    model, processor = load_classifier(model, processor)
    require_modulators(model.config)
    rows, _ = open_rows(dataset, video_column, label_column)
    device = torch.device(device) if device is not None else model.device
    load = RowLoader(processor, {"multi_view": False}, video_column, label_column)
    sources, curves, num_failed = [], [], 0
    with evaluation_mode(model, device):
        videos = load_videos(rows, load, skip=set(), max_videos=max_videos, num_workers=0)
        total = min(len(rows), max_videos or len(rows)) if hasattr(rows, "__len__") else max_videos
        for video in tqdm(videos, total=total, desc="scoring explanations", disable=not progress):
            if video.error is not None:
                num_failed += 1
                continue
            sources.append(video.source)
            seeds = [video.index * random_seeds + number for number in range(random_seeds)]
            curves.append(_curves_of_clip(model, video.pixel_values, masking, block, seeds))
    if not curves:
        raise ValueError(f"explanations need at least one readable video, got none ({num_failed} could not be read).")
    protocol = describe_protocol(processor, multi_view=False)
    return FaithfulnessReport(
        model_name=model_name(model),
        dataset_name=dataset_name or "unnamed",
        split=str(split or getattr(dataset, "split", None) or "all"),
        sources=sources,
        curves={name: np.stack([of_clip[name] for of_clip in curves]) for name in curves[0]},
        num_failed=num_failed,
        protocol={**protocol, "block": block, "fill": fill, "num_steps": num_steps, "random_orders": random_seeds},
        provenance=current_provenance(
            command, seed=seed, dtype=str(model.dtype).removeprefix("torch."), device=device
        ),
    )


def _curves_of_clip(model, pixel_values, masking: Masking, block: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Method -> (2, num_steps + 1): the deletion and the insertion curve of one clip (1, T, C, H, W)."""
    pixel_values = pixel_values.to(device=model.device, dtype=model.dtype)
    with torch.no_grad():
        target = model(pixel_values).logits[0].argmax().item()
    maps = saliency_maps(model, pixel_values, target, block, seeds)
    filled = masking.filled(pixel_values)
    ties = torch.Generator().manual_seed(seeds[0])
    curves = {}
    for name, of_method in maps.items():
        masks = [hidden_cells(one, masking.num_steps, ties) for one in of_method]
        of_maps = [
            _deletion_and_insertion(model, pixel_values, filled, mask, target, masking.batch_size) for mask in masks
        ]
        curves[name] = np.mean(of_maps, axis=0)
    return curves


def hidden_cells(saliency, num_steps: int, ties: torch.Generator):
    """Which cells are hidden at each step of a deletion.

    Args:
        saliency: (T', h, w); equal values are ordered by chance.
        num_steps: steps from nothing to everything.
        ties: where that chance comes from.

    Returns:
        (num_steps + 1, T', h, w) bool; the insertion shows what is hidden here.
    """
    shuffled = torch.randperm(saliency.numel(), generator=ties)
    order = shuffled[saliency.flatten()[shuffled].argsort(descending=True, stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = (torch.arange(num_steps + 1) / num_steps * len(order)).round()
    return (rank[None] < counts[:, None]).unflatten(1, saliency.shape)


@torch.inference_mode()
def _deletion_and_insertion(model, pixel_values, filled, hidden, target: int, batch_size: int) -> np.ndarray:
    """(2, num_steps + 1) probabilities of the class."""
    frames, height, width = pixel_values.shape[1], *pixel_values.shape[-2:]
    mask = F.interpolate(hidden[:, None].float(), size=(frames, height, width), mode="nearest")[:, 0, :, None]
    mask = mask.to(device=pixel_values.device, dtype=pixel_values.dtype)
    clips = torch.cat([torch.lerp(pixel_values, filled, mask), torch.lerp(filled, pixel_values, mask)])
    logits = torch.cat([model(part).logits.float() for part in clips.split(batch_size)])
    several = model.config.problem_type == "multi_label_classification"
    scores = logits.sigmoid() if several else logits.softmax(-1)
    return scores[:, target].cpu().double().numpy().reshape(2, -1)
