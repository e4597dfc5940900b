"""Generated clips of which it is known which tokens carry the class: needles in a haystack of noise and moving distractors.

A clip is a grid of tokens: cells of `tubelet_size` frames and `patch_size` x `patch_size` pixels. Every cell shows noise. There are three tasks:

- `"needle"`: a few cells show the class's texture in the red channel, over all frames of the cell. One such token is enough to tell the class.
- `"global"`: the class is a faint tint of every pixel. All tokens are worth the same: the negative control, where no choice of tokens can beat chance.
- `"conjunction"`: a few cells show the same texture, which is the class, and as many *decoys* show other textures, each once. What counts
  is which texture comes twice, and no token knows that by itself: a score that looks at one token at a time cannot tell a needle from a decoy.

Distractors, textures in the green and blue channels, move over the picture in every task. They are drawn without looking at the class, so
that motion and contrast lead astray. Textures are Walsh patterns of 4 x 4 blocks: orthogonal to each other, with mean zero, and for patches of
a multiple of 8 pixels no finer than the colour resolution of video files.

A share r of random tokens misses all k needles with probability (1 - r)^k: with 4 needles .06, .24 and .66 at r = .5, .3 and .1.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .synthetic import write_clip


NEEDLE_TASKS = ("needle", "global", "conjunction")
LOCATIONS = ("random", "static", "fixed")
_BLOCKS = 4  # a texture is a pattern of that many blocks in either direction
_MANIFEST, _TOKENS = "needle_dataset.json", "informative_tokens.json"


@dataclass(frozen=True)
class NeedleTask:
    """What the clips look like.

    Attributes:
        kind: one of `NEEDLE_TASKS`.
        num_classes: number of classes, at most 15.
        size: height and width in pixels.
        num_frames: frames of a clip.
        patch_size: pixels of a token in either direction, a multiple of 4 (of 8 for files).
        tubelet_size: frames of a token.
        num_needles: tokens that show the class's texture.
        location: where needles are: `"random"` anywhere, anew in each step of time; `"static"` anywhere, but in the same places over the
            whole clip, so that nothing about them moves; `"fixed"` in the same places in every clip, so that the place alone tells them.
        amplitude: least and greatest height of a needle's texture (of the tint for `"global"`), on the scale 0-255, drawn for each clip.
        noise: standard deviation of the noise, on the same scale.
        num_distractors: moving textures without meaning.
        distractor_amplitude: their height.
        num_decoys: tokens with another class's texture, for `"conjunction"`.
    """

    kind: str = "needle"
    num_classes: int = 8
    size: int = 32
    num_frames: int = 8
    patch_size: int = 8
    tubelet_size: int = 2
    num_needles: int = 4
    location: str = "random"
    amplitude: tuple[float, float] = (15.0, 50.0)
    noise: float = 30.0
    num_distractors: int = 4
    distractor_amplitude: float = 50.0
    num_decoys: int = 4

    def __post_init__(self):
        if self.kind not in NEEDLE_TASKS or self.location not in LOCATIONS:
            raise ValueError(
                f"`kind` is one of {', '.join(NEEDLE_TASKS)} and `location` one of {', '.join(LOCATIONS)}, got {self.kind!r} and "
                f"{self.location!r}"
            )
        if self.size % self.patch_size or self.num_frames % self.tubelet_size or self.patch_size % _BLOCKS:
            raise ValueError(
                "tokens must fill the clip, and patches must be multiples of 4 pixels; got "
                f"size={self.size}, patch_size={self.patch_size}, num_frames={self.num_frames}, tubelet_size={self.tubelet_size}"
            )
        if not 2 <= self.num_classes < _BLOCKS**2:
            raise ValueError(f"`num_classes` is 2 to {_BLOCKS**2 - 1}, got {self.num_classes}")
        shown = self.num_needles + (self.num_decoys if self.kind == "conjunction" else 0)
        if not 1 <= self.num_needles or shown > self.num_tokens:
            raise ValueError(f"{shown} needles and decoys do not fit into {self.num_tokens} tokens")
        if self.kind == "conjunction" and (self.num_needles < 2 or self.num_decoys >= self.num_classes):
            raise ValueError(
                "a conjunction needs at least 2 needles and fewer decoys than classes, got "
                f"{self.num_needles}, {self.num_decoys} and {self.num_classes}"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens of a clip: steps in time, rows, columns."""
        return self.num_frames // self.tubelet_size, self.size // self.patch_size, self.size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of a clip."""
        steps, rows, columns = self.grid
        return steps * rows * columns

    @property
    def class_names(self) -> list[str]:
        """`texture_00`, ... or `tint_00`, ..."""
        return [f"{'tint' if self.kind == 'global' else 'texture'}_{number:02d}" for number in range(self.num_classes)]


class NeedleClips(NamedTuple):
    """Clips and the truth about them.

    Attributes:
        frames: uint8 (N, T, H, W, 3), RGB.
        informative: bool (N, tokens), tokens in the order (t, y, x): which carry the class.
        decoys: bool (N, tokens): which show another class's texture.
    """

    frames: np.ndarray
    informative: np.ndarray
    decoys: np.ndarray


def draw_needle_clips(task: NeedleTask, labels: Sequence[int], rng: np.random.Generator) -> NeedleClips:
    """Draw clips, one per label.

    Args:
        task: what they look like.
        labels: classes, from 0.
        rng: where everything random comes from.

    Raises:
        ValueError: a label that is no class.
    """
    labels = np.asarray(labels, dtype=int)
    if ((labels < 0) | (labels >= task.num_classes)).any():
        raise ValueError(f"labels are 0 to {task.num_classes - 1}, got {sorted(set(labels.tolist()))}")
    count, shape = len(labels), (task.num_frames, task.size, task.size, 3)
    clips = 128 + rng.uniform(-12, 12, (count, 1, 1, 1, 3)).astype(np.float32)
    clips = clips + task.noise * rng.standard_normal((count, *shape), dtype=np.float32)
    heights = rng.uniform(*task.amplitude, count)
    informative, decoys = (np.zeros((count, task.num_tokens), dtype=bool) for _ in range(2))
    for clip, label, height, needles, others in zip(clips, labels, heights, informative, decoys, strict=True):
        if task.kind == "global":
            needles[:] = True
            clip += height * _TINTS[label]
        else:
            tokens = _draw_places(task, rng)
            needles[tokens[: task.num_needles]] = True
            others[tokens[task.num_needles :]] = True
            wrong = rng.permutation(np.delete(np.arange(task.num_classes), label))
            for number, token in enumerate(tokens):
                shown = label if number < task.num_needles else wrong[number - task.num_needles]
                _cell(clip, task, token)[..., 0] += height * _texture(shown, task.patch_size)
        for _ in range(task.num_distractors):
            _draw_distractor(clip, task, rng)
    return NeedleClips(np.clip(np.rint(clips), 0, 255).astype(np.uint8), informative, decoys)


def make_needle_dataset(
    root,
    task: NeedleTask | None = None,
    clips_per_class: Mapping[str, int] | int = 100,
    fps: float = 16,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a task as mp4 files ``root/<split>/<class>/<class>_<number>.mp4``, and which tokens of each carry its class.

    A clip depends on (seed, split, class, number) alone. A folder that already holds exactly this data set is left as it is. The truth is in
    ``informative_tokens.json``: path below `root` -> indices of tokens in the order (t, y, x).

    Args:
        root: folder to write to; made when missing.
        task: what the clips look like; default: the needle.
        clips_per_class: number of clips of each class per split; a number means one split ``"train"``.
        fps: frames per second written to the files.
        seed: the seed of everything random.
        progress: show a progress bar.

    Returns:
        The folder, as a `Path`.
    """
    task = task or NeedleTask()
    splits = {"train": clips_per_class} if isinstance(clips_per_class, int) else dict(clips_per_class)
    root = Path(root)
    manifest = {"task": {**asdict(task), "amplitude": list(task.amplitude)}, "clips_per_class": splits, "fps": fps}
    manifest["seed"] = seed
    written = root / _MANIFEST
    if written.is_file() and json.loads(written.read_text(encoding="utf-8")) == manifest:
        return root
    written.unlink(missing_ok=True)
    jobs = [(s, label, n) for s, count in splits.items() for label in range(task.num_classes) for n in range(count)]
    truth = {}
    for split, label, number in tqdm(jobs, desc="drawing clips", unit="clip", disable=not progress):
        name = task.class_names[label]
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), zlib.crc32(name.encode()), number])
        path = root / split / name / f"{name}_{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        clips = draw_needle_clips(task, [label], rng)
        write_clip(path, clips.frames[0], fps)
        truth[path.relative_to(root).as_posix()] = np.flatnonzero(clips.informative[0]).tolist()
    (root / _TOKENS).write_text(json.dumps(truth) + "\n", encoding="utf-8")
    # Written last: its presence says that the data set is complete.
    written.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return root


def _walsh_textures() -> np.ndarray:
    """The 15 Walsh patterns with mean zero: (15, 4, 4) of +1 and -1."""
    pair = np.array([[1, 1], [1, -1]])
    rows = np.kron(pair, pair)
    return np.stack([np.outer(rows[i], rows[j]) for i in range(4) for j in range(4)])[1:].astype(np.float32)


_TEXTURES = _walsh_textures()
# as far from each other as 15 colours get: corners, then edges of the cube
_TINTS = (
    np.array([c for c in np.ndindex(3, 3, 3) if c != (1, 1, 1)], dtype=np.float32)[
        [0, 25, 2, 23, 6, 19, 8, 17, 1, 3, 9, 24, 22, 16, 7]
    ]
    - 1
)


def _texture(number: int, patch_size: int) -> np.ndarray:
    block = np.ones((patch_size // _BLOCKS, patch_size // _BLOCKS), dtype=np.float32)
    return np.kron(_TEXTURES[number], block)


def _draw_places(task: NeedleTask, rng: np.random.Generator) -> np.ndarray:
    """Distinct tokens for needles, then decoys, together spread evenly over time."""
    steps, rows, columns = task.grid
    count = task.num_needles + (task.num_decoys if task.kind == "conjunction" else 0)
    source = np.random.default_rng(0) if task.location == "fixed" else rng
    if task.location == "random":
        places = np.stack([source.permutation(rows * columns) for _ in range(steps)])
    else:
        places = np.broadcast_to(source.permutation(rows * columns), (steps, rows * columns))
    numbers = np.arange(count)
    step, turn = source.permutation(steps)[numbers % steps], numbers // steps
    # in an order of chance: neither time nor place tells a needle from a decoy
    return source.permutation(step * rows * columns + places[step, turn])


def _cell(clip: np.ndarray, task: NeedleTask, token: int) -> np.ndarray:
    """The part of a clip (T, H, W, 3) that a token sees, as a view."""
    step, row, column = np.unravel_index(token, task.grid)
    patch = task.patch_size
    return clip[
        step * task.tubelet_size : (step + 1) * task.tubelet_size,
        row * patch : (row + 1) * patch,
        column * patch : (column + 1) * patch,
    ]


def _draw_distractor(clip: np.ndarray, task: NeedleTask, rng: np.random.Generator) -> None:
    """A texture that crosses the picture; what leaves on one side comes in on the other."""
    begin, speed = rng.integers(task.size, size=2), rng.choice([-3, -2, -1, 1, 2, 3], size=2)
    shown = rng.integers(len(_TEXTURES), size=2)
    texture = np.stack([_texture(number, task.patch_size) for number in shown], axis=-1)
    for time, frame in enumerate(clip):
        rows, columns = (
            (begin[axis] + speed[axis] * time + np.arange(task.patch_size)) % task.size for axis in (0, 1)
        )
        frame[rows[:, None], columns[None], 1:] += task.distractor_amplitude * texture
