"""A tiny VideoMAE classifier with random weights, and biases that are not zero.

On disk VideoMAE stores two of its biases under other names; a model whose biases are zero loads "correctly" even where that
renaming was missed.
"""

import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification


TINY_VIDEOMAE = {
    "image_size": 32,
    "patch_size": 8,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 5,
    "initializer_range": 0.2,
}
NUM_TOKENS = 2 * 4 * 4


def fill_biases(model, std=0.5):
    """Draws every bias of a model; the same seed gives the same biases."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(std * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_videomae(**options):
    torch.manual_seed(0)
    return fill_biases(VideoMAEForVideoClassification(VideoMAEConfig(**{**TINY_VIDEOMAE, **options}))).eval()


def tiny_clips(batch=2, frames=4, size=32):
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def qv_biases(model):
    """The biases that have another name on disk."""
    attentions = [module for module in model.modules() if type(module).__name__ == "VideoMAESelfAttention"]
    return torch.stack([linear.bias for attention in attentions for linear in (attention.query, attention.value)])
