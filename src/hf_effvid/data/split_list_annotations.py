"""HMDB51 and UCF101: three train / test splits in text files, videos in class folders."""

import re
from pathlib import Path

from .annotations import AnnotationError, ClipRow, check_label, open_list, resolve_inside
from .video_index import VideoIndex


_HMDB_FILE = re.compile(r"^(?P<label>.+)_test_split(?P<number>[123])\.txt$")
_HMDB_LINE = re.compile(r"^(?P<name>.*\S)\s+(?P<use>[012])$")
_HMDB_SPLITS = {"1": "train", "2": "test"}  # 0: not used in this split
_UCF_FILE = re.compile(r"^(?P<split>train|test)list0(?P<number>[123])\.txt$")


def is_hmdb51(path: Path) -> bool:
    """Whether a folder holds HMDB51's ``<class>_test_split<n>.txt``, or a file is one of them."""
    return any(_HMDB_FILE.match(name) for name in _names(path))


def is_ucf101(path: Path) -> bool:
    """Whether a folder holds UCF101's ``trainlist0<n>.txt``, or a file is one of its lists."""
    return any(_UCF_FILE.match(name) for name in _names(path))


def read_hmdb51(source: Path, videos: VideoIndex, number: int, allow_outside_root: bool) -> list[ClipRow]:
    """Rows of split `number` (1 to 3): all ``<class>_test_split<number>.txt`` in the folder, or one such file.

    Lines are ``<video> <use>``; use 1 is training, 2 is test, 0 takes no part.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    rows = []
    for file in [source] if source.is_file() else sorted(source.iterdir()):
        found = _HMDB_FILE.match(file.name)
        if found is None or (source.is_dir() and int(found["number"]) != number):
            continue
        for at, line in _lines(file):
            parts = _HMDB_LINE.match(line)
            if parts is None:
                raise AnnotationError(at, f"{line[:120]!r}", "Expected '<video> 0', '<video> 1' or '<video> 2'.")
            path = _locate(f"{found['label']}/{parts['name']}", videos, at, allow_outside_root)
            if parts["use"] in _HMDB_SPLITS:
                label = check_label(found["label"], at)
                rows.append(ClipRow(path=path, labels=[label], split=_HMDB_SPLITS[parts["use"]]))
    return rows


def read_ucf101(
    source: Path, videos: VideoIndex, number: int, allow_outside_root: bool
) -> tuple[list[ClipRow], list[str] | None]:
    """Rows and class names of split `number` (1 to 3): ``trainlist0<number>.txt`` and ``testlist0<number>.txt``, or one of them.

    Lines are ``<class>/<video>``, in the training list followed by the number of the class, which counts from 1 as in
    ``classInd.txt``. Our class numbers count from 0 in the order of that file.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    folder = source if source.is_dir() else source.parent
    names = _ucf_classes(folder / "classInd.txt")
    files = [source] if source.is_file() else [folder / f"{split}list0{number}.txt" for split in ("train", "test")]
    rows = []
    for file in (file for file in files if file.is_file()):
        found = _UCF_FILE.match(file.name)
        for at, line in _lines(file):
            path, _, given = line.partition(" ")
            label, separator, _ = path.partition("/")
            if not separator:
                raise AnnotationError(
                    at, f"{line[:120]!r}", "Expected '<class>/<video>', and the class number or nothing."
                )
            if names and given.strip() and names.get(given.strip()) != label:
                raise AnnotationError(
                    at,
                    f"class number {given.strip()[:20]} for {label[:60]!r}",
                    f"It is not that of {folder / 'classInd.txt'}.",
                )
            path = _locate(path, videos, at, allow_outside_root)
            rows.append(ClipRow(path=path, labels=[check_label(label, at)], split=found["split"] if found else None))
    return rows, list(names.values()) if names else None


def _ucf_classes(file: Path) -> dict[str, str]:
    names = {}
    for at, line in _lines(file) if file.is_file() else ():
        number, _, name = line.partition(" ")
        if not number.isdigit() or int(number) != len(names) + 1:
            raise AnnotationError(at, f"{line[:120]!r}", "Expected '<number> <class>', counted from 1.")
        names[number] = check_label(name, at)
    return names


def _locate(path: str, videos: VideoIndex, at: str, allow_outside_root: bool) -> str:
    """The path as listed, or where the video of that name really lies."""
    listed = resolve_inside(path, videos.root, at, allow_outside_root)
    if Path(listed).is_file():
        return listed
    return videos.find(Path(listed).stem, source=at) or listed


def _lines(file: Path):
    with open_list(file) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():  # HMDB51 has videos whose names begin with "#": nothing is a comment
                yield f"{file}, line {number}", line.strip()


def _names(path: Path) -> list[str]:
    return [entry.name for entry in path.iterdir()] if path.is_dir() else [path.name]
