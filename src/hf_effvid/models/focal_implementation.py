# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""What an implementation of focal modulation is, and what it is told about a call before it is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch


class FocalCall(NamedTuple):
    """One call, before it is made.

    Args:
        operation: `"modulation"`, `"projection"`, `"feed_forward"` or `"block"`.
        device_type: `"cpu"`, `"cuda"`, ...
        dtype: What it is computed in: the type of the tokens, or that of autocast where autocast would cast them.
        grad: Whether gradients will be asked for.
        shape: Of the tokens, channels last: (B, T, H, W, C), or (B, T * N, C) for `"feed_forward"`.
        spatial_sizes, temporal_sizes: Kernel sizes level by level, for `"modulation"`. No temporal branch: None.
    """

    operation: str
    device_type: str
    dtype: torch.dtype
    grad: bool
    shape: tuple[int, ...]
    spatial_sizes: tuple[int, ...] = ()
    temporal_sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class FocalImplementation:
    """A way to compute focal modulation and what stands before and after it.

    All of its functions give what the composite gives, up to rounding, forward and backward. They never write to their
    arguments, and they raise rather than give something else: the caller then falls back to the composite.

    Args:
        name: What users call it.
        supports: `FocalCall` -> whether it can do that call. Cheap, called before every call.
        prefers: `FocalCall` -> whether it is the choice where users leave it open; asked after `supports`.
        modulation: Signature of `focal_composite.composite_focal_modulation`; None leaves it to the composite.
        projection: `(module, tokens (..., C), sizes)` -> the module's output in parts of so many channels, each of which
            may be a view. The module may be any: what is no plain linear layer has to be called. None: as above.
        feed_forward: `(fc1, fc2, tokens (..., C))` -> fc2(GELU(fc1(tokens))), as above.
        block: `(layer, tokens (B, T * N, C), grid)` -> output of a whole block without gradients, for a layer that `is_plain()`. None
            has it done operation by operation.
    """

    name: str
    supports: Callable[[FocalCall], bool]
    prefers: Callable[[FocalCall], bool]
    modulation: Callable | None = None
    projection: Callable | None = None
    feed_forward: Callable | None = None
    block: Callable | None = None
