"""Data sets that `datasets` itself opens (Hub ids, parquet, webdataset, `save_to_disk`), brought to our two columns."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .annotations import AnnotationError, canonical_split, check_label


_VIDEO_NAMES = ("video", "videos", "mp4", "clip", "file", "path", "video_path", "file_name", "webm", "avi", "mkv")
_LABEL_NAMES = ("label", "labels", "class", "cls", "category", "action", "target", "txt")
_SPLIT_NAME = r"\w+(\.\w+)*"  # what `datasets` can save and load again


def load_with_datasets(source, split: str | None, streaming: bool, load_kwargs: dict):
    """Open a local or Hub id with `datasets`.

    Raises:
        AnnotationError: it cannot be opened: not there, not reachable while offline, or of no known form.
    """
    from datasets import load_dataset, load_from_disk

    path = Path(source).expanduser()
    try:
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = load_from_disk(str(path))
            if streaming:
                loaded = _to_iterable(loaded)
        else:
            loaded = load_dataset(str(path if path.exists() else source), streaming=streaming, **load_kwargs)
    except Exception as error:  # `datasets` raises a dozen types here, of three libraries
        raise AnnotationError(str(source), *_why_not_opened(error, path.exists())) from error
    if split is None or not isinstance(loaded, dict):
        return loaded
    by_name = {canonical_split(name): value for name, value in loaded.items()}
    if canonical_split(split) not in by_name:
        raise AnnotationError(str(source), f"no split {split!r} among {sorted(loaded)}", "Ask for one of these.")
    return by_name[canonical_split(split)]


def _why_not_opened(error: Exception, is_local: bool) -> tuple[str, str]:
    """What was found, and what to do."""
    from datasets import config

    kind = type(error).__name__
    if not is_local and isinstance(error, (ConnectionError, FileNotFoundError)):
        offline = " HF_HUB_OFFLINE is set, so that the Hub is not asked." if config.HF_HUB_OFFLINE else ""
        found = f"neither a folder, nor a list file, nor a data set that can be seen on the Hub ({kind})"
        return found, f"Check the name and the connection.{offline}"
    reason = str(error).strip().splitlines()
    found = f"`datasets` cannot open it ({kind}: {reason[0][:200] if reason else ''})"
    return found, "Check the name, and the connection or HF_HUB_OFFLINE; for a local folder check what is in it."


def normalize_columns(
    dataset, video_column=None, label_column=None, class_names=None, multi_label=None, label_separator="|"
):
    """Give a `datasets` object (or a dict of them) the columns "video" (not decoded) and "label" (with names).

    Raises:
        AnnotationError: there is no video or label column, or labels are text in a stream without `class_names`.
    """
    if isinstance(dataset, dict):
        names = class_names
        if names is None and not any(_is_stream(part) for part in dataset.values()):
            names = _shared_names(dataset.values(), label_column, multi_label, label_separator)
        options = (video_column, label_column, names, multi_label, label_separator)
        return type(dataset)({key: normalize_columns(part, *options) for key, part in dataset.items()})

    if _is_stream(dataset):
        dataset = _undecoded_stream(dataset)
    video = _column(dataset, video_column, _VIDEO_NAMES, "video")
    label = _column(dataset, label_column, _LABEL_NAMES, "label")
    dataset = _rename(dataset, {video: "video", label: "label"})
    dataset = dataset.cast_column("video", _undecoded())
    return _label_with_names(dataset, class_names, multi_label, label_separator)


def named_videos(loaded, video_column: str | None = None) -> Iterator[tuple[str, dict]]:
    """(name, video that is not decoded) of every row of a data set or of a dict of them, whatever else is in it.

    A video is called as its file is, without folders; one without a file, or with the name of an earlier one, by split and row.

    Raises:
        AnnotationError: there is no video column.
    """
    seen = set()
    parts = loaded.items() if isinstance(loaded, dict) else [(str(loaded.split or "row"), loaded)]
    for split, part in parts:
        part = _undecoded_stream(part) if _is_stream(part) else part
        column = _column(part, video_column, _VIDEO_NAMES, "video")
        part = part.select_columns([column]).cast_column(column, _undecoded())
        for number, row in enumerate(part):
            name = os.path.basename(row[column].get("path") or "")
            name = name if name and name not in seen else f"{split}/{number:06d}"
            seen.add(name)
            yield name, row[column]


def name_splits(loaded, name: str | None, split: str | None = None):
    """Write into a data set, or every one of a dict, what it is called and which split it is, where it does not say so."""
    if isinstance(loaded, dict):
        for key, part in loaded.items():
            name_splits(part, name, key)
        return loaded
    loaded.info.dataset_name = loaded.info.dataset_name or name
    if loaded.split is None and split is not None and re.fullmatch(_SPLIT_NAME, split):
        from datasets import NamedSplit

        loaded._split = NamedSplit(split)  # streams have no public way to say it
    return loaded


def _undecoded():
    from datasets import Video

    return Video(decode=False)


def _is_stream(dataset) -> bool:
    return not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__")


def _to_iterable(loaded):
    from datasets import IterableDatasetDict

    if isinstance(loaded, dict):
        return IterableDatasetDict({name: _to_iterable(part) for name, part in loaded.items()})
    # the names are lost on the way
    return name_splits(loaded.to_iterable_dataset(), loaded.info.dataset_name, loaded.split and str(loaded.split))


def _undecoded_stream(dataset):
    """A stream whose columns are known and not decoded.

    Streams from the Hub decode in threads of their own before a cast of the column has any effect: only `decode(False)`
    takes that step out.
    """
    if dataset.features is None:  # learn the columns from the first examples, of which none is a `Video` then
        dataset = dataset._resolve_features()
    return dataset.decode(False)


def _column(dataset, wanted: str | None, usual: tuple[str, ...], role: str) -> str:
    names = list(dataset.features)
    if role == "video":
        typed = [n for n, f in dataset.features.items() if type(f).__name__ == "Video"]
        if len(typed) == 1 and wanted not in names:
            return typed[0]
    for name in (wanted, *usual):
        if name in names:
            return name
    raise AnnotationError("the data set", f"no {role} column among {names}", f"Pass `{role}_column`.")


def _rename(dataset, mapping: dict[str, str]):
    for old, new in mapping.items():
        if old == new:
            continue
        if new in dataset.features:
            dataset = dataset.remove_columns(new)
        dataset = dataset.rename_column(old, new)
    return dataset


def _label_with_names(dataset, class_names, multi_label, separator):
    from datasets import ClassLabel, List

    feature = dataset.features["label"]
    several = hasattr(feature, "feature") or bool(multi_label)
    inner = getattr(feature, "feature", feature)
    if getattr(inner, "names", None) is not None and not (multi_label and inner is feature):
        return dataset
    is_text = getattr(inner, "dtype", None) in ("string", "large_string")
    if class_names is None and _is_stream(dataset):
        raise AnnotationError(
            "the stream", f"labels of type {feature}, whose names are unknown before its end", "Pass `class_names`."
        )
    names = list(class_names) if class_names is not None else _names_of(dataset, several, is_text, separator)
    target = List(ClassLabel(names=names)) if several else ClassLabel(names=names)
    if is_text or (several and inner is feature):
        encode = _EncodeLabels(names, several, separator)
        features = dataset.features.copy()
        features["label"] = target
        return dataset.map(encode, features=features)
    return dataset.cast_column("label", target)


class _EncodeLabels:
    """Text labels to numbers; a class so that it can be pickled into loader workers."""

    def __init__(self, names, several, separator):
        self.number = {name: i for i, name in enumerate(names)}
        self.several, self.separator = several, separator

    def __call__(self, example):
        parts = _split_label(example["label"], self.several, self.separator)
        unknown = [part for part in parts if part not in self.number]
        if unknown:
            raise AnnotationError("the data set", f"the label {unknown[0]!r} is not in `class_names`", "Add it.")
        ids = [self.number[part] for part in parts]
        return {"label": ids if self.several else ids[0]}


def _split_label(value, several: bool, separator: str) -> list[str]:
    if isinstance(value, (list, tuple)):
        parts = [str(part) for part in value]
    elif several:
        parts = [part for part in str(value).split(separator) if part.strip()]
    else:
        parts = [str(value)]
    return [check_label(part, "the label column") for part in parts]


def _names_of(dataset, several: bool, is_text: bool, separator: str) -> list[str]:
    values = dataset.with_format(None)["label"]
    if is_text:
        return sorted({part for value in values for part in _split_label(value, several, separator)})
    numbers = [n for value in values for n in (value if isinstance(value, (list, tuple)) else [value])]
    if not numbers or min(numbers) < 0:
        raise AnnotationError("the data set", "negative or no labels", "Number the classes from 0.")
    return [str(number) for number in range(max(numbers) + 1)]


def _shared_names(parts, label_column, multi_label, separator) -> list[str] | None:
    """The names over all splits, so that a class has one number in each; None where the type already has them."""
    found: set[str] = set()
    numeric = 0
    for part in parts:
        feature = part.features[_column(part, label_column, _LABEL_NAMES, "label")]
        inner = getattr(feature, "feature", feature)
        if getattr(inner, "names", None) is not None:
            return None
        is_text = getattr(inner, "dtype", None) in ("string", "large_string")
        several = hasattr(feature, "feature") or bool(multi_label)
        renamed = _rename(part, {_column(part, label_column, _LABEL_NAMES, "label"): "label"}).select_columns("label")
        names = _names_of(renamed, several, is_text, separator)
        numeric = numeric if is_text else max(numeric, len(names))
        found |= set(names) if is_text else set()
    return [str(number) for number in range(numeric)] if numeric else sorted(found)
