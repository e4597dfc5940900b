"""Detectors of a few kilobytes, of pixels and of features, whose outputs are not zero, and what belongs to them."""

import torch

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerProcessor


LABELS = ["serve", "lob | <b>", "return"]
HEAD = {
    "hidden_size": 16,
    "num_stem_layers": 1,
    "num_branch_layers": 2,
    "attention_window": 5,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
TRUNK = {
    "model_type": "video_focalnet",
    "num_frames": 4,
    "image_size": 32,
    "embed_dim": 8,
    "depths": [1, 1],
    "focal_levels": [1, 1],
    "focal_windows": [3, 3],
    "initialization": "fan_in",
}


def _detector(**fields):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**HEAD, **fields)).eval()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def pixel_detector():
    """A detector of pixels and its processor: 5 frames per second, a step every 2 frames, windows of 8 steps."""
    model = _detector(backbone_config=TRUNK, frames_per_step=2, max_sequence_length=16)
    model.config.backbone_config.name_or_path = "/home/me/trunk"
    processor = ActionFormerProcessor(
        feature_stride=2,
        feature_num_frames=2,
        feature_fps=5,
        window_length=8,
        size={"shortest_edge": 36},
        crop_size=32,
    )
    return model, processor


def feature_detector():
    """A detector of two kinds of features and its processor: stride 4, of 8 frames each."""
    model = _detector(input_size=[6, 4], max_sequence_length=32)
    return model, ActionFormerProcessor(feature_stride=4, feature_num_frames=8, window_length=16)


DETECTORS = {"pixels": pixel_detector, "features": feature_detector}
