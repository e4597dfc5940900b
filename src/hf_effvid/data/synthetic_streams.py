"""Generated untrimmed videos for temporal action detection: real mp4 files in which actions happen at known times.

A stream shows the object of `make_motion_dataset` before one background for 10 to 40 seconds. Now and then it makes one of that data set's
motions; this is an action. In between it rests, or does something that is none:

- *wander*: all parts of its state drift slowly, now this way, now that way;
- *shake*: one part swings to and fro, faster than any action, and returns to where it was;
- *cut*: from one frame to the next it is somewhere else, looks another way, has another size and another colour.

So neither a frame nor a difference of two frames tells an action: what counts is that one part keeps turning one way. An action from frame a
to frame b moves between these frames and nowhere else; it is annotated as the seconds a / fps to b / fps, exactly.
"""

import csv
import json
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .detection_annotations import ActionSegment
from .synthetic import ALL_MOTION_CLASSES, MOTIONS, draw_look, draw_track, write_clip


STREAM_CLASSES = ("moves_left", "moves_right", "grows", "shrinks")
"""The default classes, which the quickstart's classifier knows, too. Rotation is learnt as well, but not in minutes; colours change in steps,
so that the first one shows up to half a second after an action began."""

_PARTS = ("x", "y", "angle", "size", "color")
# turns of its circle that an action makes in a second, least and most
_SPEEDS = {"x": (0.25, 0.45), "y": (0.25, 0.45), "angle": (0.3, 0.6), "size": (0.35, 0.65), "color": (0.6, 1.0)}
_SHAKEN = ("x", "y", "angle", "size")  # a colour that swings to and fro cannot be told from one that turns
_SHAKE_HERTZ, _SHAKE_TURNS = (2.0, 3.0), (0.04, 0.08)
_WANDER_SPEED, _WANDER_SECONDS = 0.25, 0.5  # of an action's speed at most, and how long it keeps its direction
_KEY_FRAME_SECONDS = 2
_MANIFEST = "stream_dataset.json"
_DRAWING = 2  # raised when the same request draws other pixels, so that folders written before are written anew


class ActionStream(NamedTuple):
    """A stream and the truth about it.

    Attributes:
        frames: uint8 (T, size, size, 3), RGB; frame k is shown at second k / fps.
        segments: its actions, in the order of time.
    """

    frames: np.ndarray
    segments: list[ActionSegment]


def draw_action_stream(
    rng: np.random.Generator,
    size: int = 64,
    fps: float = 12,
    seconds: Sequence[float] = (10, 40),
    event_seconds: Sequence[float] = (0.8, 4.0),
    gap_seconds: Sequence[float] = (0.5, 4.0),
    classes: Sequence[str] = STREAM_CLASSES,
    hard_negatives: float = 0.6,
    noise: float = 4.0,
) -> ActionStream:
    """Draw one stream; see `make_action_streams` for the arguments.

    Args:
        rng: where everything random comes from.
    """
    total = round(rng.uniform(*seconds) * fps)
    turned = {part: np.zeros(total) for part in _PARTS}  # turns made from frame k - 1 to frame k
    segments, queue, frame = [], [], 0
    while True:
        gap = max(1, round(rng.uniform(*gap_seconds) * fps))
        length = max(1, round(np.exp(rng.uniform(*np.log(event_seconds))) * fps))
        if frame + gap + length + max(1, round(gap_seconds[0] * fps)) > total - 1:
            break
        _fill_gap(turned, frame, frame + gap, fps, rng, hard_negatives)
        queue = queue or list(rng.permutation(classes))  # each class in turn: a stream is never all of one
        label, frame = str(queue.pop()), frame + gap
        motion = MOTIONS[label]
        turned[motion.part][frame + 1 : frame + length + 1] = motion.sign * rng.uniform(*_SPEEDS[motion.part]) / fps
        segments.append(ActionSegment(label, frame / fps, (frame + length) / fps))
        frame += length
    _fill_gap(turned, frame, total - 1, fps, rng, hard_negatives)
    track = {part: ((rng.random() + np.cumsum(steps)) % 1.0).astype(np.float32) for part, steps in turned.items()}
    return ActionStream(draw_track(draw_look(rng, size), track, rng, noise), segments)


def make_action_streams(
    root,
    num_videos: Mapping[str, int] | int | None = None,
    size: int = 64,
    fps: float = 12,
    seconds: Sequence[float] = (10, 40),
    event_seconds: Sequence[float] = (0.8, 4.0),
    gap_seconds: Sequence[float] = (0.5, 4.0),
    classes: Sequence[str] = STREAM_CLASSES,
    hard_negatives: float = 0.6,
    noise: float = 4.0,
    seed: int = 0,
    num_workers: int = 1,
    progress: bool = True,
) -> Path:
    """Write streams as ``root/<split>/<split>_<number>.mp4`` and their annotations in two forms.

    ``root/annotations.csv`` has the columns file, start, end, label, split; ``root/annotations.json`` is ActivityNet's format, with
    durations. A stream depends on (seed, split, number) alone, so asking for more keeps those that were there. A folder that already holds
    exactly these streams is left as it is.

    Args:
        root: folder to write to; made when missing.
        num_videos: streams per split; a number means one split ``"train"``. Default: 60 / 12 / 24 for train / validation / test.
        size: height and width of the pictures in pixels; even, at least 16.
        fps: frames per second.
        seconds: least and greatest length of a stream.
        event_seconds: least and greatest length of an action; short ones are more frequent (uniform in the logarithm).
        gap_seconds: least and greatest time between two actions.
        classes: which of `ALL_MOTION_CLASSES` happen.
        hard_negatives: share of the gaps in which the object does not rest.
        noise: standard deviation of the noise of each frame, on the scale 0-255.
        seed: the seed of everything random.
        num_workers: processes that draw and encode.
        progress: show a progress bar.

    Returns:
        The folder, as a `Path`.

    Raises:
        ValueError: a class that does not exist, or sizes and times that do not fit together.

    Example:
        >>> folder = make_action_streams("streams", {"train": 8, "test": 2})
        >>> annotations = load_detection_annotations(folder / "annotations.csv")
    """
    splits = _split_counts(num_videos)
    drawing = {
        "size": size,
        "fps": fps,
        "seconds": list(seconds),
        "event_seconds": list(event_seconds),
        "gap_seconds": list(gap_seconds),
        "classes": list(classes),
        "hard_negatives": hard_negatives,
        "noise": noise,
    }
    _check_request(splits, drawing)
    root = Path(root)
    manifest = {"num_videos": splits, "seed": seed, **drawing, "drawing": _DRAWING}
    jobs = [
        (str(root / split / f"{split}_{number:05d}.mp4"), split, number, seed, drawing)
        for split, count in splits.items()
        for number in range(count)
    ]
    if _already_there(root, manifest, jobs):
        return root
    (root / _MANIFEST).unlink(missing_ok=True)
    for split in splits:
        (root / split).mkdir(parents=True, exist_ok=True)
    written = _write_all(jobs, num_workers, progress)
    _write_annotations(root, jobs, written, fps)
    # Written last: its presence says that the data set is complete.
    (root / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return root


def tiny_action_streams(root, num_videos: Mapping[str, int] | int | None = None, seed: int = 0) -> Path:
    """Write streams small enough for tests: by default 4 of 6 to 8 seconds, 32x32 at 8 frames per second, of two classes."""
    counts = {"train": 2, "validation": 1, "test": 1} if num_videos is None else num_videos
    return make_action_streams(
        root, counts, 32, 8, (6, 8), (0.75, 2.0), (0.5, 1.5), ("moves_right", "grows"), seed=seed, progress=False
    )


def _fill_gap(
    turned: dict, first: int, last: int, fps: float, rng: np.random.Generator, hard_negatives: float
) -> None:
    """What happens from frame `first` to frame `last` is no action; the first and last steps rest, so that actions stand by themselves."""
    length = last - first - 2
    busy, kind = rng.random() < hard_negatives, rng.integers(3)
    if not busy or length < 1:
        return
    inside = slice(first + 2, last)
    if kind == 0:
        for part in _SHAKEN:
            pieces = rng.uniform(-1, 1, size=length // max(1, round(_WANDER_SECONDS * fps)) + 1)
            speed = np.repeat(pieces, max(1, round(_WANDER_SECONDS * fps)))[:length]
            turned[part][inside] = speed * _WANDER_SPEED * _SPEEDS[part][0] / fps
    elif kind == 1:
        swing = np.sin(2 * np.pi * rng.uniform(*_SHAKE_HERTZ) * np.arange(length + 1) / fps)
        swing[-1] = 0
        turned[_SHAKEN[rng.integers(len(_SHAKEN))]][inside] = rng.uniform(*_SHAKE_TURNS) * np.diff(swing)
    else:
        cut = rng.integers(first + 2, last)
        for part in _PARTS:
            turned[part][cut] = rng.random()


def _split_counts(num_videos) -> dict[str, int]:
    if num_videos is None:
        return {"train": 60, "validation": 12, "test": 24}
    if isinstance(num_videos, int):
        return {"train": num_videos}
    return dict(num_videos)


def _check_request(splits: dict[str, int], drawing: dict) -> None:
    unknown = [name for name in drawing["classes"] if name not in MOTIONS]
    if unknown:
        raise ValueError(f"unknown motion classes {unknown}; choose from {', '.join(ALL_MOTION_CLASSES)}")
    if len(set(drawing["classes"])) != len(drawing["classes"]) or not drawing["classes"]:
        raise ValueError(f"`classes` must be distinct and not empty, got {drawing['classes']}")
    if drawing["size"] < 16 or drawing["size"] % 2 or drawing["fps"] <= 0:
        raise ValueError(
            f"expected an even `size` of at least 16 and a positive `fps`, got {drawing['size']} and {drawing['fps']}"
        )
    for name in ("seconds", "event_seconds", "gap_seconds"):
        if len(drawing[name]) != 2 or not 0 < drawing[name][0] <= drawing[name][1]:
            raise ValueError(f"`{name}` must be (least, greatest) above 0, got {drawing[name]}")
    needed = drawing["gap_seconds"][1] + drawing["event_seconds"][1] + drawing["gap_seconds"][0]
    if drawing["seconds"][0] < needed + 3 / drawing["fps"]:
        raise ValueError(
            f"the shortest stream of {drawing['seconds'][0]} seconds cannot hold the longest action between gaps ({needed} seconds)"
        )
    if not 0 <= drawing["hard_negatives"] <= 1:
        raise ValueError(f"`hard_negatives` is a share from 0 to 1, got {drawing['hard_negatives']}")
    if any(count < 0 for count in splits.values()):
        raise ValueError(f"`num_videos` must not be negative, got {splits}")


def _already_there(root: Path, manifest: dict, jobs: list[tuple]) -> bool:
    try:
        written = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    files = [job[0] for job in jobs] + [root / "annotations.csv", root / "annotations.json"]
    return written == manifest and all(Path(file).is_file() for file in files)


def _write_job(job: tuple) -> tuple[int, list[ActionSegment]]:
    """Number of frames, and the actions."""
    path, split, number, seed, drawing = job
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
    stream = draw_action_stream(rng, **drawing)
    write_clip(path, stream.frames, drawing["fps"], gop_size=max(1, round(_KEY_FRAME_SECONDS * drawing["fps"])))
    return len(stream.frames), stream.segments


def _write_all(jobs: list[tuple], num_workers: int, progress: bool) -> list[tuple[int, list[ActionSegment]]]:
    bar = {"total": len(jobs), "desc": "drawing streams", "unit": "stream", "disable": not progress}
    if num_workers <= 1:
        return [_write_job(job) for job in tqdm(jobs, **bar)]
    # "spawn": a forked child of a process that already runs torch threads may hang.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        return list(tqdm(pool.map(_write_job, jobs), **bar))


def _write_annotations(root: Path, jobs: list[tuple], written: list[tuple], fps: float) -> None:
    database = {}
    with open(root / "annotations.csv", "w", encoding="utf-8", newline="") as handle:
        table = csv.writer(handle)
        table.writerow(["file", "start", "end", "label", "split"])
        for (path, split, *_), (num_frames, segments) in zip(jobs, written, strict=True):
            file = Path(path)
            rows = [(round(one.start, 6), round(one.end, 6), one.label) for one in segments]
            table.writerows([file.relative_to(root).as_posix(), *row, split] for row in rows)
            database[file.stem] = {
                "subset": split,
                "duration": round(num_frames / fps, 6),
                "fps": fps,
                "annotations": [{"segment": [start, end], "label": label} for start, end, label in rows],
            }
    text = json.dumps({"version": "generated", "database": database}, indent=1)
    (root / "annotations.json").write_text(text + "\n", encoding="utf-8")
