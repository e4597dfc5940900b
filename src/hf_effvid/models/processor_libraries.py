# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear layers and convolutions on the processor, in the two libraries that PyTorch has for them.

`F.linear` in float32 goes to the BLAS that PyTorch was built with (MKL), convolutions go to oneDNN, and on some processors one of
the two runs at less than half of the other's speed. `OneDnn` has oneDNN do the linear layers too: as 1x1 convolutions where
gradients are wanted, else by the operators of PyTorch's own compiler, which also take an exact GELU or a product along.

Everything is channels-last and rounds differently from the other library, no more.
"""

import torch
from torch.nn import functional as F


class Plain:
    """What PyTorch chooses by itself."""

    @staticmethod
    def linear(tokens, weight, bias, grad):
        """tokens (..., K) times weight (N, K), plus bias."""
        return F.linear(tokens, weight, bias)

    @staticmethod
    def linear_gelu(tokens, weight, bias, grad):
        """The same with an exact GELU on it."""
        hidden = F.linear(tokens, weight, bias)
        return F.gelu(hidden) if grad else torch.ops.aten.gelu_(hidden)

    @staticmethod
    def linear_times(tokens, weight, bias, factor, grad):
        """The same times a `factor` of the shape of the result."""
        result = F.linear(tokens, weight, bias)
        return result * factor if grad else result.mul_(factor)

    @staticmethod
    def convolution_gelu(maps, kernel, padding, groups, grad):
        """GELU of a 2-D convolution without bias over maps (N, C, H, W) that lie channels-last in memory."""
        result = F.conv2d(maps, kernel, padding=padding, groups=groups)
        return F.gelu(result) if grad else torch.ops.aten.gelu_(result)


class OneDnn:
    """Everything in oneDNN. Methods as in `Plain`."""

    @staticmethod
    def linear(tokens, weight, bias, grad):
        if grad:
            return _linear_as_convolution(tokens, weight, bias)
        return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "none", [], "none")

    @staticmethod
    def linear_gelu(tokens, weight, bias, grad):
        if grad:
            return F.gelu(_linear_as_convolution(tokens, weight, bias))
        return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "gelu", [], "none")

    @staticmethod
    def linear_times(tokens, weight, bias, factor, grad):
        if grad:
            return _linear_as_convolution(tokens, weight, bias) * factor
        return torch.ops.mkldnn._linear_pointwise.binary(tokens, factor, weight, bias, "mul")

    @staticmethod
    def convolution_gelu(maps, kernel, padding, groups, grad):
        if grad:
            return F.gelu(F.conv2d(maps, kernel, padding=padding, groups=groups))
        return torch.ops.mkldnn._convolution_pointwise.default(
            maps, kernel, None, padding, (1, 1), (1, 1), groups, "gelu", [], "none"
        )


def _linear_as_convolution(tokens, weight, bias):
    """A linear layer as a 1x1 convolution over channels-last maps, with all of autograd.

    With one thread PyTorch gives 1x1 convolutions of fewer than 16 maps to its BLAS, so there are 16 or more.
    """
    channels = tokens.shape[-1]
    rows = tokens.numel() // channels
    maps = next((count for count in range(min(16, rows), rows) if rows % count == 0), rows)
    folded = tokens.reshape(maps, 1, rows // maps, channels).permute(0, 3, 1, 2)
    result = F.conv2d(folded, weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*tokens.shape[:-1], weight.shape[0])


def onednn_can(dtype):
    """Whether this PyTorch has what `OneDnn` needs, on this processor, for this type."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    operators = torch.ops.mkldnn
    if not all(hasattr(operators, name) for name in ("_linear_pointwise", "_convolution_pointwise")):
        return False
    if dtype == torch.bfloat16:
        return hasattr(operators, "_is_mkldnn_bf16_supported") and operators._is_mkldnn_bf16_supported()
    return dtype == torch.float32
