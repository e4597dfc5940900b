"""Data order as a function of (seed, epoch, index), whatever the number of workers, processes or restarts.

The epoch travels with the index: the sampler yields `(epoch, index)` and the wrapped data set sets its epoch before it
reads. Calling `set_epoch` from outside does not reach data sets inside persistent workers, and accelerate's wrappers
do not forward it when a run resumes in the middle of an epoch on several processes.
"""

import torch
from torch.utils.data import Dataset, Sampler


class EpochSampler(Sampler):
    """A permutation (or a weighted draw with replacement) of the data set, seeded by (seed, epoch).

    Args:
        num_samples: size of the data set, and of an epoch.
        seed: seed of the run.
        weights: optional weight per clip (N,); clips are then drawn with replacement.
        shuffle: False keeps the order of the data set.
    """

    def __init__(self, num_samples, seed, weights=None, shuffle=True):
        self.num_samples = num_samples
        self.seed = seed
        self.weights = weights
        self.shuffle = shuffle
        self.epoch = 0

    def __len__(self):
        return self.num_samples

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        if self.weights is not None:
            order = torch.multinomial(self.weights.double(), self.num_samples, replacement=True, generator=generator)
        elif self.shuffle:
            order = torch.randperm(self.num_samples, generator=generator)
        else:
            order = torch.arange(self.num_samples)
        for index in order.tolist():
            yield self.epoch, index


class EpochIndexedDataset(Dataset):
    """A map-style data set addressed by an index or by `(epoch, index)`; items are dictionaries that carry `index`."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (None, key)
        if epoch is not None and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        item = self.dataset[index]
        if item is None:
            return None
        item = dict(item)
        item.setdefault("index", index)
        if epoch is not None:
            item.setdefault("epoch", epoch)
        return item


class IndexKeepingCollator:
    """Runs a collator and puts `index` (B,) back when the collator dropped it; drops items that are None.

    Args:
        collator: any callable from a list of items to a batch.
    """

    def __init__(self, collator):
        self.collator = collator

    def __call__(self, items):
        items = [item for item in items if item is not None]
        if not items:
            raise ValueError("Every clip of a batch was skipped as unreadable; run `effvid check` on the data set.")
        indices = [item.get("index") for item in items]
        batch = dict(self.collator(items))
        if "index" not in batch and None not in indices:
            batch["index"] = torch.tensor([int(index) for index in indices])
        batch.pop("epoch", None)
        return batch


def mix_seed(*parts):
    """One 63-bit seed from several integers: equal inputs give equal seeds, neighbours give unrelated ones."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        # splitmix64 finaliser over the running state
        state = (state + (int(part) & 0xFFFFFFFFFFFFFFFF) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & 0x7FFFFFFFFFFFFFFF
