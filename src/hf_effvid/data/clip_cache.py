"""Decoded videos kept in memory up to a number of bytes, so that small data sets are decoded once and not every epoch."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import get_worker_info


@dataclass
class CachedVideo:
    """All frames of a video (or of the part that is meant) at the size that training needs.

    Attributes:
        frames: uint8 (N, 3, H, W).
        info: the `VideoInfo` that frames are sampled by.
    """

    frames: torch.Tensor
    info: Any


@dataclass
class ClipCache:
    """A dictionary that stops growing at `max_bytes`; what is in it stays.

    Nothing is thrown out: an epoch visits every clip once, in another order each time, so the clips kept are as good as
    any others. In a loader worker the bound is divided by the number of workers, each of which has its own copy.

    Attributes:
        max_bytes: bound on the frames kept by all workers of one process together.
    """

    max_bytes: int
    num_bytes: int = 0
    _items: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._items)

    def has_room(self, num_bytes: int) -> bool:
        """Whether that many bytes still fit."""
        worker = get_worker_info()
        return self.num_bytes + num_bytes <= self.max_bytes // (worker.num_workers if worker else 1)

    def get(self, key):
        """What was kept under a key, or None."""
        return self._items.get(key)

    def put(self, key, value) -> None:
        """Keep a value if there is room."""
        frames = value.frames if isinstance(value, CachedVideo) else value
        size = frames.numel() * frames.element_size()
        if key not in self._items and self.has_room(size):
            self._items[key] = value
            self.num_bytes += size

    def __getstate__(self):
        # Spawned workers start empty: tensors sent to them would move to shared memory, which containers keep small.
        return {"max_bytes": self.max_bytes, "num_bytes": 0, "_items": {}}
