"""What a processor makes of a pixel: numbers that bring the pixels of one model into the form that another takes."""


def pixel_statistics(processor):
    """Mean and deviation (three numbers each) with which a processor normalises pixels that run from 0 to 1.

    Args:
        processor: a video or image processor.
    """
    rescale = bool(getattr(processor, "do_rescale", True))
    scale = float(getattr(processor, "rescale_factor", None) or 1 / 255) * 255 if rescale else 255.0
    # ViViT shifts pixels to [-1, 1] before it normalises
    offset = 1.0 if getattr(processor, "offset", False) else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if getattr(processor, "do_normalize", True):
        mean, std = list(processor.image_mean), list(processor.image_std)
    return [(value + offset) / scale for value in mean], [value / scale for value in std]
