"""Diving-48: ``Diving48_V2_train.json`` / ``_test.json`` and ``Diving48_vocab.json`` as published, videos ``<vid_name>.mp4``."""

import logging
from pathlib import Path

from .annotations import AnnotationError, ClipRow, check_label, one_file_per_split, read_json, split_in_name
from .video_index import VideoIndex


logger = logging.getLogger(__name__)

VOCABULARY = "Diving48_vocab.json"


def read_diving48(source: Path, videos: VideoIndex) -> tuple[list[ClipRow], list[str] | None]:
    """Rows and class names of one JSON file, or of those of all splits in a folder.

    A class is named by the four parts of its dive in the vocabulary file beside the annotations, joined by "_"
    ("Back_15som_05Twis_FREE"); without that file by its number. `start_frame` and `end_frame` are kept as text: the
    videos of the official archive are already cut to them.

    Raises:
        AnnotationError: naming the file, the entry and what to do.
    """
    folder = source if source.is_dir() else source.parent
    names = _class_names(folder / VOCABULARY)
    files = [source] if source.is_file() else one_file_per_split(source, "vid_name")
    rows = [row for file in files for row in _rows(file, names, videos)]
    uncut = sum(row.extra["start_frame"] not in ("0", "") for row in rows)
    if uncut:
        logger.warning("%s: %d clips start after frame 0 of their file; files are read whole", source, uncut)
    return rows, names


def _rows(file: Path, names: list[str] | None, videos: VideoIndex):
    entries = read_json(file)
    if not isinstance(entries, list):
        raise AnnotationError(str(file), f"a {type(entries).__name__}", "Expected the list of Diving-48.")
    for number, entry in enumerate(entries):
        source = f"{file}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("vid_name"), str):
            raise AnnotationError(source, f"{str(entry)[:80]!r}", 'Expected {"vid_name": ..., "label": ...}.')
        label = entry.get("label")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(names or range(1000)):
            raise AnnotationError(source, f"the label {label!r}", f"Labels are numbers from 0, as in {VOCABULARY}.")
        yield ClipRow(
            path=videos.find(entry["vid_name"], source=source) or videos.expected(entry["vid_name"]),
            labels=[names[label] if names else str(label)],
            split=split_in_name(file.stem),
            extra={key: str(entry.get(key, "")) for key in ("start_frame", "end_frame")},
        )


def _class_names(file: Path) -> list[str] | None:
    if not file.is_file():
        return None
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(entry, (list, str)) for entry in entries):
        raise AnnotationError(str(file), f"{str(entries)[:80]!r}", "Expected a list with the parts of each dive.")
    return [
        check_label(entry if isinstance(entry, str) else "_".join(map(str, entry)), f"{file}, entry {number}")
        for number, entry in enumerate(entries)
    ]
