"""What the first argument of a pipeline call can be: one video, a list of them, or a stream."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import Dataset
from transformers.video_utils import is_valid_video


SINGLE, LIST, STREAM = "single", "list", "stream"


def kind_of(inputs, features=False):
    """SINGLE gives one result, LIST a list of results, STREAM (generators, data sets) an iterator over results.

    A list of frames is one video, and so is an array with four dimensions; one with five is a list of videos.

    Args:
        inputs: What the caller passed.
        features: Whether features (T, C) are meant where an array is given: then one with three dimensions is a list of them.
    """
    if features and hasattr(inputs, "features") and not hasattr(inputs, "column_names"):
        return SINGLE  # stored or extracted features of one video, possibly a named tuple; data sets call their columns so
    if isinstance(inputs, (list, tuple)):
        return SINGLE if not features and is_valid_video(inputs) else LIST
    if getattr(inputs, "ndim", None) == (3 if features else 5) or is_array_of_paths(inputs) or is_column(inputs):
        return LIST
    if isinstance(inputs, Dataset) or hasattr(inputs, "column_names"):
        return STREAM
    return STREAM if is_endless(inputs) else SINGLE


def is_array_of_paths(inputs):
    """An array of str or of objects, such as the values of a column of a table."""
    return getattr(inputs, "ndim", None) == 1 and getattr(getattr(inputs, "dtype", None), "kind", "") in "OU"


def is_column(inputs):
    """`dataset["video"]`: since version 4 `datasets` gives a lazy sequence there, no list."""
    return isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes, bytearray, memoryview))


def is_endless(inputs):
    """A generator, or the column of a stream of `datasets`: can be walked through, has no length, is no file."""
    return isinstance(inputs, Iterable) and not isinstance(inputs, Sized) and not hasattr(inputs, "read")


def number_of(inputs, features=False):
    """How many videos there are, or None for a stream without a length."""
    if kind_of(inputs, features) == SINGLE:
        return 1
    try:
        return len(inputs)
    except TypeError:
        return None


class FailedItem:
    """Stands for an item that a data set could not even produce."""

    def __init__(self, index, error):
        self.index, self.error = index, error

    def __str__(self):
        return f"item {self.index}"


def iterate(inputs, video_column, features=False):
    """The videos, one by one and never more than one ahead.

    A data set row that cannot be produced becomes a FailedItem; a stream that fails ends with one.

    Args:
        inputs: What the caller passed.
        video_column: The column that holds the video when rows are dicts.
        features: See `kind_of`.
    """
    if isinstance(inputs, Mapping) and hasattr(inputs, "column_names"):
        raise TypeError(f"Expected one split, got the splits {sorted(map(str, inputs))}: pass one of them.")
    if is_array_of_paths(inputs):
        inputs = inputs.tolist()
    if kind_of(inputs, features) == SINGLE:
        yield inputs
    elif hasattr(inputs, "__getitem__") and number_of(inputs, features) is not None:
        for index in range(len(inputs)):
            try:
                item = inputs[index]
            except Exception as error:
                item = FailedItem(index, error)
            yield video_of(item, video_column)
    else:
        stream, index = iter(inputs), 0
        while True:
            try:
                item = next(stream)
            except StopIteration:
                return
            except Exception as error:
                yield FailedItem(index, error)
                return
            yield video_of(item, video_column)
            index += 1


def video_of(item, video_column):
    """The video in a data set row; anything else is the video itself."""
    if not isinstance(item, dict) or item.keys() & {"bytes", "path", "input_features"}:
        return item
    if item.keys() & {"frames", "features", "feats"} and video_column not in item:
        return item
    if video_column not in item:
        raise KeyError(f"A row has no column {video_column!r}, only {sorted(item)}: pass video_column=...")
    return item[video_column]


def name_of(source):
    """How results and errors call a source."""
    if isinstance(source, dict):
        source = source.get("path") or source.get("bytes")
    if isinstance(source, (str, FailedItem)) or hasattr(source, "__fspath__"):
        return str(source)
    if isinstance(source, (bytes, bytearray)):
        return f"<bytes, {len(source)} B>"
    return str(getattr(source, "name", None) or f"<{type(source).__name__}>")


def map_ahead(function, items, num_workers):
    """`(item, function(item) or the exception)` in order, computed by `num_workers` threads at most `2 * num_workers` items ahead."""

    def attempt(item):
        try:
            return function(item), None
        except Exception as error:
            return None, error

    if num_workers < 1:
        for item in items:
            yield item, *attempt(item)
        return
    with ThreadPoolExecutor(num_workers) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) >= 2 * num_workers:
                    item, future = waiting.popleft()
                    yield item, *future.result()
            while waiting:
                item, future = waiting.popleft()
                yield item, *future.result()
        finally:
            for _, future in waiting:
                future.cancel()
