"""The files of a teacher's stored answers: `recipe.json` and shards, each of which says whose answers it holds."""

import json
from pathlib import Path

from safetensors import safe_open


OUTPUTS = ("logits", "features", "embeddings")
FORMAT, VERSION = "effvid-teacher-outputs", 1
RECIPE_NAME, ANSWERS = "recipe.json", "answers"

Key = tuple[str, int]  # `row_key` of the clip, number of the view


class TeacherCacheError(ValueError):
    """Stored answers of a teacher cannot be used, or not be written; the message says what differs and what to do."""


def read_description(folder: Path) -> dict | None:
    """What `recipe.json` says, None where there is none.

    Raises:
        TeacherCacheError: it is damaged, of something else, or of a later version.
    """
    path = folder / RECIPE_NAME
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TeacherCacheError(f"{path} is damaged ({error}): store the answers again.") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise TeacherCacheError(f"{path} is not about answers of a teacher: choose another folder.")
    if described.get("version") != VERSION:
        raise TeacherCacheError(
            f"{path} is of version {described.get('version')}, this package reads {VERSION}: update it."
        )
    return described


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in the order in which they were written."""
    return sorted(folder.glob("answers-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))


def places_of(folder: Path) -> dict[Key, tuple[Path, int]]:
    """Where each answer of a folder lies: the shard, and its place there.

    Raises:
        TeacherCacheError: a shard is damaged.
    """
    places = {}
    for path in shard_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                keys = json.loads(file.metadata()[ANSWERS])
        except Exception as error:  # safetensors' own type derives from Exception alone
            raise TeacherCacheError(f"{path} is damaged ({error}): delete it and store its answers again.") from error
        places |= {(key, view): (path, place) for place, (key, view) in enumerate(keys)}
    return places
