"""A processor of stock transformers behind the interface of ours: our reader picks the frames, it does the rest."""

import torch
from transformers.image_utils import SizeDict

from ..models.clip_sampling import sample_clips
from ..models.video_processing_effvid import crop_frames
from ..models.video_reader import read_video


class StockProcessorAdapter:
    """Lets `evaluate_classifier` use a video or image processor that has no recipe.

    The stock processor sees decoded frames and is told not to sample, so that its own resizing and normalisation count,
    while reading, orientation and short clips are ours. Frames are spread uniformly, because nothing says otherwise.

    Args:
        processor: for example a `VideoMAEVideoProcessor` or a `VivitImageProcessor`.
        num_frames: frames per clip that the model takes.
    """

    sampling = "uniform"
    short_clip_policy = "repeat_last"
    num_clips = 1
    num_crops = 1
    aggregation = "softmax_mean"

    def __init__(self, processor, num_frames: int):
        self.processor = processor
        self.num_frames = num_frames
        self.size = getattr(processor, "size", None)
        self.crop_size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None

    def __call__(
        self, videos, *, multi_view=False, num_clips=None, num_crops=None, start=None, end=None, return_tensors="pt"
    ):
        """Videos to `{"pixel_values": (B * views, T, C, H, W)}`; `multi_view` alone gives one view: there is no recipe.

        With several crops the processor gets squares of the short side, from one end of the long side to the other.

        Raises:
            VideoError: a video cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(f'return_tensors must be "pt", got {return_tensors!r}.')
        positions = [0.5] if num_crops in (None, 1) else [i / (num_crops - 1) for i in range(num_crops)]
        clips = [clip for video in videos for clip in self._read(video, num_clips or 1, start, end)]
        rows = [
            self._transform(_square(clip, place) if len(positions) > 1 else clip)
            for clip in clips
            for place in positions
        ]
        return {"pixel_values": torch.cat(rows)}

    def _read(self, video, num_clips: int, start, end) -> tuple[torch.Tensor, ...]:
        def sampler(info):
            clips = sample_clips(info.num_frames, self.num_frames, sampling=self.sampling, num_clips=num_clips)
            return [index for clip in clips for index in clip]

        return read_video(video, sampler=sampler, start=start, end=end).frames.split(self.num_frames)

    def _transform(self, frames: torch.Tensor) -> torch.Tensor:
        if hasattr(self.processor, "fetch_videos"):
            output = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        else:
            output = self.processor([frame.permute(1, 2, 0).numpy() for frame in frames], return_tensors="pt")
        return output["pixel_values"] if "pixel_values" in output else output["pixel_values_videos"]


def _square(frames: torch.Tensor, place: float) -> torch.Tensor:
    side = min(frames.shape[-2:])
    return crop_frames(frames, SizeDict(height=side, width=side), place)
