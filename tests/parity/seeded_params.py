"""Weights and inputs that depend only on (seed, name, shape), so that large reference files need not be kept.

`make_state_dict` takes the parameter names of the reference implementation.
"""

import zlib

import numpy as np
import torch


def make_parameter(name, shape, seed):
    """One float32 parameter; its kind (norm, bias, layer scale, weight) follows from its name and shape."""
    generator = _generator(seed, name)
    shape = tuple(shape)
    leaf = name.rsplit(".", 1)[-1]
    noise = generator.standard_normal(shape)
    if leaf in ("gamma_1", "gamma_2"):  # layer scale
        values = 0.5 + 0.15 * noise
    elif len(shape) == 1 and leaf == "weight":  # LayerNorm
        values = 1.0 + 0.15 * noise
    elif len(shape) == 1:  # bias
        values = 0.1 * noise
    else:  # linear layer or convolution: 1.2 times fan-in scaling, so that every path matters in the output
        values = noise * (1.2 / np.sqrt(int(np.prod(shape[1:]))))
    return torch.from_numpy(np.ascontiguousarray(values).astype(np.float32))


def make_state_dict(shapes, seed):
    """All parameters of `shapes` (name -> shape)."""
    return {name: make_parameter(name, shape, seed) for name, shape in shapes.items()}


def make_input(name, shape, seed):
    """The input clip of the case called `name`."""
    return torch.from_numpy(_generator(seed, "input:" + name).standard_normal(tuple(shape)).astype(np.float32))


def _generator(seed, name):
    return np.random.Generator(np.random.PCG64([int(seed), zlib.crc32(name.encode())]))
