"""Annotations of temporal action detection: which actions a video shows, from when to when, in the forms people have them.

Nothing is repaired while reading: an annotation without length, one that overlaps with another, or one beyond the end of its video is
kept as it was written, reported by `check_detection_data`, and left out of training by `AnnotatedVideo.usable`.

| format           | files                                                                                                     |
| ---------------- | --------------------------------------------------------------------------------------------------------- |
| `activitynet`    | JSON `{"database": {video: {"subset", "duration", "annotations": [{"segment", "label"}]}}}`: ActivityNet-1.3, |
|                  | FineAction, and THUMOS14 and MultiTHUMOS as detectors distribute them                                     |
| `thumos14`       | a folder of `<class>_val.txt`, `<class>_test.txt` (MultiTHUMOS: `<class>.txt`), lines `video start end`   |
| `epic-verb`,     | EPIC-Kitchens CSV with `video_id`, `start_timestamp`, `stop_timestamp`, `verb_class`, `noun_class`; a file, |
| `epic-noun`      | or a folder with `EPIC_100_train.csv` and `EPIC_100_validation.csv`                                       |
| `segments`       | CSV, TSV or JSON lines with the columns `file`, `start`, `end`, `label` and, if there are any, `split`    |
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..label_lists import read_labels
from .activitynet_annotations import is_activitynet_file
from .annotations import (
    ANNOTATION_EXTENSIONS,
    END_COLUMNS,
    START_COLUMNS,
    AnnotationError,
    canonical_split,
    check_label,
    open_list,
    read_annotations,
    read_json,
)
from .detection_tables import THUMOS_COLUMNS, read_epic, read_thumos
from .video_index import VideoIndex


logger = logging.getLogger(__name__)

FORMATS = ("activitynet", "thumos14", "epic-verb", "epic-noun", "segments")
_NO_SPLIT = "train"


@dataclass(frozen=True)
class ActionSegment:
    """One action.

    Attributes:
        label: class name.
        start: first second.
        end: last second.
    """

    label: str
    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds; 0 or less for an annotation that shows nothing."""
        return self.end - self.start


@dataclass
class AnnotatedVideo:
    """One video and what happens in it.

    Attributes:
        name: as the annotations call it.
        path: where it is, or where it was looked for.
        split: the split it belongs to.
        segments: its actions, in the order of the file.
        duration: seconds, where the annotations say so.
        fps: frames per second, where they say so.
    """

    name: str
    path: str
    split: str
    segments: list[ActionSegment] = field(default_factory=list)
    duration: float | None = None
    fps: float | None = None

    def usable(self) -> list[ActionSegment]:
        """Segments to learn from: with a length, each once."""
        return [one for one in dict.fromkeys(self.segments) if one.length > 0]


@dataclass
class DetectionAnnotations:
    """The annotations of a data set.

    Attributes:
        name: the file or folder they come from.
        videos: the videos, in the order of the file.
        class_names: the classes, in the order of their numbers.
    """

    name: str
    videos: list[AnnotatedVideo]
    class_names: list[str]

    @property
    def splits(self) -> list[str]:
        """The splits, in the order of the file."""
        return list(dict.fromkeys(video.split for video in self.videos))

    def in_split(self, split: str) -> "DetectionAnnotations":
        """The videos of one split; the classes stay those of all.

        Raises:
            AnnotationError: there is no such split.
        """
        wanted = canonical_split(split)
        videos = [video for video in self.videos if video.split == wanted]
        if not videos:
            raise AnnotationError(self.name, f"no split {split!r} among {self.splits}", "Ask for one of these.")
        return DetectionAnnotations(self.name, videos, self.class_names)

    def to_activitynet(self) -> dict:
        """The ground truth that `evaluate_detector` takes, by video name."""
        return {
            "database": {
                video.name: {
                    "subset": video.split,
                    **({"duration": video.duration} if video.duration is not None else {}),
                    "annotations": [{"label": one.label, "segment": [one.start, one.end]} for one in video.segments],
                }
                for video in self.videos
            }
        }


def load_detection_annotations(
    source,
    format: str | None = None,
    *,
    root=None,
    split: str | None = None,
    class_names: Sequence[str] | str | os.PathLike | None = None,
    missing: str = "error",
    allow_outside_root: bool = False,
) -> DetectionAnnotations:
    """Read the annotations of a data set for temporal action detection.

    Args:
        source: the annotation file, or the folder with the files of all splits.
        format: one of the table above; default: recognised (EPIC-Kitchens has to be told verbs or nouns).
        root: the folder with the videos, which may lie in sub-folders; default: that of the annotations.
        split: only the videos of this split.
        class_names: the classes in the order of their numbers, or a file with them; default: all labels, sorted (numbers by value).
        missing: what to do with videos that are not there: "error", "skip" (with a warning) or "keep", for annotations of features.
        allow_outside_root: let a list name files outside `root`. Only for lists that you wrote yourself.

    Returns:
        `DetectionAnnotations`; videos without any annotation are kept, for a detector learns from them that nothing happens.

    Raises:
        AnnotationError: naming the file, the line or video, and what to do.
        ValueError: a `format` or `missing` that does not exist.
    """
    path = Path(source).expanduser()
    if missing not in ("error", "skip", "keep"):
        raise ValueError(f"`missing` must be 'error', 'skip' or 'keep', got {missing!r}")
    if not path.exists():
        raise AnnotationError(str(path), "no such file or folder", "Check the path.")
    format = format or _recognise(path)
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}, got {format!r}.")
    index = VideoIndex(root if root is not None else (path if path.is_dir() else path.parent))
    if format == "activitynet":
        videos = _read_activitynet(path, index)
    elif format == "segments":
        videos = _read_segments(path, index, allow_outside_root)
    else:
        rows = read_thumos(path) if format == "thumos14" else read_epic(path, format.removeprefix("epic-"))
        videos = _group(rows, index)
    names = _class_order(videos, class_names, str(path))
    found = DetectionAnnotations(str(path), _check_files(videos, missing, str(path)), names)
    return found if split is None else found.in_split(split)


def are_detection_annotations(path: Path) -> bool:
    """Whether a file or folder is recognised as annotations of actions, which have start and end; a list of videos has not."""
    if path.is_dir():
        return any(re.fullmatch(r".+_(val|test)\.txt", file.name) for file in path.iterdir())
    suffix = path.suffix.lower()
    if suffix == ".json":
        return is_activitynet_file(path)
    if suffix not in ANNOTATION_EXTENSIONS or suffix in (".txt", ".list"):
        return False
    with open_list(path) as handle:
        names = set(re.findall(r"\w+", handle.readline().lower()))
    return "start_timestamp" in names or bool(names & set(START_COLUMNS) and names & set(END_COLUMNS))


def _recognise(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() == ".json":
            if is_activitynet_file(path):
                return "activitynet"
            raise AnnotationError(str(path), "not the JSON of ActivityNet", 'Expected {"database": {video: ...}}.')
        if path.suffix.lower() == ".txt":
            return "thumos14"
        with open_list(path) as handle:
            header = handle.readline()
        if "start_timestamp" in header and "verb_class" in header:
            raise AnnotationError(
                str(path), "EPIC-Kitchens, which has two tasks", "Say format='epic-verb' or 'epic-noun'."
            )
        return "thumos14" if set(THUMOS_COLUMNS) <= set(header.strip().split(",")) else "segments"
    if are_detection_annotations(path):
        return "thumos14"
    raise AnnotationError(
        str(path), "a folder of no known format", f"Name the file, or pass `format`: one of {', '.join(FORMATS)}."
    )


def _read_activitynet(file: Path, index: VideoIndex) -> list[AnnotatedVideo]:
    content = read_json(file)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise AnnotationError(str(file), "no database", 'Expected {"database": {<video>: {"subset": ...}}}.')
    videos = []
    for name, entry in database.items():
        at = f"{file}, video {name[:60]!r}"
        annotations = entry.get("annotations", []) if isinstance(entry, dict) else None
        if not isinstance(annotations, list):
            raise AnnotationError(at, f"{str(entry)[:80]!r}", 'Expected {"subset": ..., "annotations": [...]}.')
        segments = []
        for annotation in annotations:
            segment = annotation.get("segment") if isinstance(annotation, dict) else None
            ends = [_seconds(value) for value in segment] if isinstance(segment, list) else []
            if len(ends) != 2 or None in ends:
                raise AnnotationError(at, f"the segment {str(segment)[:60]!r}", "Expected [start, end] in seconds.")
            segments.append(ActionSegment(check_label(str(annotation.get("label", "")), at), *ends))
        path = index.find(f"v_{name}", name, source=at) or index.expected(name)
        split = canonical_split(str(entry.get("subset") or _NO_SPLIT))
        duration, fps = (
            float(entry[key]) if _is_number(entry.get(key)) and entry[key] > 0 else None for key in ("duration", "fps")
        )
        videos.append(AnnotatedVideo(name, path, split, segments, duration, fps))
    return videos


def _read_segments(file: Path, index: VideoIndex, allow_outside_root: bool) -> list[AnnotatedVideo]:
    rows = []
    for row in read_annotations(file, root=index.root, allow_outside_root=allow_outside_root):
        if row.start is None or row.end is None:
            raise AnnotationError(
                f"{file}, {row.path}",
                "a row without start or end",
                "Name the columns file, start, end, label; in seconds.",
            )
        rows += [(row.path, row.split or _NO_SPLIT, label, row.start, row.end) for label in row.labels]
    videos: dict[str, AnnotatedVideo] = {}
    for path, split, label, start, end in rows:
        name = os.path.relpath(path, index.root)
        if not os.path.isfile(path):  # a list of names without folders or suffixes
            path = index.find(Path(path).stem, source=str(file)) or path
        video = videos.setdefault(name, AnnotatedVideo(name, path, canonical_split(split)))
        if video.split != canonical_split(split):
            raise AnnotationError(str(file), f"{name} is in two splits", "Give all rows of a video one split.")
        video.segments.append(ActionSegment(label, start, end))
    return list(videos.values())


def _group(rows, index: VideoIndex) -> list[AnnotatedVideo]:
    """One video per name; rows are (where, video, split, label, start, end)."""
    videos: dict[str, AnnotatedVideo] = {}
    for at, name, split, label, start, end in rows:
        if name not in videos:
            path = index.find(name, source=at) or index.expected(name)
            videos[name] = AnnotatedVideo(name, path, split)
        videos[name].segments.append(ActionSegment(label, start, end))
    return list(videos.values())


def _class_order(videos: list[AnnotatedVideo], class_names, source: str) -> list[str]:
    used = {segment.label for video in videos for segment in video.segments}
    if not used:
        raise AnnotationError(source, "no annotation in any video", "Check the file and `format`.")
    numbers = all(re.fullmatch(r"\d{1,6}", label) for label in used)
    if class_names is None:
        return [str(number) for number in range(max(map(int, used)) + 1)] if numbers else sorted(used)
    if isinstance(class_names, (str, os.PathLike)):
        class_names = read_labels(class_names).values()
    names = list(class_names)
    if numbers and not used <= set(names) and max(map(int, used)) < len(names):
        for video in videos:
            video.segments = [ActionSegment(names[int(one.label)], one.start, one.end) for one in video.segments]
        return names
    unknown = sorted(used - set(names))
    if unknown:
        raise AnnotationError(source, f"labels that are not in `class_names`: {', '.join(unknown[:5])}", "Add them.")
    return names


def _check_files(videos: list[AnnotatedVideo], missing: str, source: str) -> list[AnnotatedVideo]:
    absent = [] if missing == "keep" else [video.path for video in videos if not os.path.isfile(video.path)]
    if not absent:
        return videos
    found = f"{len(absent)} of {len(videos)} annotated videos do not exist, such as {', '.join(absent[:3])}"
    if missing == "error" or len(absent) == len(videos):
        raise AnnotationError(source, found, "Check `root`, or pass `missing='skip'` (features: 'keep').")
    logger.warning("%s: %s; left out", source, found)
    gone = set(absent)
    return [video for video in videos if video.path not in gone]


def _seconds(value) -> float | None:
    """A number, or the text of one: some copies of THUMOS14 have their seconds in quotes."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if _is_number(value) else None


def _is_number(value) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )
