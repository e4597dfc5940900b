"""What a detector is made of when nobody says: sizes that follow from the lengths of the annotated actions."""

import math
from dataclasses import dataclass

import numpy as np

from ..models.configuration_video_focalnet import VideoFocalNetConfig


# steps that a short action should cover: with fewer, no point of the pyramid lies well inside it
_STEPS_OF_SHORT = 4
_MAX_STEPS_OF_LONG = 128
_MAX_FPS = 15.0


@dataclass(frozen=True)
class ActionLengths:
    """Lengths of the annotated actions in seconds.

    Attributes:
        short: 10 % are shorter.
        long: the longest one.
    """

    short: float
    long: float

    @classmethod
    def of(cls, annotations) -> "ActionLengths":
        """Those of `DetectionAnnotations`.

        Raises:
            ValueError: there is no action with a length.
        """
        lengths = [one.length for video in annotations.videos for one in video.usable()]
        if not lengths:
            raise ValueError(f"{annotations.name} has no annotation with a length: nothing can be learnt from it.")
        return cls(float(np.percentile(lengths, 10)), max(lengths))


def num_branch_layers(longest_steps: float) -> int:
    """Levels above the first, so that the last one answers for the longest actions: level l takes distances from 2^(l + 1) steps on."""
    return int(min(max(math.ceil(math.log2(max(longest_steps, 8) / 4)), 2), 5))


def feature_sizes(lengths: ActionLengths, seconds_per_step: float, most_steps: int) -> dict:
    """Fields of `ActionFormerConfig` for features.

    Args:
        lengths: of the actions.
        seconds_per_step: from one feature to the next.
        most_steps: features of the longest video.
    """
    longest = math.ceil(lengths.long / seconds_per_step)
    # whole videos where that is cheap; otherwise windows that show the longest action with what is around it
    window = most_steps if most_steps <= 2304 else min(max(4 * longest, 2304), most_steps)
    return {"hidden_size": 256, "num_branch_layers": num_branch_layers(longest), "max_sequence_length": window}


def pixel_sizes(lengths: ActionLengths, frames_per_step: int, clip_frames: int) -> tuple[dict, dict]:
    """Fields of `ActionFormerConfig` and of `ActionFormerProcessor` for frames.

    Args:
        lengths: of the actions.
        frames_per_step: frames of one step of time inside the backbone.
        clip_frames: frames of its clips; windows are made of whole clips.

    Returns:
        (fields of the configuration, fields of the processor).
    """
    seconds = max(lengths.short / _STEPS_OF_SHORT, lengths.long / _MAX_STEPS_OF_LONG, frames_per_step / _MAX_FPS)
    longest = math.ceil(lengths.long / seconds)
    per_clip = clip_frames / frames_per_step
    window = math.ceil(math.ceil(max(2 * longest, 32) / per_clip) * per_clip)
    config = {
        "hidden_size": 128,
        "num_branch_layers": num_branch_layers(longest),
        "max_sequence_length": window,
        "frames_per_step": frames_per_step,
    }
    return config, {"feature_fps": float(f"{frames_per_step / seconds:.2g}"), "window_length": window}


def small_backbone() -> VideoFocalNetConfig:
    """A Video-FocalNet that trains from scratch on a laptop: the network of the quickstart, for frames of 64 x 64."""
    return VideoFocalNetConfig(
        num_frames=8,
        image_size=64,
        patch_size=8,
        embed_dim=32,
        depths=[2, 2],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        drop_path_rate=0.0,
        use_layerscale=True,
        layerscale_value=0.1,
        use_postln_in_modulation=True,
        initialization="fan_in",
    )


def training_defaults(windows_per_epoch: int, batch: int | None = None) -> dict:
    """Fields of `EffVidTrainingArguments` that a run gets where nobody says: about 1,000 steps, 10 to 60 epochs.

    Args:
        windows_per_epoch: training windows.
        batch: windows per step, if somebody says.
    """
    batch = batch or 4
    steps_per_epoch = max(1, math.ceil(windows_per_epoch / batch))
    return {
        "num_train_epochs": float(min(max(math.ceil(1000 / steps_per_epoch), 10), 60)),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "learning_rate": 1e-3,
        "max_grad_norm": 1.0,
        "ema_decay": 0.999,
        "report_to": "none",
    }
