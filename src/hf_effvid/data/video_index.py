"""Videos below a folder, found by name: official annotation files name videos, not where they lie."""

import os
import re
from pathlib import Path

from ..video_files import VIDEO_SUFFIXES
from .annotations import AnnotationError


_UNSAFE = re.compile(r"[/\\\0]|://|^\.{1,2}$")


class VideoIndex:
    """The videos of a folder and its sub-folders, by file name without suffix.

    The folder is listed once, on first use; hidden folders are left out, links to folders are followed.

    Args:
        root: the folder.
    """

    def __init__(self, root):
        self.root = Path(os.path.abspath(root))
        self._paths: dict[str, str] | None = None

    def find(self, *names: str, source: str) -> str | None:
        """The path of the first of these names that exists, whatever its suffix and sub-folder, or None.

        Args:
            names: file names without suffix, the preferred one first.
            source: file and line that name the video, for the error.

        Raises:
            AnnotationError: what should be a name is a path.
        """
        for name in names:
            if not name or _UNSAFE.search(name):
                raise AnnotationError(
                    source, f"{name[:120]!r} is not the name of a video", "A name holds no folders; check the file."
                )
        if self._paths is None:
            self._paths = self._list()
        return next((self._paths[name] for name in names if name in self._paths), None)

    def expected(self, name: str, suffix: str = ".mp4") -> str:
        """Where a video that was not found would be looked for first."""
        return os.path.join(self.root, name + suffix)

    def _list(self) -> dict[str, str]:
        paths: dict[str, str] = {}
        seen = set()
        for base, folders, files in os.walk(self.root, followlinks=True):
            real = os.path.realpath(base)
            if real in seen:  # a link to a folder above
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                stem, suffix = os.path.splitext(file)
                if suffix.lower() in VIDEO_SUFFIXES and not file.startswith("."):
                    paths.setdefault(stem, os.path.join(base, file))
        return paths
