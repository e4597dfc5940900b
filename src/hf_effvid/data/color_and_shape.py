"""The single operations of augmentation on uint8 clips (T, C, H, W): colour changes and small geometric ones.

A colour operation sees the clip as one tall picture, so its statistics are those of the clip and every frame is changed
by the same function of colour.
"""

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF
from torchvision.transforms import InterpolationMode


RANDAUGMENT_OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)


def adjust_color(
    frames: torch.Tensor, rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float
) -> torch.Tensor:
    """Change brightness, contrast, saturation and hue by random amounts in random order.

    Args:
        frames: uint8 (T, C, H, W).
        rng: where the amounts come from.
        brightness: factors are uniform in [max(0, 1 - x), 1 + x]; likewise `contrast` and `saturation`.
        contrast: see `brightness`.
        saturation: see `brightness`.
        hue: the turn is uniform in [-hue, hue].
    """
    # All amounts are drawn whether used or not, so that one setting does not move the draws of another.
    factors = {
        name: rng.uniform(max(0.0, 1 - amount), 1 + amount)
        for name, amount in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))
    }
    turn = rng.uniform(-hue, hue)
    tall = _as_one_picture(frames)
    for name in rng.permutation(["brightness", "contrast", "saturation", "hue"]):
        if name == "hue":
            tall = tvF.adjust_hue(tall, turn) if hue else tall
        elif factors[name] != 1:
            tall = _COLOR[name](tall, factors[name])
    return _as_clip(tall, frames)


def apply_randaugment(frames: torch.Tensor, name: str, magnitude: float, rng: np.random.Generator) -> torch.Tensor:
    """Apply one of `RANDAUGMENT_OPERATIONS`.

    Args:
        frames: uint8 (T, C, H, W).
        name: the operation.
        magnitude: from 0 (none) to 10.
        rng: where the direction comes from.
    """
    level = magnitude / 10
    sign = 1.0 if rng.random() < 0.5 else -1.0
    if name == "identity":
        return frames
    if name in _AFFINE:
        return _affine(frames, **_AFFINE[name](sign * level, *frames.shape[-2:]))
    if name == "sharpness":  # looks at neighbours, so frame by frame
        return tvF.adjust_sharpness(frames, 1 + sign * 0.9 * level)
    tall = _as_one_picture(frames)
    if name in _COLOR:
        tall = _COLOR[name](tall, 1 + sign * 0.9 * level)
    elif name == "posterize":
        tall = tvF.posterize(tall, bits=8 - round(4 * level))
    elif name == "solarize":
        tall = tvF.solarize(tall, threshold=255 * (1 - level)) if level else tall
    elif name == "autocontrast":
        tall = tvF.autocontrast(tall)
    elif name == "equalize":
        tall = tvF.equalize(tall)
    else:
        raise ValueError(f"unknown operation {name!r}; choose from {', '.join(RANDAUGMENT_OPERATIONS)}")
    return _as_clip(tall, frames)


_COLOR = {
    "brightness": tvF.adjust_brightness,
    "contrast": tvF.adjust_contrast,
    "saturation": tvF.adjust_saturation,
}

_AFFINE = {
    "shear_x": lambda amount, height, width: {"shear": [_degrees(0.3 * amount), 0.0]},
    "shear_y": lambda amount, height, width: {"shear": [0.0, _degrees(0.3 * amount)]},
    "translate_x": lambda amount, height, width: {"translate": [round(0.45 * amount * width), 0]},
    "translate_y": lambda amount, height, width: {"translate": [0, round(0.45 * amount * height)]},
    "rotate": lambda amount, height, width: {"angle": 30.0 * amount},
}


def _degrees(slope: float) -> float:
    return float(np.degrees(np.arctan(slope)))


def _affine(frames, angle=0.0, translate=(0, 0), shear=(0.0, 0.0)) -> torch.Tensor:
    return tvF.affine(
        frames,
        angle=angle,
        translate=list(translate),
        scale=1.0,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
        fill=[128.0] * frames.shape[-3],
    )


def _as_one_picture(frames: torch.Tensor) -> torch.Tensor:
    return frames.transpose(0, 1).flatten(1, 2)  # (C, T * H, W)


def _as_clip(tall: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return tall.unflatten(1, (like.shape[0], like.shape[2])).transpose(0, 1)
