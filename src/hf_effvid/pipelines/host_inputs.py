"""From uint8 clips to the tensors that any Hugging Face video classifier takes, through the processor that came with it."""

import copy
import math
from functools import partial

import torch
from transformers.image_utils import SizeDict

from ..host_processing import holds_recipe, host_views
from ..models.video_processing_effvid import crop_places, decoding_size
from .position_interpolation import as_pair


class HostInputs:
    """Applies a model's own preprocessing to decoded clips.

    Our processors crop and normalise through `transform_clip`, and frames are resized while they are decoded. Every other processor
    gets the frames as they are, with `do_sample_frames=False`: its resize, crop and normalisation stay the definition.

    Args:
        model: The classifier.
        processor: Its video processor, or its image processor if it has no other.
    """

    def __init__(self, model, processor):
        self.processor = processor
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
        return host_views(self.processor, frames, num_crops, self.input_name)

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
        return torch.stack([transform(clip, crop=place) for clip in clips for place in crop_places(num_crops)])


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
