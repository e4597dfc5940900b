"""How much a model needs each of its blocks: its score without it.

Equation 2 of Progressive Block Drop (https://huggingface.co/papers/2503.16916), with the score E of a task on training or held-out data:

    I_i = -(E(M^0) - E(M without block i)),    the block that goes next is the one with the largest I_i.

So "importance" is the paper's word for how well the model does without the block: the least important block has the highest I_i. E is the
metric of the task (the default there), minus its loss, or minus the mean squared difference between input and output of the block,
which needs no labels and one pass.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from .block_discrepancy import measure_discrepancies
from .block_prefixes import run_without_each
from .block_skip import chosen_blocks
from .block_table import ModelBlock, model_blocks
from .oracle_hosts import evaluation_mode


class BlockCriterion(Protocol):
    """What a model is worth, on any data; a training task has these three steps too."""

    def forward(self, batch) -> object:
        """Runs the model on a batch."""

    def records(self, outputs, batch) -> list:
        """What is kept of a batch: one record per item."""

    def score(self, records: list) -> float:
        """All records -> a number; higher is better."""


@dataclass(frozen=True)
class BlockScore:
    """One block.

    Attributes:
        index: its running number in the model that was scored.
        original_index: its number in the uncompressed model.
        name: of its module.
        value: score of the model without it; higher is better.
        importance: I_i.
        mse, cosine: difference and angle between its input and output, where they were the criterion.
    """

    index: int
    original_index: int
    name: str
    value: float
    importance: float
    mse: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class BlockScores:
    """What `score_blocks` found.

    Attributes:
        criterion: its name.
        scores: one per candidate, in the order of the model.
        full: score of the model with all of its blocks; None for `"discrepancy"`.
        reference: score of the uncompressed model, which I_i is about.
        num_batches: of the data.
    """

    criterion: str
    scores: tuple[BlockScore, ...]
    full: float | None
    reference: float
    num_batches: int

    @property
    def ranking(self) -> list[BlockScore]:
        """The block that goes first, first. Among equals the first of the model; a score that is no number is the worst."""
        return sorted(self.scores, key=lambda score: (score.value != score.value, -score.value, score.index))

    @property
    def least_important(self) -> BlockScore:
        """The block that the model does best without."""
        return self.ranking[0]

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {**asdict(self), "least_important": self.least_important.original_index}


def score_blocks(
    model: nn.Module,
    data: Iterable,
    criterion: BlockCriterion | str,
    part: str | None = None,
    candidates: Iterable[int] | None = None,
    *,
    reference: float | None = None,
    progress: bool = False,
) -> BlockScores:
    """Scores a model without each of its blocks, in one pass over the data; the blocks before a candidate are computed once.

    Args:
        model: see `model_blocks`, also inside a PEFT wrapper. It is in evaluation mode while it is scored, and as before afterwards.
        data: batches; never of the test split, since what is chosen by it is fitted to it.
        criterion: a `BlockCriterion` around this model, `"loss"` or `"top1"` (of a classifier; batches are its keyword arguments, with
            `labels`), or `"discrepancy"` (batches are its keyword arguments).
        part: of a detector, see `model_blocks`.
        candidates: running numbers of the blocks; None: all that can be left out.
        reference: E(M^0), the score of the uncompressed model; None takes the model as it is.
        progress: show a progress bar over the batches.

    Raises:
        UnsupportedBlocksError: the model is not in the table.
        UndroppableBlockError: a candidate has to stay.
        ValueError: no data, no candidate, or an unknown criterion.

    Example:
        >>> scores = score_blocks(model, loader, "top1")
        >>> drop_blocks(model, [scores.least_important.index])
    """
    blocks = model_blocks(model, part)
    if candidates is None:
        candidates = [block.index for block in blocks if block.must_stay is None]
    chosen = [chosen_blocks(blocks, [index])[0] for index in sorted(set(candidates))]
    if not chosen:
        raise ValueError(f"No block of {type(model).__name__} was named that could be left out.")
    name = criterion if isinstance(criterion, str) else type(criterion).__name__
    if isinstance(criterion, str):
        if criterion not in _CRITERIA and criterion != "discrepancy":
            known = ", ".join([*_CRITERIA, "discrepancy"])
            raise ValueError(f"criterion is one of {known}, or an object (see BlockCriterion), got {criterion!r}.")
        criterion = _CRITERIA.get(criterion, ClassifierTop1)(model)
    if progress:
        data = _with_progress(data)
    with torch.no_grad(), evaluation_mode(model):
        if name == "discrepancy":
            return _by_discrepancy(chosen, criterion.forward, data, reference)
        return _by_score(model, data, criterion, name, part, chosen, reference)


def _by_score(model, data, criterion, name, part, chosen: list[ModelBlock], reference) -> BlockScores:
    records: dict[int | None, list] = {None: [], **{block.index: [] for block in chosen}}
    batches = 0
    for batch in data:
        batches += 1
        candidates = [block.index for block in chosen]
        for index, outputs in run_without_each(model, partial(criterion.forward, batch), candidates, part):
            records[index] += criterion.records(outputs, batch)
    _refuse_no_data(batches)
    full = float(criterion.score(records[None]))
    reference = full if reference is None else reference
    scores = []
    for block in chosen:
        value = float(criterion.score(records[block.index]))
        scores.append(BlockScore(block.index, block.original_index, block.name, value, value - reference))
    return BlockScores(name, tuple(scores), full, reference, batches)


def _by_discrepancy(chosen, run, data, reference) -> BlockScores:
    found, batches = measure_discrepancies(chosen, run, data)
    _refuse_no_data(batches)
    reference = 0.0 if reference is None else reference  # a block that changes nothing
    scores = []
    for one in found:
        block, mse = one.block, one.mse()
        numbers = (-mse, -mse - reference, mse, one.cosine())
        scores.append(BlockScore(block.index, block.original_index, block.name, *numbers))
    return BlockScores("discrepancy", tuple(scores), None, reference, batches)


def _refuse_no_data(batches):
    if batches == 0:
        raise ValueError("Blocks are scored on data; there was no batch.")


def _with_progress(data):
    from tqdm.auto import tqdm

    return tqdm(data, desc="Scoring blocks", unit="batch")


class ClassifierTop1:
    """Share of clips whose label has the highest logit.

    Args:
        model: takes a batch as keyword arguments, with `labels` (B,) among them, and returns `logits` (B, K).
    """

    def __init__(self, model: Callable):
        self.model = model

    def forward(self, batch):
        return self.model(**batch)

    def records(self, outputs, batch) -> list:
        return (outputs.logits.argmax(dim=-1) == batch["labels"]).tolist()

    def score(self, records) -> float:
        return sum(records) / len(records)


class MeanLoss(ClassifierTop1):
    """Minus the mean loss that a model returns for batches with labels; every batch counts by its size."""

    def records(self, outputs, batch) -> list:
        size = len(next(value for value in batch.values() if isinstance(value, torch.Tensor)))
        return [(outputs.loss.item(), size)]

    def score(self, records) -> float:
        return -sum(loss * size for loss, size in records) / sum(size for _, size in records)


_CRITERIA = {"loss": MeanLoss, "top1": ClassifierTop1}


__all__ = ["BlockCriterion", "BlockScore", "BlockScores", "ClassifierTop1", "MeanLoss", "score_blocks"]
