"""Which blocks go next: the least important ones, those that were drawn, or those that were named."""

from dataclasses import dataclass, field

import torch

from ..compression.block_scores import score_blocks
from ..compression.block_table import model_blocks
from ..data.detection_collator import INPUTS
from .block_drop_errors import BlockDropError
from .block_drop_measuring import TaskCriterion


@dataclass(frozen=True)
class Choice:
    """What goes, and why.

    Attributes:
        dropped: original indices.
        scores: original index -> value without that block; empty where nothing was scored.
        full_score: value with all blocks; None where nothing was scored.
    """

    dropped: tuple[int, ...]
    scores: dict = field(default_factory=dict)
    full_score: float | None = None


def choose_blocks(model, data, settings, wanted, *, depth, seed, device, batch_size, num_workers=0, progress=False) -> Choice:  # fmt: skip
    """The blocks that the next step drops.

    Args:
        model: as it is now, on its device.
        data: from `open_compression_data`.
        settings: a `BlockDropSettings`.
        wanted: how many go in this step.
        depth: blocks of the uncompressed model.
        seed: of random orders, the same in every step of a run.
        device: where the model is.
        batch_size, num_workers: of scoring.
        progress: show a progress bar.

    Raises:
        BlockDropError: not so many blocks can go, or one is named that is not there.
    """
    if not wanted:
        return Choice(())
    blocks = model_blocks(model, settings.part)
    free = {block.original_index: block.index for block in blocks if block.must_stay is None}
    if wanted >= len(blocks) or wanted > len(free):
        raise BlockDropError(
            f"{wanted} of {len(blocks)} blocks cannot go: {len(free)} of them may, and one has to be left."
        )
    if settings.blocks is not None:
        # those that are there no more went in earlier steps
        left = [block for block in settings.blocks if block in {one.original_index for one in blocks}]
        stuck = [block for block in left[:wanted] if block not in free]
        if stuck:
            why = next(block.must_stay for block in blocks if block.original_index == stuck[0])
            raise BlockDropError(f"block {stuck[0]} has to stay: {why}.")
        return Choice(tuple(left[:wanted]))
    if settings.order.startswith("random"):
        # an order of all blocks that ever were, so that a run that is continued draws what it would have
        order = torch.randperm(depth, generator=torch.Generator().manual_seed(seed)).tolist()
        return Choice(tuple([block for block in order if block in free][:wanted]))
    return _scored(model, data, settings, free, wanted, device, batch_size, num_workers, progress)


def _scored(model, data, settings, free, wanted, device, batch_size, num_workers, progress) -> Choice:
    batches, candidates = data.batches("scoring", batch_size, device, num_workers), sorted(free.values())
    options = {"part": settings.part, "candidates": candidates, "progress": progress}
    if settings.criterion == "discrepancy":
        found, losses = score_blocks(model, map(_inputs, batches), "discrepancy", **options), [0.0] * len(candidates)
    else:
        metric = data.metric if settings.criterion == "metric" else "loss"
        criterion = TaskCriterion(data.task(model, "scoring").eval(), metric)
        found = score_blocks(model, batches, criterion, **options)
        losses = criterion.losses[1:]  # the first is that of the whole model
    # few videos give equal metrics: then the loss decides
    ranked = sorted(zip(found.scores, losses, strict=True), key=lambda one: (-one[0].value, one[1], one[0].index))
    dropped = tuple(score.original_index for score, _ in ranked[:wanted])
    return Choice(dropped, {score.original_index: score.value for score in found.scores}, found.full)


def _inputs(batch) -> dict:
    """What the model takes of a batch."""
    names = [name for pair in INPUTS.items() for name in pair if name in batch]
    return {name: batch[name] for name in names}
