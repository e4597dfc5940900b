# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Video-FocalNet: spatio-temporal focal modulation for video recognition.

Paper: https://huggingface.co/papers/2307.06947. Written anew from the paper and a description of the released network;
its numbers are checked against TalalWasim/Video-FocalNets at commit 39eba99 (tests/parity).

Differs from the released code:
- the number of frames comes from the input and not from the configuration; the weights are the same for any;
- modulators and gates are outputs (`output_modulators=True`); a forward pass writes no attributes;
- tokens stay channels-last from end to end, and the two context projections are linear layers (upstream: 1x1
  convolutions), so that adapters and fast matrix products apply to them.

Shapes: B clips, T steps in time, H x W sites, N = H * W, C channels of the stage, L focal levels of the stage.
A `grid` is the tuple (T, H, W) of tokens (B, T * N, C).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_video_focalnet import VideoFocalNetConfig
from .opening_classes import OpeningClassesMixin
from .video_focalnet_layers import (
    VideoFocalNetDownsample,
    VideoFocalNetEmbeddings,
    VideoFocalNetLayer,
    VideoFocalNetModulation,
)


@dataclass
class VideoFocalNetModelOutput(ModelOutput):
    """Output of `VideoFocalNetModel`.

    Args:
        last_hidden_state: (B, T * N, C), normalised tokens of the last stage.
        pooler_output: (B, C), their mean.
        hidden_states: With `output_hidden_states=True`: tokens of the embedding and of every stage.
        reshaped_hidden_states: The same as grids (B, C, T, H, W).
        spatial_modulators, temporal_modulators: With `output_modulators=True`: one (B, T, H, W, C) per block.
        spatial_gates, temporal_gates: With `output_modulators=True`: one (B, T, H, W, L + 1) per block, the global
            context last. The temporal ones are None with `temporal_encoding="none"`, and with `"joint"`, where the spatial
            ones are those of the one branch over space and time.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    spatial_modulators: tuple[torch.FloatTensor, ...] | None = None
    temporal_modulators: tuple[torch.FloatTensor, ...] | None = None
    spatial_gates: tuple[torch.FloatTensor, ...] | None = None
    temporal_gates: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class VideoFocalNetClassifierOutput(ModelOutput):
    """Output of `VideoFocalNetForVideoClassification`.

    Args:
        loss: Scalar, when `labels` were given.
        logits: (B, num_labels), before softmax or sigmoid.
        hidden_states, reshaped_hidden_states, spatial_modulators, temporal_modulators, spatial_gates, temporal_gates:
            See `VideoFocalNetModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    reshaped_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    spatial_modulators: tuple[torch.FloatTensor, ...] | None = None
    temporal_modulators: tuple[torch.FloatTensor, ...] | None = None
    spatial_gates: tuple[torch.FloatTensor, ...] | None = None
    temporal_gates: tuple[torch.FloatTensor, ...] | None = None


class VideoFocalNetStage(nn.Module):
    """Downsampling (in all stages but the first), then blocks on one grid."""

    def __init__(self, config, index, drop_path_rates):
        super().__init__()
        channels = config.hidden_sizes[index]
        self.downsample = VideoFocalNetDownsample(config, channels // 2) if index > 0 else None
        self.layers = nn.ModuleList(
            VideoFocalNetLayer(config, channels, config.focal_levels[index], config.focal_windows[index], rate)
            for rate in drop_path_rates
        )

    def forward(self, hidden_states, grid, output_modulators=False):
        """Returns tokens, their grid, and one tuple of modulators and gates (or None) per block."""
        if self.downsample is not None:
            hidden_states, grid = self.downsample(hidden_states, grid)
        shown = []
        for layer in self.layers:
            hidden_states, shown_here = layer(hidden_states, grid, output_modulators)
            shown.append(shown_here)
        return hidden_states, grid, shown


class VideoFocalNetEncoder(nn.Module):
    """All stages. Returns what every one of them gave, the embedding first."""

    def __init__(self, config):
        super().__init__()
        rates = config.drop_path_rates
        starts = [sum(config.depths[:index]) for index in range(len(config.depths))]
        self.stages = nn.ModuleList(
            VideoFocalNetStage(config, index, rates[start : start + depth])
            for index, (start, depth) in enumerate(zip(starts, config.depths, strict=True))
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states, grid, output_modulators=False):
        all_hidden_states, all_grids, all_shown = [hidden_states], [grid], []
        for stage in self.stages:
            hidden_states, grid, shown = stage(hidden_states, grid, output_modulators)
            all_hidden_states.append(hidden_states)
            all_grids.append(grid)
            all_shown.extend(shown)
        return all_hidden_states, all_grids, all_shown


class VideoFocalNetPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: VideoFocalNetConfig
    config_class = VideoFocalNetConfig
    base_model_prefix = "video_focalnet"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoFocalNetLayer"]
    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    auto_classes = {
        "AutoModel": "VideoFocalNetModel",
        "AutoModelForVideoClassification": "VideoFocalNetForVideoClassification",
        "AutoBackbone": "VideoFocalNetBackbone",
    }

    def __init__(self, config, *args, **kwargs):
        # again: keyword arguments of from_pretrained reach the configuration after its own check
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        published = self.config.initialization == "published"
        if isinstance(module, nn.Linear):
            if published:
                init.trunc_normal_(module.weight, std=self.config.initializer_range)
            else:
                _init_fan_in(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            if published:
                _init_torch_default(module.weight, module.bias)
            else:
                _init_fan_in(module.weight)
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, VideoFocalNetModulation):
            self._init_modulation(module, published)
        elif isinstance(module, VideoFocalNetLayer) and module.layer_scale1 is not None:
            init.constant_(module.layer_scale1, self.config.layerscale_value)
            init.constant_(module.layer_scale2, self.config.layerscale_value)

    def _init_modulation(self, module, published):
        spatial, temporal = module.kernels
        for kernel in (*spatial, *temporal):
            if published:
                _init_torch_default(kernel)
            else:
                _init_fan_in(kernel)
        if published:  # convolutions upstream, and initialised as such
            contexts = module.projection_context, module.projection_context_temporal, module.projection_fusion
            for projection in filter(None, contexts):
                _init_torch_default(projection.weight, projection.bias)


def _fan_in(weight):
    return weight[0].numel()


def _init_fan_in(weight):
    init.normal_(weight, std=1.0 / math.sqrt(_fan_in(weight)))


def _init_torch_default(weight, bias=None):
    """What torch.nn gives a convolution when nobody asks."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1.0 / math.sqrt(_fan_in(weight))
        init.uniform_(bias, -bound, bound)


class VideoFocalNetModel(VideoFocalNetPreTrainedModel):
    """The network without a head: clips to normalised tokens and their mean."""

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = VideoFocalNetEmbeddings(config)
        self.encoder = VideoFocalNetEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.projection

    @can_return_tuple
    def forward(self, pixel_values, output_hidden_states=None, output_modulators=None, **kwargs):
        """Encodes clips.

        Args:
            pixel_values: (B, T, channels, height, width), normalised floats. Any number of frames (left-over frames of
                a tubelet are not used) and any size from 32 x 32 pixels on.
            output_hidden_states: Also return the tokens of the embedding and of every stage.
            output_modulators: Also return modulators and gates of every block.

        Raises:
            ValueError: `pixel_values` has another rank, type, number of channels, or is too small.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_modulators is None:
            output_modulators = self.config.output_modulators

        embedded, grid = self.embeddings(pixel_values)
        hidden_states, grids, shown = self.encoder(embedded, grid, output_modulators)
        normalised = self.layernorm(hidden_states[-1])
        output = VideoFocalNetModelOutput(last_hidden_state=normalised, pooler_output=normalised.mean(dim=1))
        if output_hidden_states:
            output.hidden_states = tuple(hidden_states)
            output.reshaped_hidden_states = tuple(
                tokens.unflatten(1, grid).permute(0, 4, 1, 2, 3)
                for tokens, grid in zip(hidden_states, grids, strict=True)
            )
        if output_modulators:
            output.spatial_modulators, output.temporal_modulators, output.spatial_gates, output.temporal_gates = (
                tuple(maps) if any(of_block is not None for of_block in maps) else None
                for maps in zip(*shown, strict=True)
            )
        return output


class VideoFocalNetForVideoClassification(VideoFocalNetPreTrainedModel):
    """Video-FocalNet with a linear classifier on the mean token."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.video_focalnet = VideoFocalNetModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.video_focalnet.get_input_embeddings()

    @can_return_tuple
    def forward(self, pixel_values, labels=None, output_hidden_states=None, output_modulators=None, **kwargs):
        """Classifies clips.

        Args:
            pixel_values: (B, T, channels, height, width), see `VideoFocalNetModel.forward`.
            labels: (B,) class indices, or (B, num_labels) floats for `problem_type="multi_label_classification"`.
            output_hidden_states: Also return the tokens of the embedding and of every stage.
            output_modulators: Also return modulators and gates of every block.
        """
        outputs = self.video_focalnet(
            pixel_values,
            output_hidden_states=output_hidden_states,
            output_modulators=output_modulators,
            return_dict=True,
        )
        logits = self.classifier(outputs.pooler_output)
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return VideoFocalNetClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            reshaped_hidden_states=outputs.reshaped_hidden_states,
            spatial_modulators=outputs.spatial_modulators,
            temporal_modulators=outputs.temporal_modulators,
            spatial_gates=outputs.spatial_gates,
            temporal_gates=outputs.temporal_gates,
        )


class VideoFocalNetBackbone(BackboneMixin, VideoFocalNetPreTrainedModel):
    """Feature maps (B, C, T, H, W) of the stages named in `config.out_features`, for detectors and the like."""

    has_attentions = False

    def __init__(self, config):
        super().__init__(config)
        self.num_features = [config.embed_dim, *config.hidden_sizes]
        self.video_focalnet = VideoFocalNetModel(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.video_focalnet.get_input_embeddings()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values, output_hidden_states=None, **kwargs):
        """Encodes clips and returns the feature maps, in the order of `out_features`.

        Args:
            pixel_values: (B, T, channels, height, width), see `VideoFocalNetModel.forward`.
            output_hidden_states: Also return the tokens of the embedding and of every stage.
        """
        outputs = self.video_focalnet(pixel_values, output_hidden_states=True, return_dict=True)
        maps = dict(zip(self.stage_names, outputs.reshaped_hidden_states, strict=True))
        return BackboneOutput(
            feature_maps=tuple(maps[name] for name in self.out_features),
            hidden_states=outputs.hidden_states,
        )


__all__ = [
    "VideoFocalNetBackbone",
    "VideoFocalNetForVideoClassification",
    "VideoFocalNetModel",
    "VideoFocalNetPreTrainedModel",
]
