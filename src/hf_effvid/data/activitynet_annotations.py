"""ActivityNet-1.3: ``activity_net.v1-3.min.json`` as published, videos ``v_<id>.*`` or ``<id>.*``."""

import logging
import math
from pathlib import Path

from .annotations import AnnotationError, ClipRow, canonical_split, check_label, read_json, sniff
from .video_index import VideoIndex


logger = logging.getLogger(__name__)


def is_activitynet_file(path: Path) -> bool:
    """Whether a JSON file has the layout of ActivityNet's."""
    return sniff(path, '"database"', '"subset"')


def read_activitynet(source: Path, videos: VideoIndex, segments: bool = False) -> list[ClipRow]:
    """Rows of the JSON file, or of the one in a folder.

    The test set has no labels and is left out.

    Args:
        source: the file or its folder.
        videos: where the videos are.
        segments: one row per annotated segment, with "start" and "end" in seconds; otherwise one per video, whose class is
            the one annotated for the longest time (nearly every video has only one).

    Raises:
        AnnotationError: naming the file, the video and what to do.
    """
    file = source if source.is_file() else _only_file(source)
    content = read_json(file)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError(str(file), "no database", 'Expected {"database": {<video>: {"subset": ...}}}.')
    rows, unlabelled, several, empty = [], 0, 0, 0
    for name, entry in database.items():
        at = f"{file}, video {name[:60]!r}"
        parts = _parts(entry, at)
        if not parts:
            unlabelled += 1
            continue
        path = videos.find(f"v_{name}", name, source=at) or videos.expected(f"v_{name}")
        common = {"path": path, "split": canonical_split(str(entry.get("subset", ""))) or None}
        if not segments:
            several += len({label for label, _, _ in parts}) > 1
            rows.append(ClipRow(labels=[_longest(parts)], extra={"video_id": name}, **common))
            continue
        for label, start, end in parts:
            if end > start:
                rows.append(ClipRow(labels=[label], start=start, end=end, extra={"video_id": name}, **common))
            else:
                empty += 1
    for count, what in (
        (unlabelled, "videos without annotations left out (the test set has none)"),
        (several, "videos with several classes: the longest counts"),
        (empty, "segments of no length left out"),
    ):
        if count:
            logger.warning("%s: %d %s", file, count, what)
    return rows


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if is_activitynet_file(path))
    if len(files) != 1:
        raise AnnotationError(str(folder), f"{len(files)} files of ActivityNet's layout", "Name the file itself.")
    return files[0]


def _parts(entry, at: str) -> list[tuple[str, float, float]]:
    """(label, start, end) of every annotation, cut to the video's duration."""
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations", []), list):
        raise AnnotationError(at, f"{str(entry)[:80]!r}", 'Expected {"subset": ..., "annotations": [...]}.')
    duration = entry.get("duration")
    latest = float(duration) if isinstance(duration, (int, float)) and duration > 0 else math.inf
    parts = []
    for annotation in entry.get("annotations", []):
        segment = annotation.get("segment") if isinstance(annotation, dict) else None
        if not (isinstance(segment, list) and len(segment) == 2 and all(_is_second(value) for value in segment)):
            raise AnnotationError(at, f"the segment {str(segment)[:60]!r}", "Expected [start, end] in seconds.")
        start, end = (min(max(float(value), 0.0), latest) for value in segment)
        parts.append((check_label(str(annotation.get("label", "")), at), start, end))
    return parts


def _is_second(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _longest(parts: list[tuple[str, float, float]]) -> str:
    total: dict[str, float] = {}
    for label, start, end in parts:
        total[label] = total.get(label, 0.0) + end - start
    return max(total, key=total.get)
