"""The cheap rivals of token selection: fewer frames, smaller frames, a smaller crop, with interpolated positions.

Each takes the largest grid of tokens that a selection's budget pays for, so that it never costs more. With few tokens along an axis
the steps between such grids are wide; the study states what each really cost.
"""

from dataclasses import dataclass, field

from torch import nn

from ..models.token_selection import TokenGrid, num_kept_tokens
from ..pipelines.position_interpolation import PositionInterpolationError, interpolate_positions
from .selection_arms import Arm, ArmUnavailable, OneRun, clip_patch, sharing_weights


INPUT_ARMS = ("fewer frames", "smaller frames", "smaller crop")


def grid_within(name: str, grid: TokenGrid, budget: int) -> TokenGrid | None:
    """The largest grid of an arm with at most `budget` tokens, smaller than the whole; None where there is none.

    Args:
        name: one of `INPUT_ARMS`; frames lose steps in time, the others rows and columns in the same proportion.
        grid: of all tokens.
        budget: number of tokens.
    """
    if name == "fewer frames":
        smaller = [TokenGrid(steps, grid.height, grid.width) for steps in range(grid.frames - 1, 0, -1)]
    else:
        smaller = [
            TokenGrid(grid.frames, rows, max(1, round(grid.width * rows / grid.height)))
            for rows in range(grid.height - 1, 0, -1)
        ]
    return next((one for one in smaller if one.num_tokens <= budget), None)


@dataclass
class InputArm(Arm):
    """Gives the host less to look at.

    Attributes:
        models: keep_ratio -> the host with positions for a smaller grid.
        grids: keep_ratio -> that grid.
        patch: frames, height and width of a token.
    """

    models: dict[float, nn.Module] = field(default_factory=dict)
    grids: dict[float, TokenGrid] = field(default_factory=dict)
    patch: tuple[int, int, int] = (1, 1, 1)

    def logits(self, prepared, keep_ratio):
        return self.model_at(keep_ratio)(self.clip_at(prepared.pixel_values, keep_ratio))

    def reaches(self, keep_ratio):
        return keep_ratio in self.models

    def num_tokens(self, keep_ratio):
        return self.grids[keep_ratio].num_tokens

    def model_at(self, keep_ratio):
        return OneRun(self.models[keep_ratio], keep_ratio=1.0)

    def clip_at(self, pixel_values, keep_ratio):
        size = [tokens * patch for tokens, patch in zip(self.grids[keep_ratio], self.patch, strict=True)]
        if self.name == "fewer frames":
            return pixel_values[:, evenly(pixel_values.shape[1], size[0])]
        if self.name == "smaller crop":
            top, left = ((whole - part) // 2 for whole, part in zip(pixel_values.shape[-2:], size[1:], strict=True))
            return pixel_values[..., top : top + size[1], left : left + size[2]]
        frames = nn.functional.interpolate(
            pixel_values.flatten(0, 1), size=tuple(size[1:]), mode="bilinear", antialias=True, align_corners=False
        )
        return frames.unflatten(0, pixel_values.shape[:2])


def evenly(num_frames: int, count: int) -> list[int]:
    """`count` of `num_frames` frames, from the middles of equal parts."""
    return [int((index + 0.5) * num_frames / count) for index in range(count)]


def input_arm(host, name: str, keep_ratios) -> InputArm:
    """One of `INPUT_ARMS` on a Lite model.

    Raises:
        ArmUnavailable: positions of this host cannot be interpolated, or no budget pays for a smaller grid.
    """
    patches = clip_patch(host)
    models, grids, built = {}, {}, {}
    for ratio in keep_ratios:
        grid = grid_within(name, patches.grid, num_kept_tokens(patches.grid.num_tokens, ratio))
        if grid is None:
            continue
        if grid not in built:
            frames, height, width = (tokens * patch for tokens, patch in zip(grid, patches.patch, strict=True))
            try:
                built[grid] = interpolate_positions(sharing_weights(host), frames, (height, width))
            except PositionInterpolationError as error:
                raise ArmUnavailable(str(error)) from error
        models[ratio], grids[ratio] = built[grid], grid
    if not models:
        raise ArmUnavailable(f"{name}: no budget pays for a smaller grid than {tuple(patches.grid)}.")
    settings = {"grids": {f"{ratio:g}": list(grid) for ratio, grid in grids.items()}}
    return InputArm(name, "input", settings=settings, models=models, grids=grids, patch=tuple(patches.patch))
