"""Does an exported file answer what the model answers? Asked with noise and with a decoded video, at several shapes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .tracing import AXES


# Largest difference of logits, relative to the largest logit where that is above 1. Half precision rounds in every layer.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1.5e-1}

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Clip:
    """Pixels that both are asked about.

    Attributes:
        kind: `"noise"` or `"video"`.
        pixels: (B, T, C, H, W).
    """

    kind: str
    pixels: torch.Tensor

    @property
    def name(self) -> str:
        """In words, for messages."""
        return f"{self.kind} of shape {'x'.join(map(str, self.pixels.shape))}"


@dataclass(frozen=True)
class Parity:
    """How two ways of running one model compare.

    Attributes:
        max_difference: largest difference of two logits.
        max_relative: the same relative to the largest logit of its clip where that is above 1.
        worst: the clips with the largest `max_relative`, in words.
        same_top1: clips on which both name the same class.
        num_clips: clips that were compared.
        shapes: the shapes (B, T, C, H, W) that were tried.
    """

    max_difference: float
    max_relative: float
    worst: str
    same_top1: int
    num_clips: int
    shapes: tuple[tuple[int, ...], ...]

    @property
    def agreement(self) -> float:
        """Share of clips with the same class on top."""
        return self.same_top1 / self.num_clips


def shapes_to_try(
    shape: Sequence[int], axes: Iterable[str], smallest: Mapping[str, int], takes: Callable[[Sequence[int]], bool]
) -> list[tuple[int, ...]]:
    """Shapes (B, T, C, H, W): the model's own, then other batches, clip lengths and sizes, also such that no patch divides.

    Args:
        shape: (T, C, H, W) of the model's own clips.
        axes: the open axes.
        smallest: the least lengths that the graph allows.
        takes: whether the model itself takes a shape; one that it refuses is left out.
    """
    frames, channels, height, width = shape
    own = (1, frames, channels, height, width)
    wishes = [
        {"batch": 3},
        {"frames": 2 * frames},
        {"batch": 2, "frames": frames // 2 + 1},
        {"height": (height + height // 2) | 1, "width": width},
        {"height": height + 5, "width": 2 * width - 1},
        {"batch": 3, "frames": frames + 1, "height": height + 3, "width": width + 7},
        {"height": 3 * height // 4, "width": 3 * width // 4},
    ]
    shapes = [own]
    for wish in wishes:
        wanted = list(own)
        for name in axes:
            wanted[AXES[name]] = max(wish.get(name, own[AXES[name]]), smallest.get(name, 1))
        if tuple(wanted) not in shapes and takes(wanted):
            shapes.append(tuple(wanted))
    return shapes


def clips_to_try(shapes: Iterable[Sequence[int]], video: torch.Tensor, seed: int = 0) -> list[Clip]:
    """Noise and a decoded video in every shape.

    Args:
        shapes: (B, T, C, H, W) each.
        video: (V, T, C, H, W) pixels as the processor gave them; frames are picked and pictures resized to each shape.
        seed: seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for shape in map(tuple, shapes):
        clips.append(Clip("noise", torch.randn(*shape, generator=generator)))
        clips.append(Clip("video", _reshaped(video, shape)))
    return clips


def _reshaped(video: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    batch, frames, _, height, width = shape
    clips = video[torch.arange(batch) % len(video)]
    clips = clips[:, torch.arange(frames) * clips.shape[1] // frames]
    if clips.shape[-2:] != (height, width):
        resized = F.interpolate(clips.flatten(0, 1), size=(height, width), mode="bilinear", antialias=True)
        clips = resized.unflatten(0, (batch, frames))
    return clips.contiguous()


def compare(reference: Forward, candidate: Forward, clips: Iterable[Clip]) -> Parity:
    """Asks both about every clip.

    Args:
        reference: pixels to logits, the model.
        candidate: pixels to logits, the exported file.
        clips: what to ask about.
    """
    rows, same, count = [], 0, 0
    for clip in clips:
        expected, found = reference(clip.pixels), candidate(clip.pixels)
        difference = (found - expected).abs().max().item()
        # what is not a number compares as smaller than anything
        difference = difference if difference == difference else float("inf")
        rows.append((difference / max(1.0, expected.abs().max().item()), difference, clip))
        same += int((expected.argmax(-1) == found.argmax(-1)).sum())
        count += len(expected)
    relative, _, worst = max(rows, key=lambda row: row[0])
    return Parity(
        max_difference=max(row[1] for row in rows),
        max_relative=relative,
        worst=worst.name,
        same_top1=same,
        num_clips=count,
        shapes=tuple(dict.fromkeys(tuple(row[2].pixels.shape) for row in rows)),
    )
