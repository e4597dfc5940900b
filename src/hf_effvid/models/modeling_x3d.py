# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""X3D: small 3-D networks grown axis by axis, as video classifiers.

Paper: https://huggingface.co/papers/2004.04730. Written anew from the paper and a description of the released networks; its numbers are
checked against those of pytorchvideo (tests/parity).

Shapes: B clips, T frames (never strided), h x w sites, C channels of the stage, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .channel_counts import round_to_eight
from .checkpointed_block import CheckpointedBlock
from .clip_checks import check_clips
from .configuration_x3d import X3DConfig
from .folded_convolution import normed_convolution
from .opening_classes import OpeningClassesMixin


@dataclass
class X3DModelOutput(ModelOutput):
    """Output of `X3DModel`.

    Args:
        last_hidden_state: (B, C, T, h, w), the last feature map.
        pooler_output: (B, C), its mean.
        hidden_states: With `output_hidden_states=True`: the feature map of the stem and of every stage.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class X3DClassifierOutput(ModelOutput):
    """Output of `X3DForVideoClassification`.

    Args:
        loss: Scalar, when `labels` were given.
        logits: (B, K), mean over all places of the head's window.
        hidden_states: See `X3DModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class X3DStem(nn.Module):
    """A convolution in space, then one in time for every channel alone."""

    def __init__(self, config):
        super().__init__()
        size = config.stem_size
        self.spatial = nn.Conv3d(config.num_channels, size, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.temporal = nn.Conv3d(size, size, (5, 1, 1), padding=(2, 0, 0), groups=size, bias=False)
        self.norm = _norm(config, size)

    def forward(self, clips):
        clips = normed_convolution(self.spatial, None, clips)
        return normed_convolution(self.temporal, self.norm, clips, "relu")


class X3DSqueezeExcitation(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))), the mean over time and space."""

    def __init__(self, config, channels):
        super().__init__()
        inner = round_to_eight(channels * config.se_ratio)
        self.reduce = nn.Conv3d(channels, inner, 1)
        self.expand = nn.Conv3d(inner, channels, 1)

    def forward(self, hidden_states):
        squeezed = self.reduce(hidden_states.mean(dim=(2, 3, 4), keepdim=True)).relu()
        return hidden_states * self.expand(squeezed).sigmoid()


class X3DBlock(CheckpointedBlock):
    """Expansion, a depthwise convolution over time and space with squeeze-and-excitation, projection; and a shortcut around them."""

    def __init__(self, config, in_channels, channels, inner, stride, has_se):
        super().__init__()
        self.expand = nn.Conv3d(in_channels, inner, 1, bias=False)
        self.expand_norm = _norm(config, inner)
        self.depthwise = nn.Conv3d(inner, inner, 3, (1, stride, stride), 1, groups=inner, bias=False)
        self.depthwise_norm = _norm(config, inner)
        self.squeeze_excitation = X3DSqueezeExcitation(config, inner) if has_se else None
        self.project = nn.Conv3d(inner, channels, 1, bias=False)
        self.project_norm = _norm(config, channels)
        self.shortcut = self.shortcut_norm = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv3d(in_channels, channels, 1, (1, stride, stride), bias=False)
        if in_channels != channels:
            self.shortcut_norm = _norm(config, channels)

    def forward(self, hidden_states):
        branch = normed_convolution(self.expand, self.expand_norm, hidden_states, "relu")
        if self.squeeze_excitation is not None:
            branch = self.squeeze_excitation(normed_convolution(self.depthwise, self.depthwise_norm, branch))
            branch = nn.functional.silu(branch)
        else:
            branch = normed_convolution(self.depthwise, self.depthwise_norm, branch, "silu")
        shortcut = hidden_states
        if self.shortcut is not None:
            shortcut = normed_convolution(self.shortcut, self.shortcut_norm, hidden_states)
        return normed_convolution(self.project, self.project_norm, branch, "relu", add=shortcut)


class X3DHead(nn.Module):
    """Classifies the features under a window of the size that was trained with, wherever it fits, and averages the logits."""

    def __init__(self, config):
        super().__init__()
        channels = config.inner_sizes[-1]
        side = math.ceil(config.image_size / config.reduction)
        self.window = (config.num_frames, side, side)
        self.conv = nn.Conv3d(config.hidden_size, channels, 1, bias=False)
        self.norm = _norm(config, channels)
        self.hidden = nn.Conv3d(channels, config.head_size, 1, bias=False)
        self.dropout = nn.Dropout(config.classifier_dropout)

    def forward(self, features):
        """Features (B, C, T, h, w) to (B, places, head_size)."""
        features = normed_convolution(self.conv, self.norm, features, "relu")
        window = [min(side, length) for side, length in zip(self.window, features.shape[2:], strict=True)]
        # in single precision, because a processor cannot pool half of it
        precise = features.to(torch.promote_types(features.dtype, torch.float32))
        pooled = nn.functional.avg_pool3d(precise, window, stride=1).to(features.dtype)
        return self.dropout(self.hidden(pooled).relu().flatten(2).transpose(1, 2))


def _norm(config, channels):
    return nn.BatchNorm3d(channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)


class X3DPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: X3DConfig
    config_class = X3DConfig
    base_model_prefix = "x3d"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["X3DBlock"]
    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    auto_classes = {"AutoModel": "X3DModel", "AutoModelForVideoClassification": "X3DForVideoClassification"}

    def __init__(self, config, *args, **kwargs):
        # again: keyword arguments of from_pretrained reach the configuration after its own check
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):  # variance 2 / fan-out, of one group
            init.normal_(module.weight, std=math.sqrt(2.0 * module.groups / module.weight[:, 0].numel()))


class X3DModel(X3DPreTrainedModel):
    """The network without a head: clips to a feature map and its mean."""

    def __init__(self, config):
        super().__init__(config)
        self.stem = X3DStem(config)
        self.stages = nn.ModuleList()
        channels = config.stem_size
        for size, inner, depth in zip(config.hidden_sizes, config.inner_sizes, config.depths, strict=True):
            blocks = [
                X3DBlock(config, size if index else channels, size, inner, 1 if index else 2, index % 2 == 0)
                for index in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
            channels = size
        self.post_init()

    def get_input_embeddings(self):
        return self.stem.spatial

    @can_return_tuple
    def forward(self, pixel_values, output_hidden_states=None, **kwargs):
        """Encodes clips.

        Args:
            pixel_values: (B, T, channels, height, width), normalised floats. Any number of frames and any size.
            output_hidden_states: Also return the feature map of the stem and of every stage.

        Raises:
            ValueError: `pixel_values` has another rank, type or number of channels.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_clips("X3D", pixel_values, self.config.num_channels)
        # a half-precision model takes the single-precision pixels of any processor
        features = self.stem(pixel_values.transpose(1, 2).to(self.dtype))
        maps = [features]
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return X3DModelOutput(
            last_hidden_state=features,
            pooler_output=features.mean(dim=(2, 3, 4)),
            hidden_states=tuple(maps) if output_hidden_states else None,
        )


class X3DForVideoClassification(X3DPreTrainedModel):
    """X3D with the head of the paper."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.x3d = X3DModel(config)
        self.head = X3DHead(config)
        self.classifier = nn.Linear(config.head_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.x3d.get_input_embeddings()

    @can_return_tuple
    def forward(self, pixel_values, labels=None, output_hidden_states=None, **kwargs):
        """Classifies clips.

        Args:
            pixel_values: (B, T, channels, height, width), see `X3DModel.forward`.
            labels: (B,) class indices, or (B, K) floats for `problem_type="multi_label_classification"`.
            output_hidden_states: Also return the feature map of the stem and of every stage.
        """
        outputs = self.x3d(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.classifier(self.head(outputs.last_hidden_state)).mean(dim=1)
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return X3DClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["X3DForVideoClassification", "X3DModel", "X3DPreTrainedModel"]
