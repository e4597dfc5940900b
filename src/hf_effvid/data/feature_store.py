"""Features of videos on disk, for detectors that are trained and evaluated without their backbone.

```python
store = FeatureStore.open("features/")                                    # what `effvid cache --features` wrote
store = FeatureStore.open("i3d/", stride=4, num_frames=16, fps=30)         # one .npy per video, as public sets come
video = store["video_test_0000004"]                                       # features (T, C), stride, num_frames, fps, duration
```
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from .feature_files import feature_file_shape, list_feature_files, read_feature_file
from .feature_shards import infos_of_shard, read_from_shard
from .feature_store_writer import FeatureStoreWriter, pending_files, read_index
from .stored_features import FeatureInfo, FeatureStoreError, StoredFeatures, VideoNames


__all__ = ["FeatureInfo", "FeatureStore", "FeatureStoreError", "FeatureStoreWriter", "StoredFeatures"]


class FeatureStore(Mapping):
    """Video name -> `StoredFeatures`. Holds no open files: loader workers may have copies. Made by `open`.

    Names are found as annotations have them: with or without folders and suffix, with or without ActivityNet's `v_`.

    Attributes:
        folder: where it is.
        recipe: how the features were made, {} where nobody wrote it down.
        errors: videos that have no features, and why.
    """

    def __init__(self, folder: Path, source, recipe: dict | None = None, errors: dict[str, str] | None = None):
        self.folder, self.recipe, self.errors = folder, recipe or {}, errors or {}
        self._source, self._names = source, VideoNames(source.names)

    @classmethod
    def open(cls, folder, *, stride=None, num_frames=None, fps=None, key=None, channels_first=False) -> "FeatureStore":
        """Open a folder.

        Args:
            folder: that of `effvid cache --features`, or one with a file per video.
            stride, num_frames: frames from one feature to the next, and frames that each is computed from; needed for files, and
                known to a store.
            fps: frames per second that they count: a number, or one per video name. None: those of each video, to be asked of the
                annotations.
            key: for files that hold several arrays, the one with the features.
            channels_first: the files hold (C, T).

        Raises:
            FeatureStoreError: the folder holds no features, or the arguments contradict it.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise FeatureStoreError(f"{folder} is no folder: give the one with the features.")
        index = read_index(folder)
        given = {"stride": stride, "num_frames": num_frames, "fps": fps, "key": key}
        if index is not None:
            told = [name for name, value in given.items() if value is not None] + ["channels_first"] * channels_first
            if told:
                raise FeatureStoreError(f"{folder} knows its own {', '.join(told)}: leave them out.")
            return cls(folder, _Shards(folder, index), index["recipe"], index["errors"])
        if stride is None or num_frames is None:
            raise FeatureStoreError(
                f"{folder} does not say how far apart its features are: pass `stride` and `num_frames`, in frames of the video."
            )
        return cls(folder, _Files(folder, stride, num_frames, fps, key, channels_first))

    @property
    def names(self) -> list[str]:
        """What the videos are called here, in the order in which they were written, or sorted."""
        return list(self._names.names)

    def find(self, name: str) -> str | None:
        """What a video is called here, or None."""
        return self._names.find(name)

    @property
    def channels(self) -> int:
        """C, of the first video.

        Raises:
            FeatureStoreError: there is none.
        """
        if not self.names:
            raise FeatureStoreError(f"{self.folder} holds no video; {len(self.errors)} failed.")
        return self.info(self.names[0]).channels

    def info(self, name: str) -> FeatureInfo:
        """What is known of a video's features without reading them.

        Raises:
            KeyError: there is no such video; the message says what there is.
        """
        return self._source.info(self._known(name))

    def __getitem__(self, name: str) -> StoredFeatures:
        name = self._known(name)
        features, info = self._source.read(name), self._source.info(name)
        return StoredFeatures(features, info.stride, info.num_frames, info.fps, info.duration)

    def __contains__(self, name) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self._names.names)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.folder)!r}, {len(self)} videos)"

    def _known(self, name: str) -> str:
        found = self.find(name)
        if found is None:
            why = self.errors.get(name)
            why = f"it failed ({why})" if why else f"it has {len(self)} videos, such as {self.names[:3]}"
            raise KeyError(f"{self.folder} has no features of {name!r}: {why}.")
        return found


class _Shards:
    """Shards with an index, and what a writer has not put into shards yet."""

    def __init__(self, folder: Path, index: dict):
        self._entries: dict[str, tuple[Path, int, FeatureInfo]] = {}
        filled = [0] * len(index["shards"])
        for name, described in index["videos"].items():
            described = dict(described)
            shard = described.pop("shard")
            self._entries[name] = (folder / index["shards"][shard], filled[shard], FeatureInfo(**described))
            filled[shard] += 1
        for path in pending_files(folder):
            for name, info in infos_of_shard(path).items():
                self._entries.setdefault(name, (path, 0, info))

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def info(self, name: str) -> FeatureInfo:
        return self._entries[name][2]

    def read(self, name: str):
        path, place, _ = self._entries[name]
        return read_from_shard(path, name, place).float()


class _Files:
    """One file per video."""

    def __init__(self, folder: Path, stride, num_frames, fps, key, channels_first: bool):
        self._paths = list_feature_files(folder)
        self._grid, self._reading = (stride, num_frames), (key, channels_first)
        self._fps = fps
        if isinstance(fps, Mapping):
            names = VideoNames(self._paths)
            self._fps = {names.find(name): value for name, value in fps.items()}
        self._shapes: dict[str, tuple[int, int]] = {}

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def info(self, name: str) -> FeatureInfo:
        if name not in self._shapes:
            self._shapes[name] = feature_file_shape(self._paths[name], *self._reading)
        fps = self._fps.get(name) if isinstance(self._fps, Mapping) else self._fps
        return FeatureInfo(*self._shapes[name], *self._grid, fps)

    def read(self, name: str):
        features = read_feature_file(self._paths[name], *self._reading)
        self._shapes[name] = tuple(features.shape)
        return features
