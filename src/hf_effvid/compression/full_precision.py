"""Losses that autocast leaves alone: half precision becomes single, single and double stay."""

import functools

import torch


def lifted(values):
    """float16 and bfloat16 as float32, every other tensor as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def in_full_precision(function):
    """Runs a function of tensors with autocast off and its tensors lifted; at least one argument must be a tensor."""

    @functools.wraps(function)
    def run(*arguments, **options):
        device = next(value.device for value in (*arguments, *options.values()) if isinstance(value, torch.Tensor))
        with torch.autocast(device.type, enabled=False):
            return function(
                *(_lift_tensor(value) for value in arguments),
                **{name: _lift_tensor(value) for name, value in options.items()},
            )

    return run


def _lift_tensor(value):
    return lifted(value) if isinstance(value, torch.Tensor) else value
