# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Whether operations are watched one by one, so that they have to be the plain ones of a definition."""

import torch
from torch.autograd import forward_ad


def is_observed(tensor):
    """Whether somebody records or transforms the operations, so that they have to be the plain ones."""
    # the first line is a constant for torch.compile, which then sees nothing of the rest
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.jit.is_scripting():
        return True
    return (
        type(tensor) is not torch.Tensor
        or tensor.is_meta
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
    )
