"""Any video classifier of transformers, and the processor that came with it.

A stock processor holds no recipe: nothing says which frames it wants. So our reader picks and decodes them, and the processor does the
rest: its own resizing, cropping and normalisation stay the definition (`host_pixels`, `host_views`). Only training, which augments
by a recipe and saves one with the checkpoint, translates it into one (`with_recipe`).
"""

import torch
from transformers import AutoImageProcessor, AutoVideoProcessor
from transformers.image_utils import SizeDict
from transformers.utils import logging

from .host_loading import one_line_errors
from .models.pixel_statistics import pixel_statistics
from .models.video_processing_effvid import EffVidVideoProcessor, crop_frames, crop_places


logger = logging.get_logger(__name__)

# What is raised for a checkpoint without the processor that was asked for, or whose processor needs a missing library.
NO_PROCESSOR = (OSError, ValueError, KeyError, ImportError)


# ---- what a configuration says ---------------------------------------------------------------------------------------------


def frames_per_clip(config):
    """Number of frames that a model takes, under the names that transformers' configurations use; None when it does not say."""
    for name in ("num_frames", "frames_per_clip"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return None


def required_frames_per_clip(config):
    """The same, for whoever cannot go on without it.

    Raises:
        ValueError: the configuration does not say.
    """
    num_frames = frames_per_clip(config)
    if num_frames is None:
        raise ValueError(
            f"{type(config).__name__} does not say how many frames a clip has: pass "
            "processor=EffVidVideoProcessor(num_frames=...)."
        )
    return num_frames


def frame_size(config):
    """Pixels of the frames that a model takes: an int, (height, width), or None when its configuration does not say."""
    for name in ("image_size", "crop_size"):
        if getattr(config, name, None) is not None:
            return getattr(config, name)
    return None


def clip_shape(config, processor=None):
    """(T, C, H, W) of the clips that a model sees: the processor's recipe first, the configuration second.

    Args:
        config: the model's configuration; None for a plain module.
        processor: its processor, None when it has none.

    Raises:
        ValueError: the number of frames or the size of the pictures is nowhere to be found.
    """
    configs = [part for part in (config, getattr(config, "vision_config", None)) if part is not None]
    frames = getattr(processor, "num_frames", None) or _first(frames_per_clip, configs)
    size = _size_after(processor) or _first(frame_size, configs) or _shortest_edge(processor)
    if not frames or not size:
        missing = "size of the pictures" if frames else "number of frames"
        raise ValueError(f"neither processor nor configuration says the {missing}.")
    height, width = (size, size) if isinstance(size, int) else size
    return int(frames), int(_first(_channels, configs) or 3), int(height), int(width)


def _first(said_by, configs):
    return next((value for value in map(said_by, configs) if value), None)


def _channels(config):
    # V-JEPA 2 has the second name
    return getattr(config, "num_channels", None) or getattr(config, "in_chans", None)


def _size_after(processor):
    """(H, W) that a processor gives: its crop, or the size that it resizes to when that is fixed."""
    if getattr(processor, "do_center_crop", False):
        size = getattr(processor, "crop_size", None)
    else:
        size = getattr(processor, "size", None) if getattr(processor, "do_resize", False) else None
    if not size:
        return None
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def _shortest_edge(processor):
    size = getattr(processor, "size", None)
    return dict(size).get("shortest_edge") if size and not isinstance(size, int) else size


# ---- processors ------------------------------------------------------------------------------------------------------------


def load_processor(name, **options):
    """The video processor of a checkpoint or, for checkpoints from before there were any, its image processor.

    Args:
        name: folder or Hub id.
        options: passed to `from_pretrained` (`revision`, `trust_remote_code`, ...).

    Raises:
        CheckpointNotFound: there is no such checkpoint.
        OSError, ValueError, KeyError, ImportError: it holds neither.
    """
    options.setdefault("trust_remote_code", False)
    with one_line_errors(name, **options):
        try:
            return AutoVideoProcessor.from_pretrained(name, **options)
        except NO_PROCESSOR as error:
            logger.info(f"No video processor in {name} ({error}): trying its image processor.")
        try:
            return AutoImageProcessor.from_pretrained(name, **options)
        except OSError as error:
            raise OSError(
                f"{str(name)!r} holds neither a video processor nor an image processor: pass one."
            ) from error


def holds_recipe(processor):
    """Whether a processor is ours. Not an isinstance check: one loaded as remote code has another class identity."""
    return hasattr(processor, "transform_clip") and hasattr(processor, "frame_indices")


def takes_videos(processor):
    """Whether a stock processor is a video processor; an image processor takes a list of frames."""
    return hasattr(processor, "fetch_videos")


def host_pixels(processor, frames, input_name="pixel_values"):
    """What a stock processor makes of the frames of a clip.

    Args:
        processor: a video or image processor of transformers, for example a `VideoMAEVideoProcessor`.
        frames: uint8 (T, 3, H, W).
        input_name: `model.main_input_name`, what the model calls its pixels.

    Returns:
        (T, 3, height, width) float.

    Raises:
        ValueError: the processor gives no pixels.
    """
    if takes_videos(processor):
        batch = processor(frames, do_sample_frames=False, return_tensors="pt")
    else:
        batch = processor([frame.permute(1, 2, 0).numpy() for frame in frames], return_tensors="pt")
    names = [name for name in (input_name, "pixel_values", "pixel_values_videos") if name in batch]
    if not names:
        raise ValueError(
            f"{type(processor).__name__} gives {sorted(batch)}, but the model takes {input_name!r}: "
            "use the processor that was published with the model."
        )
    pixels = batch[names[0]]
    return pixels[0] if pixels.ndim == 5 else pixels


def host_views(processor, frames, num_crops=1, input_name="pixel_values"):
    """The spatial views of a clip through a stock processor.

    One view is what the processor makes of the frames. For several it gets squares of the short side, from one end of the long
    side to the other, which it resizes and crops in its own way.

    Args:
        processor, frames, input_name: as in `host_pixels`.
        num_crops: number of views.

    Returns:
        (T, num_crops, 3, height, width) float.
    """
    if num_crops == 1:
        return host_pixels(processor, frames, input_name)[:, None]
    side = min(frames.shape[-2:])
    square = SizeDict(height=side, width=side)
    views = [crop_frames(frames, square, place) for place in crop_places(num_crops)]
    return torch.stack([host_pixels(processor, view, input_name) for view in views], dim=1)


def with_recipe(processor, config):
    """A stock processor as an `EffVidVideoProcessor` that gives the same pixels from the same frames.

    Args:
        processor: a video or image processor.
        config: the model's configuration, which says how many frames a clip has.

    Raises:
        ValueError: the configuration does not say.
    """
    mean, std = pixel_statistics(processor)
    center_crop = bool(getattr(processor, "do_center_crop", False)) and processor.crop_size is not None
    fields = {"size": _plain_size(processor.size), "do_center_crop": center_crop}
    if center_crop:
        fields["crop_size"] = _plain_size(processor.crop_size)
    return EffVidVideoProcessor(
        num_frames=required_frames_per_clip(config),
        do_resize=bool(getattr(processor, "do_resize", True)),
        resample=int(getattr(processor, "resample", None) or 2),
        image_mean=mean,
        image_std=std,
        **fields,
    )


def _plain_size(size):
    if isinstance(size, int):
        return {"height": size, "width": size}
    return {name: int(value) for name, value in dict(size).items() if value is not None}
