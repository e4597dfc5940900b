"""Clips of the shape that a model takes, for any video classifier: recipe first, configuration second."""

from collections.abc import Iterable

import torch

from ..host_processing import clip_shape as host_clip_shape
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
    try:
        return host_clip_shape(config, processor)
    except ValueError as error:
        raise BenchmarkError(
            f"{variant.name}: {error} Pass BenchmarkVariant({variant.name!r}, model, "
            "clip_shape=(frames, channels, height, width))."
        ) from error


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
