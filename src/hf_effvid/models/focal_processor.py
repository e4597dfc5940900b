# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Focal modulation on the processor: the composite with less memory traffic, in the library that is faster here.

What is different from the composite (`focal_composite`):

- the parts of a projection are products of their own, so that nothing has to be cut out of a wide result and copied;
- linear layers can go to oneDNN, with GELU and the product with the query in the same pass (`processor_libraries`);
- without gradients, sums and products are made in place, and the MLP runs over as many rows at a time as caches hold.

Zero padding in time costs nothing as it is: oneDNN's kernels leave out taps that lie outside.
"""

import torch
from torch.nn import functional as F

from .focal_composite import FocalModulation
from .focal_implementation import FocalImplementation
from .gemm_probe import probe_gemm
from .layers import is_plain_linear
from .processor_libraries import OneDnn, Plain, onednn_can


# hidden values of the MLP at a time, in bytes: the second level cache of two cores, roughly
MLP_CHUNK_BYTES = 4 << 20
# below this many token values a call takes well under a millisecond whatever does it
SMALL = 1 << 15


class ProcessorFocal:
    """The operations of a `FocalImplementation` in one of the libraries of `processor_libraries`."""

    def __init__(self, library):
        self.library = library

    def projection(self, module, tokens, sizes):
        if not is_plain_linear(module):
            return module(tokens).split(sizes, dim=-1)
        tokens, weight, bias = _in_one_type(tokens, module.weight, module.bias)
        grad = _wants_grad(tokens, weight, bias)
        weights = weight.split(sizes)
        biases = [None] * len(sizes) if bias is None else bias.split(sizes)
        return tuple(self.library.linear(tokens, w, b, grad) for w, b in zip(weights, biases, strict=True))

    def feed_forward(self, fc1, fc2, tokens):
        if not (is_plain_linear(fc1) and is_plain_linear(fc2)):
            return fc2(F.gelu(fc1(tokens)))
        tokens, weight1, bias1, weight2, bias2 = _in_one_type(tokens, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        if _wants_grad(tokens, weight1, bias1, weight2, bias2):
            hidden = self.library.linear_gelu(tokens, weight1, bias1, True)
            return self.library.linear(hidden, weight2, bias2, True)
        rows = tokens.reshape(-1, tokens.shape[-1])
        result = rows.new_empty(rows.shape[0], weight2.shape[0])
        num_rows = max(1, MLP_CHUNK_BYTES // (weight1.shape[0] * rows.element_size()))
        for chunk, part in zip(rows.split(num_rows), result.split(num_rows), strict=True):
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
        spatial = self._gather_in_space(spatial_context, spatial_gates, spatial_kernels, divisor)
        if temporal_context is None:
            modulated, spatial = self._modulate(query, spatial, spatial_projection, keep_modulators)
            return FocalModulation(modulated, spatial, None)
        modulated, spatial = self._modulate(query, spatial, spatial_projection, keep_modulators)
        temporal = self._gather_in_time(temporal_context, temporal_gates, temporal_kernels, divisor)
        modulated, temporal = self._modulate(modulated, temporal, temporal_projection, keep_modulators)
        return FocalModulation(modulated, spatial, temporal)

    def _modulate(self, query, gathered, projection, keep_modulator):
        """query * projection(gathered), and the modulator where it is wanted."""
        if keep_modulator or not is_plain_linear(projection):
            (modulator,) = self.projection(projection, gathered, [query.shape[-1]])
            return query * modulator, modulator
        gathered, query, weight, bias = _in_one_type(gathered, query, projection.weight, projection.bias)
        grad = _wants_grad(query, gathered, weight, bias)
        return self.library.linear_times(gathered, weight, bias, query, grad), None

    def _gather_in_space(self, context, gates, kernels, divisor):
        batch, steps, height, width, channels = context.shape
        context, gates, *kernels = _in_one_type(context, gates, *kernels)
        gathered = self._gated_sum(
            context.reshape(batch * steps, height, width, channels),
            gates.reshape(batch * steps, height, width, -1),
            kernels,
            mean_over=(1, 2),
            divisor=divisor,
        )
        return gathered.reshape(batch, steps, height, width, channels)

    def _gather_in_time(self, context, gates, kernels, divisor):
        batch, steps, height, width, channels = context.shape
        context, gates, *kernels = _in_one_type(context, gates, *kernels)
        gathered = self._gated_sum(
            context.reshape(batch, steps, height * width, channels),
            gates.reshape(batch, steps, height * width, -1),
            [kernel[..., None] for kernel in kernels],
            mean_over=(1,),
            divisor=divisor,
        )
        return gathered.reshape(batch, steps, height, width, channels)

    def _gated_sum(self, context, gates, kernels, mean_over, divisor):
        """Levels of maps (N, H, W, C), each times its gate of (N, H, W, L + 1), summed in order."""
        grad = _wants_grad(context, gates, *kernels)
        total = None
        for level, kernel in enumerate(kernels):
            wider = self.library.convolution_gelu(context, kernel, grad)
            if level > 0:  # what the convolution has read is not needed any more and holds the sum
                total = _add_gated(total, context, gates[..., level - 1 : level], grad)
            context = wider
        everywhere = F.gelu(context.mean(dim=mean_over, keepdim=True))
        if kernels:
            total = _add_gated(total, context, gates[..., -2:-1], grad)
        total = everywhere * gates[..., -1:] if total is None else _add(total, everywhere, gates[..., -1:], grad)
        if divisor != 1:
            total = total / divisor if grad else total.div_(divisor)
        return total


def _add_gated(total, level, gate, grad):
    """total + level * gate; without gradients it takes the place of one of them."""
    if total is None:
        return level * gate if grad else level.mul_(gate)
    return _add(total, level, gate, grad)


def _add(total, level, gate, grad):
    return torch.addcmul(total, level, gate) if grad else total.addcmul_(level, gate)


def _wants_grad(*tensors):
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _in_one_type(*tensors):
    """The tensors, cast as autocast would: operators that it does not know take one type only."""
    if not torch.is_autocast_enabled("cpu") or tensors[0].dtype == torch.float64:
        return tensors
    dtype = torch.get_autocast_dtype("cpu")
    return tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)


def _on_processor(call):
    return call.device_type == "cpu" and call.dtype in (torch.float32, torch.float64, torch.bfloat16)


def _worth_it(call):
    """Large enough, and nobody insists on the same bits in every process."""
    size = 1
    for length in call.shape:
        size *= length
    return size >= SMALL and not torch.are_deterministic_algorithms_enabled()


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
    lambda call: _worth_it(call) and probe_gemm(call.dtype).onednn_is_faster,
)
