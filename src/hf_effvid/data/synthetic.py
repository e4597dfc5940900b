"""A small generated data set of real mp4 files whose classes are motions.

No single frame tells the class, by construction rather than by luck. A clip shows one object whose state has five parts:
horizontal and vertical place, angle, size and colour. Each part lives on a circle (the picture wraps around at its
borders, sizes jump from the largest to the smallest, the colours follow each other in a ring) and starts uniformly on
it. A class turns exactly one part at a constant speed and leaves the others alone. A uniform start on a circle stays
uniform under any rotation, so **frame t of a clip has the same distribution in every class, for every t**. The classes
come in pairs that are each other's time reversal, so within a pair the unordered set of frames tells nothing either.
Every frame is coded by itself (intra only), so that no trace of the frame before it is left in the pixels.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Motion:
    """Which part of the state a class turns, which way, and how many turns of its circle a clip makes (least and most)."""

    part: str
    sign: int
    turns: tuple[float, float]


MOTIONS = {
    "moves_left": Motion("x", -1, (0.5, 0.75)),
    "moves_right": Motion("x", +1, (0.5, 0.75)),
    "turns_clockwise": Motion("angle", +1, (0.5, 0.8)),
    "turns_counter_clockwise": Motion("angle", -1, (0.5, 0.8)),
    "grows": Motion("size", +1, (0.7, 1.1)),
    "shrinks": Motion("size", -1, (0.7, 1.1)),
    "red_then_green_then_blue": Motion("color", +1, (1.2, 1.8)),
    "blue_then_green_then_red": Motion("color", -1, (1.2, 1.8)),
    "moves_up": Motion("y", -1, (0.5, 0.75)),
    "moves_down": Motion("y", +1, (0.5, 0.75)),
}

ALL_MOTION_CLASSES = tuple(MOTIONS)
"""Every class that can be drawn."""

MOTION_CLASSES = ALL_MOTION_CLASSES[:8]
"""The default classes: direction, rotation, growth and order of events, two classes each."""

REVERSED_CLASS = {
    name: next(n for n, m in MOTIONS.items() if m.part == motion.part and m.sign == -motion.sign)
    for name, motion in MOTIONS.items()
}
"""Each class and the one that shows the same frames in reversed order."""

_PALETTE = np.array([[225, 45, 45], [45, 190, 60], [50, 80, 230]], dtype=np.float32)  # red, green, blue: the ring
_SHAPES = ("bar", "wedge", "missing_slice", "dumbbell")
_MARK = np.array([245, 245, 235], dtype=np.float32)  # a light spot at one end: no object looks the same at two angles
_RADIUS = (0.18, 0.45)  # of the picture's side; smaller objects drown in the mean over all sites
_MANIFEST = "motion_dataset.json"
_DRAWING = 2  # raised when the same request draws other pixels, so that folders written before are written anew


def make_motion_dataset(
    root,
    clips_per_class: Mapping[str, int] | int | None = None,
    size: int = 64,
    num_frames: int = 16,
    fps: float = 16,
    seed: int = 0,
    classes: Sequence[str] = MOTION_CLASSES,
    noise: float = 6.0,
    num_workers: int = 1,
    progress: bool = True,
) -> Path:
    """Write the motion data set as ``root/<split>/<class>/<class>_<number>.mp4``.

    A clip depends on (seed, split, class, number) alone, so asking for more clips keeps those that were there, and any
    number of workers writes the same files. A folder that already holds exactly this data set is left as it is.

    Args:
        root: folder to write to; made when missing.
        clips_per_class: number of clips of each class per split, such as ``{"train": 100, "test": 20}``; a number
            means one split ``"train"``. Default: 100 / 20 / 30 for train / validation / test.
        size: height and width of the pictures in pixels; even, at least 16.
        num_frames: frames of a clip.
        fps: frames per second written to the files.
        seed: the seed of everything random.
        classes: which of `ALL_MOTION_CLASSES` to draw.
        noise: standard deviation of the noise of each frame, on the scale 0-255.
        num_workers: processes that draw and encode.
        progress: show a progress bar.

    Returns:
        The folder, as a `Path`.

    Raises:
        ValueError: a class that does not exist, or sizes that cannot be drawn.
    """
    splits = _split_counts(clips_per_class)
    _check_request(splits, size, num_frames, fps, classes)
    root = Path(root)
    manifest = {
        "clips_per_class": splits,
        "size": size,
        "num_frames": num_frames,
        "fps": fps,
        "seed": seed,
        "classes": list(classes),
        "noise": noise,
        "drawing": _DRAWING,
    }
    jobs = [
        (str(_clip_path(root, split, name, number)), name, split, number, size, num_frames, fps, seed, noise)
        for split, count in splits.items()
        for name in classes
        for number in range(count)
    ]
    if _already_there(root, manifest, jobs):
        return root
    (root / _MANIFEST).unlink(missing_ok=True)
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    _write_all(jobs, num_workers, progress)
    # Written last: its presence says that the data set is complete.
    (root / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return root


def tiny_motion_dataset(
    root,
    classes: Sequence[str] = MOTION_CLASSES[:4],
    clips_per_class: Mapping[str, int] | int | None = None,
    size: int = 32,
    num_frames: int = 8,
    seed: int = 0,
) -> Path:
    """Write a motion data set small enough for tests: by default 16 clips of 8 frames of 32x32 in three splits."""
    counts = {"train": 2, "validation": 1, "test": 1} if clips_per_class is None else clips_per_class
    return make_motion_dataset(
        root, clips_per_class=counts, size=size, num_frames=num_frames, seed=seed, classes=classes, progress=False
    )


def draw_motion_clip(
    name: str, rng: np.random.Generator, size: int = 64, num_frames: int = 16, noise: float = 6.0
) -> np.ndarray:
    """Draw one clip of a class.

    Args:
        name: one of `ALL_MOTION_CLASSES`.
        rng: where everything random comes from.
        size: height and width in pixels.
        num_frames: number of frames.
        noise: standard deviation of the noise of each frame, on the scale 0-255.

    Returns:
        uint8 array (num_frames, size, size, 3), RGB.
    """
    motion = MOTIONS[name]
    # Every draw is made in every class and in the same order: nothing but the turned part depends on the class.
    phases = dict(zip(("x", "y", "angle", "size", "color"), rng.random(5), strict=True))
    turns = motion.turns[0] + (motion.turns[1] - motion.turns[0]) * rng.random()
    look = draw_look(rng, size)
    time = np.arange(num_frames, dtype=np.float32) / num_frames
    track = {part: np.full(num_frames, phase, dtype=np.float32) for part, phase in phases.items()}
    track[motion.part] = (track[motion.part] + motion.sign * turns * time) % 1.0
    return draw_track(look, track, rng, noise)


class ObjectLook(NamedTuple):
    """What does not change while an object moves.

    Attributes:
        shape: the outline.
        colors: float32 (3, 3), the ring of its colours.
        background: float32 (1, size, size, 3), the picture behind it.
    """

    shape: str
    colors: np.ndarray
    background: np.ndarray


def draw_look(rng: np.random.Generator, size: int) -> ObjectLook:
    """A random object before a random background of `size` x `size` pixels."""
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    colors = np.clip(_PALETTE + rng.uniform(-25, 25, size=_PALETTE.shape), 0, 255).astype(np.float32)
    return ObjectLook(shape, colors, _background(rng, size))


def draw_track(
    look: ObjectLook, track: Mapping[str, np.ndarray], rng: np.random.Generator, noise: float
) -> np.ndarray:
    """Draw an object along a track.

    Args:
        look: the object.
        track: float32 (T,) in [0, 1) for each of the parts "x", "y", "angle", "size" and "color".
        rng: where the noise comes from.
        noise: its standard deviation in each frame, on the scale 0-255.

    Returns:
        uint8 array (T, size, size, 3), RGB.
    """
    colors = look.colors
    cover, mark = _object_cover(look.shape, track, look.background.shape[1])
    color = colors[np.minimum((track["color"] * len(colors)).astype(int), len(colors) - 1)][:, None, None, :]
    color = color + mark * (_MARK - color)
    clip = look.background + cover * (color - look.background)
    clip += noise * rng.standard_normal(clip.shape, dtype=np.float32)
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def write_clip(path, frames: np.ndarray, fps: float = 16, gop_size: int = 1) -> None:
    """Encode RGB frames as an mp4 file in which, by default, every frame is coded by itself.

    Args:
        path: the file to write.
        frames: uint8 array (T, H, W, 3); even height and width.
        fps: frames per second.
        gop_size: a key frame every so many frames.
    """
    codec, options = _codec()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(60_060), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop_size
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _codec() -> tuple[str, dict[str, str]]:
    """H.264 at a constant quantiser (rate control would make quality depend on the frame's place), or MPEG-4."""
    if "libx264" in av.codecs_available:
        return "libx264", {"preset": "ultrafast", "qp": "18"}
    return "mpeg4", {"qmin": "2", "qmax": "2"}


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A dull gradient with coarse static texture: float32 (1, size, size, 3)."""
    base = rng.uniform(70, 190) + rng.uniform(-20, 20, size=3)
    slope = rng.uniform(-30, 30, size=(2, 3))
    grid = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    gradient = grid[:, None, None] * slope[0] + grid[None, :, None] * slope[1]
    cell = max(1, size // 8)
    coarse = rng.uniform(-12, 12, size=(-(-size // cell), -(-size // cell)))
    texture = np.kron(coarse, np.ones((cell, cell)))[:size, :size, None]
    return (base + gradient + texture).astype(np.float32)[None]


def _object_cover(shape: str, track: Mapping[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel the object covers, and how much of that is its mark: float32 (T, size, size, 1) in [0, 1]."""
    pixel = (np.arange(size, dtype=np.float32) + 0.5) / size
    # Distances on the torus: an object that leaves on one side comes in on the other.
    dx = (pixel[None, None, :] - track["x"][:, None, None] + 0.5) % 1.0 - 0.5
    dy = (pixel[None, :, None] - track["y"][:, None, None] + 0.5) % 1.0 - 0.5
    radius = (_RADIUS[0] * (_RADIUS[1] / _RADIUS[0]) ** track["size"])[:, None, None].astype(np.float32)
    angle = (2 * np.pi * track["angle"])[:, None, None].astype(np.float32)
    cos, sin = np.cos(angle), np.sin(angle)
    u = (cos * dx + sin * dy) / radius  # along the object; the picture's y axis points down, so angles grow clockwise
    v = (cos * dy - sin * dx) / radius
    mark = np.hypot(u + 0.55, v) - 0.28
    return tuple(
        np.clip(0.5 - distance * radius * size, 0, 1)[..., None] for distance in (_signed_distance(shape, u, v), mark)
    )


def _signed_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline in units of the radius, negative inside; inexact far away, where it does not matter."""
    if shape == "bar":
        return np.maximum(np.abs(u) - 1.0, np.abs(v) - 0.38)
    if shape == "wedge":  # a long triangle with its tip at u = 1
        return np.maximum(-u - 0.8, np.abs(v) * 0.91 - 0.41 * (1.0 - u))
    if shape == "missing_slice":  # a disc without a quarter
        return np.maximum(np.hypot(u, v) - 1.0, 0.7071 * (u - np.abs(v)))
    big = np.hypot(u - 0.45, v) - 0.55  # a large disc, a small one and a rod
    small = np.hypot(u + 0.7, v) - 0.3
    rod = np.maximum(np.abs(u) - 0.7, np.abs(v) - 0.15)
    return np.minimum(np.minimum(big, small), rod)


def _split_counts(clips_per_class) -> dict[str, int]:
    if clips_per_class is None:
        return {"train": 100, "validation": 20, "test": 30}
    if isinstance(clips_per_class, int):
        return {"train": clips_per_class}
    return dict(clips_per_class)


def _check_request(splits, size, num_frames, fps, classes) -> None:
    unknown = [name for name in classes if name not in MOTIONS]
    if unknown:
        raise ValueError(f"unknown motion classes {unknown}; choose from {', '.join(ALL_MOTION_CLASSES)}")
    if len(set(classes)) != len(classes) or not classes:
        raise ValueError(f"`classes` must be distinct and not empty, got {list(classes)}")
    if size < 16 or size % 2:
        raise ValueError(f"`size` must be even and at least 16 pixels, got {size}")
    if num_frames < 2 or fps <= 0:
        raise ValueError(f"motion needs at least 2 frames and a positive rate, got {num_frames} frames at {fps} fps")
    if any(count < 0 for count in splits.values()):
        raise ValueError(f"`clips_per_class` must not be negative, got {splits}")


def _clip_path(root: Path, split: str, name: str, number: int) -> Path:
    return root / split / name / f"{name}_{number:05d}.mp4"


def _already_there(root: Path, manifest: dict, jobs: list[tuple]) -> bool:
    try:
        written = json.loads((root / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return written == manifest and all(os.path.isfile(job[0]) for job in jobs)


def _write_job(job: tuple) -> None:
    path, name, split, number, size, num_frames, fps, seed, noise = job
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), zlib.crc32(name.encode()), number])
    write_clip(path, draw_motion_clip(name, rng, size, num_frames, noise), fps)


def _write_all(jobs: list[tuple], num_workers: int, progress: bool) -> None:
    bar = {"total": len(jobs), "desc": "drawing clips", "unit": "clip", "disable": not progress}
    if num_workers <= 1:
        for job in tqdm(jobs, **bar):
            _write_job(job)
        return
    # "spawn": a forked child of a process that already runs torch threads may hang.
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(_write_job, jobs, chunksize=16), **bar):
            pass
