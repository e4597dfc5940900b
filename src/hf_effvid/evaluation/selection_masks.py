"""Tokens drawn on frames: the value that each has, and which of them are kept (figures 4 and 7 of LITE, for one's own model)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..chart_text import plain_text
from ..explanation.heat import lay_over, step_of_frame


_MAX_FRAMES = 8
_DIMMED = 0.25  # how bright a token is drawn that is not kept
_PAPER = 235


@dataclass
class ExampleClip:
    """A clip to draw.

    Attributes:
        title: what it shows.
        frames: (T, 3, H, W) uint8, as the model saw them.
        grid: tokens along time, height and width.
        values: name -> (N,) values at least 0 in the order (t, y, x), drawn as heat.
        kept: name -> (k,) indices of kept tokens; the others are drawn dim.
    """

    title: str
    frames: torch.Tensor
    grid: tuple[int, int, int]
    values: Mapping[str, torch.Tensor]
    kept: Mapping[str, torch.Tensor]


def frames_of_pixels(pixel_values: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Model input (T, 3, H, W) turned back into uint8 frames.

    Args:
        pixel_values: normalised pixels.
        mean, std: of the normalisation, per channel, on the scale 0 to 1.
    """
    mean, std = (torch.tensor(list(values), dtype=torch.float32)[:, None, None] for values in (mean, std))
    return ((pixel_values.float().cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def kept_mask(kept: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """(t, h, w) True where a token is kept."""
    mask = torch.zeros(int(np.prod(grid)), dtype=torch.bool)
    mask[kept.cpu().long()] = True
    return mask.reshape(*grid)


def dimmed(frames: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Frames whose tokens outside the mask fade into the paper.

    Args:
        frames: (T, 3, H, W) uint8.
        mask: (t, h, w) bool.

    Returns:
        (T, H, W, 3) uint8.
    """
    size = tuple(frames.shape[-2:])
    cells = torch.nn.functional.interpolate(mask[:, None].float(), size=size, mode="nearest")[:, 0].numpy()
    share = cells[step_of_frame(len(frames), len(mask))][..., None]
    share = _DIMMED + (1 - _DIMMED) * share
    pixels = frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
    return np.rint(pixels * share + _PAPER * (1 - share)).astype(np.uint8)


def plot_clips(examples: Sequence[ExampleClip], path: str | os.PathLike, title: str = "") -> Path:
    """Draws clips below each other: the frames, the same with each value over them, and with the tokens that are kept.

    Args:
        examples: the clips.
        path: picture to write; its ending decides the format.
        title: heading; shown as text, never as markup.

    Returns:
        The path.

    Raises:
        ValueError: there is no clip.
    """
    if not examples:
        raise ValueError("masks need at least one clip to be drawn on.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for example in examples for row in _rows(example)]
    columns = max(strip.shape[1] / strip.shape[0] for _, strip, _ in rows)
    figure = Figure(
        figsize=(0.75 * columns + 2.2, 0.85 * len(rows) + 0.6), dpi=130, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    for axis, (name, strip, heading) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        axis.imshow(strip, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(plain_text(name), rotation=0, ha="right", va="center", fontsize=8)
        if heading:
            axis.set_title(plain_text(heading), fontsize=8, loc="left")
    if title:
        figure.suptitle(plain_text(title), fontsize=10, x=0.01, ha="left")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _rows(example: ExampleClip) -> list[tuple[str, np.ndarray, str]]:
    """(name, picture, heading) of every row of a clip."""
    columns = np.unique(
        np.linspace(0, len(example.frames) - 1, min(len(example.frames), _MAX_FRAMES)).round().astype(int)
    )
    rows = [("frames", example.frames.permute(0, 2, 3, 1).numpy(), example.title)]
    for name, values in example.values.items():
        maps = values.detach().cpu().float().reshape(*example.grid)
        rows.append((name, lay_over(example.frames, maps, (0.0, max(float(maps.max()), 1e-12))), ""))
    for name, kept in example.kept.items():
        rows.append((name, dimmed(example.frames, kept_mask(kept, example.grid)), ""))
    return [(name, _strip(pictures[columns]), heading) for name, pictures, heading in rows]


def _strip(pictures: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (H, T * (W + gap), 3)."""
    gap = np.full((pictures.shape[1], max(2, pictures.shape[2] // 24), 3), 255, dtype=np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)][:-1], axis=1)
