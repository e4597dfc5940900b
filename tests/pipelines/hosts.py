"""Small random video classifiers of every kind that the pipeline promises to serve, each with its own processor."""

import torch
from transformers import (
    LlavaOnevisionVideoProcessor,
    TimesformerConfig,
    TimesformerForVideoClassification,
    TimesformerVideoProcessor,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEVideoProcessor,
    VideoPrismForVideoClassification,
    VideoPrismVisionConfig,
    VivitConfig,
    VivitForVideoClassification,
    VivitVideoProcessor,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2VideoProcessor,
)

from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig, VideoFocalNetForVideoClassification


SIZE, FRAMES, LABELS = 32, 4, 7
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CLASSES = {"num_labels": LABELS, "id2label": {i: f"move {i}" for i in range(LABELS)}}


def randomise(model, seed=0):
    """Non-zero biases, class tokens and position tables: zeros would hide a wrong key or a wrong position."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


def videomae(num_frames=FRAMES, size=SIZE, **changes):
    config = VideoMAEConfig(
        image_size=size, patch_size=8, num_frames=num_frames, tubelet_size=2, **TRANSFORMER, **CLASSES, **changes
    )
    processor = VideoMAEVideoProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return randomise(VideoMAEForVideoClassification(config)), processor


def timesformer(num_frames=FRAMES, size=SIZE):
    config = TimesformerConfig(image_size=size, patch_size=8, num_frames=num_frames, **TRANSFORMER, **CLASSES)
    processor = TimesformerVideoProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return randomise(TimesformerForVideoClassification(config)), processor


def vivit(num_frames=FRAMES, size=SIZE):
    config = VivitConfig(image_size=size, num_frames=num_frames, tubelet_size=[2, 8, 8], **TRANSFORMER, **CLASSES)
    processor = VivitVideoProcessor(size={"shortest_edge": size + 4}, crop_size={"height": size, "width": size})
    return randomise(VivitForVideoClassification(config)), processor


def vjepa2(num_frames=FRAMES, size=SIZE):
    config = VJEPA2Config(
        crop_size=size,
        patch_size=8,
        frames_per_clip=num_frames,
        tubelet_size=2,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        mlp_ratio=1.5,
        **CLASSES,
    )
    processor = VJEPA2VideoProcessor(crop_size={"height": size, "width": size})
    return randomise(VJEPA2ForVideoClassification(config)), processor


def videoprism(num_frames=FRAMES, size=SIZE):
    config = VideoPrismVisionConfig(
        image_size=size,
        num_frames=num_frames,
        tubelet_size=[1, 8, 8],
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=1,
        **CLASSES,
    )
    processor = LlavaOnevisionVideoProcessor(
        size={"height": size, "width": size}, image_mean=[0.0] * 3, image_std=[1.0] * 3
    )
    return randomise(VideoPrismForVideoClassification(config)), processor


def video_focalnet(num_frames=FRAMES, size=SIZE, **changes):
    config = VideoFocalNetConfig.from_preset(
        "tiny",
        embed_dim=8,
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
        num_frames=num_frames,
        image_size=size,
        **CLASSES,
        **changes,
    )
    processor = EffVidVideoProcessor(
        num_frames=num_frames,
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        num_clips=2,
        num_crops=3,
    )
    return randomise(VideoFocalNetForVideoClassification(config)), processor


HOSTS = {
    "videomae": videomae,
    "timesformer": timesformer,
    "vivit": vivit,
    "vjepa2": vjepa2,
    "videoprism": videoprism,
    "video_focalnet": video_focalnet,
}


def scores(predictions):
    """Label -> score, whatever the order."""
    return {one["label"]: one["score"] for one in predictions}
