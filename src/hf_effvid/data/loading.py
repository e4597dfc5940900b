"""`load_video_dataset`: one door for every form in which labelled videos come.

Whatever comes in, a `datasets` data set goes out with a column "video" that is not decoded (``{"path", "bytes"}``, read
later by this package's own reader, so torchcodec is not needed) and a column "label" with the class names in its type.
No video is opened while listing.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..label_lists import read_labels
from .annotation_formats import detect_format, read_official
from .annotations import (
    ANNOTATION_EXTENSIONS,
    AnnotationError,
    ClipRow,
    canonical_split,
    is_standard_split,
    read_annotations,
)
from .folders import list_class_folders
from .hub_datasets import load_with_datasets, name_splits, normalize_columns


logger = logging.getLogger(__name__)

_METADATA_NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_NO_SPLIT = "train"  # what `datasets` calls the only split of data without splits


def load_video_dataset(
    source,
    split: str | None = None,
    streaming: bool = False,
    label_column: str | None = None,
    video_column: str | None = None,
    *,
    root=None,
    format: str | None = None,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    multi_label: bool | None = None,
    label_separator: str = "|",
    missing: str = "error",
    allow_outside_root: bool = False,
    num_shards: int = 16,
    **load_kwargs,
):
    """Load labelled videos from class folders, lists, or anything `datasets` can load.

    Args:
        source: one of

            * a folder with ``metadata.csv`` / ``.tsv`` / ``.jsonl`` (columns such as ``file_name,label,split``),
            * a folder with one list per split (``train.csv``, ``val.txt``, ...),
            * a folder of class folders, with or without ``train`` / ``val`` / ``test`` above them,
            * a list file: CSV, TSV, JSON lines or text lines ``path label``,
            * the official annotations of a public data set, see `format`: a file, or the folder with those of all splits,
            * a folder written by ``save_to_disk``, a local or Hub id that ``datasets.load_dataset`` opens (offline with
              ``HF_HUB_OFFLINE=1``), or a loaded `datasets` object.
        split: "train", "validation" (also "val"), "test" or another name; None: all of them in a dict. Splits under
            other names than these three are only loaded when asked for by name.
        streaming: give iterable data sets.
        label_column: the source's column with the label; the usual names, such as "label", are found without it.
        video_column: the source's column with the video or its path; the usual names are found without it.
        root: the folder that the paths of a list are relative to, or that holds the videos of official annotations;
            default: the folder of the list.
        format: the layout of official annotation files: "kinetics", "ssv2", "diving48", "activitynet" (one class per
            video), "activitynet-segments" (a row per segment), "epic100-verb", "epic100-noun", "epic100-action" (a row per
            segment), "hmdb51", "ucf101" ("hmdb51-2" is the second of its three splits). Default: recognised where there is no doubt.
        class_names: the classes in the order of their numbers, or a file with them (CSV "id,name" or JSON). Default: the order
            that official annotations give; otherwise all labels of the data set, sorted (numbers by value).
        multi_label: whether a video has several labels. Default: it has when labels are lists. With True, text
            labels are split at `label_separator`.
        label_separator: what separates the labels of one video in a list.
        missing: what to do with listed files that do not exist: "error", "skip" (with a warning) or "keep".
        allow_outside_root: let lists name files outside `root`. Only for lists that you wrote yourself.
        num_shards: shards of a local stream; as many loader workers can share it.
        **load_kwargs: passed to ``datasets.load_dataset`` (``name``, ``revision``, ``data_files``, ``token``, ...).

    Returns:
        A `datasets.DatasetDict` (`IterableDatasetDict` when streaming), or one data set when `split` is given. Columns:
        "video" (``Video(decode=False)``) and "label" (`ClassLabel`, or a list of it for several labels); "start" and
        "end" in seconds where the list has them; other columns of the list as text. `info.dataset_name` and `split` say
        what it is: reports name it so.

    Raises:
        AnnotationError: nothing usable was found; the message says what was expected.
        ValueError: a `format` or `missing` that does not exist.
    """
    if missing not in ("error", "skip", "keep"):
        raise ValueError(f"`missing` must be 'error', 'skip' or 'keep', got {missing!r}")
    wanted = canonical_split(split) if split else None
    columns = {"label_column": label_column, "video_column": video_column}
    class_names = _given_names(class_names)
    labels = {"class_names": class_names, "multi_label": multi_label, "label_separator": label_separator}
    if hasattr(source, "features") or isinstance(source, dict):
        return _pick(normalize_columns(source, **columns, **labels), wanted, source)

    if not os.fspath(source):
        raise AnnotationError("''", "an empty path", "Name a folder, a list file or a data set id.")
    format = format or annotation_format(source)
    if format:
        rows, official_names = read_official(source, format, root, allow_outside_root)
        class_names = class_names if class_names is not None else official_names
    else:
        rows = _local_rows(source, root, label_separator if multi_label else None, columns, allow_outside_root)
    if rows is None:
        loaded = load_with_datasets(source, split, streaming, load_kwargs)
        return name_splits(normalize_columns(loaded, **columns, **labels), _name_of(source), wanted)
    rows = _select_splits(rows, wanted, source)
    _check_names(rows, source)
    # The classes are those of all splits, and of videos that are missing too; files only matter in the split asked for.
    names = _class_order(rows, class_names, source)
    several = bool(multi_label) or any(len(row.labels) != 1 for row in rows)
    rows = _check_files([row for row in rows if wanted in (None, row.split)], missing, source)
    datasets = _build(rows, names, several)
    if streaming:
        datasets = {name: ds.to_iterable_dataset(num_shards=min(num_shards, len(ds))) for name, ds in datasets.items()}
    return _pick(name_splits(_as_dict(datasets, streaming), _name_of(source)), wanted, source)


def label_names(dataset) -> list[str]:
    """The class names of a data set with the columns of `load_video_dataset`, in the order of their numbers.

    Raises:
        AnnotationError: its labels have no names.
    """
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()))
    feature = (dataset.features or {}).get("label")
    feature = getattr(feature, "feature", feature)
    if getattr(feature, "names", None) is None:
        raise AnnotationError(
            "the data set", f"labels without names ({feature})", "Load it with `load_video_dataset(...)`."
        )
    return list(feature.names)


def is_multi_label(dataset) -> bool:
    """Whether a data set with the columns of `load_video_dataset` has lists of labels."""
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()))
    return hasattr((dataset.features or {}).get("label"), "feature")


def annotation_format(source) -> str | None:
    """The official annotation format of a file or folder (see `load_video_dataset`), or None; metadata tables come first."""
    path = Path(source).expanduser()
    return None if path.is_dir() and _metadata_file(path) else detect_format(path)


def _given_names(class_names) -> list[str] | None:
    """Class names as a list; from a file where a path is given."""
    if not isinstance(class_names, (str, os.PathLike)):
        return None if class_names is None else list(class_names)
    try:
        return list(read_labels(class_names).values())
    except (OSError, ValueError) as error:
        raise AnnotationError(
            str(class_names), str(error), "Expected the class names as CSV 'id,name' or JSON."
        ) from None


def _name_of(source) -> str:
    """The last part of a path or Hub id."""
    return os.path.basename(os.path.abspath(os.path.expanduser(source)))


def _check_names(rows: list[ClipRow], source) -> None:
    """Data sets hold text, and a name that is none would fail far from here."""
    for row in rows:
        try:
            row.path.encode()
        except UnicodeEncodeError:
            raise AnnotationError(
                str(source), f"the file name {ascii(row.path)} is not UTF-8", "Rename the file."
            ) from None


def _local_rows(source, root, separator, columns, allow_outside_root) -> list[ClipRow] | None:
    """The rows of a local folder or list file; None for what only `datasets` can open."""
    path = Path(source).expanduser()
    options = {
        "label_separator": separator,
        "label_column": columns["label_column"],
        "path_column": columns["video_column"],
        "allow_outside_root": allow_outside_root,
    }
    if path.is_file():
        if path.suffix.lower() not in ANNOTATION_EXTENSIONS:
            raise AnnotationError(str(path), "not a list", f"Expected one of {', '.join(ANNOTATION_EXTENSIONS)}.")
        return read_annotations(path, root=root, **options)
    if not path.is_dir():
        _refuse_missing_path(source)
        return None
    metadata = _metadata_file(path)
    if metadata:
        return read_annotations(metadata, root=root, **options)
    lists = _lists_per_split(path)
    if lists:
        return _split_lists(path, lists, root, options)
    if _is_for_datasets(path):
        return None
    nested = [(folder, _metadata_file(folder)) for folder in sorted(path.iterdir()) if is_standard_split(folder.name)]
    if any(file for _, file in nested):
        return [
            row
            for folder, file in nested
            if file
            for row in _with_split(read_annotations(file, root=root, **options), canonical_split(folder.name))
        ]
    return list_class_folders(path)[0]


def empty_class_folders(source) -> list[str]:
    """The class folders without a video, as "<split>/<class>"; none where a list says what belongs to the data set."""
    path = Path(source).expanduser()
    if not path.is_dir() or _metadata_file(path) or _lists_per_split(path) or _is_for_datasets(path):
        return []
    if annotation_format(path):
        return []
    rows, folders = list_class_folders(path)
    used = {(row.split, label) for row in rows for label in row.labels}
    return [
        f"{split}/{name}" if split else name
        for split, classes in folders.items()
        for name in classes
        if (split, name) not in used
    ]


def _metadata_file(folder: Path) -> Path | None:
    return next((folder / name for name in _METADATA_NAMES if (folder / name).is_file()), None)


def _lists_per_split(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in ANNOTATION_EXTENSIONS]
    return [file for file in files if is_standard_split(file.stem)]


def _split_lists(folder: Path, lists: list[Path], root, options) -> list[ClipRow]:
    rows = []
    for file in lists:
        rows += _with_split(read_annotations(file, root=root or folder, **options), canonical_split(file.stem))
    return rows


def _with_split(rows: list[ClipRow], split: str) -> list[ClipRow]:
    for row in rows:
        row.split = split
    return rows


def _is_for_datasets(path: Path) -> bool:
    """What `save_to_disk` wrote, or parquet, Arrow or tar files: `datasets` knows how to open it."""
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return True
    return any(next(path.glob(pattern), None) for pattern in ("**/*.parquet", "**/*.arrow", "**/*.tar"))


def _refuse_missing_path(source) -> None:
    text = str(source)
    is_id = isinstance(source, str) and re.fullmatch(r"[\w.\-]+(/[\w.\-]+)?", text) and not text.startswith(".")
    if not is_id or text.lower().endswith(ANNOTATION_EXTENSIONS):
        raise AnnotationError(text, "no such file or folder", "Check the path.")


def _select_splits(rows: list[ClipRow], wanted: str | None, source) -> list[ClipRow]:
    for row in rows:
        row.split = row.split or _NO_SPLIT
    found = sorted({row.split for row in rows})
    if wanted is not None and wanted not in found:
        raise AnnotationError(str(source), f"no split {wanted!r} among {found}", "Ask for one of these.")
    standard = [name for name in found if is_standard_split(name)]
    if wanted is not None and wanted not in standard:
        return [row for row in rows if row.split == wanted]
    if standard and len(standard) < len(found):
        others = [name for name in found if name not in standard]
        logger.warning("%s: left out the splits %s; ask for them by name", source, ", ".join(others))
    return [row for row in rows if row.split in standard] if standard else rows


def _check_files(rows: list[ClipRow], missing: str, source) -> list[ClipRow]:
    if missing == "keep":
        return rows
    absent = [row.path for row in rows if not os.path.isfile(row.path)]
    if not absent:
        return rows
    found = f"{len(absent)} of {len(rows)} listed files do not exist, such as {', '.join(absent[:3])}"
    if missing == "error" or len(absent) == len(rows):
        raise AnnotationError(str(source), found, "Check `root`, or pass `missing='skip'`.")
    logger.warning("%s: %s; left out", source, found)
    gone = set(absent)
    return [row for row in rows if row.path not in gone]


def _class_order(rows: list[ClipRow], class_names, source) -> list[str]:
    used = {label for row in rows for label in row.labels}
    numbers = used and all(re.fullmatch(r"\d{1,6}", label) for label in used)
    if class_names is not None:
        names = list(class_names)
        unknown = sorted(used - set(names))
        if unknown and not (numbers and max(map(int, used)) < len(names)):
            raise AnnotationError(
                str(source), f"labels that are not in `class_names`: {', '.join(unknown[:5])}", "Add or correct them."
            )
        return names
    if numbers:
        # Lists with numbers mean these numbers: a number that happens not to occur must not shift those above it.
        return [str(number) for number in range(max(map(int, used)) + 1)]
    return sorted(used)


def _build(rows: list[ClipRow], names: list[str], multi_label: bool) -> dict:
    from datasets import ClassLabel, Dataset, Features, List, Value, Video

    number = {name: i for i, name in enumerate(names)}
    if not all(label in number for row in rows for label in row.labels):
        number = {str(i): i for i in range(len(names))}  # the list has numbers, `class_names` gives them names
    label = ClassLabel(names=names)
    features = {"video": Video(decode=False), "label": List(label) if multi_label else label}
    timed = any(row.start is not None or row.end is not None for row in rows)
    if timed:
        features |= {"start": Value("float64"), "end": Value("float64")}
    extras = [key for key in rows[0].extra if key not in features]
    features |= {key: Value("string") for key in extras}

    built = {}
    for split in sorted({row.split for row in rows}, key=_split_order):
        part = [row for row in rows if row.split == split]
        ids = [[number[name] for name in row.labels] for row in part]
        columns = {
            "video": [{"path": row.path, "bytes": None} for row in part],
            "label": ids if multi_label else [one[0] for one in ids],
        }
        if timed:
            columns |= {"start": [row.start for row in part], "end": [row.end for row in part]}
        columns |= {key: [row.extra.get(key, "") for row in part] for key in extras}
        built[split] = Dataset.from_dict(columns, features=Features(features))
    return built


def _split_order(name: str) -> tuple:
    order = ("train", "validation", "test")
    return (order.index(name) if name in order else len(order), name)


def _as_dict(parts: dict, streaming: bool):
    from datasets import DatasetDict, IterableDatasetDict

    return IterableDatasetDict(parts) if streaming else DatasetDict(parts)


def _pick(loaded, wanted: str | None, source):
    if wanted is None or not isinstance(loaded, dict):
        return loaded
    by_name = {canonical_split(name): value for name, value in loaded.items()}
    if wanted not in by_name:
        raise AnnotationError(
            str(source)[:200], f"no split {wanted!r} among {sorted(loaded)}", "Ask for one of these."
        )
    return by_name[wanted]
