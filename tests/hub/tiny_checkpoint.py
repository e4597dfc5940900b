"""A Video-FocalNet of a few kilobytes with a head that does not answer zero, and what belongs to it."""

import torch

from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig, VideoFocalNetForVideoClassification


def tiny_model(
    num_labels: int = 4, seed: int = 0, labels: list[str] | None = None
) -> VideoFocalNetForVideoClassification:
    labels = labels or [f"move {index}" for index in range(num_labels)]
    config = VideoFocalNetConfig(
        image_size=32,
        num_frames=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        focal_levels=[1, 1, 1, 1],
        focal_windows=[3, 3, 3, 3],
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = VideoFocalNetForVideoClassification(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def tiny_processor(**changes) -> EffVidVideoProcessor:
    recipe = {"num_frames": 4, "size": {"shortest_edge": 36}, "crop_size": 32, "num_clips": 2, "num_crops": 3}
    return EffVidVideoProcessor(**{**recipe, **changes})
