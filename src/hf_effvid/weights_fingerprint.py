"""A short name of weights, by which stored results of a model are recognised."""

import hashlib

from torch import nn


def weights_fingerprint(module: nn.Module) -> str:
    """16 hexadecimal digits that change with any weight, and not with the type in which the same numbers are held."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy())
    return digest.hexdigest()
