"""Train-time augmentation of uint8 clips: drawn once per clip, applied to all of its frames alike (but see `color_per_frame`).

Parameters are drawn here from a generator of the clip's own and applied with torchvision's functional kernels; the global
generators are never touched. What depends on picture statistics (contrast, equalise) uses those of the whole clip, so
that a colour that stays the same in the video stays the same after it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF

from .color_and_shape import RANDAUGMENT_OPERATIONS, adjust_color, apply_randaugment
from .randomness import derive_rng


_CANVAS = 1000  # side of the picture that erased boxes are drawn in where models differ in size


@dataclass(frozen=True)
class AugmentationConfig:
    """What is done to training clips. The defaults are those of the preset "light".

    Attributes:
        scale: range of the part of the picture's area that a random crop takes; None: the centre crop of the recipe.
        ratio: range of the crop's aspect ratio.
        flip_probability: horizontal flip; it is not done when the labels are directional or the recipe forbids it.
        color_jitter_probability: how often brightness, contrast, saturation and hue change at all.
        brightness: largest relative change.
        contrast: largest relative change.
        saturation: largest relative change.
        hue: largest turn of the hue circle, at most 0.5.
        color_per_frame: draw the amounts anew for every frame, so that colours flicker, as the code of Video-FocalNet does.
        grayscale_probability: how often colour is taken away.
        randaugment_operations: number of RandAugment operations per clip; 0 is none.
        randaugment_magnitude: their strength, from 0 to 10.
        randaugment_std: standard deviation of the strength, drawn for each operation and kept within 0 and 10.
        randaugment_probability: how often each of the operations is really done.
        erasing_probability: how often one box is erased, the same in all frames.
        erasing_area: range of the box's part of the area.
        erasing_fill: "mean" blanks the box, "noise" fills it with normal noise, one picture for all frames.
        mixup_alpha: parameter of the Beta distribution of mixup; 0 is none.
        cutmix_alpha: the same of cutmix; with both, each batch takes one of the two at equal odds.
        mix_probability: how often a batch is mixed.
        cutmix_box: "inside": the whole box lies in the picture; "clipped": its centre does, as in the paper of cutmix, and what
            lies outside is cut off.
        decode_scale: frames are decoded at this multiple of the crop's size (shorter side) before the random crop.
    """

    scale: tuple[float, float] | None = (0.6, 1.0)
    ratio: tuple[float, float] = (0.85, 1.18)
    flip_probability: float = 0.5
    color_jitter_probability: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.1
    hue: float = 0.0
    color_per_frame: bool = False
    grayscale_probability: float = 0.0
    randaugment_operations: int = 0
    randaugment_magnitude: float = 7.0
    randaugment_std: float = 0.0
    randaugment_probability: float = 1.0
    erasing_probability: float = 0.0
    erasing_area: tuple[float, float] = (0.02, 0.33)
    erasing_fill: str = "mean"
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    cutmix_box: str = "inside"
    decode_scale: float = 1.15

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # from JSON
                object.__setattr__(self, field.name, tuple(value))
        for name in [field.name for field in fields(self) if field.name.endswith("_probability")]:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be between 0 and 1, got {getattr(self, name)}")
        for name in ("scale", "ratio", "erasing_area"):
            value = getattr(self, name)
            top = math.inf if name == "ratio" else 1
            if value is not None and not (len(value) == 2 and 0 < value[0] <= value[1] <= top):
                raise ValueError(f"`{name}` must be two numbers in rising order, above 0, got {value}")
        for name in ("brightness", "contrast", "saturation", "mixup_alpha", "cutmix_alpha", "randaugment_operations"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        for name, allowed in (("erasing_fill", ("mean", "noise")), ("cutmix_box", ("inside", "clipped"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}")
        if self.randaugment_std < 0:
            raise ValueError(f"`randaugment_std` must not be negative, got {self.randaugment_std}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"`hue` must be between 0 and 0.5, got {self.hue}")
        if not 0 <= self.randaugment_magnitude <= 10:
            raise ValueError(f"`randaugment_magnitude` must be between 0 and 10, got {self.randaugment_magnitude}")
        if self.decode_scale < 1:
            raise ValueError(f"`decode_scale` must be at least 1, got {self.decode_scale}")

    @classmethod
    def from_preset(cls, name: str, **overrides) -> "AugmentationConfig":
        """A named setting, with fields replaced at will.

        "none": centre crops, only the choice of frames is random. "light": for small data sets and short runs.
        "recipe": what Video-FocalNet was trained with (strong crops, colour, mixup and cutmix). "strong": "recipe" with
        RandAugment and random erasing, as masked autoencoders are fine-tuned.
        """
        if name not in _PRESETS:
            raise ValueError(f"unknown augmentation preset {name!r}; choose from {', '.join(_PRESETS)}")
        return replace(cls(**_PRESETS[name]), **overrides)

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed, so that labels become soft."""
        return self.mix_probability > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


_NOTHING = {
    "scale": None,
    "flip_probability": 0.0,
    "color_jitter_probability": 0.0,
}
_RECIPE = {
    "scale": (0.08, 1.0),
    "ratio": (3 / 4, 4 / 3),
    "color_jitter_probability": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "grayscale_probability": 0.2,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
}
_STRONG = _RECIPE | {"color_jitter_probability": 0.0, "grayscale_probability": 0.0, "randaugment_operations": 4}
_STRONG |= {"erasing_probability": 0.25}
_PRESETS = {"none": _NOTHING, "light": {}, "recipe": _RECIPE, "strong": _STRONG}


@dataclass(frozen=True)
class ClipOrigin:
    """What clips of one video have in common, whichever frames they consist of.

    Attributes:
        moments: which frame of the video each frame is; what is drawn for a single frame follows it.
        size: (height, width) of the video, in which boxes are drawn.
    """

    moments: Sequence[int]
    size: tuple[int, int]


class TrainTransform:
    """uint8 frames of one clip -> the model's input, augmented.

    Args:
        processor: the recipe; its crop size, mean and standard deviation are used.
        augmentation: what is done.
        allow_flip: False keeps left and right apart whatever `augmentation` says.
    """

    def __init__(self, processor, augmentation: AugmentationConfig, allow_flip: bool = True):
        self.processor = processor
        self.augmentation = augmentation
        self.flip_probability = augmentation.flip_probability if allow_flip else 0.0
        crop = processor.crop_size if processor.do_center_crop else processor.size
        height, width = _get(crop, "height"), _get(crop, "width")
        if augmentation.scale is not None and not (height and width):
            raise ValueError(f"random crops need a recipe with a fixed crop size, got size={crop}")
        self.crop_size = (height, width)

    @property
    def decode_size(self) -> int | None:
        """The shorter side, in pixels, at which frames are best decoded; None: as the recipe says."""
        if self.augmentation.scale is None:
            return None
        return math.ceil(self.augmentation.decode_scale * max(self.crop_size))

    def __call__(self, frames: torch.Tensor, seed: int, origin: ClipOrigin | None = None) -> torch.Tensor:
        """Augment one clip.

        Args:
            frames: uint8 (T, C, H, W).
            seed: the clip's own seed.
            origin: where the frames come from. With it, clips of one video are augmented alike by the transforms of several
                models, whatever their numbers of frames, the size of the frames and that of the model.

        Returns:
            float (T, C, height, width), normalised.
        """
        config = self.augmentation
        crop, flip, color, operations, erase = (derive_rng(seed, part) for part in range(5))
        if config.scale is not None:
            height, width = frames.shape[-2:]
            canvas = (height, width) if origin is None else origin.size
            box = random_crop_box(crop, *canvas, config.scale, config.ratio)
            box = scale_box(box, (height / canvas[0], width / canvas[1]))
            frames = tvF.resized_crop(frames, *box, size=list(self.crop_size), antialias=True)
        if flip.random() < self.flip_probability:
            frames = tvF.horizontal_flip(frames)
        if color.random() < config.color_jitter_probability:
            amounts = (config.brightness, config.contrast, config.saturation, config.hue)
            if not config.color_per_frame:
                frames = adjust_color(frames, color, *amounts)
            else:
                of_frame = [color] * len(frames)
                if origin is not None:
                    of_frame = [derive_rng(seed, 2, moment) for moment in origin.moments]
                frames = torch.cat(
                    [adjust_color(frame, rng, *amounts) for frame, rng in zip(frames.split(1), of_frame, strict=True)]
                )
        if color.random() < config.grayscale_probability:
            frames = tvF.rgb_to_grayscale(frames, num_output_channels=frames.shape[-3])
        for _ in range(config.randaugment_operations):
            name = RANDAUGMENT_OPERATIONS[operations.integers(len(RANDAUGMENT_OPERATIONS))]
            if config.randaugment_probability < 1 and operations.random() >= config.randaugment_probability:
                continue
            magnitude = config.randaugment_magnitude
            if config.randaugment_std:
                magnitude = min(max(operations.normal(magnitude, config.randaugment_std), 0.0), 10.0)
            frames = apply_randaugment(frames, name, magnitude, operations)
        fixed = {} if config.scale is None else {"do_resize": False, "do_center_crop": False}
        clip = self.processor.transform_clip(frames, **fixed)
        if erase.random() < config.erasing_probability:
            height, width = clip.shape[-2:]
            canvas = (height, width) if origin is None else (_CANVAS, _CANVAS)
            box = random_crop_box(erase, *canvas, config.erasing_area, (0.3, 3.3))
            box = scale_box(box, (height / canvas[0], width / canvas[1]))
            clip = erase_box(clip, box, erase if config.erasing_fill == "noise" else None)
        return clip


def random_crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draw a box inside a picture: its area uniform in `scale`, its aspect ratio log-uniform in `ratio`.

    Returns:
        (top, left, height, width) in pixels. After ten draws that do not fit, the largest centred box whose ratio does.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            return top, int(rng.integers(width - box_width + 1)), box_height, box_width
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_width = min(width, max(1, round(height * aspect)))
    box_height = min(height, max(1, round(width / aspect)))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def scale_box(box: tuple[int, int, int, int], scale: tuple[float, float]) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) in a picture of another size: its edges are scaled down and across, and rounded."""
    (top, left, height, width), (down, across) = box, scale
    new_top, new_left = round(top * down), round(left * across)
    return new_top, new_left, round((top + height) * down) - new_top, round((left + width) * across) - new_left


def erase_box(
    clip: torch.Tensor, box: tuple[int, int, int, int], noise: np.random.Generator | None = None
) -> torch.Tensor:
    """Erase a box in all frames of a normalised clip (T, C, H, W): 0 is the mean colour; with `noise` it is normal noise."""
    top, left, height, width = box
    clip = clip.clone()
    fill = (
        0.0 if noise is None else torch.from_numpy(noise.standard_normal((clip.shape[-3], height, width)).astype("f4"))
    )
    clip[..., top : top + height, left : left + width] = fill
    return clip


def _get(size, name: str):
    return size.get(name) if isinstance(size, dict) else getattr(size, name, None)
