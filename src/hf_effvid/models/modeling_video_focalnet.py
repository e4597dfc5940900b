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
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_video_focalnet import VideoFocalNetConfig
from .focal_designs import fuse_modulators, joint_modulator, spatial_modulator, temporal_modulator
from .focal_ops import FocalModulation, focal_feed_forward, focal_modulation, focal_projection
from .layers import FrameDropPath
from .opening_classes import OpeningClassesMixin


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


class VideoFocalNetEmbeddings(nn.Module):
    """Cuts clips into tokens: patches of single frames, tubelets of several frames, or overlapping convolutions."""

    def __init__(self, config):
        super().__init__()
        self.num_channels = config.num_channels
        self.tubelet_size = config.tubelet_size
        self.num_stages = len(config.depths)
        self.use_conv_embed = config.use_conv_embed
        self.patch_size = config.patch_size
        channels, patch = config.embed_dim, config.patch_size
        if config.tubelet_size > 1:
            size = (config.tubelet_size, patch, patch)
            self.projection = nn.Conv3d(config.num_channels, channels, kernel_size=size, stride=size)
        elif config.use_conv_embed:
            self.projection = nn.Conv2d(config.num_channels, channels, kernel_size=7, stride=4, padding=2)
        else:
            self.projection = nn.Conv2d(config.num_channels, channels, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps) if config.patch_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, pixel_values):
        """Returns tokens (B, T * N, C) and their grid for `pixel_values` (B, T_in, channels, height, width)."""
        self._check(pixel_values)
        batch, frames = pixel_values.shape[:2]
        # a half-precision model takes the single-precision pixels of any processor
        pixel_values = pixel_values.to(self.projection.weight.dtype)
        if self.tubelet_size > 1:
            patches = self.projection(pixel_values.transpose(1, 2)).permute(0, 2, 3, 4, 1)  # (B, T, H, W, C)
        else:
            patches = self.projection(pixel_values.flatten(0, 1))  # (B * T, C, H, W)
            patches = patches.unflatten(0, (batch, frames)).permute(0, 1, 3, 4, 2)  # (B, T, H, W, C)
        grid = tuple(patches.shape[1:4])
        return self.dropout(self.norm(patches.flatten(1, 3))), grid

    def _check(self, pixel_values):
        if pixel_values.ndim != 5:
            raise ValueError(
                "Video-FocalNet expects pixel_values of shape (batch, frames, channels, height, width), got "
                f"{tuple(pixel_values.shape)}. Add the batch dimension, or use the checkpoint's processor."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"Video-FocalNet expects normalised floating-point pixel_values, got {pixel_values.dtype}. Use the "
                "checkpoint's processor, which rescales and normalises."
            )
        _, frames, channels, height, width = pixel_values.shape
        if channels != self.num_channels:
            hint = " The order is (batch, frames, channels, height, width)." if frames == self.num_channels else ""
            raise ValueError(f"Video-FocalNet expects {self.num_channels} channels, got {channels}.{hint}")
        if frames < self.tubelet_size:
            raise ValueError(
                f"Video-FocalNet expects at least {self.tubelet_size} frames (tubelet_size), got {frames}."
            )
        # overlapping convolutions pad, so that one patch of 3 pixels survives all stages
        smallest = 3 if self.use_conv_embed else self.patch_size * 2 ** (self.num_stages - 1)
        if min(height, width) < smallest:
            raise ValueError(
                f"Video-FocalNet with {self.num_stages} stages expects frames of at least {smallest}x{smallest} pixels, "
                f"got {height}x{width}. Resize them, for example to image_size."
            )


class VideoFocalNetDownsample(nn.Module):
    """Halves the grid in space and doubles the channels; time stays."""

    def __init__(self, config, in_channels):
        super().__init__()
        kernel = {"kernel_size": 3, "padding": 1} if config.use_conv_embed else {"kernel_size": 2}
        self.projection = nn.Conv2d(in_channels, 2 * in_channels, stride=2, **kernel)
        self.norm = nn.LayerNorm(2 * in_channels, eps=config.layer_norm_eps)

    def forward(self, hidden_states, grid):
        steps, height, width = grid
        batch, _, channels = hidden_states.shape
        frames = hidden_states.reshape(batch * steps, height, width, channels).permute(0, 3, 1, 2)
        frames = self.projection(frames).permute(0, 2, 3, 1)  # (B * T, H / 2, W / 2, 2 * C)
        grid = (steps, frames.shape[1], frames.shape[2])
        return self.norm(frames.reshape(batch, -1, 2 * channels)), grid


class VideoFocalNetModulation(nn.Module):
    """Multiplies a query with the context gathered around it, at growing distances in space and in time."""

    def __init__(self, config, channels, num_levels, window):
        super().__init__()
        self.num_levels = num_levels
        self.normalize = config.normalize_modulator
        self.design, self.fusion = config.temporal_encoding, config.modulator_fusion
        self.projection_in = nn.Linear(channels, 2 * channels + num_levels + 1)
        self.projection_in_temporal = self.projection_context_temporal = None
        if self.design in ("parallel", "sequential"):
            self.projection_in_temporal = nn.Linear(channels, channels + num_levels + 1)
            self.projection_context_temporal = nn.Linear(channels, channels)
        self.projection_context = nn.Linear(channels, channels)
        self.projection_out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if config.use_postln_in_modulation:
            self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        else:
            self.norm = nn.Identity()
        self.norm_temporal = self.projection_fusion = None
        if self.design == "sequential":
            self.norm_temporal = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        if self.fusion == "learned":
            self.projection_fusion = nn.Linear(2 * channels, channels)
        # The kernels are parameters of this module and not convolutions inside it: tools that move weights when a
        # module is called (offloading, ZeRO-3) then find them in place.
        for level in range(num_levels):
            size = window + 2 * level
            if self.design == "joint":
                self.register_parameter(
                    f"joint_kernel_{level}", nn.Parameter(torch.empty(channels, 1, size, size, size))
                )
                continue
            self.register_parameter(f"spatial_kernel_{level}", nn.Parameter(torch.empty(channels, 1, size, size)))
            if self.projection_in_temporal is not None:
                self.register_parameter(
                    f"temporal_kernel_{level}", nn.Parameter(torch.empty(channels, channels, size))
                )

    @property
    def kernels(self):
        """Spatial (or joint) and temporal kernels, level by level; no temporal ones without a temporal branch."""
        first = "joint" if self.design == "joint" else "spatial"
        names = [first] if self.projection_in_temporal is None else [first, "temporal"]
        found = [[getattr(self, f"{name}_kernel_{level}") for level in range(self.num_levels)] for name in names]
        return found[0], found[1] if len(found) > 1 else []

    def forward(self, hidden_states, grid, output_modulators=False):
        channels = hidden_states.shape[-1]
        sites = hidden_states.unflatten(1, grid)  # (B, T, H, W, C)
        query, context, gates = focal_projection(self.projection_in, sites, [channels, channels, self.num_levels + 1])
        if self.design == "none" or (self.design == "parallel" and self.fusion == "product"):
            modulation, temporal_gates = self._published(sites, query, context, gates, output_modulators)
        else:
            modulation, temporal_gates = self._of_an_ablation(sites, query, context, gates)
        (output,) = focal_projection(self.projection_out, self.norm(modulation.modulated), [channels])
        output = self.dropout(output)
        shown = None
        if output_modulators:
            shown = (modulation.spatial_modulator, modulation.temporal_modulator, gates, temporal_gates)
        return output.flatten(1, 3), shown

    def _published(self, sites, query, context, gates, keep_modulators):
        temporal_context = temporal_gates = None
        if self.projection_in_temporal is not None:
            into = None if keep_modulators or not self.num_levels else self.kernels[1][0]
            temporal_context, temporal_gates = self._temporal_inputs(sites, into)
        modulation = focal_modulation(
            query,
            context,
            gates,
            temporal_context,
            temporal_gates,
            *self.kernels,
            self.projection_context,
            self.projection_context_temporal,
            normalize=self.normalize,
            keep_modulators=keep_modulators,
        )
        return modulation, temporal_gates

    def _of_an_ablation(self, sites, query, context, gates):
        """The designs of `focal_designs`, in their order there."""
        kernels, temporal_kernels = self.kernels
        if self.design == "joint":
            modulator = joint_modulator(context, gates, kernels, self.projection_context, self.normalize)
            return FocalModulation(query * modulator, modulator, None), None
        spatial = spatial_modulator(context, gates, kernels, self.projection_context, self.normalize)
        if self.design == "sequential":
            query = query * spatial
            sites = self.norm_temporal(query)
        temporal_context, temporal_gates = self._temporal_inputs(sites)
        temporal = temporal_modulator(
            temporal_context, temporal_gates, temporal_kernels, self.projection_context_temporal, self.normalize
        )
        modulator = temporal
        if self.design == "parallel":
            modulator = fuse_modulators(spatial, temporal, self.projection_fusion)
        return FocalModulation(query * modulator, spatial, temporal), temporal_gates

    def _temporal_inputs(self, sites, into=None):
        """Context and gates of the temporal branch. `into`: what reads the context, where nothing else does."""
        return focal_projection(self.projection_in_temporal, sites, [sites.shape[-1], self.num_levels + 1], into)


class VideoFocalNetMLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, config, channels):
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * config.mlp_ratio))
        self.fc2 = nn.Linear(int(channels * config.mlp_ratio), channels)
        self.activation = nn.GELU()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states):
        if self.training and self.dropout.p > 0:
            return self.dropout(self.fc2(self.dropout(self.activation(self.fc1(hidden_states)))))
        return focal_feed_forward(self.fc1, self.fc2, hidden_states)


class VideoFocalNetLayer(GradientCheckpointingLayer):
    """One block: modulation and MLP, each on a residual branch."""

    def __init__(self, config, channels, num_levels, window, drop_path_rate):
        super().__init__()
        self.use_postln = config.use_postln
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.modulation = VideoFocalNetModulation(config, channels, num_levels, window)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = VideoFocalNetMLP(config, channels)
        self.drop_path = FrameDropPath(drop_path_rate)
        self.layer_scale1 = self.layer_scale2 = None
        if config.use_layerscale:
            self.layer_scale1 = nn.Parameter(torch.empty(channels))
            self.layer_scale2 = nn.Parameter(torch.empty(channels))

    def forward(self, hidden_states, grid, output_modulators=False):
        branch = hidden_states if self.use_postln else self.norm1(hidden_states)
        branch, shown = self.modulation(branch, grid, output_modulators)
        branch = self.norm1(branch) if self.use_postln else branch
        hidden_states = self._add(hidden_states, branch, self.layer_scale1, grid)

        branch = self.norm2(self.mlp(hidden_states)) if self.use_postln else self.mlp(self.norm2(hidden_states))
        return self._add(hidden_states, branch, self.layer_scale2, grid), shown

    def _add(self, hidden_states, branch, scale, grid):
        branch = branch if scale is None else branch * scale
        return hidden_states + self.drop_path(branch, grid[0])


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
