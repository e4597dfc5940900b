# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Trunks of video classifiers, read clip by clip: what differs between them when all a detector wants is features per time.

Every trunk takes clips (N, F, C, H, W) to tokens (N, L, D) that lie in t steps of time. VideoMAE is also opened up into embedding and
blocks, so that adapters can sit between its blocks.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModel

from .modeling_video_focalnet import VideoFocalNetModel


class ClipTokens(NamedTuple):
    """Tokens (N, L, D) of N clips, and how many steps of time they make.

    `time_first` tells the order: all tokens of the first step come first, or all steps of the first place.
    """

    tokens: torch.Tensor
    steps: int
    time_first: bool = True

    def per_step(self):
        """Mean over the places of every step, (N, t, D)."""
        if self.time_first:
            return self.tokens.unflatten(1, (self.steps, -1)).mean(dim=2)
        return self.tokens.unflatten(1, (-1, self.steps)).mean(dim=1)


def _run_video_focalnet(trunk, clips):
    return ClipTokens(trunk(clips).last_hidden_state, clips.shape[1] // trunk.config.tubelet_size)


def _run_vjepa2(trunk, clips):
    tokens = trunk(pixel_values_videos=clips, skip_predictor=True).last_hidden_state
    return ClipTokens(tokens, clips.shape[1] // trunk.config.tubelet_size)


def _run_vivit(trunk, clips):
    tokens = trunk(clips, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    return ClipTokens(tokens, clips.shape[1] // trunk.config.tubelet_size[0])


def _run_timesformer(trunk, clips):
    return ClipTokens(trunk(clips).last_hidden_state[:, 1:], clips.shape[1], time_first=False)


def _run_videomae(trunk, clips):
    embedded = embed_videomae(trunk, clips)
    tokens = embedded.tokens
    for layer in trunk.encoder.layer:
        tokens = layer(tokens)
    return embedded._replace(tokens=finish_videomae(trunk, tokens))


TRUNKS = {
    "video_focalnet": _run_video_focalnet,
    "videomae": _run_videomae,
    "vivit": _run_vivit,
    "vjepa2": _run_vjepa2,
    "timesformer": _run_timesformer,
}


def make_trunk(config):
    """A trunk with new weights for the configuration of a video classifier.

    Raises:
        ValueError: there is no trunk of this `model_type`.
    """
    if config.model_type not in TRUNKS:
        raise ValueError(
            f"There is no trunk of model_type {config.model_type!r}, only of {', '.join(TRUNKS)}. Extract features with another "
            "model beforehand and give them as input_features."
        )
    if config.model_type == "video_focalnet":  # also where the package that registers it is not installed
        return VideoFocalNetModel(config)
    options = {"add_pooling_layer": False} if config.model_type == "vivit" else {}
    trunk = AutoModel.from_config(config, **options)
    if config.model_type == "vjepa2":  # a parameter that no loss reaches would stop distributed training
        trunk.predictor = nn.Identity()
    return trunk


def run_trunk(trunk, clips):
    """`ClipTokens` of clips (N, F, C, H, W)."""
    return TRUNKS[trunk.config.model_type](trunk, clips)


# --- VideoMAE, step by step ---


def embed_videomae(trunk, clips):
    """Tokens of clips with positions, before the first block."""
    patches = trunk.embeddings.patch_embeddings
    embedded = patches.projection(clips.transpose(1, 2))  # (N, D, t, h, w)
    positions = videomae_positions(trunk, embedded.shape[2:])
    tokens = embedded.flatten(2).transpose(1, 2)
    return ClipTokens(tokens + positions.to(tokens), embedded.shape[2])


def videomae_positions(trunk, grid):
    """VideoMAE's table of sines for another grid (t, h, w), (1, t h w, D).

    The trained table is resized bicubically, each step of time by itself. That is not the table which VideoMAE would build for an image of
    that size: there the sines would run through the tokens at another pace.

    Raises:
        ValueError: the number of steps is another.
    """
    config = trunk.config
    sizes = [
        size if isinstance(size, (list, tuple)) else (size, size) for size in (config.image_size, config.patch_size)
    ]
    trained = (
        config.num_frames // config.tubelet_size,
        sizes[0][0] // sizes[1][0],
        sizes[0][1] // sizes[1][1],
    )
    table = trunk.embeddings.position_embeddings
    if tuple(grid) == trained:
        return table
    if grid[0] != trained[0]:
        raise ValueError(
            f"VideoMAE's table of positions has {trained[0]} steps of time (num_frames={config.num_frames}), the clips make {grid[0]}: "
            "give clips of num_frames frames."
        )
    images = table.float().reshape(*trained, -1).permute(0, 3, 1, 2)
    images = nn.functional.interpolate(images, size=tuple(grid[1:]), mode="bicubic", align_corners=False)
    return images.permute(0, 2, 3, 1).reshape(1, -1, images.shape[1])


def finish_videomae(trunk, tokens):
    """What follows the last block: a LayerNorm in checkpoints that read the first token, nothing in those that take the mean."""
    return tokens if trunk.layernorm is None else trunk.layernorm(tokens)
