"""From data-set rows to model input for evaluation: decoding in worker processes, bad files as values."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch.utils.data import DataLoader, Dataset


FRAME_ORDERS = ("natural", "shuffled", "reversed")


@dataclass(frozen=True)
class LoadedVideo:
    """One row of the data set, read.

    Attributes:
        index: position in the data set.
        source: path or description of the video.
        label: the label as the data set has it.
        pixel_values: (V, T, C, H, W) views, None when the video could not be read.
        error: the exception that reading raised, None when it worked.
    """

    index: int
    source: str
    label: object
    pixel_values: torch.Tensor | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class RowLoader:
    """Picklable `(index, row) -> LoadedVideo`; runs in the worker processes.

    Attributes:
        processor: video processor with our recipe interface.
        options: keyword arguments of the processor call (`multi_view`, `num_clips`, `num_crops`).
        video_column, label_column: names of the columns.
        frame_order: one of `FRAME_ORDERS`.
    """

    processor: object
    options: dict
    video_column: str
    label_column: str
    frame_order: str = "natural"

    def __call__(self, index: int, row: dict) -> LoadedVideo:
        label, source = row[self.label_column], describe_source(row, index, self.video_column)
        # a list may name a part of each file, in seconds
        part = {name: row[name] for name in ("start", "end") if row.get(name) is not None}
        try:
            output = self.processor([row[self.video_column]], return_tensors="pt", **part, **self.options)
            pixel_values = output["pixel_values"]
        except Exception as error:
            if not is_unreadable(error):
                raise
            return LoadedVideo(index, source, label, error=error)
        return LoadedVideo(index, source, label, self._ordered(pixel_values, index))

    def _ordered(self, pixel_values: torch.Tensor, index: int) -> torch.Tensor:
        """The frames of (V, T, C, H, W) in the order wanted; all views of a video share one permutation."""
        if self.frame_order == "reversed":
            return pixel_values.flip(1)
        if self.frame_order == "shuffled":
            order = torch.randperm(pixel_values.shape[1], generator=torch.Generator().manual_seed(index))
            return pixel_values[:, order]
        return pixel_values


def is_unreadable(error: Exception) -> bool:
    """Whether an exception says that the *video* is at fault, and not the program.

    Compared by name: a processor that was loaded from a checkpoint folder brings its own copy of the reader, whose
    `VideoError` is another class than the installed one.
    """
    return isinstance(error, OSError) or any(cls.__name__ == "VideoError" for cls in type(error).__mro__)


def describe_source(row: dict, index: int, video_column: str) -> str:
    """A path where there is one, with the part of the file that counts, else `"row 7"`."""
    video = row[video_column]
    if isinstance(video, dict):
        video = video.get("path")
    if not isinstance(video, str) and not hasattr(video, "__fspath__"):
        return f"row {index}"
    start, end = row.get("start"), row.get("end")
    return str(video) if start is None and end is None else f"{video} [{start} s to {end} s]"


class _Rows(Dataset):
    def __init__(self, rows, indices: list[int], load: RowLoader):
        self.rows, self.indices, self.load = rows, indices, load

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, position: int) -> LoadedVideo:
        index = self.indices[position]
        return self.load(index, self.rows[index])


def _first(items: list):
    return items[0]


def load_videos(
    rows, load: RowLoader, *, skip: set[int], max_videos: int | None, num_workers: int
) -> Iterator[LoadedVideo]:
    """Reads the rows in order, leaving out those in `skip`.

    Args:
        rows: a sequence of rows (worker processes are used), or an iterable (read in this process).
        load: what to do with a row.
        skip: indices that need no reading.
        max_videos: look at the first so many rows only; None for all.
        num_workers: worker processes for sequences; 0 reads in this process.
    """
    if hasattr(rows, "__getitem__") and hasattr(rows, "__len__"):
        total = len(rows) if max_videos is None else min(max_videos, len(rows))
        indices = [index for index in range(total) if index not in skip]
        # one video per item, whatever the batch size: views, not videos, are what fills a batch
        yield from DataLoader(
            _Rows(rows, indices, load), batch_size=1, collate_fn=_first, num_workers=min(num_workers, len(indices))
        )
        return
    for index, row in enumerate(islice(rows, max_videos)):
        if index not in skip:
            yield load(index, row)


def score_views(
    model, videos: Iterable[LoadedVideo], to_scores, *, batch_size: int, device, dtype
) -> Iterator[tuple[LoadedVideo, list[float] | None]]:
    """Runs the model on the views of many videos, in batches of `batch_size` views that cross video boundaries.

    Args:
        model: the classifier, in evaluation mode, on `device`.
        videos: what `load_videos` gives.
        to_scores: turns the logits (V, K) of one video's views into its scores (K,).
        batch_size: views per forward pass.
        device, dtype: where and in what type the model runs.

    Yields:
        `(video, scores)` in order; scores are None for a video that could not be read.
    """
    forward = partial(_forward, model, device=device, dtype=dtype)
    waiting: list[LoadedVideo] = []
    for video in videos:
        # views of another shape cannot share a batch with those that wait
        shape = next((w.pixel_values.shape[1:] for w in waiting if w.error is None), None)
        if video.error is None and shape is not None and video.pixel_values.shape[1:] != shape:
            yield from _flush(forward, waiting, to_scores, batch_size)
            waiting = []
        waiting.append(video)
        if sum(len(w.pixel_values) for w in waiting if w.error is None) >= batch_size:
            yield from _flush(forward, waiting, to_scores, batch_size)
            waiting = []
    yield from _flush(forward, waiting, to_scores, batch_size)


def _flush(forward, waiting, to_scores, batch_size):
    readable = [video for video in waiting if video.error is None]
    logits = iter(())
    if readable:
        views = torch.cat([video.pixel_values for video in readable])
        done = torch.cat([forward(chunk) for chunk in views.split(batch_size)])
        logits = iter(done.split([len(video.pixel_values) for video in readable]))
    for video in waiting:
        yield video, to_scores(next(logits)).tolist() if video.error is None else None


@torch.inference_mode()
def _forward(model, views, *, device, dtype):
    output = model(**{model.main_input_name: views.to(device=device, dtype=dtype)})
    return output.logits.float().cpu()
