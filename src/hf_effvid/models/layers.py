# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Small layers that several architectures share."""

import torch
from torch import nn
from torch.nn.modules import module as nn_module


def linear_drop_path_rates(last_rate, num_blocks):
    """Rates of stochastic depth that grow linearly from 0 at the first block to `last_rate` at the last.

    Plain arithmetic on purpose: models are built on the meta device, where a tensor has no values to read.
    """
    return [last_rate * index / max(num_blocks - 1, 1) for index in range(num_blocks)]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain_linear(module):
    """Whether calling the module is a product with its weight and nothing else: no adapter, hook or replaced forward."""
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and is_untouched(module)


def is_untouched(module):
    """Whether calling the module runs the forward of its class and nothing else: no hook, no forward of its own."""
    return (
        "forward" not in vars(module)
        and not any(getattr(module, name) for name in _HOOKS)
        and not (nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks)
        and not (nn_module._global_backward_hooks or nn_module._global_backward_pre_hooks)
    )


class FrameDropPath(nn.Module):
    """Stochastic depth drawn for every frame of every clip: a residual branch is left out, the others are scaled up.

    Shapes: tokens (B, T * N, C) with `num_frames` = T in, the same out.
    """

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states, num_frames):
        if not self.training or self.rate == 0.0:
            return hidden_states
        batch, tokens, channels = hidden_states.shape
        keep = torch.rand(batch, num_frames, 1, 1, device=hidden_states.device) >= self.rate
        scale = keep.to(hidden_states.dtype) / (1.0 - self.rate)
        return (hidden_states.reshape(batch, num_frames, -1, channels) * scale).reshape(batch, tokens, channels)

    def extra_repr(self):
        return f"rate={self.rate:.4g}"
