"""What a processor makes of a pixel: numbers that bring the pixels of one model into the form that another takes."""

import torch


def pixel_statistics(processor):
    """Mean and deviation (three numbers each) with which a processor normalises pixels that run from 0 to 1.

    Args:
        processor: a video or image processor.
    """
    rescale = bool(getattr(processor, "do_rescale", True))
    scale = float(getattr(processor, "rescale_factor", None) or 1 / 255) * 255 if rescale else 255.0
    offset = _offset(processor) if rescale else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if getattr(processor, "do_normalize", True):
        mean, std = list(processor.image_mean), list(processor.image_std)
    return [(value + offset) / scale for value in mean], [value / scale for value in std]


def _offset(processor):
    """What is taken from rescaled pixels before they are normalised: ViViT's processors bring them to [-1, 1].

    Its image processor says so, its video processor only does it, so that one is shown a black pixel.
    """
    if hasattr(processor, "offset"):
        return 1.0 if processor.offset else 0.0
    if not hasattr(processor, "fetch_videos"):  # an image processor
        return 0.0
    black = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    return -float(processor.rescale_and_normalize(black, True, processor.rescale_factor, False, None, None).mean())
