"""Generated clips that test how far a video model remembers: a cue, a gap of so many frames, an answer.

Two bars are shown: the cue, and `distance` frames after its beginning the answer, each for `duration` frames. All other frames show
background. A bar is horizontal or vertical. There are two tasks of two classes each:

- `"match"`: is the answer's bar the cue's (`same`) or the other one (`different`)? Their order does not matter.
- `"order"`: which bar came first (`horizontal_first`, `vertical_first`)? Every clip shows one of each, so only their order tells.

**No single frame tells the class, by construction.** In `match` both bars are drawn independently and uniformly, and the cue's time is
uniform whatever the class, so frame t has the same distribution in both classes, for every t. In `order` both classes show the same frames
in another order: a frame tells something only to who knows its number (the first bar of a clip is the cue). Nor do all frames together,
looked at one by one: sums of per-frame scores are the same for both classes of `order`, and in `match` the class is an exclusive or, which
no such sum can separate (the score of a mixed pair is the mean of those of the two equal pairs, and would have to lie on the other side of
the threshold than both). A model without a path between frames is at chance however well it sees.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .synthetic import write_clip


RECALL_CLASSES = {"match": ("same", "different"), "order": ("horizontal_first", "vertical_first")}
"""The classes of each task."""

_LENGTH, _WIDTH, _SHIFT = (
    0.72,
    0.22,
    0.12,
)  # of a bar, and how far it may lie from the middle: parts of the picture's side
_MANIFEST = "recall_dataset.json"


def draw_recall_clips(
    task: str,
    labels: Sequence[int],
    distances: Sequence[int],
    rng: np.random.Generator,
    size: int = 16,
    num_frames: int = 32,
    duration: int = 4,
    noise: float = 8.0,
) -> np.ndarray:
    """Draw clips, one per entry of `labels` and `distances`.

    Args:
        task: `"match"` or `"order"`.
        labels: 0 or 1, the place of the class in `RECALL_CLASSES[task]`.
        distances: frames from the beginning of the cue to that of the answer, from `duration` to `num_frames - duration`.
        rng: where everything random comes from.
        size: height and width in pixels.
        num_frames: frames of a clip.
        duration: frames for which cue and answer are shown.
        noise: standard deviation of the noise of each frame, on the scale 0-255.

    Returns:
        uint8 array (N, num_frames, size, size, 3), RGB.

    Raises:
        ValueError: an unknown task, or distances that do not fit.
    """
    labels, distances = np.asarray(labels), np.asarray(distances)
    _check_task(task)
    if len(labels) != len(distances) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected a label 0 or 1 for each of {len(distances)} distances, got {labels.tolist()}")
    if (distances < duration).any() or (distances > num_frames - duration).any():
        raise ValueError(
            f"`distances` must be {duration} to {num_frames - duration} for bars of {duration} frames in clips of {num_frames}, "
            f"got {sorted(set(distances.tolist()))}"
        )
    count = len(labels)
    # the draws are the same in both classes and come in the same order
    begins = (rng.random(count) * (num_frames - duration - distances + 1)).astype(int)
    cue = rng.random(count) < 0.5
    if task == "match":
        answer = np.where(labels == 0, cue, ~cue)
    else:
        cue = labels == 1
        answer = ~cue
    clips = rng.uniform(60, 120, (count, 1, 1, 1, 3)).astype(np.float32)
    clips = clips + noise * rng.standard_normal((count, num_frames, size, size, 3), dtype=np.float32)
    every = np.arange(count)
    for begin, vertical in ((begins, cue), (begins + distances, answer)):
        cover = _bars(vertical, rng.uniform(-_SHIFT, _SHIFT, (count, 2)), size)[..., None].astype(np.float32)
        colour = rng.uniform(190, 250, (count, 1, 1, 3)).astype(np.float32)
        for frame in range(duration):
            clips[every, begin + frame] += cover * (colour - clips[every, begin + frame])
    return np.clip(np.rint(clips), 0, 255).astype(np.uint8)


def _bars(vertical: np.ndarray, shift: np.ndarray, size: int) -> np.ndarray:
    """How much of each pixel the bars cover: (N, size, size) in [0, 1]."""
    pixel = (np.arange(size) + 0.5) / size - 0.5
    along, across = (
        np.clip(0.5 - (np.abs(pixel - shift[:, part, None]) - extent / 2) * size, 0, 1)
        for part, extent in enumerate((_LENGTH, _WIDTH))
    )
    standing, lying = along[:, :, None] * across[:, None, :], across[:, :, None] * along[:, None, :]
    return np.where(vertical[:, None, None], standing, lying)


def make_recall_dataset(
    root,
    task: str = "match",
    distances: Sequence[int] = (4, 8, 12, 16, 20),
    clips_per_class: Mapping[str, int] | int = 100,
    size: int = 32,
    num_frames: int = 32,
    duration: int = 4,
    fps: float = 16,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a task as mp4 files ``root/<split>/<class>/<class>_<distance>_<number>.mp4``, as `make_motion_dataset` does.

    A clip depends on (seed, split, class, number) alone. A folder that already holds exactly this data set is left as it is.

    Args:
        root: folder to write to; made when missing.
        task: `"match"` or `"order"`.
        distances: frames from cue to answer; the clips of a class go through them in turn.
        clips_per_class: number of clips of each class per split; a number means one split ``"train"``.
        size: height and width in pixels; even, at least 16.
        num_frames, duration: see `draw_recall_clips`.
        fps: frames per second written to the files.
        seed: the seed of everything random.
        progress: show a progress bar.

    Returns:
        The folder, as a `Path`.

    Raises:
        ValueError: an unknown task, or sizes that cannot be drawn.
    """
    _check_task(task)
    if size < 16 or size % 2 or not distances:
        raise ValueError(
            f"`size` must be even and at least 16 pixels, with some distances; got {size}, {list(distances)}"
        )
    splits = {"train": clips_per_class} if isinstance(clips_per_class, int) else dict(clips_per_class)
    root = Path(root)
    manifest = {
        "task": task,
        "distances": list(distances),
        "clips_per_class": splits,
        "size": size,
        "num_frames": num_frames,
        "duration": duration,
        "fps": fps,
        "seed": seed,
    }
    written = root / _MANIFEST
    if written.is_file() and json.loads(written.read_text(encoding="utf-8")) == manifest:
        return root
    written.unlink(missing_ok=True)
    names = RECALL_CLASSES[task]
    jobs = [(split, label, n) for split, count in splits.items() for label in (0, 1) for n in range(count)]
    for split, label, number in tqdm(jobs, desc="drawing clips", unit="clip", disable=not progress):
        name, distance = names[label], distances[number % len(distances)]
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), zlib.crc32(name.encode()), number])
        path = root / split / name / f"{name}_{distance:02d}_{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, draw_recall_clips(task, [label], [distance], rng, size, num_frames, duration)[0], fps)
    # Written last: its presence says that the data set is complete.
    written.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return root


def _check_task(task: str) -> None:
    if task not in RECALL_CLASSES:
        raise ValueError(f"`task` is one of {', '.join(RECALL_CLASSES)}, got {task!r}")
