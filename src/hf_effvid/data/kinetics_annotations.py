"""Kinetics-400, -600 and -700: CSV files ``label,youtube_id,time_start,time_end,split`` as DeepMind publishes them."""

import csv
import logging
from pathlib import Path

from .annotations import (
    PATH_COLUMNS,
    AnnotationError,
    ClipRow,
    canonical_split,
    check_label,
    open_list,
    split_in_name,
)
from .video_index import VideoIndex


logger = logging.getLogger(__name__)

_COLUMNS = {"youtube_id", "time_start", "time_end"}


def is_kinetics_file(path: Path) -> bool:
    """Whether a file is a CSV with the columns of Kinetics and none with paths."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            names = _names(next(csv.reader([handle.readline(10_000)]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return _COLUMNS <= set(names) and not set(names) & set(PATH_COLUMNS)


def read_kinetics(source: Path, videos: VideoIndex) -> list[ClipRow]:
    """Rows of one CSV, or of all those in a folder.

    A clip is looked for as ``<youtube_id>_<start>_<end>`` with six digits each, in any sub-folder, as the usual
    download scripts write it. Where only ``<youtube_id>`` is there, the whole YouTube video, its part from `time_start` to
    `time_end` is meant. Files without labels (the held-out test sets) are left out.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    if source.is_file():
        return _read_file(source, videos)
    rows = []
    for file in sorted(path for path in source.iterdir() if is_kinetics_file(path)):
        try:
            rows += _read_file(file, videos)
        except _NoLabels:
            logger.warning("%s has no labels (a held-out test set); left out", file)
    return rows


class _NoLabels(AnnotationError):
    pass


def _read_file(file: Path, videos: VideoIndex) -> list[ClipRow]:
    rows = []
    with open_list(file) as handle:
        reader = csv.reader(handle)
        names = _names(next(reader, []))
        missing = sorted(_COLUMNS - set(names))
        if missing:
            raise AnnotationError(
                str(file),
                f"no columns {missing} among {names}",
                "Expected label,youtube_id,time_start,time_end,split.",
            )
        if "label" not in names:
            raise _NoLabels(str(file), "no labels (a held-out test set)", "Load the training or validation file.")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            source = f"{file}, line {reader.line_num}"
            if len(cells) < len(names):
                raise AnnotationError(source, f"{len(cells)} of {len(names)} columns", "Complete the row.")
            rows.append(_row(dict(zip(names, cells, strict=False)), source, file, videos))
    return rows


def _row(record: dict, source: str, file: Path, videos: VideoIndex) -> ClipRow:
    youtube_id = record["youtube_id"].strip()
    start, end = (_second(record[name], source) for name in ("time_start", "time_end"))
    split = record.get("split", "").strip()
    row = ClipRow(
        path="",
        labels=[check_label(record["label"], source)],
        split=canonical_split(split) if split else split_in_name(file.stem),
        extra={"youtube_id": youtube_id},
    )
    clip = f"{youtube_id}_{start:06d}_{end:06d}"
    trimmed, whole = (videos.find(name, source=source) for name in (clip, youtube_id))
    row.path = trimmed or whole or videos.expected(clip)
    if whole and not trimmed:
        row.start, row.end = float(start), float(end)
    return row


def _second(text: str, source: str) -> int:
    try:
        second = int(float(text))
    except (ValueError, OverflowError):
        second = -1
    if second < 0:
        raise AnnotationError(source, f"the time {text[:40]!r}", "Times are whole seconds, 0 or more.")
    return second


def _names(cells: list[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]
