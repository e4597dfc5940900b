# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Focal modulation with the two gated sums as fused kernels (`focal_triton_kernels`), for NVIDIA GPUs.

Each of the two is an operator of torch: opaque to torch.compile (no graph break), recordable in a CUDA graph, differentiable.
The backward pass is made of torch's own operators: it computes the levels anew and applies the chain rule to them, so a
forward pass keeps the contexts and the gates and nothing in between.

Where a kernel cannot be used, its operator computes the composite: no GPU, no Triton, too few sites to fill the GPU, more than
64 steps. The first result of a kernel for a number of steps, channels and levels is compared with the composite; one that
differs, or that does not compile or launch, is not used again in this process, and the log says so in one line.
"""

import re

import torch
from torch.nn import functional as F
from transformers.utils import logging

from .focal_composite import FocalModulation, gather_spatial_context, gather_temporal_context
from .focal_implementation import FocalImplementation
from .focal_triton_kernels import INTERPRETED, TRITON_PROBLEM
from .focal_triton_launch import MAX_STEPS, launch_spatial, launch_temporal, temporal_tile
from .layers import is_plain_linear


logger = logging.get_logger(__name__)

# one per copy of this file: a checkpoint's own copy must not replace the operators of the installed package
_NAMESPACE = re.sub(r"\W", "_", __name__)
# relative error that roundings explain, several times over: operands of 11 bits where torch allows TF32, else of their type
_TOLERANCES = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# what a kernel was compared with the composite on, and (branch, device, dtype) of kernels that failed once
_verified, _refused = set(), set()


def triton_focal_modulation(
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
    """The composite with both gated sums fused; arguments and result as in `composite_focal_modulation`."""
    spatial = _fused(_gather_spatial, spatial_context, spatial_gates, spatial_kernels)
    if normalize:
        spatial = spatial / (len(spatial_kernels) + 1)
    spatial_modulator = spatial_projection(spatial)
    if temporal_context is None:
        return FocalModulation(query * spatial_modulator, spatial_modulator, None)
    temporal = _fused(_gather_temporal, temporal_context, temporal_gates, temporal_kernels)
    if normalize:
        temporal = temporal / (len(temporal_kernels) + 1)
    temporal_modulator = temporal_projection(temporal)
    return FocalModulation(query * spatial_modulator * temporal_modulator, spatial_modulator, temporal_modulator)


def _fused(operator, context, gates, kernels):
    """Calls an operator with everything in one number type: that of autocast where it is on, else that of the context."""
    device_type, dtype = context.device.type, context.dtype
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    return operator(context.to(dtype), gates.to(dtype), [kernel.to(dtype) for kernel in kernels])


@torch.library.custom_op(f"{_NAMESPACE}::gather_spatial", mutates_args=())
def _gather_spatial(context: torch.Tensor, gates: torch.Tensor, kernels: list[torch.Tensor]) -> torch.Tensor:
    return _run("spatial", launch_spatial, gather_spatial_context, context, gates, kernels)


@torch.library.custom_op(f"{_NAMESPACE}::gather_temporal", mutates_args=())
def _gather_temporal(context: torch.Tensor, gates: torch.Tensor, kernels: list[torch.Tensor]) -> torch.Tensor:
    return _run("temporal", launch_temporal, gather_temporal_context, context, gates, kernels)


@torch.library.custom_op(f"{_NAMESPACE}::gather_backward", mutates_args=())
def _gather_backward(
    grad: torch.Tensor,
    context: torch.Tensor,
    gates: torch.Tensor,
    kernels: list[torch.Tensor],
    in_time: bool,
    for_kernels: bool,
) -> list[torch.Tensor]:
    """Gradients of context, gates and, when asked for, each kernel, given that of the gathered context."""
    if in_time:  # (B, C, T, H * W): a convolution along time is one of shape (k, 1)
        over, groups, shapes = (2,), 1, [kernel[..., None] for kernel in kernels]
        padding = [[kernel.shape[2] // 2, 0] for kernel in shapes]
        planes, grad, gate = (x.flatten(2, 3).permute(0, 3, 1, 2) for x in (context, grad, gates))
    else:  # (B * T, C, H, W)
        over, groups, shapes = (2, 3), context.shape[-1], kernels
        padding = [[kernel.shape[2] // 2] * 2 for kernel in shapes]
        planes, grad, gate = (x.flatten(0, 1).permute(0, 3, 1, 2) for x in (context, grad, gates))
    inputs, sums = [planes], []
    for kernel, pad in zip(shapes, padding, strict=True):
        sums.append(F.conv2d(inputs[-1], kernel, padding=pad, groups=groups))
        inputs.append(F.gelu(sums[-1]))
    mean = inputs[-1].mean(dim=over, keepdim=True)

    grad_gate = [(grad * level).sum(1) for level in (*inputs[1:], F.gelu(mean))]
    grad_mean = torch.ops.aten.gelu_backward((grad * gate[:, -1:]).sum(over, keepdim=True), mean)
    flow = (grad_mean * (mean.numel() / planes.numel())).expand_as(planes)  # to the last level
    grad_kernels = []
    for level in reversed(range(len(kernels))):
        flow = torch.ops.aten.gelu_backward(flow + grad * gate[:, level : level + 1], sums[level])
        flow, grad_kernel, _ = torch.ops.aten.convolution_backward(
            flow, inputs[level], shapes[level], None, [1, 1], padding[level], [1, 1], False, [0, 0], groups,
            [True, for_kernels, False],
        )  # fmt: skip
        grad_kernels.append(grad_kernel)
    grad_context = flow.permute(0, 2, 3, 1).reshape(context.shape)
    grad_gates = torch.stack(grad_gate, dim=-1).reshape(gates.shape)
    found = [
        kernel.reshape(like.shape) for kernel, like in zip(grad_kernels[::-1], kernels, strict=True) if for_kernels
    ]
    return [tensor.contiguous() for tensor in (grad_context, grad_gates, *found)]


def _run(branch, launch, composite, context, gates, kernels):
    """The kernel where it can be used and is right, else the composite."""
    refusal = branch, context.device.type, context.dtype
    if refusal in _refused or not _has_kernel(branch, context, kernels):
        return composite(context, gates, kernels).contiguous()
    case = (
        branch,
        context.device,
        context.dtype,
        context.shape[1],
        context.shape[-1],
        kernels[0].shape[-1],
        len(kernels),
    )
    if case not in _verified and context.is_cuda and torch.cuda.is_current_stream_capturing():
        return composite(context, gates, kernels).contiguous()  # a graph cannot hold the comparison
    try:
        result = launch(context, gates, kernels)
        if case not in _verified:
            _verify(result, composite, context, gates, kernels)
            _verified.add(case)
        return result
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        result = composite(context, gates, kernels)  # raises itself where the fault is the caller's
        _refused.add(refusal)
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        logger.warning(
            f"Focal modulation: the {branch} Triton kernel failed on {refusal[1]} in {refusal[2]} ({type(error).__name__}: "
            f"{reason}). From now on the composite does this: same numbers, slower."
        )
        return result.contiguous()


def _verify(result, composite, context, gates, kernels):
    """Compares the first result of a kernel with the composite, on the last clip.

    Raises:
        RuntimeError: They differ by more than their roundings can.
    """
    expected = composite(context[-1:], gates[-1:], kernels).double()
    error = ((result[-1:].double() - expected).norm() / expected.norm()).item()
    # where the composite itself overflows, nothing can be said about the kernel; zeros have no relative error
    comparable = expected.isfinite().all().item() and expected.any().item()
    if comparable and not error <= _TOLERANCES[context.dtype]:
        raise RuntimeError(f"its result differs from the composite by {error:.1e} of its norm")


def _has_kernel(branch, context, kernels):
    sizes = tuple(kernel.shape[-1] for kernel in kernels)
    if not (can_launch(context.device.type) and context.dtype in _TOLERANCES and _are_levels(sizes)):
        return False
    return branch == "spatial" or temporal_tile(context) is not None


def can_launch(device_type):
    """Whether the kernels can run on a device of this type, as far as one can know without running them."""
    if TRITON_PROBLEM is not None:
        return False
    # the barrier between levels orders global memory on NVIDIA's machines; on others nobody has checked
    return INTERPRETED or (device_type == "cuda" and torch.version.cuda is not None)


def _are_levels(sizes):
    """Whether there are levels, each two wider than the one before, as kernels are compiled for."""
    return len(sizes) > 0 and all(size == sizes[0] + 2 * level for level, size in enumerate(sizes))


def _make_differentiable(operator, in_time):
    def setup_context(ctx, inputs, output):
        context, gates, kernels = inputs
        ctx.save_for_backward(context, gates, *kernels)

    def backward(ctx, grad):
        context, gates, *kernels = ctx.saved_tensors
        for_kernels = any(ctx.needs_input_grad[2])
        found = _gather_backward(grad, context, gates, kernels, in_time, for_kernels)
        return found[0], found[1], found[2:] if for_kernels else [None] * len(kernels)

    operator.register_autograd(backward, setup_context=setup_context)
    operator.register_fake(lambda context, gates, kernels: context.new_empty(context.shape))


_make_differentiable(_gather_spatial, in_time=False)
_make_differentiable(_gather_temporal, in_time=True)


@_gather_backward.register_fake
def _(grad, context, gates, kernels, in_time, for_kernels):
    return [tensor.new_empty(tensor.shape) for tensor in (context, gates, *(kernels if for_kernels else ()))]


def _supports(call):
    if call.dtype not in _TOLERANCES or not can_launch(call.device_type):
        return False
    if call.operation != "modulation":
        return True
    in_time = call.temporal_sizes is None or (_are_levels(call.temporal_sizes) and call.shape[1] <= MAX_STEPS)
    return _are_levels(call.spatial_sizes) and in_time


def _prefers(call):
    # not for gradients, where levels are computed twice, nor in float32, where cuDNN's convolutions are at their best
    return call.device_type == "cuda" and not call.grad and call.dtype != torch.float32


def _projection(module, tokens, sizes):
    """Parts of a linear layer's output, each with rows at multiples of 16 values: the kernels read such rows 16 bytes at a time."""
    if not is_plain_linear(module):
        return module(tokens).split(sizes, dim=-1)
    padding = -sum(sizes) % 16
    weight, bias = F.pad(module.weight, (0, 0, 0, padding)), module.bias
    padded = F.linear(tokens, weight, None if bias is None else F.pad(bias, (0, padding)))
    return padded.split([*sizes, padding], dim=-1)[:-1]


TRITON = FocalImplementation(
    name="triton",
    supports=_supports,
    prefers=_prefers,
    modulation=triton_focal_modulation,
    projection=_projection,
)
