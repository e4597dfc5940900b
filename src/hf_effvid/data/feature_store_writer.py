"""Writes a feature store so that a run that is killed loses at most the video it was at.

Every video is on disk as a file of its own when `add` returns; when these make a shard, they are put into one and the index names it.
What a shard holds depends on the order of the videos alone, so a run that was killed and started again leaves the files that one run
without interruption leaves.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from .feature_shards import SHARD_FORMATS, infos_of_shard, write_shard
from .store_folder import LOCK_NAME, FolderLock, recipe_changes, written_whole
from .stored_features import FeatureInfo, FeatureStoreError, StoredFeatures


INDEX_NAME, PENDING_NAME = "index.json", "pending"
FORMAT, VERSION = "effvid-features", 1
_INDEX_DRAFT = f".{INDEX_NAME}.part"
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


def read_index(folder: Path) -> dict | None:
    """The index of a feature store, None where the folder is none.

    Raises:
        FeatureStoreError: it is damaged, or of a later version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FeatureStoreError(f"{path} is damaged ({error}): extract the features again.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        return None
    if index.get("version") != VERSION:
        raise FeatureStoreError(
            f"{path} is of version {index.get('version')}, this package reads {VERSION}: update it."
        )
    return index


def pending_files(folder: Path) -> list[Path]:
    """Videos that are not in a shard yet, in the order in which they were written."""
    return sorted((folder / PENDING_NAME).glob("[0-9]*.safetensors"))


class FeatureStoreWriter:
    """Adds videos to a feature store, from the first one or where an earlier run stopped. A context manager.

    Left by an exception, what is not in a shard yet stays beside the shards, readable, and the next writer takes it up.

    Args:
        folder: where; made if there is none.
        recipe: what the features depend on, in terms of JSON. A store that was begun with another one is refused.
        format: of the shards, "safetensors" or "parquet".
        dtype: stored numbers, "float32" or "float16".
        shard_bytes: a shard is closed when it holds as much.

    Raises:
        FeatureStoreError: the folder holds something else or features of another recipe, or another process writes to it.
    """

    def __init__(
        self, folder, recipe: dict | None = None, format="safetensors", dtype="float32", shard_bytes=64 << 20
    ):
        if format not in SHARD_FORMATS or dtype not in _DTYPES:
            raise ValueError(
                f"`format` must be one of {SHARD_FORMATS} and `dtype` one of {tuple(_DTYPES)}, got {format!r} and {dtype!r}."
            )
        self.folder, self.dtype, self.shard_bytes = Path(folder).expanduser(), _DTYPES[dtype], shard_bytes
        head = {"format": FORMAT, "version": VERSION, "shard_format": format, "dtype": dtype}
        head["recipe"] = json.loads(json.dumps(recipe or {}))
        self.index = {**head, "shards": [], "videos": {}, "errors": {}}
        self._open(head)
        self._lock = FolderLock(self.folder, FeatureStoreError)
        self._pending: dict[str, tuple[Path, FeatureInfo]] = {}
        self._take_up()

    def _open(self, head: dict) -> None:
        found = read_index(self.folder)
        if found is None:
            begun = {PENDING_NAME, LOCK_NAME, _INDEX_DRAFT}  # died before its first index
            if self.folder.exists() and any(path.name not in begun for path in self.folder.iterdir()):
                raise FeatureStoreError(f"{self.folder} is neither empty nor a feature store: choose another folder.")
            (self.folder / PENDING_NAME).mkdir(parents=True, exist_ok=True)
            self._save_index()
            return
        old, new = (
            {name: one.get(name) for name in head if name != "recipe"} | one["recipe"] for one in (found, head)
        )
        changed = recipe_changes(old, new)
        if changed:
            raise FeatureStoreError(
                f"{self.folder} holds features made otherwise ({'; '.join(changed)}): choose another folder, or delete it."
            )
        self.index = found
        (self.folder / PENDING_NAME).mkdir(exist_ok=True)

    def _take_up(self) -> None:
        for draft in [*self.folder.glob(".*.part"), *(self.folder / PENDING_NAME).glob(".*.part")]:
            draft.unlink()
        for path in pending_files(self.folder):
            ((name, info),) = infos_of_shard(path).items()
            if name in self.index["videos"]:  # died between index and clearing up
                path.unlink()
            else:
                self._pending[name] = (path, info)
        self._close_if_full()  # died between its last video and the shard

    def __contains__(self, name: str) -> bool:
        return name in self.index["videos"] or name in self._pending

    def __len__(self) -> int:
        return len(self.index["videos"]) + len(self._pending)

    @property
    def errors(self) -> dict[str, str]:
        """Videos that failed, and why."""
        return self.index["errors"]

    def add(self, name: str, video: StoredFeatures) -> None:
        """Store the features of a video; they are on disk when this returns.

        Raises:
            FeatureStoreError: it is there already, has no usable name, or features that are not (T, C) finite numbers.
        """
        if name in self:
            raise FeatureStoreError(f"{self.folder} holds features of {name!r} already.")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise FeatureStoreError(f"the name {name!r} is not valid text: rename the file.") from None
        features = torch.as_tensor(video.features).detach().cpu()
        if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
            raise FeatureStoreError(
                f"expected features (T, C), got {features.dtype} {tuple(features.shape)} of {name!r}."
            )
        features = features.to(self.dtype)
        if not features.isfinite().all():
            raise FeatureStoreError(
                f"features of {name!r} hold numbers that are not finite in {self.dtype}: compute and store them in float32."
            )
        last = max((int(path.stem) for path, _ in self._pending.values()), default=-1)
        path = self.folder / PENDING_NAME / f"{last + 1:06d}.safetensors"
        info = FeatureInfo(*features.shape, video.stride, video.num_frames, video.fps, video.duration)
        write_shard(path, {name: features}, {name: info})
        self._pending[name] = (path, info)
        if self.index["errors"].pop(name, None) is not None:
            self._save_index()
        self._close_if_full()

    def add_error(self, name: str, error: Exception | str) -> None:
        """Record that a video has no features. The next run tries it again."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        self.index["errors"][name] = text.encode("utf-8", "backslashreplace").decode()
        self._save_index()

    def _close_if_full(self) -> None:
        numbers = sum(info.num_steps * info.channels for _, info in self._pending.values())
        if numbers * self.dtype.itemsize >= self.shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if not self._pending:
            return
        shard = f"features-{len(self.index['shards']):05d}.{self.index['shard_format']}"
        features = {}
        for path, _ in self._pending.values():
            features |= load_file(path)
        infos = {name: info for name, (_, info) in self._pending.items()}
        write_shard(self.folder / shard, features, infos)
        for name, info in infos.items():
            self.index["videos"][name] = {"shard": len(self.index["shards"]), **asdict(info)}
        self.index["shards"].append(shard)
        self._save_index()
        for path, _ in self._pending.values():
            path.unlink()
        self._pending.clear()

    def _save_index(self) -> None:
        with written_whole(self.folder / INDEX_NAME) as draft, open(draft, "w", encoding="utf-8") as file:
            json.dump(self.index, file, indent=1)

    def close(self) -> None:
        """Put what is left into a last shard."""
        self._close_shard()
        shutil.rmtree(self.folder / PENDING_NAME, ignore_errors=True)
        self._lock.release()

    def __enter__(self) -> "FeatureStoreWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            self._lock.release()
