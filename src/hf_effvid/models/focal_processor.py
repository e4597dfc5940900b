# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Focal modulation on the processor: the composite with less memory traffic, in the library that is faster here.

What is different from the composite (`focal_composite`):

- the parts of a projection are products of their own, so that nothing has to be cut out of a wide result and copied;
- linear layers can go to oneDNN, with GELU and the product with the query in the same pass (`processor_libraries`);
- without gradients, sums and products are made in place, and the MLP runs over as many rows at a time as caches hold.

Zero padding in time costs nothing as it is: oneDNN's kernels leave out taps that lie outside.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .fast_temporal_convolution import temporal_convolution_gelu
from .focal_composite import FocalModulation
from .focal_implementation import FocalImplementation
from .folded_projection import PendingProjection
from .gemm_probe import probe_gemm
from .layers import is_plain_linear
from .processor_libraries import OneDnn, Plain, onednn_can


# What is worked on at a time, for each thread, in bytes of one tensor: what a core's own caches hold, more or less. It is also what
# the C library hands out again and again, where larger blocks go back to the system and come back as pages to be cleared.
PIECE_BYTES = 5 << 19
MLP_PIECE_BYTES = 2 << 20
# ... but several times the size of the weights, which every piece rearranges anew
WEIGHT_MULTIPLE = 4
# below this many token values a call takes well under a millisecond whatever does it
SMALL = 1 << 15
# the gradients of narrower tokens are products too thin for oneDNN: at 32 channels a training step took half as long again
NARROW = 96


class ProcessorFocal:
    """The operations of a `FocalImplementation` in one of the libraries of `processor_libraries`."""

    def __init__(self, library):
        self.library = library

    def projection(self, module, tokens, sizes, into=None):
        if not is_plain_linear(module):
            return module(tokens).split(sizes, dim=-1)
        tokens, weight, bias = _in_one_type(tokens, module.weight, module.bias)
        grad = _wants_grad(tokens, weight, bias, into)
        weights = weight.split(sizes)
        biases = [None] * len(sizes) if bias is None else bias.split(sizes)
        parts = list(zip(weights, biases, strict=True))
        folded = None if grad or into is None else self.library.folded(tokens, *parts[0], *_in_one_type(into))
        pending = [] if folded is None else [PendingProjection(tokens, *parts.pop(0), folded)]
        return (*pending, *(self.library.linear(tokens, w, b, grad) for w, b in parts))

    def feed_forward(self, fc1, fc2, tokens):
        if not (is_plain_linear(fc1) and is_plain_linear(fc2)):
            return fc2(F.gelu(fc1(tokens)))
        tokens, weight1, bias1, weight2, bias2 = _in_one_type(tokens, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        if _wants_grad(tokens, weight1, bias1, weight2, bias2):
            hidden = self.library.linear_gelu(tokens, weight1, bias1, True)
            return self.library.linear(hidden, weight2, bias2, True)
        rows = tokens.reshape(-1, tokens.shape[-1])
        result = rows.new_empty(rows.shape[0], weight2.shape[0])
        hidden_bytes = rows.shape[0] * weight1.shape[0] * rows.element_size()
        pieces = _num_pieces(hidden_bytes, MLP_PIECE_BYTES, weight1.nbytes)
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
        space = _Branch(spatial_kernels, spatial_projection, divisor, mean_over=(1, 2))
        time = None
        if temporal_context is not None:
            kernels = [kernel[..., None] for kernel in temporal_kernels]
            time = _Branch(kernels, temporal_projection, divisor, mean_over=(1,))
            if isinstance(temporal_context, PendingProjection):
                time = time._replace(first=partial(self._folded_convolution, temporal_context.folded))
                temporal_context = temporal_context.tokens
        tensors = query, spatial_context, spatial_gates, temporal_context, temporal_gates
        projections = [branch.projection for branch in (space, time) if branch is not None]
        weights = [p for m in projections if isinstance(m, nn.Module) for p in m.parameters()]
        grad = _wants_grad(*tensors, *spatial_kernels, *temporal_kernels, *weights)
        if grad or keep_modulators or not all(map(is_plain_linear, projections)):
            return self._as_a_whole(*tensors, space, time, grad)
        return FocalModulation(self._in_pieces(*tensors, space, time), None, None)

    def _as_a_whole(self, query, spatial_context, spatial_gates, temporal_context, temporal_gates, space, time, grad):
        spatial = self._modulator(spatial_context.flatten(0, 1), spatial_gates.flatten(0, 1), space, grad)
        spatial = spatial.view(query.shape)
        if time is None:
            return FocalModulation(query * spatial, spatial, None)
        temporal = self._modulator(temporal_context.flatten(2, 3), temporal_gates.flatten(2, 3), time, grad)
        temporal = temporal.view(query.shape)
        return FocalModulation(query * spatial * temporal, spatial, temporal)

    def _in_pieces(self, query, spatial_context, spatial_gates, temporal_context, temporal_gates, space, time):
        """The modulated query: some frames at a time in space, some sites at a time in time, so that nothing leaves the caches."""
        result = torch.empty(query.shape, dtype=_result_type(query, spatial_context))
        pieces = _num_pieces(result.nbytes, PIECE_BYTES, sum(k.nbytes for k in (time or space).kernels))
        frames = (tensor.flatten(0, 1).chunk(pieces) for tensor in (query, spatial_context, spatial_gates, result))
        for query_here, context, gates, result_here in zip(*frames, strict=True):
            torch.mul(query_here, self._modulator(context, gates, space, False), out=result_here)
        if time is not None:
            tracks = (t.flatten(2, 3).chunk(pieces, dim=2) for t in (temporal_context, temporal_gates, result))
            for context, gates, result_here in zip(*tracks, strict=True):
                result_here.mul_(self._modulator(context.contiguous(), gates, time, False))
        return result

    def _modulator(self, context, gates, branch, grad):
        """Projection of the gated sum over maps (N, H, W, C) with gates (N, H, W, L + 1)."""
        context, gates, *kernels = _in_one_type(context, gates, *branch.kernels)
        gathered = self._gated_sum(context, gates, kernels, branch, grad)
        if branch.divisor != 1:
            gathered = gathered / branch.divisor if grad else gathered.div_(branch.divisor)
        (modulator,) = self.projection(branch.projection, gathered, [context.shape[-1]])
        return modulator

    def _gated_sum(self, context, gates, kernels, branch, grad):
        """Levels of a context, each times its gate, summed in order, the mean of the last one at the end."""
        total = None
        for level, kernel in enumerate(kernels):
            if level == 0 and branch.first is not None:
                wider = branch.first(context)
            else:
                wider = self.library.convolution_gelu(context, kernel, grad)
            if level > 0:  # what the convolution has read is not needed any more and holds the sum
                total = _add_gated(total, context, gates[..., level - 1 : level], grad)
            context = wider
        everywhere = F.gelu(context.mean(dim=branch.mean_over, keepdim=True))
        if kernels:
            total = _add_gated(total, context, gates[..., -2:-1], grad)
        if total is None:
            return (everywhere * gates[..., -1:]).expand(context.shape)
        return _add(total, everywhere, gates[..., -1:], grad)

    def _folded_convolution(self, folded, tokens):
        return temporal_convolution_gelu(tokens, folded.kernel, self.library, folded.tap_biases)


class _Branch(NamedTuple):
    """What is done in space, or in time: kernels, projection, divisor of the sum, dimensions of the global mean, and what takes the
    place of the first convolution where the context has yet to be projected."""

    kernels: list
    projection: Callable
    divisor: int
    mean_over: tuple[int, ...]
    first: Callable | None = None


def _num_pieces(num_bytes, piece_bytes, weight_bytes):
    """How many pieces; each of them rearranges the weights anew, so it has to be several times as large as they are."""
    return math.ceil(num_bytes / max(piece_bytes * torch.get_num_threads(), WEIGHT_MULTIPLE * weight_bytes))


def _add_gated(total, level, gate, grad):
    """total + level * gate; without gradients it takes the place of one of them."""
    if total is None:
        return level * gate if grad else level.mul_(gate)
    return _add(total, level, gate, grad)


def _add(total, level, gate, grad):
    return torch.addcmul(total, level, gate) if grad else total.addcmul_(level, gate)


def _wants_grad(*tensors):
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _result_type(query, context):
    """Number type of the composite's result: contexts are cast by autocast, the query is not."""
    (context,) = _in_one_type(context)
    return torch.promote_types(query.dtype, context.dtype)


def _in_one_type(*tensors):
    """The tensors, cast as autocast would: operators that it does not know take one type only."""
    if not torch.is_autocast_enabled("cpu") or tensors[0].dtype == torch.float64:
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)


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
        name, supports, prefers, operations.modulation, operations.projection, operations.feed_forward
    )


CHANNELS_LAST = _implementation("channels_last", Plain, _on_processor, _worth_it)
ONEDNN = _implementation(
    "onednn",
    OneDnn,
    lambda call: _on_processor(call) and onednn_can(call.dtype),
    lambda call: _worth_it(call) and _is_faster(call),
)
