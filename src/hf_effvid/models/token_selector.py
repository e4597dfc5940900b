# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""LITE's learned selector: the value of a token, estimated from its embedding (https://huggingface.co/papers/2411.13626).

Equation 6 of the paper, before the sigmoid: s_i = W3 f(W2 f(W1 z_i + b1) + b2) + b3 on z_i, the embedding with its position. The
paper gives neither the widths nor f; here 256 and 128, GELU (230 k parameters at D = 768, 0.2 % of VideoMAE-B's multiply-
accumulates). The other kinds are the variants that its table 5 found to be no better.

Shapes: B clips, N tokens of D channels in the order (t, y, x) of a grid.
"""

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast


SELECTOR_KINDS = ("mlp", "deep", "transformer", "global")
HEAD_SIZE = 64


class TokenSelector(nn.Module):
    """Scores tokens, always in single precision: in half precision many of 1568 scores would be ties.

    Args:
        hidden_size: D.
        hidden_sizes: widths of the hidden layers.
        kind: `"mlp"` sees one token at a time, with one linear layer per width. `"deep"` has every width twice (five layers for
            two widths). `"transformer"` puts a transformer block after each of those layers. `"global"` adds, at the first
            width, two 3-D convolutions over the grid and self-attention beside the token itself.

    Raises:
        ValueError: no such kind, or no width.
    """

    def __init__(self, hidden_size, hidden_sizes=(256, 128), kind="mlp"):
        super().__init__()
        if kind not in SELECTOR_KINDS:
            raise ValueError(f"TokenSelector.kind should be one of {', '.join(SELECTOR_KINDS)}, got {kind!r}.")
        widths = [width for width in hidden_sizes for _ in range(2 if kind == "deep" else 1)]
        if not widths or min(widths) < 1:
            raise ValueError(
                f"TokenSelector.hidden_sizes should be one width above 0 or more, got {list(hidden_sizes)}."
            )
        self.network = SelectorNetwork(hidden_size, widths, kind)

    def forward(self, embeddings, grid=None):
        """Logits (B, N) in single precision.

        Args:
            embeddings: (B, N, D), with positions.
            grid: their `TokenGrid`; only `"global"` looks at it.
        """
        states, weights = embeddings.float(), dict(self.network.named_parameters())
        with maybe_autocast(device_type=states.device.type, enabled=False):
            if all(weight.dtype == torch.float32 for weight in weights.values()):
                return self.network(states, grid)
            single = {name: weight.float() for name, weight in weights.items()}
            return torch.func.functional_call(self.network, single, (states, grid))


class SelectorNetwork(nn.Module):
    """The layers of a `TokenSelector`: a linear layer and what `kind` puts after it per width, then one to a single number."""

    def __init__(self, hidden_size, widths, kind):
        super().__init__()
        layers, channels = [], hidden_size
        for index, width in enumerate(widths):
            layers += [_drawn_by_fan_in(nn.Linear(channels, width)), nn.GELU()]
            if kind == "transformer":
                layers.append(SelectorBlock(width))
            if kind == "global" and index == 0:
                layers.append(SelectorContext(width))
            channels = width
        self.layers = nn.ModuleList([*layers, _drawn_by_fan_in(nn.Linear(channels, 1))])

    def forward(self, states, grid):
        for layer in self.layers:
            states = layer(states, grid) if isinstance(layer, SelectorContext) else layer(states)
        return states.squeeze(-1)


class SelectorBlock(nn.Module):
    """A pre-norm transformer block (B, N, C) -> (B, N, C) with an MLP of twice the width."""

    def __init__(self, channels):
        super().__init__()
        self.norm_before, self.norm_after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SelectorAttention(channels)
        self.expand = _drawn_by_fan_in(nn.Linear(channels, 2 * channels))
        self.reduce = _drawn_by_fan_in(nn.Linear(2 * channels, channels))

    def forward(self, states):
        states = states + self.attention(self.norm_before(states))
        return states + self.reduce(nn.functional.gelu(self.expand(self.norm_after(states))))


class SelectorAttention(nn.Module):
    """Self-attention (B, N, C) -> (B, N, C) with heads of 64 channels, or a single head where those do not fit."""

    def __init__(self, channels):
        super().__init__()
        self.num_heads = channels // HEAD_SIZE if channels % HEAD_SIZE == 0 else 1
        self.query_key_value = _drawn_by_fan_in(nn.Linear(channels, 3 * channels))
        self.output = _drawn_by_fan_in(nn.Linear(channels, channels))

    def forward(self, states):
        heads = self.query_key_value(states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads.unbind(0))
        return self.output(mixed.transpose(1, 2).flatten(2))


class SelectorContext(nn.Module):
    """What surrounds a token and what the clip holds, added to the token: two 3-D convolutions, then self-attention."""

    def __init__(self, channels):
        super().__init__()
        self.convolutions = nn.ModuleList(
            _drawn_by_fan_in(nn.Conv3d(channels, channels, 3, padding=1)) for _ in range(2)
        )
        self.norm = nn.LayerNorm(channels)
        self.attention = SelectorAttention(channels)

    def forward(self, states, grid):
        if grid is None or grid.num_tokens != states.shape[1]:
            raise ValueError(
                f'A selector of kind "global" needs the grid of its {states.shape[1]} tokens, got {grid}.'
            )
        context = states.transpose(1, 2).unflatten(2, tuple(grid))
        for convolution in self.convolutions:
            context = nn.functional.gelu(convolution(context))
        context = context.flatten(2).transpose(1, 2)
        return states + context + self.attention(self.norm(context))


def _drawn_by_fan_in(layer):
    """Marks a layer whose weights start from a normal of variance 1 / fan-in (see `TokenSelectionMixin._init_weights`).

    With the hosts' fixed deviation of 0.02 the logits of a selector on narrow embeddings hardly differ, and training stalls.
    """
    layer.drawn_by_fan_in = True
    return layer
