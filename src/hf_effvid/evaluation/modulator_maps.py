"""Where a Video-FocalNet looks: the size of its spatial and temporal modulators, per frame and site, drawn over the frames.

A modulator multiplies the query channel by channel; its Euclidean norm over channels says how strongly a site is modulated by what
lies around it in space (within the frame) and in time (at the same place in other frames).
"""

import os
from pathlib import Path

import numpy as np
import torch

from .chart_text import plain_text


@torch.no_grad()
def modulator_maps(model, pixel_values: torch.Tensor, block: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    """Norms of the modulators of one block, enlarged to the size of the frames.

    Args:
        model: a Video-FocalNet model or classifier.
        pixel_values: (1, T, C, H, W), what the processor gives for one clip.
        block: which block, counted over all stages; the last one sees the whole network, earlier ones have finer maps.

    Returns:
        Spatial and temporal maps, each (T', H, W) in [0, 1], T' being frames / tubelet size. Each is scaled by its own largest value
        over the clip, so that frames can be compared.

    Raises:
        ValueError: another architecture, or more than one clip.
    """
    if model.config.model_type != "video_focalnet":
        raise ValueError(f"only a video_focalnet has modulators, this model is a {model.config.model_type!r}.")
    if model.config.temporal_encoding in ("none", "joint"):
        raise ValueError(
            f'this model was built with temporal_encoding="{model.config.temporal_encoding}": it has no temporal modulators.'
        )
    if pixel_values.ndim != 5 or len(pixel_values) != 1:
        raise ValueError(f"expected one clip (1, frames, channels, height, width), got {tuple(pixel_values.shape)}.")
    model.eval()
    output = model(pixel_values.to(model.device), output_modulators=True)
    size = pixel_values.shape[-2:]
    return _enlarged(output.spatial_modulators[block][0], size), _enlarged(output.temporal_modulators[block][0], size)


def _enlarged(modulator: torch.Tensor, size) -> torch.Tensor:
    """(T, h, w, C) -> (T, H, W) in [0, 1]."""
    norm = modulator.float().norm(dim=-1)[:, None]
    norm = torch.nn.functional.interpolate(norm, size=tuple(size), mode="bilinear", align_corners=False)[:, 0].cpu()
    low, high = norm.min(), norm.max()
    return (norm - low) / (high - low) if high > low else torch.zeros_like(norm)


def plot_modulator_strip(
    frames: torch.Tensor, spatial: torch.Tensor, temporal: torch.Tensor, path: str | os.PathLike, title: str = ""
) -> Path:
    """Draws three rows: the frames, then the frames with the spatial and with the temporal maps over them.

    Args:
        frames: (T, 3, H, W) uint8, the frames as the model saw them (resized and cropped, not normalised).
        spatial, temporal: maps of `modulator_maps`; with tubelets each map stands under the first frame of its tubelet.
        path: picture to write; its ending decides the format.
        title: heading; shown as text, never as markup.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    step = max(1, len(frames) // len(spatial))
    shown = frames[::step][: len(spatial)].permute(0, 2, 3, 1).numpy()
    rows = (("frames", None), ("spatial modulator", spatial), ("temporal modulator", temporal))
    figure = Figure(figsize=(1.35 * len(shown) + 1.2, 1.35 * 3 + 0.6), dpi=130, layout="constrained")
    if title:
        figure.suptitle(plain_text(title), fontsize=11)
    axes = np.atleast_2d(figure.subplots(3, len(shown), squeeze=False))
    for (name, maps), row in zip(rows, axes, strict=True):
        for index, axis in enumerate(row):
            axis.imshow(shown[index])
            if maps is not None:
                axis.imshow(maps[index].numpy(), cmap="magma", alpha=0.65, vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if name == "frames":
                axis.set_title(f"{index * step}", fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
