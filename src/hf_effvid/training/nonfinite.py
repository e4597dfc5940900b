"""The guard against NaN and Inf: names the block where the first one arose, and stops or skips as configured."""

import logging

import torch


logger = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """A loss or gradient was NaN or Inf.

    Attributes:
        where: the first module, parameter or input that held a non-finite value.
    """

    def __init__(self, message, where):
        super().__init__(message)
        self.where = where

    def __reduce__(self):
        return type(self), (self.args[0], self.where)


class NonFiniteLoss(Exception):
    """Internal signal between the forward and the backward pass of one batch."""


def non_finite_tensors(value, prefix=""):
    """Paths of the non-finite floating-point tensors in nested dictionaries, lists, tuples and model outputs."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return [prefix or "value"]
        return []
    if hasattr(value, "items"):
        pairs = value.items()
    elif isinstance(value, (list, tuple)):
        pairs = enumerate(value)
    else:
        return []
    return [
        path for key, inner in pairs for path in non_finite_tensors(inner, f"{prefix}.{key}" if prefix else str(key))
    ]


def locate_non_finite(module, batch, run):
    """Runs a forward pass again with hooks and names where the first non-finite value appears.

    Args:
        module: the unwrapped task.
        batch: the batch that gave a non-finite loss.
        run: callable that repeats the forward pass (under the same autocast).

    Returns:
        a phrase such as "the output of model.encoder.layer.3.mlp (VideoMAEMlp)".
    """
    in_batch = non_finite_tensors(batch)
    if in_batch:
        return f"the input batch ({in_batch[0]})"
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"the parameter {name}, before the forward pass"
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point() and not bool(torch.isfinite(buffer).all()):
            return f"the buffer {name}, before the forward pass"
    found = []

    def hook_for(name):
        def hook(submodule, inputs, output):
            # leaves finish before their parents, so the first record is the innermost module
            if not found and non_finite_tensors(output):
                found.append(f"the output of {name} ({type(submodule).__name__})")

        return hook

    handles = [m.register_forward_hook(hook_for(name)) for name, m in module.named_modules() if name]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself (every module's output was finite)"


def first_non_finite_gradient(model):
    """Name of the first parameter whose gradient is not finite, or None; one synchronisation for the whole model."""
    named = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]
    if not named:
        return None
    # sharded gradients are judged by their local part; the caller combines the processes
    local = [gradient.to_local() if hasattr(gradient, "to_local") else gradient for _, gradient in named]
    largest = [
        torch.linalg.vector_norm(g.detach(), float("inf")).float() if g.numel() else g.new_zeros(()) for g in local
    ]
    finite = torch.isfinite(torch.stack([value.float() for value in largest]))
    return None if bool(finite.all()) else named[int((~finite).nonzero()[0])][0]


class NonFiniteGuard:
    """Decides what happens on a non-finite loss or gradient, in step over all processes.

    Args:
        policy: `stop`, `skip` or `ignore`.
        max_skipped: skipped batches in a row after which `skip` stops as well.
    """

    def __init__(self, policy, max_skipped):
        self.policy = policy
        self.max_skipped = max_skipped
        self.skipped_in_a_row = 0
        self.skipped_total = 0

    def passed(self):
        """A batch went through: the count of skipped batches in a row starts again."""
        self.skipped_in_a_row = 0

    def failed(self, what, where, step):
        """Raises, or returns because the batch is to be skipped.

        Args:
            what: `loss` or `gradient`.
            where: result of `locate_non_finite`, or a phrase about the gradient.
            step: number of optimiser steps taken so far.
        """
        self.skipped_in_a_row += 1
        self.skipped_total += 1
        message = f"Non-finite {what} at step {step}: it arose in {where}."
        if self.policy == "stop":
            raise NonFiniteError(
                f"{message} Train in bf16 or fp32 rather than fp16, lower the learning rate, or set non_finite='skip'.",
                where,
            )
        if self.skipped_in_a_row > self.max_skipped:
            raise NonFiniteError(f"{message} {self.skipped_in_a_row} batches in a row were non-finite.", where)
        logger.warning("%s The batch is skipped (%d so far).", message, self.skipped_total)
