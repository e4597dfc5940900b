"""Class folders: `root/<class>/*.mp4` or `root/<split>/<class>/*.mp4`, listed without opening a video."""

import logging
import os
from pathlib import Path

from ..video_files import VIDEO_SUFFIXES
from .annotations import AnnotationError, ClipRow, canonical_split, check_label, is_standard_split


logger = logging.getLogger(__name__)


def list_class_folders(root) -> tuple[list[ClipRow], dict[str | None, list[str]]]:
    """List the videos of class folders.

    Sub-folders named like a split (train, val, valid, validation, test, ...) that hold folders are splits; without
    them, every sub-folder is a class. Videos may lie deeper inside a class folder. Hidden files are left out.

    Args:
        root: the data set's folder.

    Returns:
        The rows, sorted by path, and the names of all class folders per split, empty ones included.

    Raises:
        AnnotationError: no class folders or no videos in them.
    """
    root = Path(root)
    folders = _subfolders(root)
    splits = [folder for folder in folders if is_standard_split(folder.name) and _subfolders(folder)]
    if splits:
        others = sorted(folder.name for folder in folders if folder not in splits)
        if others:
            logger.warning("%s: these folders are no splits and are left out: %s", root, ", ".join(others))
    by_split = {canonical_split(folder.name): _subfolders(folder) for folder in splits} or {None: folders}
    if len(splits) > len(by_split):
        raise AnnotationError(
            str(root), f"two folders for one split among {[s.name for s in splits]}", "Merge or rename them."
        )
    rows = [
        ClipRow(path=path, labels=[check_label(folder.name, str(folder))], split=split)
        for split, classes in by_split.items()
        for folder in classes
        for path in _videos(folder)
    ]
    if not rows:
        raise AnnotationError(
            str(root),
            f"no videos in class folders (found {len(folders)} sub-folders)",
            "Expected <class>/<video> or <split>/<class>/<video>, a metadata.csv, or train.csv / test.csv lists.",
        )
    return rows, {split: [folder.name for folder in classes] for split, classes in by_split.items()}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def _videos(folder: Path) -> list[str]:
    found = []
    for base, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [
            os.path.abspath(os.path.join(base, name))
            for name in files
            if name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)
