"""What is done to an oracle's scores before a selector learns them: the variants of LITE's table 5, and a control.

The paper names them and gives no numbers; those below are ours.
"""

import torch
from torch.nn import functional as F


EDGE_FACTOR = 0.5
PEAK_LEVEL, PEAK_MIN_TOKENS = 0.5, 3
SHARPENING = 3.0


def weaken_edges(targets: torch.Tensor, grid) -> torch.Tensor:
    """Tokens at the border of the picture count half: maps of gradients are often high there for no reason.

    Args:
        targets: (B, N) in [0, 1], order (t, y, x).
        grid: (steps, rows, columns).
    """
    _, rows, columns = grid
    factor = torch.full((rows, columns), EDGE_FACTOR, device=targets.device, dtype=targets.dtype)
    factor[1:-1, 1:-1] = 1
    return (targets.unflatten(1, tuple(grid)) * factor).flatten(1)


def remove_peaks(targets: torch.Tensor, grid) -> torch.Tensor:
    """Islands of fewer than three tokens above one half become 0. Tokens that touch at a corner, in space or time, are one island.

    Args:
        targets, grid: see `weaken_edges`.
    """
    high = (targets > PEAK_LEVEL).unflatten(1, tuple(grid))
    # every high token takes the highest number that it can reach over high tokens: the name of its island
    numbers = torch.arange(1, targets.shape[1] + 1, device=targets.device, dtype=torch.float32)
    islands = numbers.reshape(1, *grid) * high
    while True:
        spread = F.max_pool3d(islands[:, None], 3, stride=1, padding=1)[:, 0] * high
        if torch.equal(spread, islands):
            break
        islands = spread
    names = islands.flatten(1).long()
    sizes = torch.zeros(len(names), targets.shape[1] + 1, device=targets.device).scatter_add_(
        1, names, torch.ones_like(targets, dtype=torch.float32)
    )
    small = (sizes.gather(1, names) < PEAK_MIN_TOKENS) & (names > 0)
    return targets.masked_fill(small, 0)


def sharpen(targets: torch.Tensor, grid=None) -> torch.Tensor:
    """s^3 / (s^3 + (1 - s)^3): towards 0 below one half, towards 1 above.

    Args:
        targets, grid: see `weaken_edges`.
    """
    high, low = targets**SHARPENING, (1 - targets) ** SHARPENING
    return high / (high + low)


TARGET_VARIANTS = {"edges": weaken_edges, "peaks": remove_peaks, "sharpen": sharpen}
"""Name -> function of (targets, grid)."""


def check_variants(names) -> tuple[str, ...]:
    """The names of variants as a tuple.

    Raises:
        ValueError: one that does not exist.
    """
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in TARGET_VARIANTS]
    if unknown:
        raise ValueError(f"variants are {', '.join(TARGET_VARIANTS)}, got {', '.join(map(repr, unknown))}.")
    return names


def varied(targets: torch.Tensor, grid, variants) -> torch.Tensor:
    """Targets after all variants, in the order given."""
    for name in variants:
        targets = TARGET_VARIANTS[name](targets, grid)
    return targets


def of_other_clips(targets: torch.Tensor) -> torch.Tensor:
    """Every clip gets the targets of the next one: what is learned from these knows places, but no content.

    Args:
        targets: (B, N).

    Raises:
        ValueError: a batch of one clip.
    """
    if len(targets) < 2:
        raise ValueError("shuffled targets need at least two clips in every batch, got one.")
    return targets.roll(1, dims=0)
