"""What an evaluation starts from: the model, its processor, the rows; and the state the model is put in and left in."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from ..host_loading import is_adapter, load_video_classifier
from ..host_processing import holds_recipe, load_processor, required_frames_per_clip
from .stock_processor import StockProcessorAdapter


def load_classifier(model, processor=None, trust_remote_code=False):
    """A classifier and a processor with a recipe.

    Args:
        model: a classifier (also wrapped by PEFT), or a folder or Hub id of one or of an adapter.
        processor: a processor, a folder or Hub id of one, or None for the one saved with the model.
        trust_remote_code: run code that comes with the checkpoint.

    Returns:
        `(model, processor)`.

    Raises:
        CheckpointNotFound: there is no such checkpoint.
        RemoteCodeNeeded: it needs its own code.
        ValueError: the processor is not given, or the number of frames is not known.
    """
    if isinstance(model, (str, os.PathLike)):
        processor = processor if processor is not None else os.fspath(model)
        model = load_video_classifier(model, trust_remote_code)
    if processor is None:
        processor = getattr(model, "name_or_path", None)
        if not processor:
            raise ValueError("the model was not loaded from a checkpoint: pass its processor as well.")
    if isinstance(processor, (str, os.PathLike)):
        processor = load_processor(os.fspath(processor), trust_remote_code=trust_remote_code)
    if holds_recipe(processor):
        return model, processor
    return model, StockProcessorAdapter(processor, required_frames_per_clip(model.config))


def open_rows(dataset, video_column: str, label_column: str):
    """Rows that give undecoded videos, and the class names of the data set.

    Args:
        dataset: a `datasets` split, or any sequence or iterable of dicts.
        video_column, label_column: names of the columns.

    Returns:
        `(rows, names)`; names is None where labels have none.

    Raises:
        ValueError: it is a dict of splits, or a column is missing.
    """
    if isinstance(dataset, dict):
        raise ValueError(f"expected one split, got the splits {sorted(map(str, dataset))}: pass one of them.")
    features = getattr(dataset, "features", None)
    if not features:
        return dataset, None
    for column in (video_column, label_column):
        if column not in features:
            raise ValueError(f"the data set has no column {column!r}; it has {sorted(features)}.")
    if getattr(features[video_column], "decode", False):
        # a decoded column opens every file with torchcodec before our reader sees it
        dataset = _undecoded(dataset, video_column)
    label = features[label_column]
    label = getattr(label, "feature", label)
    return dataset, getattr(label, "names", None)


def _undecoded(dataset, column: str):
    from datasets import Video

    return dataset.cast_column(column, Video(decode=False))


@contextlib.contextmanager
def evaluation_mode(model, device: torch.device) -> Iterator[None]:
    """Puts the model on the device and in evaluation mode, and back afterwards."""
    training, home = model.training, next(model.parameters()).device
    moved = torch.device(device) != home
    if moved:
        model.to(device)
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        if moved:
            model.to(home)


def evaluation_identity(model, protocol: dict, rows, dataset_name: str, split: str) -> dict:
    """What has to be equal for two runs to share a predictions file.

    The weights are part of it: continuing with another checkpoint of the same architecture would mix two models.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.dim()
            else repr(tensor.item()).encode()
        )
    return {
        "weights": digest.hexdigest(),
        "dtype": str(model.dtype),
        "protocol": protocol,
        "rows": len(rows) if hasattr(rows, "__len__") else None,
        "dataset": dataset_name,
        "split": split,
    }


def model_name(model) -> str:
    """What a model is called in tables: the last part of the path or Hub id it was loaded from, else its class.

    An adapter that was not loaded by this package does not know its own name, and PEFT answers with that of its base.
    """
    name = short_name(getattr(model, "name_or_path", "")) or type(model).__name__
    return f"{name} with an adapter" if is_adapter(model) and "name_or_path" not in vars(model) else name


def short_name(name_or_path: str) -> str:
    """The last part of a path or Hub id."""
    return Path(name_or_path).name or str(name_or_path)
