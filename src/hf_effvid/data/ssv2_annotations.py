"""Something-Something v2: ``train.json``, ``validation.json`` and ``labels.json`` as published, videos ``<id>.webm``."""

import json
from pathlib import Path

from ..label_lists import read_labels
from .annotations import AnnotationError, ClipRow, check_label, one_file_per_split, read_json, split_in_name
from .video_index import VideoIndex


def read_ssv2(source: Path, videos: VideoIndex) -> tuple[list[ClipRow], list[str] | None]:
    """Rows and class names of one JSON file, or of those of all splits in a folder.

    The class of a video is its `template` without brackets ("Pushing [something] from left to right" is the class "Pushing
    something from left to right"); what the worker wrote stays in the column "caption". The order of the classes is
    that of a ``labels.json`` beside the file; without one it is alphabetical, which is the same.

    Raises:
        AnnotationError: naming the file, the entry and what to do.
    """
    files = [source] if source.is_file() else one_file_per_split(source, "template")
    rows = [row for file in files for row in _rows(file, videos)]
    folder = source if source.is_dir() else source.parent
    return rows, _class_names(folder)


def _rows(file: Path, videos: VideoIndex):
    entries = read_json(file)
    if not isinstance(entries, list):
        raise AnnotationError(str(file), f"a {type(entries).__name__}", "Expected the list of Something-Something v2.")
    for number, entry in enumerate(entries):
        source = f"{file}, entry {number}"
        if not isinstance(entry, dict) or "id" not in entry:
            raise AnnotationError(source, f"{str(entry)[:80]!r}", 'Expected {"id": ..., "template": ...}.')
        if not isinstance(entry.get("template"), str):
            raise AnnotationError(source, "no template", "The test set has no labels: load train or validation.")
        name = str(entry["id"])
        yield ClipRow(
            path=videos.find(name, source=source) or videos.expected(name, ".webm"),
            labels=[check_label(class_of_template(entry["template"]), source)],
            split=split_in_name(file.stem),
            extra={
                "caption": str(entry.get("label", "")),
                "placeholders": json.dumps(entry.get("placeholders", []), ensure_ascii=False),
            },
        )


def class_of_template(template: str) -> str:
    """The class name of a template: "Putting [number of] [something] on it" is "Putting number of something on it"."""
    return template.replace("[", "").replace("]", "")


def _class_names(folder: Path) -> list[str] | None:
    for file in (folder / "labels.json", folder / "something-something-v2-labels.json"):
        if file.is_file():
            try:
                return list(read_labels(file).values())
            except ValueError as error:
                raise AnnotationError(
                    str(file), str(error), "Expected the names of the classes to their ids."
                ) from None
    return None
