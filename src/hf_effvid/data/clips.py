"""Clips for training and testing as torch data sets, map-style and streaming."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, IterableDataset

from ..models.video_errors import ERROR_TYPES, VideoError
from .clip_cache import ClipCache
from .clip_reader import ClipReader
from .loading import is_multi_label, label_names
from .randomness import derive_seed


logger = logging.getLogger(__name__)

_KINDS = sorted(ERROR_TYPES)  # kinds of errors as numbers, to share them between processes


@dataclass(frozen=True)
class SkippedClip:
    """A file that could not be read and was left out.

    Attributes:
        index: its row.
        source: its path, or a description.
        error: the name of the `VideoError`.
    """

    index: int
    source: str
    error: str


class ClipDataset(Dataset):
    """Labelled clips, one per row of a data set from `load_video_dataset`.

    What item i is depends on (seed, epoch, i) alone. Works with any number of forked or spawned loader workers, which
    may be persistent.

    Args:
        dataset: a `datasets.Dataset` with columns "video" and "label", or a list of such rows.
        processor: the recipe, an `EffVidVideoProcessor`.
        train: random, augmented clips; otherwise what the processor gives for the file.
        augmentation: an `AugmentationConfig` or the name of a preset; None changes nothing.
        seed: the seed of everything random.
        on_error: "raise", or "skip": a file that cannot be read is replaced by the next one that can, and
            reported by `skipped`. One bad file then never ends an epoch.
        multi_view: all views of the recipe, for testing.
        cache: "ram" keeps decoded videos in memory.
        cache_bytes: bound of that memory.
        class_names: the classes; default: those of the data set.
        limits: what one file may cost, a `VideoLimits`.
    """

    def __init__(
        self,
        dataset,
        processor,
        train: bool = False,
        augmentation=None,
        seed: int = 0,
        on_error: str = "raise",
        multi_view: bool = False,
        cache: str | None = None,
        cache_bytes: int = 2 * 2**30,
        class_names=None,
        limits=None,
    ):
        _check_choice("on_error", on_error, ("raise", "skip"))
        _check_choice("cache", cache, (None, "ram"))
        self.dataset, self.seed, self.on_error = dataset, seed, on_error
        self.class_names, self.multi_label = _classes(dataset, class_names)
        self.reader = ClipReader(processor, train, augmentation, self.class_names, multi_view, limits)
        self.cache = ClipCache(cache_bytes) if cache else None
        # In shared memory: workers that live on see the new epoch, and the main process sees what workers skipped.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._bad = torch.zeros(len(dataset), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def epoch(self) -> int:
        """The epoch that random choices are made for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is; call it before each one (Trainer and Accelerate do)."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        """Read one clip.

        Returns:
            "pixel_values": float (T, C, H, W), or (V, T, C, H, W) with `multi_view`; "labels": int64 scalar, or float
            (K,) with 0 and 1 for several labels; "index": the row that was read; "epoch".

        Raises:
            VideoError: the file cannot be read, with `on_error="raise"`; or no file at all can, with "skip".
        """
        index = range(len(self))[index]  # negative ones too, and IndexError beyond the end
        error = None
        for step in range(len(self) if self.on_error == "skip" else 1):
            row_index = (index + step) % len(self)
            if self._bad[row_index]:
                continue
            try:
                return self._read(row_index)
            except (VideoError, OSError) as found:  # OSError: the file system itself failed
                if self.on_error == "raise":
                    raise
                error = found
                self._bad[row_index] = 1 + _KINDS.index(_kind(found))
                logger.warning("skipped a video: %s", found)
        raise error or VideoError("the data set", f"none of its {len(self)} videos can be read", "Run `effvid check`.")

    def _read(self, index: int) -> dict:
        row = self.dataset[index]
        content = self._content(row, derive_seed(self.seed, self.epoch, index), index)
        labels = _label_tensor(row["label"], self.multi_label, len(self.class_names))
        return {**content, "labels": labels, "index": index, "epoch": self.epoch}

    def _content(self, row: dict, seed: int, index: int) -> dict:
        return {"pixel_values": self.reader(row, seed, self.cache, index)}

    @property
    def skipped(self) -> list[SkippedClip]:
        """The files left out so far, by whichever process."""
        return [
            SkippedClip(i, describe_source(self.dataset[i]["video"]), _KINDS[int(self._bad[i]) - 1])
            for i in torch.nonzero(self._bad).flatten().tolist()
        ]

    def fill_cache(self, num_threads: int = 1, progress: bool = True) -> int:
        """Decode every video now, before forked workers are started, so that they share the memory.

        Returns:
            The number of videos that are kept.
        """
        from concurrent.futures import ThreadPoolExecutor

        from tqdm.auto import tqdm

        if self.cache is None:
            raise ValueError('fill_cache needs ClipDataset(..., cache="ram")')
        with ThreadPoolExecutor(max(1, num_threads)) as pool:
            indices = tqdm(range(len(self)), desc="decoding", unit="clip", disable=not progress)
            for _ in pool.map(self.__getitem__, indices):
                pass
        return len(self.cache)


class StreamingClipDataset(IterableDataset):
    """Labelled clips of a stream (`load_video_dataset(..., streaming=True)`).

    The stream's shards are divided among loader workers by `datasets`. A stream has no numbers that hold for every
    number of workers, so a clip's seed comes from its path (or its first bytes): it is the same however the stream is divided.

    Args:
        dataset: a `datasets.IterableDataset` with columns "video" and "label".
        processor: see `ClipDataset`, likewise the other arguments.
        shuffle_buffer: shuffle through a buffer of that many rows, anew each epoch; 0: in order.
    """

    def __init__(
        self,
        dataset,
        processor,
        train: bool = False,
        augmentation=None,
        seed: int = 0,
        on_error: str = "raise",
        multi_view: bool = False,
        shuffle_buffer: int = 0,
        class_names=None,
        limits=None,
    ):
        _check_choice("on_error", on_error, ("raise", "skip"))
        self.seed, self.on_error = seed, on_error
        self.class_names, self.multi_label = _classes(dataset, class_names)
        self.reader = ClipReader(processor, train, augmentation, self.class_names, multi_view, limits)
        self.dataset = dataset.shuffle(seed=seed, buffer_size=shuffle_buffer) if shuffle_buffer else dataset
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._num_skipped = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that random choices are made for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is; call it before each one."""
        self._epoch.fill_(epoch)

    @property
    def num_skipped(self) -> int:
        """How many files were left out so far, over all epochs and workers (approximate while workers run)."""
        return int(self._num_skipped)

    def state_dict(self) -> dict:
        """Where the stream is, for resuming."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        self.dataset.load_state_dict(state)

    def __iter__(self) -> Iterator[dict]:
        epoch = self.epoch
        self.dataset.set_epoch(epoch)
        for index, row in enumerate(self.dataset):
            try:
                content = self._content(row, derive_seed(self.seed, epoch, stream_key(row)), epoch)
            except (VideoError, OSError) as error:
                if self.on_error == "raise":
                    raise
                self._num_skipped += 1
                logger.warning("skipped a video: %s", error)
                continue
            labels = _label_tensor(row["label"], self.multi_label, len(self.class_names))
            yield {**content, "labels": labels, "index": index, "epoch": epoch}

    def _content(self, row: dict, seed: int, epoch: int) -> dict:
        return {"pixel_values": self.reader(row, seed)}


def describe_source(value) -> str:
    """A short name of a video value, for messages."""
    if isinstance(value, dict):
        return value.get("path") or f"<{len(value.get('bytes') or b'')} bytes>"
    return str(value)[:200]


def stream_key(row: dict) -> str:
    """What a row of a stream is recognised by: path, part and the first bytes."""
    value = row["video"]
    path, content = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (str(value), None)
    head = derive_seed(content[:65536].hex()) if content else ""
    return f"{path}|{head}|{row.get('start')}|{row.get('end')}"


def _label_tensor(label, multi_label: bool, num_classes: int) -> torch.Tensor:
    if not multi_label:
        return torch.tensor(int(label), dtype=torch.int64)
    hot = torch.zeros(num_classes)
    hot[list(label)] = 1.0
    return hot


def _classes(dataset, class_names) -> tuple[list[str], bool]:
    if hasattr(dataset, "features") and dataset.features is not None:
        return list(class_names or label_names(dataset)), is_multi_label(dataset)
    first = dataset[0]["label"] if len(dataset) else 0
    return list(class_names or ()), isinstance(first, (list, tuple))


def _kind(error: Exception) -> str:
    return next((c.__name__ for c in type(error).__mro__ if c.__name__ in ERROR_TYPES), "VideoError")


def _check_choice(name: str, value, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {allowed}, got {value!r}")
