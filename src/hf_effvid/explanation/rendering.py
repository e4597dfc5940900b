"""Everything that is drawn of one explanation, in one folder."""

from pathlib import Path

import torch

from .contact_sheet import plot_contact_sheet, plot_gates
from .overlay import write_overlay


def render_explanation(explanation, frames, folder, *, title="", seconds=None):
    """Writes `overlay.mp4`, `contact_sheet.png` and `gates.png`.

    Args:
        explanation: a `ClipExplanation`.
        frames: (T, 3, H, W) uint8, as the model saw them (`seen_frames`).
        folder: where to; made when missing, files in it are replaced.
        title: heading of all three, such as the predicted label.
        seconds: T times at which the frames are shown in the video; None where nothing is known.

    Returns:
        `{"overlay", "contact_sheet", "gates"}` -> path, as str.

    Raises:
        ImportError: the pictures need matplotlib (`pip install "hf_effvid[train]"`).
    """
    folder = Path(folder)
    about = {"title": title, "seconds": seconds}
    sheet = plot_contact_sheet(folder / "contact_sheet.png", frames, explanation, **about)
    gates = plot_gates(folder / "gates.png", frames, explanation, **about)
    maps, weights = explanation.relative_maps(), explanation.temporal_weight
    overlay = write_overlay(folder / "overlay.mp4", frames, maps, weights=weights, **about)
    return {"overlay": str(overlay), "contact_sheet": str(sheet), "gates": str(gates)}


def seen_frames(processor, pixel_values):
    """The frames that a model saw, out of its input: normalisation and rescaling undone.

    Args:
        processor: the video or image processor that made the input.
        pixel_values: (T, 3, H, W) float.

    Returns:
        (T, 3, H, W) uint8.
    """
    pixels = pixel_values.detach().float().cpu()
    if getattr(processor, "do_normalize", True):
        mean, std = (torch.tensor(list(value))[:, None, None] for value in (processor.image_mean, processor.image_std))
        pixels = pixels * std + mean
    if getattr(processor, "do_rescale", True):
        pixels = pixels / (getattr(processor, "rescale_factor", None) or 1 / 255)
    return pixels.round().clamp(0, 255).to(torch.uint8)
