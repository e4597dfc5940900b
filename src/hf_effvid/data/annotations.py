"""Annotation files: lists of "path label" in the forms people have them, read into plain rows.

An annotation file is text that may come from a stranger. So a path in it must stay inside the data set's folder, a
label must be printable text, and whatever is wrong is reported as `AnnotationError` with the file and the line.
Nothing here opens a video.
"""

import csv
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..video_files import VIDEO_SUFFIXES


ANNOTATION_EXTENSIONS = (".csv", ".tsv", ".txt", ".list", ".jsonl")

PATH_COLUMNS = ("file_name", "filename", "file", "path", "filepath", "file_path", "video", "video_path", "clip")
_LABEL_COLUMNS = ("label", "labels", "class", "classes", "class_name", "category", "action", "target")
_SPLIT_COLUMNS = ("split", "subset", "partition", "set")
START_COLUMNS = ("start", "start_time", "time_start", "t_start")
END_COLUMNS = ("end", "end_time", "time_end", "t_end", "stop")
_SPLIT_ALIASES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "validate"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
_MAX_LABEL_LENGTH = 300
_SNIFFED_BYTES = 2**20  # the taxonomy of ActivityNet stands before its database
_PATH_THEN_LABEL = re.compile(
    r"^(?P<path>.*?(?:" + "|".join(re.escape(e) for e in VIDEO_SUFFIXES) + r"))(?:\s*[,;\t]\s*|\s+)(?P<label>\S.*)$",
    re.IGNORECASE,
)


class AnnotationError(ValueError):
    """An annotation file, or a label or path in it, cannot be used.

    Attributes:
        source: the file, with the line where one is known.
        found: what was found.
        hint: what to do.
    """

    def __init__(self, source: str, found: str, hint: str):
        super().__init__(f"{source}: {found}. {hint}")
        self.source, self.found, self.hint = source, found, hint

    def __reduce__(self):
        return type(self), (self.source, self.found, self.hint)


@dataclass
class ClipRow:
    """One labelled video of a list: where it is, what it shows, which part of it is meant."""

    path: str
    labels: list[str]
    split: str | None = None
    start: float | None = None
    end: float | None = None
    extra: dict[str, str] = field(default_factory=dict)


def canonical_split(name: str) -> str:
    """The name `datasets` uses for a split: "val", "valid" and "dev" are "validation", and so on; others unchanged."""
    lowered = name.strip().lower()
    for canonical, aliases in _SPLIT_ALIASES.items():
        if lowered in aliases:
            return canonical
    return name.strip()


def is_standard_split(name: str) -> bool:
    """Whether the name means train, validation or test."""
    return canonical_split(name) in _SPLIT_ALIASES


def check_label(label: str, source: str) -> str:
    """Return a label without surrounding blanks; refuse one that is empty, endless or holds control characters."""
    label = label.strip()
    if not label:
        raise AnnotationError(source, "an empty label", "Give every video a label.")
    if len(label) > _MAX_LABEL_LENGTH:
        raise AnnotationError(
            source, f"a label of {len(label)} characters", f"Use at most {_MAX_LABEL_LENGTH} characters."
        )
    # Format characters reorder or hide text on a screen; the two joiners are needed to write Persian or Hindi.
    if not label.replace("\u200c", "").replace("\u200d", "").isprintable():
        raise AnnotationError(
            source, f"control characters in the label {label[:60]!r}", "Remove them: labels are printed and plotted."
        )
    return label


def resolve_inside(path: str, root: Path, source: str, allow_outside_root: bool = False) -> str:
    """Make a listed path absolute, and refuse one that leaves the data set's folder.

    Args:
        path: as written in the list; relative to `root`, or absolute.
        root: the folder that listed paths must stay in.
        source: file and line, for the error.
        allow_outside_root: take any local path. Only for lists that you wrote yourself.

    Raises:
        AnnotationError: a URL, a null byte, or a path outside `root`.
    """
    if "\0" in path or "://" in path:
        raise AnnotationError(
            source, f"{path[:120]!r} is not a local path", "Download the file and list where it lies."
        )
    if "\\" in path and not os.path.exists(os.path.join(root, path)):
        path = path.replace("\\", "/")  # a list written on Windows
    root_text = os.path.abspath(root)
    resolved = os.path.abspath(os.path.join(root_text, path))
    outside = os.path.commonpath([root_text, resolved]) != root_text
    if not allow_outside_root and (outside or resolved == root_text):
        raise AnnotationError(
            source,
            f"the path {path[:120]!r} leaves the data set's folder {root_text}",
            "List paths inside it, name the folder they are in with `root=`, or pass `allow_outside_root=True` if you "
            "wrote the list yourself.",
        )
    return resolved


def read_annotations(
    file,
    root=None,
    label_separator: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    allow_outside_root: bool = False,
) -> list[ClipRow]:
    """Read a list of labelled videos.

    Understood are: CSV, TSV and semicolon-separated files with a header (columns such as ``file_name``, ``path`` or
    ``video``; ``label``; optionally ``split``, ``start`` and ``end`` in seconds; other columns are kept as text) or
    without one (path, label); text lines ``path label`` or ``path,label`` in which paths and labels may hold blanks;
    JSON lines with the same names.

    Args:
        file: the annotation file.
        root: the folder that listed paths are relative to, and must stay in; default: the file's folder.
        label_separator: what separates several labels of one video, such as "|"; None: one label per video.
        label_column: the column with the label, where it has an unusual name.
        path_column: the column with the path, where it has an unusual name.
        allow_outside_root: see `resolve_inside`.

    Returns:
        The rows in the order of the file.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    file = Path(file)
    root = file.parent if root is None else Path(root)
    rows = []
    for line, record in _records(file, path_column, label_column):
        source = f"{file}, line {line}"
        rows.append(_make_row(record, root, source, label_separator, label_column, path_column, allow_outside_root))
    if not rows:
        raise AnnotationError(str(file), "no rows", "Write one 'path label' per line.")
    return rows


def _records(file: Path, path_column, label_column) -> Iterator[tuple[int, dict]]:
    with open_list(file) as handle:
        if file.suffix.lower() == ".jsonl":
            yield from _json_records(file, handle)
            return
        first = handle.readline()
        handle.seek(0)
        delimiter = _delimiter(first)
        if delimiter is None or file.suffix.lower() not in (".csv", ".tsv"):
            header = delimiter and _is_header(next(csv.reader([first], delimiter=delimiter)))
            if not header:
                yield from _text_records(file, handle)
                return
        yield from _table_records(file, handle, delimiter, (path_column, label_column))


@contextmanager
def open_list(file: Path):
    """Open a text file of a data set; what is wrong with it becomes an `AnnotationError`."""
    try:
        # newline="": the csv module wants to see line ends itself; utf-8-sig: spreadsheets write a byte-order mark.
        with open(file, encoding="utf-8-sig", newline="") as handle:
            yield handle
    except UnicodeDecodeError as error:
        raise AnnotationError(str(file), f"not UTF-8 text ({error.reason})", "Save the list as UTF-8.") from None
    except csv.Error as error:
        raise AnnotationError(str(file), f"not a readable table ({error})", "Check quotes and separators.") from None
    except OSError as error:
        raise AnnotationError(str(file), f"cannot be opened ({error.strerror})", "Check the path.") from None


def read_json(file: Path):
    """The content of a JSON file.

    Raises:
        AnnotationError: it cannot be opened, or is no JSON.
    """
    with open_list(file) as handle:
        try:
            return json.load(handle)
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise AnnotationError(
                str(file), f"not JSON ({type(error).__name__}: {error})"[:200], "Check it."
            ) from None


def sniff(file: Path, *words: str) -> bool:
    """Whether a JSON file has all of these words near its beginning."""
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        with open(file, "rb") as handle:
            head = handle.read(_SNIFFED_BYTES)
    except OSError:
        return False
    return all(word.encode() in head for word in words)


def split_in_name(stem: str) -> str | None:
    """The split that a file's name speaks of ("Diving48_V2_train" is "train"), or None."""
    words = re.split(r"[^a-z]+", stem.lower())
    return next((canonical_split(word) for word in reversed(words) if is_standard_split(word)), None)


def one_file_per_split(folder: Path, word: str) -> list[Path]:
    """The JSON files of a folder that speak of `word`.

    Raises:
        AnnotationError: two of them for one split.
    """
    files = [file for file in sorted(folder.iterdir()) if sniff(file, f'"{word}"')]
    splits = [split_in_name(file.stem) for file in files]
    if len(set(splits)) < len(splits):
        raise AnnotationError(
            str(folder),
            f"several files for one split: {', '.join(file.name for file in files)}",
            "Name the file itself.",
        )
    return files


def _json_records(file: Path, handle) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(handle, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise AnnotationError(f"{file}, line {number}", "not a JSON object", "Write one object per line.")
        yield number, {str(key).lower(): value for key, value in record.items()}


def _text_records(file: Path, handle) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(handle, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _PATH_THEN_LABEL.match(line)
        if match:
            path, label = match["path"], match["label"]
        else:
            parts = re.split(r"[,;\t]", line, maxsplit=1) if _delimiter(line) else line.rsplit(None, 1)
            if len(parts) != 2:
                raise AnnotationError(f"{file}, line {number}", f"{line[:120]!r}", "Expected 'path label'.")
            path, label = parts
        yield number, {"path": path.strip().strip('"'), "label": label.strip().strip('"')}


def _table_records(file: Path, handle, delimiter: str, named: tuple) -> Iterator[tuple[int, dict]]:
    reader = csv.reader(handle, delimiter=delimiter)
    first = next(reader)
    names = [cell.strip().lower() for cell in first]
    wanted = [name.lower() for name in named if name]
    if _is_header(first) or any(name in names for name in wanted):
        if len(set(names)) != len(names):
            raise AnnotationError(str(file), f"repeated columns in {names}", "Give every column its own name.")
    else:
        names = ["path", "label"]
        yield 1, dict(zip(names, first, strict=False))
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(names):
            raise AnnotationError(
                f"{file}, line {reader.line_num}", f"{len(cells)} of {len(names)} columns", "Complete the row."
            )
        yield reader.line_num, dict(zip(names, cells, strict=False))


def _delimiter(line: str) -> str | None:
    counts = {mark: line.count(mark) for mark in (",", ";", "\t")}
    best = max(counts, key=counts.get)
    return best if counts[best] else None


def _is_header(cells: list[str]) -> bool:
    names = {cell.strip().lower() for cell in cells}
    return bool(names & set(PATH_COLUMNS)) or bool(names & set(_LABEL_COLUMNS)) and not _looks_like_video(cells[0])


def _looks_like_video(text: str) -> bool:
    return text.strip().lower().endswith(VIDEO_SUFFIXES)


def _make_row(record, root, source, label_separator, label_column, path_column, allow_outside_root) -> ClipRow:
    path_key = _find(record, path_column, PATH_COLUMNS)
    label_key = _find(record, label_column, _LABEL_COLUMNS)
    if path_key is None or label_key is None:
        missing = "path" if path_key is None else "label"
        raise AnnotationError(
            source,
            f"no column for the {missing} among {sorted(record)}",
            f"Name it {(PATH_COLUMNS if path_key is None else _LABEL_COLUMNS)[0]!r} or pass `{missing}_column`.",
        )
    path = record[path_key]
    if not isinstance(path, str) or not path.strip():
        raise AnnotationError(source, f"the path {path!r}", "Give every row the path of a video.")
    split_key, start_key, end_key = (
        _find(record, None, names) for names in (_SPLIT_COLUMNS, START_COLUMNS, END_COLUMNS)
    )
    split = str(record[split_key]).strip() if split_key else ""
    used = {path_key, label_key, split_key, start_key, end_key}
    return ClipRow(
        path=resolve_inside(path.strip(), root, source, allow_outside_root),
        labels=_labels(record[label_key], source, label_separator),
        split=canonical_split(split) if split else None,
        start=_seconds(record.get(start_key), source),
        end=_seconds(record.get(end_key), source),
        extra={key: "" if value is None else str(value) for key, value in record.items() if key not in used},
    )


def _find(record: dict, wanted: str | None, names: tuple[str, ...]) -> str | None:
    if wanted is not None:
        return wanted.lower() if wanted.lower() in record else None
    return next((name for name in names if name in record), None)


def _labels(value, source: str, separator: str | None) -> list[str]:
    if isinstance(value, list):
        parts = [str(part) for part in value]
    elif separator and isinstance(value, str):
        parts = [part for part in value.split(separator) if part.strip()]  # no label at all is a valid answer here
    else:
        parts = [str(value)]
    return [check_label(part, source) for part in parts]


def _seconds(value, source: str) -> float | None:
    if value is None or str(value).strip() == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise AnnotationError(source, f"the time {value!r}", "Times are seconds from the start, 0 or more.")
    return seconds
