"""A processor of stock transformers behind the interface of ours: our reader picks the frames, it does the rest."""

import torch

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

    def __call__(self, videos, *, multi_view=False, num_clips=None, num_crops=None, return_tensors="pt"):
        """Videos to `{"pixel_values": (B * clips, T, C, H, W)}`; `multi_view` alone gives one view, there is no recipe.

        Raises:
            ValueError: several crops were asked for.
            VideoError: a video cannot be read.
        """
        if num_crops not in (None, 1):
            raise ValueError(
                f"num_crops={num_crops} needs a processor with a recipe (EffVidVideoProcessor), "
                f"{type(self.processor).__name__} has one centre crop."
            )
        rows = []
        for video in videos:
            per_clip = self._read(video, num_clips or 1)
            rows.extend(self._transform(clip, return_tensors) for clip in per_clip)
        return {"pixel_values": torch.cat(rows)}

    def _read(self, video, num_clips: int) -> list[torch.Tensor]:
        def sampler(info):
            clips = sample_clips(info.num_frames, self.num_frames, sampling=self.sampling, num_clips=num_clips)
            return [index for clip in clips for index in clip]

        return list(read_video(video, sampler=sampler).frames.split(self.num_frames))

    def _transform(self, frames: torch.Tensor, return_tensors: str) -> torch.Tensor:
        if hasattr(self.processor, "fetch_videos"):
            output = self.processor(videos=[frames], do_sample_frames=False, return_tensors=return_tensors)
        else:
            output = self.processor(list(frames.permute(0, 2, 3, 1).numpy()), return_tensors=return_tensors)
        return output["pixel_values"] if "pixel_values" in output else output["pixel_values_videos"]
