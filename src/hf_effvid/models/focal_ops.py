# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Focal modulation, computed by the fastest implementation that fits.

`focal_composite` is the definition; everything else gives the same numbers up to rounding. Under torch.compile,
torch.export, ONNX export, tracing, function transforms and dispatch modes (which look at operations one by one: fake
tensors, counters) it is always the composite that runs. One exception: after `set_focal_implementation("triton")`
torch.compile gets the Triton kernels, which are operators of torch.

    with focal_implementation("composite"):  # this thread, for as long as the block lasts
        logits = model(clips).logits
"""

import contextlib
import contextvars

import torch
from torch.nn import functional as F
from torch.utils import checkpoint
from transformers.utils import logging

from .focal_composite import (
    FocalModulation,
    composite_focal_modulation,
    gather_spatial_context,
    gather_temporal_context,
)
from .focal_implementation import FocalCall, FocalImplementation
from .focal_processor import CHANNELS_LAST, ONEDNN
from .focal_triton import TRITON, can_launch
from .observed_calls import is_observed


logger = logging.get_logger(__name__)


def _composite_projection(module, tokens, sizes):
    return module(tokens).split(sizes, dim=-1)


def _composite_feed_forward(fc1, fc2, tokens):
    return fc2(F.gelu(fc1(tokens)))


COMPOSITE = FocalImplementation(
    name="composite",
    supports=lambda call: True,
    prefers=lambda call: True,
    modulation=composite_focal_modulation,
    projection=_composite_projection,
    feed_forward=_composite_feed_forward,
)

# tried in this order where users leave the choice open
IMPLEMENTATIONS = {
    implementation.name: implementation for implementation in (TRITON, ONEDNN, CHANNELS_LAST, COMPOSITE)
}

AUTO = "auto"
_process_setting = AUTO
_block_setting = contextvars.ContextVar("hf_effvid_focal_implementation", default=None)
# no memory for it says nothing about the next call; the other is how recomputing a checkpointed block ends early
_NO_FAILURES = (torch.OutOfMemoryError, getattr(checkpoint, "_StopRecomputationError", torch.OutOfMemoryError))
# (name, operation, device, dtype) of what failed once: it is not tried again
_failed = set()


def set_focal_implementation(name=AUTO):
    """Chooses the implementation for the whole process.

    Args:
        name: A name of `IMPLEMENTATIONS`, or `"auto"`: the fastest that fits, measured where it depends on the machine.
            A call that the chosen one does not support is done by the composite.

    Raises:
        ValueError: There is no implementation of that name.
    """
    global _process_setting
    _process_setting = _checked(name)


@contextlib.contextmanager
def focal_implementation(name):
    """The same for one block of code in one thread. With gradient checkpointing, `backward()` belongs inside as well."""
    token = _block_setting.set(_checked(name))
    try:
        yield
    finally:
        _block_setting.reset(token)


def _checked(name):
    if name != AUTO and name not in IMPLEMENTATIONS:
        raise ValueError(
            f"Expected one of {', '.join([AUTO, *IMPLEMENTATIONS])} as implementation of focal modulation, got {name!r}."
        )
    return name


def chosen_implementation(call):
    """The implementation that would do a `FocalCall` now, tracing aside."""
    wanted = _block_setting.get() or _process_setting
    candidates = IMPLEMENTATIONS.values() if wanted == AUTO else [IMPLEMENTATIONS[wanted]]
    for implementation in candidates:
        able = getattr(implementation, call.operation) is not None and implementation.supports(call)
        if (
            able
            and (wanted != AUTO or implementation.prefers(call))
            and _failure_key(implementation, call) not in _failed
        ):
            return implementation
    return COMPOSITE


def focal_modulation(
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
    """Multiplies the query with what space and time around it hold: see `composite_focal_modulation`."""
    arguments = (
        query,
        spatial_context,
        spatial_gates,
        temporal_context,
        temporal_gates,
        spatial_kernels,
        temporal_kernels,
        spatial_projection,
        temporal_projection,
        normalize,
        keep_modulators,
    )
    if is_observed(query):
        return _observed(query).modulation(*arguments)
    call = _describe(
        "modulation",
        query,
        (query, spatial_context, spatial_gates, temporal_gates, *spatial_kernels, *temporal_kernels),
        (spatial_projection, temporal_projection),
        tuple(kernel.shape[-1] for kernel in spatial_kernels),
        None if temporal_context is None else tuple(kernel.shape[-1] for kernel in temporal_kernels),
    )
    return _run(call, arguments)


def focal_projection(module, tokens, sizes):
    """Output of a linear module on tokens (..., C), in parts of `sizes` channels."""
    if is_observed(tokens):
        return _observed(tokens).projection(module, tokens, sizes)
    return _run(_describe("projection", tokens, (tokens,), (module,)), (module, tokens, sizes))


def focal_feed_forward(fc1, fc2, tokens):
    """fc2(GELU(fc1(tokens))) for tokens (..., C), without dropout."""
    if is_observed(tokens):
        return _composite_feed_forward(fc1, fc2, tokens)
    return _run(_describe("feed_forward", tokens, (tokens,), (fc1, fc2)), (fc1, fc2, tokens))


def focal_block(layer, tokens, grid, by_operation):
    """Output of a whole block of Video-FocalNet, without gradients.

    Args:
        layer: `VideoFocalNetLayer`. Not asked whether it `is_plain()` where operations are observed.
        tokens: (B, T * N, C).
        grid: (T, H, W).
        by_operation: Callable without arguments that computes the same with the functions above, where nothing does it at once.
    """
    if is_observed(tokens) or not layer.is_plain():
        return by_operation()
    call = _describe("block", tokens, (), ())
    shape = (tokens.shape[0], *grid, tokens.shape[2])
    return _run(call._replace(shape=shape), (layer, tokens, grid), lambda *arguments: by_operation())


def _run(call, arguments, reference=None):
    chosen = chosen_implementation(call)
    reference = reference or getattr(COMPOSITE, call.operation)
    if chosen is COMPOSITE:
        return reference(*arguments)
    try:
        return getattr(chosen, call.operation)(*arguments)
    except _NO_FAILURES:
        raise
    except Exception as error:
        result = reference(*arguments)  # raises itself where the fault is the caller's
        _failed.add(_failure_key(chosen, call))
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        logger.warning_once(
            f"Focal modulation: {chosen.name} failed at {call.operation} on {call.device_type} in {call.dtype} "
            f"({type(error).__name__}: {reason}). From now on the composite does this: same numbers, slower."
        )
        return result


def _failure_key(implementation, call):
    return implementation.name, call.operation, call.device_type, call.dtype


def _observed(tensor):
    """The implementation whose operations may be seen. A setting for one block of code is out of the compiler's sight."""
    compiling = torch.compiler.is_compiling() and not _is_exporting()
    if compiling and _process_setting == TRITON.name and can_launch(tensor.device.type):
        return TRITON
    return COMPOSITE


# torch 2.6 cannot say; its exports then contain what `set_focal_implementation` names
_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)


def _describe(operation, tokens, tensors, modules, spatial_sizes=(), temporal_sizes=None):
    dtype, device_type = tokens.dtype, tokens.device.type
    if torch.is_autocast_enabled(device_type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    grad = torch.is_grad_enabled() and (
        any(tensor is not None and tensor.requires_grad for tensor in tensors)
        or any(p.requires_grad for m in modules if isinstance(m, torch.nn.Module) for p in m.parameters())
    )
    return FocalCall(operation, device_type, dtype, grad, tuple(tokens.shape), spatial_sizes, temporal_sizes)


__all__ = [
    "FocalModulation",
    "IMPLEMENTATIONS",
    "chosen_implementation",
    "focal_block",
    "focal_feed_forward",
    "focal_implementation",
    "focal_modulation",
    "focal_projection",
    "gather_spatial_context",
    "gather_temporal_context",
    "set_focal_implementation",
]
