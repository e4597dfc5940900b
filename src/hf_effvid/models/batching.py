"""Rows of many videos through a model in full batches, results back in the order of the inputs, failures kept to themselves."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Item:
    """One prediction on its way: the rows of a video or of a window, then what the model says of them.

    Attributes:
        owner: What the caller needs to recognise it.
        num_rows: Views; 0 for an item that carries no prediction (the end of a video, a failure).
        results: One per row, such as its logits (K,), as they arrive.
        error: What went wrong in the model, if anything.
    """

    owner: Any
    num_rows: int
    results: list[Any] = field(default_factory=list)
    error: Exception | None = None

    @property
    def done(self):
        return self.error is not None or len(self.results) == self.num_rows


class Batcher:
    """Collects rows of one shape until a batch is full. At most one batch and one video are in memory.

    Args:
        forward: What `collate` makes of B rows -> B results.
        batch_size: Rows per forward call.
        isolate_errors: When the model fails on a batch, run it row by row and blame only those that fail.
        collate: List of rows -> batch.
    """

    def __init__(self, forward, batch_size, isolate_errors, collate=torch.stack):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.forward, self.batch_size, self.isolate_errors = forward, batch_size, isolate_errors
        self.collate = collate
        self.items = deque()
        self.rows = deque()

    def add(self, owner, rows=None):
        """Enqueue the rows of one prediction, such as views (V, T, C, H, W), or, without rows, a mark that keeps its place in the order."""
        item = Item(owner, 0 if rows is None else len(rows))
        self.items.append(item)
        for row in () if rows is None else rows:
            if self.rows and self.rows[0][1].shape != row.shape:
                self.run()
            self.rows.append((item, row))
            if len(self.rows) == self.batch_size:
                self.run()

    def run(self):
        """Forward whatever has been collected."""
        if not self.rows:
            return
        items, rows = zip(*self.rows, strict=True)
        self.rows.clear()
        try:
            results = self.forward(self.collate(list(rows)))
        except Exception as error:
            if not self.isolate_errors:
                raise
            if len(rows) == 1:
                items[0].error = error
                return
            for item, row in zip(items, rows, strict=True):
                if item.error is None:
                    self.rows.append((item, row))
                    self.run()
            return
        for item, result in zip(items, results, strict=True):
            item.results.append(result)

    def finished(self):
        """Hand over, in order, the items that nothing before them is waiting for."""
        while self.items and self.items[0].done:
            yield self.items.popleft()
