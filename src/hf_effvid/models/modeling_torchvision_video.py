# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""torchvision's video networks (R(2+1)D, R3D, MC3, S3D, MViT, Swin3D) as models of transformers.

The layers are torchvision's own objects, so that its weights fit: `network.` before their names, and `classifier.` instead of the name
of the last layer. Only the path through them is written here, because theirs gives logits alone and fixes the size of the clips.

Shapes: B clips, T frames, t x h x w sites of the last feature map, C channels, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .clip_checks import check_clips
from .configuration_torchvision_video import TorchvisionVideoConfig
from .opening_classes import OpeningClassesMixin
from .torchvision_networks import make_video_network


# the layer of each family that gives logits
HEADS = {"resnet": "fc", "s3d": "classifier", "mvit": "head", "swin": "head"}
_DROPOUT = {"s3d": 0.2, "mvit": 0.5}
# S3D halves the sides five times, the last time without padding
_S3D_LEAST = (5, 17, 17)


@dataclass
class TorchvisionVideoModelOutput(ModelOutput):
    """Output of `TorchvisionVideoModel`.

    Args:
        last_hidden_state: (B, C, t, h, w), the last feature map; of MViT and Swin3D after the last normalisation.
        pooler_output: (B, C), what a classifier reads: the mean of the map, of MViT the class token.
        hidden_states: With `output_hidden_states=True`: the feature map of the stem and of every stage (of MViT: of every block), before
            the last normalisation.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class TorchvisionVideoClassifierOutput(ModelOutput):
    """Output of `TorchvisionVideoForVideoClassification`.

    Args:
        loss: Scalar, when `labels` were given.
        logits: (B, K).
        hidden_states: See `TorchvisionVideoModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class TorchvisionVideoPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: TorchvisionVideoConfig
    config_class = TorchvisionVideoConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = [
        "CheckpointedBasicBlock",
        "CheckpointedInceptionBlock",
        "CheckpointedMultiscaleBlock",
        "CheckpointedSwinBlock",
    ]
    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    auto_classes = {
        "AutoModel": "TorchvisionVideoModel",
        "AutoModelForVideoClassification": "TorchvisionVideoForVideoClassification",
    }

    def __init__(self, config, *args, **kwargs):
        # again: keyword arguments of from_pretrained reach the configuration after its own check
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        """Draws as torchvision does."""
        super()._init_weights(module)
        residual = self.config.family == "resnet"
        if isinstance(module, nn.Conv3d):
            if residual:
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            else:  # torch's own default
                init.kaiming_uniform_(module.weight, a=math.sqrt(5.0))
                if module.bias is not None:
                    bound = 1.0 / math.sqrt(module.weight[0].numel())
                    init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            if residual:
                init.normal_(module.weight, std=0.01)
            else:
                init.trunc_normal_(module.weight, std=0.02)
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith(("rel_pos_", "relative_position_bias", "class_", "spatial_pos", "temporal_pos")):
                init.trunc_normal_(parameter, std=0.02)
        if hasattr(module, "define_relative_position_index"):
            index = module.relative_position_index
            module.define_relative_position_index()
            init.copy_(index, module.relative_position_index.to(index.device))
            module.relative_position_index = index


class TorchvisionVideoModel(TorchvisionVideoPreTrainedModel):
    """The network without its last layer: clips to a feature map and what a classifier reads of it."""

    def __init__(self, config):
        super().__init__(config)
        for name, child in make_video_network(config).named_children():
            if name != HEADS[config.family]:
                self.add_module(name, child)
        self.post_init()

    def get_input_embeddings(self):
        return next(module for module in self.modules() if isinstance(module, nn.Conv3d))

    @can_return_tuple
    def forward(self, pixel_values, output_hidden_states=None, **kwargs):
        """Encodes clips.

        Args:
            pixel_values: (B, T, 3, height, width), normalised floats.
            output_hidden_states: Also return the feature map of the stem and of every stage.

        Raises:
            ValueError: `pixel_values` has another rank, type or number of channels, or a size that the network cannot take.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_clips("TorchvisionVideo", pixel_values, self.config.num_channels)
        frames, _, height, width = pixel_values.shape[1:]
        self._check_size((frames, height, width))
        # a half-precision model takes the single-precision pixels of any processor
        pixels = pixel_values.transpose(1, 2).to(self.dtype)
        features, pooled, maps = getattr(self, f"_encode_{self.config.family}")(pixels)
        return TorchvisionVideoModelOutput(
            last_hidden_state=features,
            pooler_output=pooled,
            hidden_states=tuple(maps) if output_hidden_states else None,
        )

    def window_means(self, features):
        """S3D's (B, C, t', h', w') from its last map: means over torchvision's window wherever it fits, or over a smaller map whole."""
        window = [min(side, length) for side, length in zip(self.avgpool.kernel_size, features.shape[2:], strict=True)]
        return nn.functional.avg_pool3d(features, window, stride=1)

    def _encode_resnet(self, pixels):
        maps = [self.stem(pixels)]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps[-1], self.avgpool(maps[-1]).flatten(1), maps

    def _encode_s3d(self, pixels):
        maps = []
        for module in self.features:
            pixels = module(pixels)
            maps.append(pixels)
        return pixels, self.window_means(pixels).mean(dim=(2, 3, 4)), maps

    def _encode_mvit(self, pixels):
        patches = self.conv_proj(pixels)
        # torchvision has the grid of the size it was built for here
        grid = tuple(patches.shape[2:])
        tokens = self.pos_encoding(patches.flatten(2).transpose(1, 2))
        maps = [_token_map(tokens, grid)]
        for block in self.blocks:
            tokens, grid = block(tokens, grid)
            maps.append(_token_map(tokens, grid))
        tokens = self.norm(tokens)
        return _token_map(tokens, grid), tokens[:, 0], maps

    def _encode_swin(self, pixels):
        features = self.pos_drop(self.patch_embed(pixels))
        maps = [_channels_first(features)]
        for stage in self.features:
            features = stage(features)
            maps.append(_channels_first(features))
        features = _channels_first(self.norm(features))
        return features, self.avgpool(features).flatten(1), maps

    def _check_size(self, size):
        config = self.config
        if config.family == "s3d" and any(side < least for side, least in zip(size, _S3D_LEAST, strict=True)):
            raise ValueError(
                f"S3D leaves nothing of a clip with fewer than {_S3D_LEAST[0]} frames or sides under {_S3D_LEAST[1]} pixels, got "
                f"{size[0]} frames of {size[1]} x {size[2]}."
            )
        trained = (config.num_frames, *config.frame_shape)
        if config.network == "mvit_v1_b" and tuple(size) != trained:
            raise ValueError(
                f"mvit_v1_b takes {trained[0]} frames of {trained[1]} x {trained[2]} pixels (num_frames and image_size of its "
                f"configuration), since it has one learned position per patch; got {size[0]} frames of {size[1]} x {size[2]}."
            )


def _token_map(tokens, grid):
    """(B, 1 + t * h * w, C), class token first, to (B, C, t, h, w)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def _channels_first(features):
    """(B, t, h, w, C) to (B, C, t, h, w)."""
    return features.permute(0, 4, 1, 2, 3)


class TorchvisionVideoForVideoClassification(TorchvisionVideoPreTrainedModel):
    """A network of torchvision with its last layer."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.network = TorchvisionVideoModel(config)
        rate = config.classifier_dropout
        self.dropout = nn.Dropout(_DROPOUT.get(config.family, 0.0) if rate is None else rate)
        self.classifier = _make_classifier(config) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.network.get_input_embeddings()

    @can_return_tuple
    def forward(self, pixel_values, labels=None, output_hidden_states=None, **kwargs):
        """Classifies clips.

        Args:
            pixel_values: (B, T, 3, height, width), see `TorchvisionVideoModel.forward`.
            labels: (B,) class indices, or (B, K) floats for `problem_type="multi_label_classification"`.
            output_hidden_states: Also return the feature map of the stem and of every stage.
        """
        outputs = self.network(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        if self.config.family == "s3d":  # classifies every place of its window
            means = self.network.window_means(outputs.last_hidden_state)
            logits = self.classifier(self.dropout(means)).mean(dim=(2, 3, 4))
        else:
            logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return TorchvisionVideoClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


def _make_classifier(config):
    """torchvision's last layer; that of S3D is a convolution."""
    if config.family == "s3d":
        return nn.Conv3d(config.hidden_size, config.num_labels, 1)
    return nn.Linear(config.hidden_size, config.num_labels)


__all__ = ["TorchvisionVideoForVideoClassification", "TorchvisionVideoModel", "TorchvisionVideoPreTrainedModel"]
