# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear layers and convolutions on the processor, in the two libraries that PyTorch has for them.

`F.linear` in float32 goes to the BLAS that PyTorch was built with (MKL), convolutions go to oneDNN, and on some processors one of
the two runs at less than half of the other's speed. `OneDnn` has oneDNN do the linear layers too, with the operators of PyTorch's
own compiler, which also take an exact GELU along.

Everything is channels-last and rounds differently from the other library, no more. The last argument of each function says
whether gradients are wanted; without them results may be changed in place.
"""

import torch
from torch.nn import functional as F

from .fast_temporal_convolution import is_faster, temporal_convolution_gelu
from .folded_projection import fold, pays
from .onednn_operators import onednn_can
from .processor_autograd import OneDnnLinear, OneDnnTemporalConvolution, onednn_linear


class Plain:
    """What PyTorch chooses by itself."""

    @staticmethod
    def linear(tokens, weight, bias, grad):
        """tokens (..., K) times weight (N, K), plus bias."""
        return F.linear(tokens, weight, bias)

    @staticmethod
    def linear_gelu(tokens, weight, bias, grad):
        """The same with an exact GELU on it."""
        return _gelu(F.linear(tokens, weight, bias), grad)

    @staticmethod
    def convolution_gelu(maps, kernel, grad):
        """GELU of a convolution over maps (N, H, W, C): zeros outside, the same shape out.

        `kernel` is a 2-D one, dense (C, C, k1, k2) or depthwise (C, 1, k1, k2), of odd sizes.
        """
        return _gelu(F.conv2d(maps.permute(0, 3, 1, 2), kernel, **_geometry(maps, kernel)).permute(0, 2, 3, 1), grad)

    @staticmethod
    def folded(weight, bias, kernel, steps, sites):
        """The `FoldedKernel` with which a convolution along time takes a linear layer along; None: it would not pay.

        weight (C, C), bias (C,), kernel (C, C, k); T steps, sites of all clips together.
        """
        return None


class OneDnn:
    """Everything in oneDNN. Methods as in `Plain`."""

    @staticmethod
    def linear(tokens, weight, bias, grad):
        if not grad:
            return onednn_linear(tokens, weight, bias)
        # other types than float32 are in oneDNN already, and sums of gradients would be rounded to them
        linear = OneDnnLinear.apply if tokens.dtype == torch.float32 else F.linear
        return linear(tokens, weight, bias)

    @staticmethod
    def linear_gelu(tokens, weight, bias, grad):
        if grad:
            return F.gelu(OneDnn.linear(tokens, weight, bias, grad))
        return torch.ops.mkldnn._linear_pointwise.default(tokens, weight, bias, "gelu", [], "none")

    @staticmethod
    def folded(weight, bias, kernel, steps, sites):
        channels, size = len(weight), kernel.shape[2]
        square = weight.shape == (channels, channels) and kernel.shape[:2] == weight.shape
        if not square or not weight.dtype == kernel.dtype == torch.float32:
            return None
        if pays(steps * sites, channels, size) and is_faster(steps, sites, channels, size):
            return fold(kernel, weight, bias, OneDnn)
        return None

    @staticmethod
    def convolution_gelu(maps, kernel, grad):
        along_time = kernel.shape[3] == 1 and kernel.shape[1] == maps.shape[3] and maps.dtype == torch.float32
        if grad:
            if along_time:
                return F.gelu(OneDnnTemporalConvolution.apply(maps, kernel))
            return Plain.convolution_gelu(maps, kernel, grad)
        clips, steps, sites, channels = maps.shape
        if along_time and is_faster(steps, clips * sites, channels, kernel.shape[2]):
            return temporal_convolution_gelu(maps, kernel[..., 0], OneDnn)
        where = _geometry(maps, kernel)
        wider = torch.ops.mkldnn._convolution_pointwise.default(
            maps.permute(0, 3, 1, 2),
            kernel,
            None,
            where["padding"],
            (1, 1),
            (1, 1),
            where["groups"],
            "gelu",
            [],
            "none",
        )
        return wider.permute(0, 2, 3, 1)


def _gelu(values, grad):
    return F.gelu(values) if grad else torch.ops.aten.gelu_(values)


def _geometry(maps, kernel):
    sizes = kernel.shape[2:]
    return {"padding": tuple(size // 2 for size in sizes), "groups": maps.shape[3] // kernel.shape[1]}


def in_one_type(*tensors):
    """The tensors (or None), cast as autocast would: operators that it does not know take one type only."""
    if not torch.is_autocast_enabled("cpu") or (tensors and tensors[0].dtype == torch.float64):
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)


__all__ = ["OneDnn", "Plain", "in_one_type", "onednn_can"]
