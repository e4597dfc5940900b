# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""What Video-FocalNet is made of: embedding, downsampling, modulation, MLP and the block that joins the two.

Shapes: B clips, T steps in time, H x W sites, N = H * W, C channels of the stage, L focal levels of the stage.
A `grid` is the tuple (T, H, W) of tokens (B, T * N, C).
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .focal_designs import fuse_modulators, joint_modulator, spatial_modulator, temporal_modulator
from .focal_ops import FocalModulation, focal_block, focal_feed_forward, focal_modulation, focal_projection
from .layers import FrameDropPath, is_plain_linear, is_untouched


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
    def is_published(self):
        """Whether it is the modulation of the paper, with or without its temporal branch, and none of its ablations."""
        return self.design == "none" or (self.design == "parallel" and self.fusion == "product")

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
        if self.is_published:
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
            temporal_context, temporal_gates = self._temporal_inputs(sites)
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

    def _temporal_inputs(self, sites):
        """Context and gates of the temporal branch."""
        return focal_projection(self.projection_in_temporal, sites, [sites.shape[-1], self.num_levels + 1])


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
        if output_modulators or torch.is_grad_enabled():
            return self._by_operation(hidden_states, grid, output_modulators)
        return focal_block(self, hidden_states, grid, lambda: self._by_operation(hidden_states, grid)[0]), None

    def _by_operation(self, hidden_states, grid, output_modulators=False):
        branch = hidden_states if self.use_postln else self.norm1(hidden_states)
        branch, shown = self.modulation(branch, grid, output_modulators)
        branch = self.norm1(branch) if self.use_postln else branch
        hidden_states = self._add(hidden_states, branch, self.layer_scale1, grid)

        branch = self.norm2(self.mlp(hidden_states)) if self.use_postln else self.mlp(self.norm2(hidden_states))
        return self._add(hidden_states, branch, self.layer_scale2, grid), shown

    def is_plain(self):
        """Whether it is the published block, and every module in it nothing but its computation: no adapter, no hook, no other class."""
        modulation, mlp = self.modulation, self.mlp
        if type(modulation) is not VideoFocalNetModulation or type(mlp) is not VideoFocalNetMLP:
            return False
        if not modulation.is_published or self._may_drop():
            return False
        linears = [
            modulation.projection_in,
            modulation.projection_context,
            modulation.projection_out,
            mlp.fc1,
            mlp.fc2,
        ]
        if modulation.projection_in_temporal is not None:
            linears += [modulation.projection_in_temporal, modulation.projection_context_temporal]
        norms = self.norm1, self.norm2, modulation.norm
        others = modulation, mlp, modulation.dropout, mlp.dropout, self.drop_path, *norms
        spatial_kernels, temporal_kernels = modulation.kernels
        parameters = *spatial_kernels, *temporal_kernels, self.layer_scale1, self.layer_scale2
        return (
            all(map(is_plain_linear, linears))
            and all(map(is_untouched, others))
            and all(type(norm) in (nn.LayerNorm, nn.Identity) for norm in norms)
            and all(parameter is None or type(parameter) is nn.Parameter for parameter in parameters)
        )

    def _may_drop(self):
        """Whether something is dropped, or may be by modules that are not ours."""
        dropouts = self.modulation.dropout, self.mlp.dropout
        if type(self.drop_path) is not FrameDropPath or any(type(dropout) is not nn.Dropout for dropout in dropouts):
            return True
        return self.training and (self.drop_path.rate > 0 or any(dropout.p > 0 for dropout in dropouts))

    def _add(self, hidden_states, branch, scale, grid):
        branch = branch if scale is None else branch * scale
        return hidden_states + self.drop_path(branch, grid[0])
