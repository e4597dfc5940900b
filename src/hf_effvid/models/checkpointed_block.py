# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A block of a convolutional network under activation checkpointing, where batch norms must not see one batch twice."""

from contextlib import contextmanager, nullcontext
from functools import partial

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


class CheckpointedBlock(GradientCheckpointingLayer):
    """A block that may be computed again in the backward pass; its batch norms then leave their running statistics alone.

    Checkpointing itself is that of transformers, `model.gradient_checkpointing_enable()`.
    """

    @property
    def _gradient_checkpointing_func(self):
        # GradientCheckpointingLayer gives its forward to this; what transformers sets here is called with it
        return partial(self._checkpoint, self._checkpoint_function)

    @_gradient_checkpointing_func.setter
    def _gradient_checkpointing_func(self, function):
        self._checkpoint_function = function

    @_gradient_checkpointing_func.deleter
    def _gradient_checkpointing_func(self):
        del self._checkpoint_function

    def _checkpoint(self, checkpoint, forward, *inputs):
        return checkpoint(_Computation(forward, self, self.second_time()), *inputs)

    def second_time(self):
        """Called before the block is computed: a context manager for when it is computed again."""
        return nullcontext()


class _Computation:
    """The forward of a block, which knows whether it has run before."""

    def __init__(self, forward, block, second_time):
        self.forward, self.block, self.second_time = forward, block, second_time
        self.has_run = False

    def __call__(self, *inputs):
        if not self.has_run:
            self.has_run = True
            return self.forward(*inputs)
        with self.second_time, _statistics_kept(self.block):
            return self.forward(*inputs)


@contextmanager
def _statistics_kept(block):
    """Batch norms still normalise by the batch, and do not add it to their running statistics."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in kept:
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
