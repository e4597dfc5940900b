"""Untrimmed streams composed from the features of trimmed clips, with times that are known because they were put there.

For clips that exist as features only, such as one array of (clips, steps, channels). What is real is every step inside an action; what is
composed is everything else:

* a stream shows clips of one group (person, place) and one split, each clip of the data once; so streams of two splits share no group;
* a clip is stretched in time by a random factor, linearly between its steps: extracted clips often all have one length, which would give away
  where an action ends;
* between clips, before the first and after the last the stream idles: it goes to and fro over the first quarter of another clip of the group
  (someone gets ready, and does nothing), faded in and out over half the gap, with noise as large as `noise` times the differences between
  neighbouring steps. Real pauses are more varied; a detector finds these more easily.

Everything depends on the seed, the split, the group and the number of the stream alone.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .annotations import canonical_split
from .detection_annotations import ActionSegment, AnnotatedVideo, DetectionAnnotations
from .feature_store import FeatureStoreWriter, StoredFeatures
from .randomness import derive_rng


_IDLE_SHARE = 0.25  # of a clip, from its beginning


@dataclass(frozen=True)
class StreamComposition:
    """How streams are put together.

    Attributes:
        clips: fewest and most clips per stream; what is left of a group makes a shorter one.
        stretch: smallest and largest factor on the length of a clip.
        gap_steps: shortest and longest gap, in steps.
        noise: standard deviation of the noise in gaps, in that of the differences between neighbouring steps of the data.
        fps: steps per second, which gives the streams seconds.
        seed: of everything that is drawn.
    """

    clips: tuple[int, int] = (4, 8)
    stretch: tuple[float, float] = (0.5, 1.5)
    gap_steps: tuple[int, int] = (4, 20)
    noise: float = 0.25
    fps: float = 8.0
    seed: int = 0

    def __post_init__(self):
        for name, lowest in (("clips", 1), ("stretch", 0.0), ("gap_steps", 2)):
            low, high = getattr(self, name)
            if not lowest <= low <= high or high <= 0:
                raise ValueError(f"`{name}` must be (fewest, most) from {lowest} on, got {getattr(self, name)!r}.")
        if not self.fps > 0 or self.noise < 0:
            raise ValueError(f"expected fps above 0 and noise of 0 or more, got {self.fps!r} and {self.noise!r}.")


@dataclass(frozen=True)
class ComposedStream:
    """One stream.

    Attributes:
        name: "<split>_<group>_<number>".
        split: of its clips.
        features: (T, C) float32.
        steps: (label, first step, step after the last) of every action.
        clips: which clips it shows.
    """

    name: str
    split: str
    features: np.ndarray
    steps: list[tuple[str, int, int]]
    clips: list[int]


def compose_streams(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence,
    splits: Sequence[str],
    how: StreamComposition | None = None,
) -> Iterator[ComposedStream]:
    """Streams of all groups, by split, then by group.

    Args:
        features: (N, T, C), N clips.
        labels, groups, splits: (N,) class, person or place, and split of each clip.
        how: default: `StreamComposition()`.

    Raises:
        ValueError: shapes that do not fit, features that are not finite, or a group in two splits.
    """
    how = how or StreamComposition()
    features = np.asarray(features, dtype=np.float32)
    columns = [np.asarray([str(value) for value in values]) for values in (labels, groups, splits)]
    if features.ndim != 3 or features.shape[1] < 2 or any(len(column) != len(features) for column in columns):
        raise ValueError(
            "expected features (clips, 2 or more steps, channels) and one label, group and split per clip, got "
            f"{features.shape} and {[len(column) for column in columns]}."
        )
    if not np.isfinite(features).all():
        raise ValueError("features must be finite numbers.")
    labels, groups, splits = columns
    shared = sorted(group for group in np.unique(groups).tolist() if len(set(splits[groups == group])) > 1)
    if shared:
        raise ValueError(
            f"groups in more than one split, such as {shared[0]!r}: streams would leak from one to another."
        )
    spread = np.diff(features, axis=1).std(axis=(0, 1)) * how.noise
    for split in dict.fromkeys(splits.tolist()):
        for group in sorted(set(groups[splits == split].tolist())):
            members = np.flatnonzero(groups == group)
            rng = derive_rng(how.seed, "order", split, group)
            rng.shuffle(members)
            for number, chosen in enumerate(_portions(members, how, rng)):
                name = f"{split}_{group}_{number:03d}"
                rng = derive_rng(how.seed, "stream", name)
                stream, steps = _compose(features, chosen, members, spread, how, rng)
                marks = [(str(labels[clip]), *ends) for clip, ends in zip(chosen, steps, strict=True)]
                yield ComposedStream(name, split, stream, marks, [int(clip) for clip in chosen])


def write_feature_streams(
    features: np.ndarray,
    labels: Sequence[str],
    groups: Sequence,
    splits: Sequence[str],
    folder: str | os.PathLike,
    how: StreamComposition | None = None,
) -> DetectionAnnotations:
    """Compose streams and write them: a `FeatureStore`, and `annotations.json` in ActivityNet's layout beside it.

    Args:
        features, labels, groups, splits, how: see `compose_streams`.
        folder: where to.

    Returns:
        The annotations. Read them again with `load_detection_annotations(folder / "annotations.json", missing="keep")`.
    """
    how, folder = how or StreamComposition(), Path(folder)
    recipe = {"composed": {name: getattr(how, name) for name in how.__dataclass_fields__}}
    videos = []
    with FeatureStoreWriter(folder, recipe=recipe) as writer:
        for stream in compose_streams(features, labels, groups, splits, how):
            duration = len(stream.features) / how.fps
            if stream.name not in writer:
                stored = StoredFeatures(torch.from_numpy(stream.features), 1, 1, how.fps, duration)
                writer.add(stream.name, stored)
            segments = [ActionSegment(label, first / how.fps, stop / how.fps) for label, first, stop in stream.steps]
            videos.append(
                AnnotatedVideo(stream.name, stream.name, canonical_split(stream.split), segments, duration, how.fps)
            )
    path = folder / "annotations.json"
    found = DetectionAnnotations(str(path), videos, sorted(set(map(str, labels))))
    path.write_text(json.dumps(found.to_activitynet(), indent=1) + "\n", encoding="utf-8")
    return found


def _portions(members: np.ndarray, how: StreamComposition, rng) -> Iterator[np.ndarray]:
    """The clips of a group, some at a time; each once."""
    taken = 0
    while taken < len(members):
        count = int(rng.integers(how.clips[0], how.clips[1] + 1))
        yield members[taken : taken + count]
        taken += count


def _compose(features, chosen, members, spread, how: StreamComposition, rng):
    """The stream (T, C) of the chosen clips, and (first step, step after the last) of each."""
    parts, steps, length = [], [], 0
    before = None
    for clip in [*chosen, None]:
        after = None if clip is None else _stretched(features[clip], rng.uniform(*how.stretch))
        gap = _idle(features[rng.choice(members)], before, after, spread, how, rng)
        parts.append(gap)
        length += len(gap)
        if after is not None:
            parts.append(after)
            steps.append((length, length + len(after)))
            length += len(after)
            before = after
    return np.concatenate(parts).astype(np.float32), steps


def _stretched(clip: np.ndarray, factor: float) -> np.ndarray:
    """The clip in round(T factor) steps, at least two."""
    return _at(clip, np.linspace(0, len(clip) - 1, max(2, round(len(clip) * factor))))


def _at(clip: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Steps at places between steps, linearly."""
    low = np.minimum(np.floor(places).astype(int), len(clip) - 2)
    share = (places - low)[:, None].astype(clip.dtype)
    return clip[low] * (1 - share) + clip[low + 1] * share


def _idle(source, before, after, spread, how: StreamComposition, rng) -> np.ndarray:
    """A gap: to and fro over the beginning of `source`, faded from the clip before and into the clip after."""
    count = int(rng.integers(how.gap_steps[0], how.gap_steps[1] + 1))
    reach = max(1.0, _IDLE_SHARE * (len(source) - 1))
    places = np.abs((np.arange(count) * rng.uniform(0.5, 1.0) + rng.uniform(0, 2 * reach)) % (2 * reach) - reach)
    gap = _at(source, places)
    if before is not None:
        gap = _faded(gap, before[-1])
    if after is not None:
        gap = _faded(gap[::-1], after[0])[::-1]
    return gap + rng.normal(size=gap.shape).astype(gap.dtype) * spread


def _faded(gap: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Begins next to `edge` and has left it after half of its length."""
    half = max(1, len(gap) // 2)
    weight = np.zeros(len(gap), dtype=gap.dtype)
    weight[:half] = 1 - np.arange(1, half + 1) / (half + 1)
    return gap * (1 - weight[:, None]) + edge * weight[:, None]
