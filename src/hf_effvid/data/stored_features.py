"""Features of one video, where their steps lie in time, and the names that a video goes by."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..models.time_grid import TimeGrid
from ..video_files import VIDEO_SUFFIXES


class FeatureStoreError(ValueError):
    """Stored features cannot be used, or not be written; the message says what was found and what to do."""


@dataclass(frozen=True)
class FeatureInfo:
    """What is known of a video's features without reading them.

    Attributes:
        num_steps: T.
        channels: C.
        stride: frames from one feature to the next.
        num_frames: frames that a feature is computed from; it stands for their middle.
        fps: frames per second that the two count; None: those of the video, which the store does not know.
        duration: seconds of the video, or None.
    """

    num_steps: int
    channels: int
    stride: float
    num_frames: float
    fps: float | None = None
    duration: float | None = None

    def grid(self, fps: float | None = None) -> TimeGrid:
        """Where the steps lie in time.

        Args:
            fps: of the video, where the store does not know it.

        Raises:
            FeatureStoreError: nobody knows.
        """
        fps = self.fps if self.fps is not None else fps
        if fps is None:
            raise FeatureStoreError("the features count frames of unknown rate: pass the video's `fps`.")
        return TimeGrid.from_frames(self.stride, self.num_frames, fps)


@dataclass(frozen=True)
class StoredFeatures:
    """Features of one video.

    Attributes:
        features: (T, C) floats.
        stride, num_frames, fps, duration: see `FeatureInfo`.
    """

    features: torch.Tensor
    stride: float
    num_frames: float
    fps: float | None = None
    duration: float | None = None

    @property
    def info(self) -> FeatureInfo:
        """All but the features."""
        return FeatureInfo(*self.features.shape, self.stride, self.num_frames, self.fps, self.duration)

    def grid(self, fps: float | None = None) -> TimeGrid:
        """Where the steps lie in time, see `FeatureInfo.grid`."""
        return self.info.grid(fps)


class VideoNames:
    """Finds a video by what annotations call it: with or without folders and suffix, with or without ActivityNet's `v_`.

    Args:
        names: what the videos are really called, each once.
    """

    def __init__(self, names: Iterable[str]):
        self.names = list(names)
        self._found: dict[str, str | None] = {}
        for alias in (_without_suffix, _last_part):
            for name in self.names:
                # a short name that two videos share belongs to neither
                short = alias(name)
                self._found[short] = name if self._found.get(short, name) == name else None
        self._found.update((name, name) for name in self.names)

    def find(self, name: str) -> str | None:
        """The real name, or None."""
        last = _last_part(name)
        tried = (name, _without_suffix(name), last, f"v_{last}", last.removeprefix("v_"))
        return next((self._found[one] for one in tried if self._found.get(one) is not None), None)


def _without_suffix(name: str) -> str:
    for suffix in VIDEO_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _last_part(name: str) -> str:
    return _without_suffix(name).replace("\\", "/").rsplit("/", 1)[-1]
