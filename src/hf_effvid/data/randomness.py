"""Seeds: everything random about a training clip is a function of (seed, epoch, index) and of nothing else.

The global generators are neither read nor moved, so a run that was killed and resumed sees the same clips, whatever the
number of loader workers and whatever else drew random numbers in between.
"""

import hashlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit number that depends on every part, and looks unrelated for parts that differ a little."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def derive_rng(*parts: int | str) -> np.random.Generator:
    """A generator of its own, seeded with `derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))
