"""Losses that autocast leaves alone: half precision becomes single, single and double stay."""

import functools

import torch


def lifted(values):
    """float16 and bfloat16 as float32, every other tensor as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def in_full_precision(function):
    """Runs a function of tensors with autocast off and its tensors lifted. The first argument is a tensor."""

    @functools.wraps(function)
    def run(first, *arguments, **options):
        with torch.autocast(first.device.type, enabled=False):
            return function(
                lifted(first),
                *(_lift_tensor(value) for value in arguments),
                **{name: _lift_tensor(value) for name, value in options.items()},
            )

    return run


def _lift_tensor(value):
    return lifted(value) if isinstance(value, torch.Tensor) else value
