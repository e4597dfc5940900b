# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Focal modulation on the processor: the composite with less memory traffic, in the library that is faster here.

What is different from the composite (`focal_composite`):

- the parts of a projection are products of their own, so that nothing has to be cut out of a wide result and copied;
- linear layers can go to oneDNN, with GELU in the same pass (`processor_libraries`);
- without gradients, sums and products are made in place, and whole blocks in pieces that caches hold (`focal_block`).

Zero padding in time costs nothing as it is: oneDNN's kernels leave out taps that lie outside.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .focal_block import focal_block, num_mlp_pieces
from .focal_branch import gated_sum, in_space, in_time
from .focal_composite import FocalModulation
from .focal_implementation import FocalImplementation
from .gemm_probe import probe_gemm
from .layers import is_plain_linear
from .processor_libraries import OneDnn, Plain, in_one_type, onednn_can


# below this many token values a call takes well under a millisecond whatever does it
SMALL = 1 << 15
# the gradients of narrower tokens are products too thin for oneDNN: at 32 channels a training step took half as long again
NARROW = 96


class ProcessorFocal:
    """The operations of a `FocalImplementation` in one of the libraries of `processor_libraries`."""

    def __init__(self, library):
        self.library = library

    def projection(self, module, tokens, sizes):
        if not is_plain_linear(module):
            return module(tokens).split(sizes, dim=-1)
        tokens, weight, bias = in_one_type(tokens, module.weight, module.bias)
        grad = _wants_grad(tokens, weight, bias)
        biases = [None] * len(sizes) if bias is None else bias.split(sizes)
        return tuple(
            self.library.linear(tokens, *part, grad) for part in zip(weight.split(sizes), biases, strict=True)
        )

    def feed_forward(self, fc1, fc2, tokens):
        if not (is_plain_linear(fc1) and is_plain_linear(fc2)):
            return fc2(F.gelu(fc1(tokens)))
        tokens, weight1, bias1, weight2, bias2 = in_one_type(tokens, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        if _wants_grad(tokens, weight1, bias1, weight2, bias2):
            hidden = self.library.linear_gelu(tokens, weight1, bias1, True)
            return self.library.linear(hidden, weight2, bias2, True)
        rows = tokens.reshape(-1, tokens.shape[-1])
        result = rows.new_empty(rows.shape[0], weight2.shape[0])
        pieces = num_mlp_pieces(len(rows), weight1)
        for chunk, part in zip(rows.chunk(pieces), result.chunk(pieces), strict=True):
            hidden = self.library.linear_gelu(chunk, weight1, bias1, False)
            part.copy_(self.library.linear(hidden, weight2, bias2, False))
        return result.view(*tokens.shape[:-1], -1)

    def modulation(
        self,
        query,
        spatial_context,
        spatial_gates,
        temporal_context,
        temporal_gates,
        spatial_kernels,
        temporal_kernels,
        spatial_projection,
        temporal_projection,
        normalize=False,
        keep_modulators=True,
    ):
        divisor = len(spatial_kernels) + 1 if normalize else 1
        weights = [
            p for m in (spatial_projection, temporal_projection) if isinstance(m, nn.Module) for p in m.parameters()
        ]
        tensors = query, spatial_context, spatial_gates, temporal_context, temporal_gates
        grad = _wants_grad(*tensors, *spatial_kernels, *temporal_kernels, *weights)
        space = in_space(spatial_kernels, divisor)
        spatial = self._modulator(space, spatial_context, spatial_gates, (0, 1), spatial_projection, grad)
        if temporal_context is None:
            return FocalModulation(query * spatial, spatial, None)
        time = in_time(temporal_kernels, divisor)
        temporal = self._modulator(time, temporal_context, temporal_gates, (2, 3), temporal_projection, grad)
        modulated = query * spatial
        return FocalModulation(modulated * temporal if grad else modulated.mul_(temporal), spatial, temporal)

    def block(self, layer, hidden_states, grid):
        return focal_block(self.library, layer, hidden_states, grid)

    def _modulator(self, branch, context, gates, flat, projection, grad):
        """Projection of the gated sum over (B, T, H, W, C); two of its dimensions are one to the branch."""
        shape = context.shape
        context, gates, *kernels = in_one_type(context.flatten(*flat), gates.flatten(*flat), *branch.kernels)
        gathered = gated_sum(self.library, branch._replace(kernels=kernels), context, gates, grad)
        (modulator,) = self.projection(projection, gathered, [shape[-1]])
        return modulator.view(shape)


def _wants_grad(*tensors):
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _on_processor(call):
    known = call.dtype in (torch.float32, torch.float64, torch.bfloat16)
    return call.device_type == "cpu" and known and 0 not in call.shape


def _worth_it(call):
    """Large enough, and nobody insists on the same bits in every process."""
    return math.prod(call.shape) >= SMALL and not torch.are_deterministic_algorithms_enabled()


def _is_faster(call):
    if call.grad and call.shape[-1] < NARROW:
        return False
    probe = probe_gemm(call.dtype)
    return probe.onednn_is_faster if call.dtype == torch.float32 else probe.onednn_keeps_up


def _implementation(name, library, supports, prefers):
    operations = ProcessorFocal(library)
    return FocalImplementation(
        name,
        supports,
        prefers,
        operations.modulation,
        operations.projection,
        operations.feed_forward,
        operations.block,
    )


CHANNELS_LAST = _implementation("channels_last", Plain, _on_processor, _worth_it)
ONEDNN = _implementation(
    "onednn",
    OneDnn,
    lambda call: _on_processor(call) and onednn_can(call.dtype),
    lambda call: _worth_it(call) and _is_faster(call),
)
