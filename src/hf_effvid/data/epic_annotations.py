"""EPIC-Kitchens: ``EPIC_100_train.csv`` and ``EPIC_100_validation.csv`` as published, videos ``<video_id>.MP4`` or cut to ``<narration_id>.mp4``."""

import csv
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .annotations import AnnotationError, ClipRow, check_label, open_list, split_in_name
from .video_index import VideoIndex


logger = logging.getLogger(__name__)

TASKS = ("verb", "noun", "action")
_COLUMNS = ("video_id", "start_timestamp", "stop_timestamp", "verb_class", "noun_class")
_KEPT = ("narration_id", "participant_id", "video_id", "narration", "verb_class", "noun_class")
_NO_SPLIT = "train"


@dataclass(frozen=True)
class EpicSegment:
    """One line of the annotations.

    Attributes:
        at: file and line, for errors.
        split: "train" or "validation".
        start, end: seconds in the video.
        columns: the whole line as text.
    """

    at: str
    split: str
    start: float
    end: float
    columns: dict[str, str]

    def class_number(self, task: str) -> int:
        """Number of the verb or of the noun class.

        Raises:
            AnnotationError: it is no number.
        """
        text = (self.columns[f"{task}_class"] or "").strip()
        if not (text.isascii() and text.isdigit()):
            raise AnnotationError(self.at, f"the {task} class {text[:40]!r}", "Expected its number.")
        return int(text)


def is_epic_file(path: Path) -> bool:
    """Whether a file is a CSV with the columns of EPIC-Kitchens' annotations; its test set, without classes, is none."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        return not _missing_columns(path)
    except AnnotationError:
        return False


def epic_segments(source: Path) -> Iterator[EpicSegment]:
    """The lines of one CSV file, or of those of all splits in a folder; lists of classes and the test set beside them are passed over.

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    if source.is_file():
        missing = _missing_columns(source)
        if missing:
            raise AnnotationError(str(source), f"no columns {', '.join(missing)}", "Expected those of EPIC-Kitchens.")
        yield from _segments_of_file(source)
        return
    files = [file for file in sorted(source.glob("*.csv")) if is_epic_file(file)]
    if not files:
        raise AnnotationError(str(source), "no CSV file of EPIC-Kitchens", "Name the file, or its folder.")
    if len({_split_of(file) for file in files}) < len(files):
        names = ", ".join(file.name for file in files)
        raise AnnotationError(str(source), f"several files for one split: {names}", "Name the file itself.")
    for file in files:
        yield from _segments_of_file(file)


def read_epic_clips(source: Path, videos: VideoIndex, task: str) -> tuple[list[ClipRow], list[str] | None]:
    """Rows and class names of EPIC-Kitchens' classification: a row per segment, with its seconds in the whole video.

    Where a video of the segment alone lies there, ``<narration_id>.mp4``, it is read whole. Verbs and nouns are named and ordered by
    ``EPIC_100_verb_classes.csv`` and ``EPIC_100_noun_classes.csv`` beside the annotations; without these files they have numbers. An
    action is a pair that occurs in one of the annotation files of the folder, "open door" or "3,3", ordered by both numbers: those of
    all files, whichever is asked for, so that training and validation agree.

    Args:
        source: the file, or the folder with those of all splits.
        videos: where the videos are.
        task: "verb", "noun" or "action".

    Raises:
        AnnotationError: naming the file, the line and what to do.
    """
    folder = source if source.is_dir() else source.parent
    class_names = {kind: _class_names(folder, kind) for kind in ("verb", "noun")}
    rows, empty = [], 0
    for segment in epic_segments(source):
        if segment.end > segment.start:
            rows.append(_row(segment, videos, _label(segment, task, class_names)))
        else:
            empty += 1
    if empty:
        logger.warning("%s: %d segments of no length left out", source, empty)
    return rows, _action_names(source, folder, class_names) if task == "action" else class_names[task]


def _row(segment: EpicSegment, videos: VideoIndex, label: str) -> ClipRow:
    video, narration = (str(segment.columns.get(name) or "").strip() for name in ("video_id", "narration_id"))
    trimmed = videos.find(narration, source=segment.at) if narration else None
    path = trimmed or videos.find(video, source=segment.at) or videos.expected(video, ".MP4")
    row = ClipRow(path, [check_label(label, segment.at)], segment.split)
    row.extra = {name: str(segment.columns.get(name) or "") for name in _KEPT}
    if not trimmed:
        row.start, row.end = segment.start, segment.end
    return row


def _label(segment: EpicSegment, task: str, class_names: dict) -> str:
    if task != "action":
        return _name(segment, task, class_names[task])
    verb, noun = (_name(segment, kind, class_names[kind]) for kind in ("verb", "noun"))
    return f"{verb} {noun}" if all(class_names.values()) else f"{verb},{noun}"


def _name(segment: EpicSegment, kind: str, names: list[str] | None) -> str:
    number = segment.class_number(kind)
    if names is None:
        return str(number)
    if number >= len(names):
        raise AnnotationError(segment.at, f"the {kind} class {number}", f"The list of classes has {len(names)}.")
    return names[number]


def _action_names(source: Path, folder: Path, class_names: dict) -> list[str]:
    # training and validation files have pairs of their own: whoever names one of them still means the classes of both
    files = {file for file in folder.glob("*.csv") if is_epic_file(file)} | ({source} if source.is_file() else set())
    pairs = {
        (segment.class_number("verb"), segment.class_number("noun")): _label(segment, "action", class_names)
        for file in files
        for segment in _segments_of_file(file)
        if segment.end > segment.start
    }
    return [pairs[pair] for pair in sorted(pairs)]


def _class_names(folder: Path, kind: str) -> list[str] | None:
    """The column `key` of the list of classes; its second version where there are two."""
    files = sorted(folder.glob(f"EPIC_100_{kind}_classes*.csv"))
    if not files:
        return None
    names: dict[int, str] = {}
    with open_list(files[-1]) as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            at = f"{files[-1]}, line {reader.line_num}"
            number, name = str(row.get("id") or ""), str(row.get("key") or "")
            if not number.isdigit() or int(number) in names or name in names.values():
                raise AnnotationError(at, f"the class {number[:20]!r}, {name[:60]!r}", "Expected 'id,key', each once.")
            names[int(number)] = check_label(name, at)
    if sorted(names) != list(range(len(names))):
        raise AnnotationError(str(files[-1]), f"{len(names)} classes up to {max(names)}", "Expected 0 to K - 1.")
    return [names[number] for number in sorted(names)] or None


def _segments_of_file(file: Path) -> Iterator[EpicSegment]:
    with open_list(file) as handle:
        reader = csv.DictReader(handle)
        for columns in reader:
            at = f"{file}, line {reader.line_num}"
            start, end = (_clock(columns[name], at) for name in ("start_timestamp", "stop_timestamp"))
            yield EpicSegment(at, _split_of(file), start, end, columns)


def _missing_columns(file: Path) -> list[str]:
    with open_list(file) as handle:
        names = next(csv.reader([handle.readline(10_000)]), [])
    return [name for name in _COLUMNS if name not in names]


def _split_of(file: Path) -> str:
    return split_in_name(file.stem) or _NO_SPLIT


def _clock(text: str | None, at: str) -> float:
    """Seconds of "HH:MM:SS.ss"."""
    parts = (text or "").strip().split(":")
    try:
        seconds = math.fsum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
        if len(parts) > 3 or any(float(part) < 0 for part in parts) or not math.isfinite(seconds):
            raise ValueError
    except ValueError:
        raise AnnotationError(at, f"the time {str(text)[:40]!r}", "Expected HH:MM:SS.ss.") from None
    return seconds
