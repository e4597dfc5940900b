"""Writes a teacher's answers so that a run that is stopped goes on where it was."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from .store_folder import LOCK_NAME, FolderLock, recipe_changes, written_whole
from .teacher_output_files import (
    ANSWERS,
    FORMAT,
    RECIPE_NAME,
    VERSION,
    Key,
    TeacherCacheError,
    places_of,
    read_description,
    shard_files,
)


_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class TeacherOutputWriter:
    """Adds answers to a folder, from the first one or where an earlier run stopped. A context manager.

    Answers are on disk when their shard is full or the writer is closed, also by an exception. A process that is
    killed loses those of one shard.

    Args:
        folder: where; made if there is none.
        recipe: what the answers depend on, in terms of JSON, see `TeacherOutputStore`. Answers of another one are refused.
        about: what else is known of the teacher.
        shard_answers, shard_bytes: a shard is written when it holds as many answers or bytes.

    Raises:
        TeacherCacheError: the folder holds something else or answers of another recipe, or another process writes to it.
    """

    def __init__(self, folder, recipe: dict, about: dict | None = None, shard_answers=256, shard_bytes=64 << 20):
        self.folder, self.shard_answers, self.shard_bytes = Path(folder).expanduser(), shard_answers, shard_bytes
        recipe = json.loads(json.dumps(recipe))
        self.outputs, self.dtype = tuple(recipe["outputs"]), _DTYPES[recipe["dtype"]]
        found = read_description(self.folder)
        if found is None and self.folder.exists() and any(_foreign(path) for path in self.folder.iterdir()):
            raise TeacherCacheError(
                f"{self.folder} is neither empty nor holds answers of a teacher: choose another folder."
            )
        changes = recipe_changes(found["recipe"], recipe) if found else []
        if changes:
            raise TeacherCacheError(
                f"{self.folder} holds answers to something else ({'; '.join(changes)}): choose another folder, or delete it."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder, TeacherCacheError)
        for draft in self.folder.glob(".*.part"):
            draft.unlink()
        errors = found["errors"] if found else {}
        self.described = {
            "format": FORMAT,
            "version": VERSION,
            "recipe": recipe,
            "about": about or {},
            "errors": errors,
        }
        self._save_description()
        self._known = set(places_of(self.folder))
        self._waiting: list[tuple[Key, dict[str, torch.Tensor]]] = []

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    @property
    def errors(self) -> dict[str, str]:
        """Videos that failed, by their key, and why."""
        return self.described["errors"]

    def add(self, keys: Sequence[Key], answers: Mapping[str, torch.Tensor]) -> None:
        """Store the answers to some views.

        Args:
            keys: (row key, view) of each.
            answers: "logits" (B, N), "features" (B, C, T, H, W), "embeddings" (B, D), in the order of the keys.

        Raises:
            TeacherCacheError: an answer is not finite in the stored type.
        """
        stored = {name: answers[name].detach().to("cpu", self.dtype) for name in self.outputs}
        for name, values in stored.items():
            if not values.isfinite().all():
                raise TeacherCacheError(
                    f"{name} of the teacher are not finite in {self.dtype}: store them in float32, or compute in float32."
                )
        for place, key in enumerate(keys):
            if key in self._known:
                continue
            if self.errors.pop(key[0], None) is not None:
                self._save_description()
            answer = {name: values[place] for name, values in stored.items()}
            if self._waiting and any(answer[name].shape != self._waiting[0][1][name].shape for name in answer):
                self.flush()  # a shard holds answers of one shape
            self._waiting.append((key, answer))
            self._known.add(key)
        size = sum(value.numel() for value in self._waiting[0][1].values()) if self._waiting else 0
        num_bytes = len(self._waiting) * size * self.dtype.itemsize
        if len(self._waiting) >= self.shard_answers or num_bytes >= self.shard_bytes:
            self.flush()

    def add_error(self, key: str, error: Exception | str) -> None:
        """Record that a video has no answer. The next run tries it again."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.errors[key] = text.encode("utf-8", "backslashreplace").decode()
        self._save_description()

    def flush(self) -> None:
        """Put what is waiting on disk."""
        if not self._waiting:
            return
        numbers = [int(path.stem.split("-")[1]) for path in shard_files(self.folder)]
        tensors = {
            name: torch.stack([answer[name] for _, answer in self._waiting]).contiguous() for name in self.outputs
        }
        keys = json.dumps([key for key, _ in self._waiting])
        with written_whole(self.folder / f"answers-{max(numbers, default=-1) + 1:05d}.safetensors") as draft:
            save_file(tensors, draft, {ANSWERS: keys})
        self._waiting.clear()

    def close(self) -> None:
        """Put what is left on disk, and let others write."""
        self.flush()
        self._lock.release()

    def _save_description(self) -> None:
        with written_whole(self.folder / RECIPE_NAME) as draft:
            draft.write_text(json.dumps(self.described, indent=1), encoding="utf-8")

    def __enter__(self) -> "TeacherOutputWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()


def _foreign(path: Path) -> bool:
    return path.name not in (LOCK_NAME, f".{RECIPE_NAME}.part")
