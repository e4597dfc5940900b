# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""The blocks of ActionFormer: masked convolutions, attention over time, and what joins them.

Hidden states are (B, T, D) and masks (B, T), true at steps of the video; padding comes after them. A block of stride 2 gives
ceil(T / 2) steps, and step i of them stands where step 2 i stood.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layers import FrameDropPath
from .temporal_attention import attend_in_band, attend_to_all, eager_attention


def zero_padding(hidden_states, mask):
    """Hidden states (B, T, D) with zeros where the mask (B, T) is false."""
    return hidden_states.masked_fill(~mask[..., None], 0.0)


class MaskedConvolution(nn.Conv1d):
    """Convolution along time that keeps padding at zero: (B, T, C_in), mask of its output -> (B, ceil(T / stride), C_out)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, groups=1, bias=False):
        super().__init__(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=bias
        )

    def forward(self, hidden_states, mask):
        return zero_padding(super().forward(hidden_states.transpose(1, 2)).transpose(1, 2), mask)


class ConvolutionNorm(nn.Module):
    """Convolution, LayerNorm, ReLU: what the embedding and the heads are made of."""

    def __init__(self, config, in_channels, out_channels, kernel_size):
        super().__init__()
        self.masks_norm = config.mask_after_norm != "nowhere"
        self.convolution = MaskedConvolution(in_channels, out_channels, kernel_size)
        self.norm = nn.LayerNorm(out_channels, eps=config.convolution_norm_eps)

    def forward(self, hidden_states, mask):
        hidden_states = nn.functional.relu(self.norm(self.convolution(hidden_states, mask)))
        return zero_padding(hidden_states, mask) if self.masks_norm else hidden_states


class ActionFormerAttention(nn.Module):
    """Attention whose queries, keys and values are first gathered by a depth-wise convolution, which also does the striding."""

    def __init__(self, config, stride, window):
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.window = window
        self.num_heads = config.num_attention_heads
        self.head_size = size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        self.is_causal = False
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_convolution", MaskedConvolution(size, size, 3, stride=stride, groups=size))
            setattr(self, f"{name}_norm", nn.LayerNorm(size, eps=config.layer_norm_eps))
            setattr(self, name, nn.Linear(size, size))
        self.output = nn.Linear(size, size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.relative_bias = None
        if config.use_relative_positions and window is not None:
            self.relative_bias = nn.Parameter(torch.empty(self.num_heads, window))

    def forward(self, hidden_states, mask, padded):
        """Returns (B, T', D) and the weights (B, heads, T', T') or None.

        Args:
            hidden_states: (B, T, D).
            mask: (B, T'), of the output.
            padded: whether the mask is false anywhere; attention to everything is then cheaper.
        """
        query, key, value = (self._heads(name, hidden_states, mask) for name in ("query", "key", "value"))
        if self.window is None:
            output, weights = attend_to_all(self._attend, query, key, value, mask if padded else None)
        else:
            # weights are a matrix of all pairs: who wants them ("eager") gets that matrix
            dense = True if self.config._attn_implementation == "eager" else None
            output, weights = attend_in_band(
                self._attend, query, key, value, mask, self.window, self.relative_bias, dense
            )
        output = self.dropout(self.output(output.flatten(2)))
        return zero_padding(output, mask), weights

    def _heads(self, name, hidden_states, mask):
        states = getattr(self, f"{name}_norm")(getattr(self, f"{name}_convolution")(hidden_states, mask))
        return getattr(self, name)(states).unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    def _attend(self, query, key, value, mask):
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        return attention(self, query, key, value, mask, scaling=self.scaling, dropout=dropout, is_causal=False)


class ActionFormerMLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, config):
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states):
        hidden_states = self.dropout(nn.functional.gelu(self.fc1(hidden_states)))
        return self.dropout(self.fc2(hidden_states))


def strided_skip(hidden_states, mask, strided_mask, stride, hides_padding):
    """What a block of these passes by its branches, (B, ceil(T / stride), D): the hidden states, or a max pool of them."""
    if stride == 1:
        return zero_padding(hidden_states, strided_mask)
    if hides_padding:  # a zero would win against negative values
        hidden_states = hidden_states.masked_fill(~mask[..., None], -torch.inf)
    # over (T, 1) images: torch.export fixes the length of what goes through the 1-D pool
    images = hidden_states.transpose(1, 2)[..., None]
    pooled = nn.functional.max_pool2d(images, kernel_size=(3, 1), stride=(stride, 1), padding=(1, 0))
    return zero_padding(pooled[..., 0].transpose(1, 2), strided_mask)


class DroppedActionFormerLayer(nn.Module):
    """The place of a block that was dropped (https://huggingface.co/papers/2503.16916): its skip, which has no weights, remains."""

    holds_place_of_dropped_block = True

    def __init__(self, config, stride):
        super().__init__()
        self.stride = stride
        self.hides_padding = config.mask_after_norm == "everywhere"

    def forward(self, hidden_states, mask, strided_mask, padded):
        """As `ActionFormerLayer.forward`."""
        return strided_skip(hidden_states, mask, strided_mask, self.stride, self.hides_padding)


class ActionFormerLayer(GradientCheckpointingLayer):
    """One block: attention and MLP on residual branches. With stride 2 the skip is a max pool.

    h = Pool(x) + g_a Attention(LN(x)), y = h + g_m MLP(LN(h)), with a learned scale per channel g where
    `config.use_layer_scale`.
    """

    def __init__(self, config, stride, window):
        super().__init__()
        self.stride = stride
        self.hides_padding = config.mask_after_norm == "everywhere"
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = ActionFormerAttention(config, stride, window)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ActionFormerMLP(config)
        self.drop_path = FrameDropPath(config.drop_path_rate)
        self.layer_scale1 = self.layer_scale2 = None
        if config.use_layer_scale:
            self.layer_scale1 = nn.Parameter(torch.empty(config.hidden_size))
            self.layer_scale2 = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, hidden_states, mask, strided_mask, padded):
        """Returns (B, ceil(T / stride), D) for hidden states (B, T, D), their mask and that of the output."""
        normed = self.norm1(hidden_states)
        if self.hides_padding:
            normed = zero_padding(normed, mask)
        branch, _ = self.attention(normed, strided_mask, padded)
        hidden_states = self.skip(hidden_states, mask, strided_mask)
        hidden_states = hidden_states + self._scaled(branch, self.layer_scale1)
        branch = zero_padding(self.mlp(self.norm2(hidden_states)), strided_mask)
        return hidden_states + self._scaled(branch, self.layer_scale2)

    def skip(self, hidden_states, mask, strided_mask):
        """What remains of the block without its branches."""
        return strided_skip(hidden_states, mask, strided_mask, self.stride, self.hides_padding)

    def _scaled(self, branch, scale):
        branch = branch if scale is None else branch * scale
        return self.drop_path(branch, num_frames=1)  # drawn once per video


class ActionFormerConvolutionLayer(GradientCheckpointingLayer):
    """Residual block of two convolutions, for pyramids without attention. With stride 2 the skip is a 1x1 convolution."""

    def __init__(self, config, stride, window):
        super().__init__()
        size, inner = config.hidden_size, 2 * config.hidden_size
        self.convolution1 = MaskedConvolution(size, inner, 3, stride=stride, bias=True)
        self.convolution2 = MaskedConvolution(inner, size, 3, bias=True)
        self.downsample = MaskedConvolution(size, size, 1, stride=stride, bias=True) if stride > 1 else None

    def skip(self, hidden_states, mask, strided_mask):
        """What remains of a block of stride 1 without its branch; at stride 2 nothing without weights does."""
        return zero_padding(hidden_states, strided_mask)

    def forward(self, hidden_states, mask, strided_mask, padded):
        """As `ActionFormerLayer.forward`."""
        hidden_states = zero_padding(hidden_states, mask)
        branch = nn.functional.relu(self.convolution1(hidden_states, strided_mask))
        branch = self.convolution2(branch, strided_mask)
        skip = hidden_states if self.downsample is None else self.downsample(hidden_states, strided_mask)
        return nn.functional.relu(branch + skip)


LAYERS = {"transformer": ActionFormerLayer, "convolution": ActionFormerConvolutionLayer}
