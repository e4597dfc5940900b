"""THUMOS14's text files and tables and EPIC-Kitchens' tables, read into rows (where, video, split, label, start, end)."""

import csv
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path

from .annotations import AnnotationError, canonical_split, check_label, open_list, split_in_name
from .epic_annotations import epic_segments


logger = logging.getLogger(__name__)

_THUMOS_FILE = re.compile(r"(?P<label>.+?)(?:_(?P<split>val|test))?\.txt")
_THUMOS_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\d+(?:\.\d+)?)\s+(?P<end>\d+(?:\.\d+)?)")
_AMBIGUOUS = "ambiguous"  # THUMOS14's list of segments in which a judge could see anything

THUMOS_COLUMNS = ("video", "type", "start", "end")

Row = tuple[str, str, str, str, float, float]


def read_thumos(source: Path) -> Iterator[Row]:
    """Rows of `<class>_val.txt`, `<class>_test.txt` or `<class>.txt`, all in a folder or one, or of a table of the same as detectors
    distribute it (`val_Annotation.csv`: video, type, start, end in seconds); "Ambiguous" is left out.

    THUMOS14's detectors are trained on its "validation" split: it is called so here, too.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    left_out = 0
    for at, video, split, label, start, end in (
        _thumos_table(source) if source.suffix == ".csv" else _thumos_texts(source)
    ):
        if label.lower() == _AMBIGUOUS:
            left_out += 1
        else:
            split = canonical_split(split or split_in_name(video) or "train")
            yield at, video, split, check_label(label, at), start, end
    if left_out:
        logger.warning("%s: %d ambiguous segments left out", source, left_out)


def _thumos_table(file: Path) -> Iterator[Row]:
    with open_list(file) as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            at = f"{file}, line {number}"
            try:
                start, end = float(row["start"]), float(row["end"])
            except (KeyError, TypeError, ValueError):
                start = end = math.nan
            if not (row.get("video") and math.isfinite(start) and math.isfinite(end)):
                found = {name: row.get(name) for name in THUMOS_COLUMNS}
                raise AnnotationError(at, f"{found}", "Expected a video, a type, and start and end in seconds.")
            yield at, row["video"], "", row.get("type") or "", start, end


def _thumos_texts(source: Path) -> Iterator[Row]:
    files = sorted(source.glob("*.txt")) if source.is_dir() else [source]
    for file in files:
        named = _THUMOS_FILE.fullmatch(file.name)
        if named is None or named["label"].lower() in ("readme", "license", "class_list"):
            continue
        with open_list(file) as handle:
            for number, line in enumerate(handle, start=1):
                if not line.strip():
                    continue
                at = f"{file}, line {number}"
                parts = _THUMOS_LINE.fullmatch(line.strip())
                if parts is None:
                    raise AnnotationError(
                        at, f"{line.strip()[:120]!r}", "Expected '<video> <start> <end>' in seconds."
                    )
                yield (
                    at,
                    parts["video"],
                    named["split"] or "",
                    named["label"],
                    float(parts["start"]),
                    float(parts["end"]),
                )


def read_epic(source: Path, task: str) -> Iterator[Row]:
    """Rows of EPIC-Kitchens CSV files; labels are the numbers of verb or noun classes.

    Args:
        source: a file, or a folder with one per split (`EPIC_100_train.csv`, `EPIC_100_validation.csv`).
        task: "verb" or "noun".

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    for segment in epic_segments(source):
        video, label = (segment.columns["video_id"] or "").strip(), str(segment.class_number(task))
        yield segment.at, video, segment.split, label, segment.start, segment.end
