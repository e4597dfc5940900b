"""Clips of the shape that a model takes, for any video classifier: recipe first, configuration second."""

from collections.abc import Iterable

import torch

from ..host_processing import frame_size, frames_per_clip
from .benchmark_execution import BenchmarkError
from .benchmark_variants import BenchmarkVariant


def clip_shape(variant: BenchmarkVariant, config, processor=None) -> tuple[int, int, int, int]:
    """(T, C, H, W) of the clips a model sees: what was asked for, else the processor's recipe, else the configuration.

    Args:
        variant: may name the shape itself.
        config: the model's configuration; None for a plain module.
        processor: its processor, None when it has none.

    Raises:
        BenchmarkError: the number of frames or the size of the pictures is nowhere to be found.
    """
    if variant.clip_shape is not None:
        if len(variant.clip_shape) != 4:
            raise BenchmarkError(f"{variant.name}: clip_shape must be (T, C, H, W), got {variant.clip_shape!r}.")
        return tuple(variant.clip_shape)
    configs = [part for part in (config, getattr(config, "vision_config", None)) if part is not None]
    frames = getattr(processor, "num_frames", None) or _first(frames_per_clip, configs)
    size = _size_after(processor) or _first(frame_size, configs)
    if frames is None or size is None:
        missing = "number of frames" if frames is None else "size of the pictures"
        raise BenchmarkError(
            f"{variant.name}: neither processor nor configuration says the {missing}. Pass "
            f"BenchmarkVariant({variant.name!r}, model, clip_shape=(frames, channels, height, width))."
        )
    height, width = (size, size) if isinstance(size, int) else size
    return int(frames), int(_first(_channels, configs) or 3), int(height), int(width)


def random_clips(model, shape: Iterable[int], batch_size: int, dtype: torch.dtype, device, seed: int = 0) -> dict:
    """Keyword arguments for the model: `batch_size` clips of normally distributed pixels, the same for every model.

    Args:
        model: says under which name it takes its input (`main_input_name`).
        shape: (T, C, H, W).
        batch_size: number of clips.
        dtype, device: of the tensor.
        seed: seed of the pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch_size, *shape, generator=generator)
    return {getattr(model, "main_input_name", "pixel_values"): pixels.to(device=device, dtype=dtype)}


def _first(said_by, configs):
    return next((value for value in map(said_by, configs) if value), None)


def _channels(config) -> int | None:
    # V-JEPA 2 has the second name
    return getattr(config, "num_channels", None) or getattr(config, "in_chans", None)


def _size_after(processor) -> tuple[int, int] | None:
    """(H, W) that a processor gives: its crop, or the size that it resizes to when that is fixed."""
    if getattr(processor, "do_center_crop", False):
        size = getattr(processor, "crop_size", None)
    else:
        size = getattr(processor, "size", None) if getattr(processor, "do_resize", False) else None
    if not size:
        return None
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None
