"""The official annotation files of public data sets: what they are recognised by, and how they become rows."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .activitynet_annotations import is_activitynet_file, read_activitynet
from .annotations import AnnotationError, ClipRow, sniff
from .diving48_annotations import read_diving48
from .epic_annotations import TASKS as EPIC_TASKS
from .epic_annotations import is_epic_file, read_epic_clips
from .kinetics_annotations import is_kinetics_file, read_kinetics
from .split_list_annotations import is_hmdb51, is_ucf101, read_hmdb51, read_ucf101
from .ssv2_annotations import read_ssv2
from .video_index import VideoIndex


_MAX_SNIFFED = 64  # files of a folder that are looked into


@dataclass(frozen=True)
class AnnotationFormat:
    """One layout of annotation files.

    Attributes:
        read: (path, videos, split number, allow_outside_root) to rows, and class names where the files give their order.
        matches: whether a file or folder has this layout beyond doubt; None: it has to be asked for.
        num_splits: how many official splits there are to choose from.
    """

    read: Callable
    matches: Callable[[Path], bool] | None
    num_splits: int = 1


def _any_file(is_one: Callable[[Path], bool], path: Path) -> bool:
    if path.is_file():
        return is_one(path)
    candidates = [entry for entry in sorted(path.iterdir()) if entry.suffix.lower() in (".json", ".csv")]
    return any(is_one(entry) for entry in candidates[:_MAX_SNIFFED])


def _is_ssv2_file(path: Path) -> bool:
    return sniff(path, '"template"', '"id"')


def _is_diving48_file(path: Path) -> bool:
    return sniff(path, '"vid_name"', '"label"')


def _which_of_epic(path: Path, videos: VideoIndex, number: int, outside: bool):
    choices = ", ".join(f"epic100-{task}" for task in EPIC_TASKS)
    raise AnnotationError(
        str(path), "EPIC-Kitchens, whose clips have three labels", f"Say `format`: one of {choices}."
    )


FORMATS = {
    "kinetics": AnnotationFormat(
        lambda path, videos, number, outside: (read_kinetics(path, videos), None), partial(_any_file, is_kinetics_file)
    ),
    "ssv2": AnnotationFormat(
        lambda path, videos, number, outside: read_ssv2(path, videos), partial(_any_file, _is_ssv2_file)
    ),
    "diving48": AnnotationFormat(
        lambda path, videos, number, outside: read_diving48(path, videos), partial(_any_file, _is_diving48_file)
    ),
    "activitynet": AnnotationFormat(
        lambda path, videos, number, outside: (read_activitynet(path, videos), None),
        partial(_any_file, is_activitynet_file),
    ),
    "activitynet-segments": AnnotationFormat(
        lambda path, videos, number, outside: (read_activitynet(path, videos, segments=True), None), None
    ),
    "epic100": AnnotationFormat(_which_of_epic, partial(_any_file, is_epic_file)),
    "epic100-verb": AnnotationFormat(
        lambda path, videos, number, outside: read_epic_clips(path, videos, "verb"), None
    ),
    "epic100-noun": AnnotationFormat(
        lambda path, videos, number, outside: read_epic_clips(path, videos, "noun"), None
    ),
    "epic100-action": AnnotationFormat(
        lambda path, videos, number, outside: read_epic_clips(path, videos, "action"), None
    ),
    "hmdb51": AnnotationFormat(
        lambda path, videos, number, outside: (read_hmdb51(path, videos, number, outside), None), is_hmdb51, 3
    ),
    "ucf101": AnnotationFormat(read_ucf101, is_ucf101, 3),
}


def check_format(name: str) -> tuple[AnnotationFormat, int]:
    """The format and the number of the split that a name such as "kinetics", "ucf101" or "hmdb51-3" means.

    Raises:
        ValueError: there is no such format.
    """
    base, number = re.fullmatch(r"(.*?)(?:-(\d+))?", name).groups()
    found = FORMATS.get(base)
    if found is None or not 1 <= int(number or 1) <= found.num_splits:
        raise ValueError(
            f"`format` must be one of {', '.join(FORMATS)} (hmdb51-2, ucf101-3 for other splits), got {name!r}."
        )
    return found, int(number or 1)


def detect_format(source) -> str | None:
    """The name of the format of a file or folder, or None when it has none of them, or could be one of several."""
    path = Path(source)
    if not path.exists():
        return None
    found = [name for name, layout in FORMATS.items() if layout.matches is not None and layout.matches(path)]
    return found[0] if len(found) == 1 else None


def read_official(
    source, name: str, root=None, allow_outside_root: bool = False
) -> tuple[list[ClipRow], list[str] | None]:
    """Read official annotation files.

    Args:
        source: the annotation file, or the folder with the files of all splits.
        name: a name of `FORMATS`, with "-2" or "-3" for another split of HMDB51 and UCF101.
        root: the folder with the videos, which may lie in sub-folders; default: that of the annotations.
        allow_outside_root: see `resolve_inside`.

    Returns:
        The rows, and the class names in the order of their numbers: as the files give it, otherwise alphabetical. None
        where classes have numbers only. The names are those of the whole file, whichever videos exist.

    Raises:
        AnnotationError: naming the file and what to do.
        ValueError: there is no such format.
    """
    layout, number = check_format(name)
    path = Path(source).expanduser()
    if not path.exists():
        raise AnnotationError(str(path), "no such file or folder", "Check the path.")
    videos = VideoIndex(root if root is not None else (path if path.is_dir() else path.parent))
    rows, names = layout.read(path, videos, number, allow_outside_root)
    if not rows:
        raise AnnotationError(str(path), f"no labelled videos of the format {name!r}", "Check the file and `format`.")
    if names is None:
        used = {label for row in rows for label in row.labels}
        names = None if all(label.isdigit() for label in used) else sorted(used)
    return rows, names
