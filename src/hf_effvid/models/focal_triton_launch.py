# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""How the Triton kernels of focal modulation are launched: sizes of their tiles, layout of what they read and write."""

import contextlib

import torch

from .focal_triton_kernels import INTERPRETED, spatial_kernel, temporal_kernel, triton


# rows of the matrix product a warp group is busy with; more steps than this do not fit with their site into one program
MAX_STEPS = 64
# of the spatial kernel: what 4 warps hold in registers with several blocks per multiprocessor, and 32 bytes of each row in half precision
SITES_PER_BLOCK, CHANNELS_PER_PROGRAM = 32, 16


def launch_temporal(context, gates, kernels):
    """Gated sum over levels in time; arguments and result as in `focal_composite.gather_temporal_context`.

    Raises:
        RuntimeError: `temporal_tile` gives None for this context.
        Exception: Whatever Triton raises where it cannot compile or launch.
    """
    tile = temporal_tile(context)
    if tile is None:
        raise RuntimeError(f"the temporal kernel does not take a context of shape {tuple(context.shape)}")
    batch, steps, height, width, channels = context.shape
    sites, levels = height * width, len(kernels)
    (context, context_stride), (gates, gates_stride) = _rows(context, aligned=True), _rows(gates)
    weights = torch.cat([kernel.permute(2, 0, 1) for kernel in kernels]).contiguous()  # (taps, C out, C in)
    scratch = context.new_empty(max(levels - 1, 1), batch * steps * sites if levels > 1 else 1, channels)
    output = context.new_empty(batch, steps, height, width, channels)
    widest = 64 if context.dtype == torch.float32 else 128
    step_rows = triton.next_power_of_2(steps)
    block_n = _block(channels, widest)
    with _device_of(context):
        temporal_kernel[(batch * triton.cdiv(sites, tile),)](
            context,
            gates,
            weights,
            scratch,
            output,
            batch,
            sites,
            channels,
            context_stride,
            gates_stride,
            LEVELS=levels,
            WINDOW=kernels[0].shape[-1],
            STEPS=steps,
            STEP_ROWS=step_rows,
            TILE=tile,
            BLOCK_N=block_n,
            BLOCK_K=_block(channels, widest // 2),
            PRECISION=_precision(context.dtype),
            INTERPRETER=INTERPRETED,
            num_warps=8 if step_rows * tile * block_n >= 64 * 128 else 4,
            num_stages=3,
        )
    return output


def temporal_tile(context):
    """Sites per program of the temporal kernel for a context (B, T, H, W, C); None where it is not worth using, or cannot be."""
    batch, steps, height, width, _ = context.shape
    sites = height * width
    if steps > MAX_STEPS or steps * sites * max(context.stride(3), context.shape[-1]) >= 2**31:
        return None
    step_rows, processors = triton.next_power_of_2(steps), _processors(context.device)
    for rows in (64,) if context.dtype == torch.float32 else (128, 64):
        tile = max(1, rows // step_rows)
        # every program reads all weights, so fewer sites than this per program would be bound by that
        if batch * triton.cdiv(sites, tile) >= (processors if rows == 128 else processors / 2):
            return tile
    return None


def launch_spatial(context, gates, kernels):
    """Gated sum over levels in space; arguments and result as in `focal_composite.gather_spatial_context`.

    Raises:
        RuntimeError: A frame has more values than an index of 32 bits reaches.
        Exception: Whatever Triton raises where it cannot compile or launch.
    """
    batch, steps, height, width, channels = context.shape
    sites, frames, levels = height * width, batch * steps, len(kernels)
    (context, context_stride), (gates, gates_stride) = _rows(context, aligned=True), _rows(gates)
    if sites * max(context_stride, channels) >= 2**31:
        raise RuntimeError(f"the spatial kernel does not take frames of {height} x {width} sites")
    weights = torch.cat([kernel.reshape(channels, -1).t() for kernel in kernels]).contiguous()  # (taps, C)
    scratch = context.new_empty(levels, frames * sites, channels)
    output = context.new_empty(batch, steps, height, width, channels)
    block_c = _block(channels, CHANNELS_PER_PROGRAM)
    with _device_of(context):
        spatial_kernel[(frames * triton.cdiv(channels, block_c),)](
            context,
            gates,
            weights,
            scratch,
            output,
            frames,
            height,
            width,
            channels,
            context_stride,
            gates_stride,
            LEVELS=levels,
            WINDOW=kernels[0].shape[-1],
            BLOCK_S=SITES_PER_BLOCK,
            BLOCK_C=block_c,
            num_warps=4,
        )
    return output


def _rows(tensor, aligned=False):
    """The tensor as equally spaced rows of channels, and their distance; copied only where it is not.

    Args:
        tensor: (..., C).
        aligned: Also copy where rows do not begin at multiples of 16 values and would after copying: loads of single values
            cost more than the copy.
    """
    channels = tensor.shape[-1]
    try:
        rows = tensor.view(-1, channels)
    except RuntimeError:
        return tensor.contiguous(), channels
    uneven = aligned and channels % 16 == 0 and (rows.stride(0) % 16 or tensor.data_ptr() % 16)
    if uneven or rows.stride(1) != 1:
        return tensor.contiguous(), channels
    return tensor, rows.stride(0)


def _block(channels, widest):
    """Power of two, from 16 to `widest`, that covers the channels with the least left over; the widest of equals."""
    sizes = [16]
    while sizes[-1] < widest:
        sizes.append(2 * sizes[-1])
    # below 32 the tensor cores starve: only for so few channels
    sizes = [size for size in sizes if size >= min(32, widest) or channels <= 16]
    return min(reversed(sizes), key=lambda size: -(-channels // size) * size)


def _precision(dtype):
    """How the matrix units multiply float32 numbers: rounded to TF32 where torch may do so in convolutions, else in three parts."""
    if dtype != torch.float32:
        return "tf32"  # means nothing for other types; one value, so that a kernel is compiled once
    try:
        allowed = torch.backends.cudnn.allow_tf32
    except RuntimeError:  # torch refuses to say after its newer, finer settings were used
        allowed = torch.backends.cudnn.conv.fp32_precision == "tf32"
    return "tf32" if allowed else "tf32x3"


def _processors(device):
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _device_of(tensor):
    """Triton launches on the current device, whatever the tensors are on."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else contextlib.nullcontext()
