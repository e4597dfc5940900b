"""The models that `examples/bench_focal_paths.py` compares, made by functions that a fresh process can import."""

import torch
from torch import nn

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.convert.video_focalnet import convert_state_dict
from hf_effvid.models.focal_ops import focal_implementation

from .video_focalnet import LiteralVideoFocalNet


NUM_CLASSES, SEED = 400, 0


class WithImplementation(nn.Module):
    """Our model, always run by the implementation of one name; gives logits."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, pixel_values):
        with focal_implementation(self.name):
            return self.model(pixel_values).logits


def make_literal(preset):
    """The literal network of a released size, with random weights."""
    config = VideoFocalNetConfig.from_preset(preset)
    torch.manual_seed(SEED)
    return LiteralVideoFocalNet(num_classes=NUM_CLASSES, embed_dim=config.embed_dim, depths=list(config.depths)).eval()


def make_ours(preset, implementation=None, drop_path_rate=0.0):
    """Ours with the same weights; without an implementation it is the plain model, as users have it."""
    config = VideoFocalNetConfig.from_preset(preset, num_labels=NUM_CLASSES, drop_path_rate=drop_path_rate)
    with torch.device("meta"):
        model = VideoFocalNetForVideoClassification(config)
    weights = convert_state_dict(make_literal(preset).state_dict())
    model.load_state_dict(weights, assign=True)
    model = model.requires_grad_().eval()
    return model if implementation is None else WithImplementation(model, implementation)
