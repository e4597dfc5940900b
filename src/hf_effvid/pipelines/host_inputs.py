"""From uint8 clips to the tensors that any Hugging Face video classifier takes, through the processor that came with it."""

import copy
import math
from functools import partial

import torch
from transformers.image_utils import SizeDict

from ..models.video_processing_effvid import crop_frames, decoding_size
from .clips import holds_recipe
from .position_interpolation import as_pair


class HostInputs:
    """Applies a model's own preprocessing to decoded clips.

    Our processors crop and normalise through `transform_clip`, and frames are resized while they are decoded. Every other processor
    gets the frames as they are, with `do_sample_frames=False`: its resize, crop and normalisation stay the definition.

    Args:
        model: The classifier.
        video_processor: Its video processor, or None.
        image_processor: Its image processor, for models without a video processor.
    """

    def __init__(self, model, video_processor=None, image_processor=None):
        self.processor = video_processor if video_processor is not None else image_processor
        self.takes_video = video_processor is not None
        self.input_name = model.main_input_name

    def decoding_size(self, num_crops):
        """The `size` that frames may be decoded to without changing the result, or None."""
        if not holds_recipe(self.processor):
            return None
        return decoding_size(self.processor.recipe(), multi_view=num_crops > 1)

    def prepare(self, frames, num_crops):
        """Bring decoded frames to the size in which they can be kept, frame by frame.

        Args:
            frames: uint8 (T, 3, H, W).
            num_crops: Crops along the long side; 1 is the processor's own centre crop.

        Returns:
            The frames themselves for our processors, which decode to the model's size; for every other one what it makes of
            them, float (T, num_crops, 3, height, width).
        """
        if holds_recipe(self.processor):
            return frames
        if num_crops == 1:
            return self.processed(frames)[:, None]
        # A square of the short side, which the host then resizes and crops in its own way.
        side = min(frames.shape[-2:])
        square = SizeDict(height=side, width=side)
        return torch.stack([self.processed(crop_frames(frames, square, place)) for place in places(num_crops)], dim=1)

    def rows(self, clips, num_crops):
        """Views of one video, clips before crops.

        Args:
            clips: Prepared frames, T of them in each.
            num_crops: As in `prepare`.

        Returns:
            (len(clips) * num_crops, T, 3, height, width) float.
        """
        if not holds_recipe(self.processor):
            return torch.cat([clip.transpose(0, 1) for clip in clips])
        transform = partial(self.processor.transform_clip, multi_view=num_crops > 1)
        return torch.stack([transform(clip, crop=place) for clip in clips for place in places(num_crops)])

    def processed(self, frames):
        """What a foreign processor makes of frames: (T, 3, height, width)."""
        if self.takes_video:
            batch = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        else:
            batch = self.processor([frame.permute(1, 2, 0).numpy() for frame in frames], return_tensors="pt")
        return self.only_tensor(batch)

    def only_tensor(self, batch):
        """The pixels in a processor's output, whatever it calls them: (T, C, H, W)."""
        names = [name for name in (self.input_name, "pixel_values", "pixel_values_videos") if name in batch]
        if not names:
            raise ValueError(
                f"{type(self.processor).__name__} gives {sorted(batch)}, but the model takes {self.input_name!r}: "
                "use the processor that was published with the model."
            )
        pixels = batch[names[0]]
        return pixels[0] if pixels.ndim == 5 else pixels


def places(num_crops):
    """Where crops lie along the long side, from 0 to 1."""
    return [0.5] if num_crops == 1 else [i / (num_crops - 1) for i in range(num_crops)]


def processor_for_size(processor, image_size):
    """A copy of a processor that gives frames of `image_size`; its resize keeps the margin around the crop.

    Args:
        processor: Any video or image processor with a `size`.
        image_size: Pixels, an int or (height, width).

    Returns:
        The copy.
    """
    processor, (height, width) = copy.deepcopy(processor), as_pair(image_size)
    crop, size = getattr(processor, "crop_size", None), processor.size
    crops = bool(getattr(processor, "do_center_crop", False)) and crop is not None
    old = (crop["height"], crop["width"]) if crops else None
    if "shortest_edge" in size and size["shortest_edge"]:
        margin = size["shortest_edge"] / min(old) if old else 1.0
        processor.size = SizeDict(shortest_edge=math.ceil(min(height, width) * margin))
    else:
        scale_y, scale_x = (size["height"] / old[0], size["width"] / old[1]) if old else (1.0, 1.0)
        processor.size = SizeDict(height=math.ceil(height * scale_y), width=math.ceil(width * scale_x))
    if crops:
        processor.crop_size = SizeDict(height=height, width=width)
    if getattr(processor, "multi_view_size", None):
        processor.multi_view_size = {"shortest_edge": min(height, width)}
    return processor
