# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Convolution, batch norm, sum and activation of a 3-D network; in one pass where a processor evaluates it.

An evaluated batch norm is a factor and a summand per channel. On a processor, in float32 and without gradients, the factor is multiplied into
the weights and oneDNN does all four at once, on values that lie channels last: depthwise convolutions take half the time or less that way, and
convolutions over one site keep away from the slow kernel that PyTorch has for them. The weights are multiplied at every call, which is
little work beside the convolution and cannot be out of date.

Elsewhere, and wherever somebody looks at single operations (gradients, hooks, adapters, compilers, exports, counters), the modules run one after
the other. The results differ by rounding.

Shapes: maps (B, C, T, h, w).
"""

import torch
from torch import nn
from torch.nn import functional as F

from .layers import is_untouched
from .observed_calls import is_observed
from .onednn_operators import onednn_can


ACTIVATIONS = {None: None, "relu": torch.relu, "silu": F.silu, "hardswish": F.hardswish}
_IN_ONEDNN = {None: "none", "relu": "relu", "silu": "swish", "hardswish": "hardswish"}


def normed_convolution(convolution, norm, maps, activation=None, *, scale=None, add=None):
    """activation(add + scale * norm(convolution(maps))).

    Args:
        convolution: An `nn.Conv3d`, before a norm without bias. One that pads in its own way has `padded(maps)`, which gives the maps and the zeros that
            they still lack at both ends of each axis.
        norm: The `nn.BatchNorm3d` behind it; None: there is none, and no `scale`.
        maps: (B, C, T, h, w).
        activation: A name of `ACTIVATIONS`.
        scale: A tensor with one number; None: 1.
        add: Of the shape of the result; None: 0.
    """
    if not (_on_processor(maps) and _is_plain(convolution) and _is_evaluated(norm)):
        return _one_by_one(convolution, norm, maps, activation, scale, add)
    return _folded(convolution, norm, maps, activation, scale, add)


def _folded(convolution, norm, maps, activation, scale, add):
    weight, shift = convolution.weight, convolution.bias
    if norm is not None:
        factor, offset = norm.weight * (norm.running_var + norm.eps).rsqrt(), norm.bias
        if scale is not None:
            factor, offset = factor * scale, offset * scale
        weight = weight * factor.view(-1, 1, 1, 1, 1)
        shift = torch.addcmul(offset, norm.running_mean, factor, value=-1)
    maps, padding = convolution.padded(maps) if hasattr(convolution, "padded") else (maps, convolution.padding)
    where = padding, convolution.stride, convolution.dilation
    maps, name = _channels_last(maps), _IN_ONEDNN[activation]
    operators = torch.ops.mkldnn._convolution_pointwise
    if add is None:
        return operators.default(maps, weight, shift, *where, convolution.groups, name, [], "")
    unary = "relu" if activation == "relu" else None  # behind a sum oneDNN knows no other
    maps = operators.binary(
        maps, _channels_last(add), weight, shift, *where, convolution.groups, "add", None, unary, [], None
    )
    return maps if activation in (None, "relu") else ACTIVATIONS[activation](maps)


def _one_by_one(convolution, norm, maps, activation, scale, add):
    maps = convolution(maps)
    maps = maps if norm is None else norm(maps)
    maps = maps if scale is None else scale * maps
    maps = maps if add is None else add + maps
    return maps if activation is None else ACTIVATIONS[activation](maps)


def _on_processor(maps):
    return (
        not is_observed(maps)
        and maps.device.type == "cpu"
        and maps.dtype == torch.float32
        and maps.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and onednn_can(torch.float32)
    )


def _channels_last(maps):
    return maps.contiguous(memory_format=torch.channels_last_3d)  # itself, where it lies so


def _is_plain(convolution):
    """Whether calling it is a convolution with its weight and nothing else: no adapter around it, hook or parametrization."""
    kind = type(convolution)
    if kind is not nn.Conv3d and not (issubclass(kind, nn.Conv3d) and "padded" in vars(kind)):
        return False
    weight = convolution.weight
    return type(weight) is nn.Parameter and weight.dtype == torch.float32 and is_untouched(convolution)


def _is_evaluated(norm):
    return norm is None or (
        type(norm) is nn.BatchNorm3d and not norm.training and norm.running_mean is not None and is_untouched(norm)
    )
