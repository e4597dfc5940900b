"""What folders of stored computations share: files that are whole or not there, one writer at a time, one recipe."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


try:
    import fcntl
except ImportError:  # Windows: nobody watches over two writers there
    fcntl = None

LOCK_NAME = ".writer.lock"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives the path of a draft, which becomes `path` once it is on disk; a crash half-way leaves nothing under that name."""
    draft = path.with_name(f".{path.name}.part")
    yield draft
    with open(draft, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)


class FolderLock:
    """Keeps a second process from writing to a folder, as long as this one lives or until `release`.

    Args:
        folder: the folder.
        error: type of the error when another process holds it.
    """

    def __init__(self, folder: Path, error: type[Exception]):
        self._path, self._file = folder / LOCK_NAME, None
        if fcntl is None:
            return
        lock = open(self._path, "w")  # noqa: SIM115 - held as long as the writer
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise error(f"another process is writing to {folder}: wait for it.") from None
        except OSError:  # a file system without locks
            pass
        self._file = lock

    def release(self) -> None:
        """Let others write."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def recipe_changes(old: dict, new: dict) -> list[str]:
    """What differs between two recipes, as "field: old, now new"; fields of parts are named like "views.seed"."""
    changes = []
    for name in dict.fromkeys([*new, *old]):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            changes += [f"{name}.{change}" for change in recipe_changes(before, now)]
        elif before != now:
            changes.append(f"{name}: {before!r}, now {now!r}")
    return changes
