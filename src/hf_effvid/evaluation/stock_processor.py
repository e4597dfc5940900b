"""A processor of stock transformers behind the interface of ours: our reader picks the frames, it does the rest."""

import torch

from ..host_processing import host_views
from ..models.clip_sampling import sample_clips
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
        clips = [clip for video in videos for clip in self._read(video, num_clips or 1, start, end)]
        rows = [host_views(self.processor, clip, num_crops or 1).transpose(0, 1) for clip in clips]
        return {"pixel_values": torch.cat(rows)}

    def _read(self, video, num_clips: int, start, end) -> tuple[torch.Tensor, ...]:
        def sampler(info):
            clips = sample_clips(info.num_frames, self.num_frames, sampling=self.sampling, num_clips=num_clips)
            return [index for clip in clips for index in clip]

        return read_video(video, sampler=sampler, start=start, end=end).frames.split(self.num_frames)
