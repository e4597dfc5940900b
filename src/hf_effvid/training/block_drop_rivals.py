"""Ways to a cheaper classifier that compete: fewer blocks, narrower blocks, or both, at equal arithmetic and with equal training."""

import copy
from dataclasses import dataclass

from ..compression.block_drop import drop_blocks
from ..compression.block_table import model_blocks
from ..compression.channel_pruning import prune_channels
from .block_drop_choice import choose_blocks
from .block_drop_costs import arithmetic
from .block_drop_recovery import recover


UNCOMPRESSED, TRAINED_ON = "uncompressed", "trained on"
DROP, PRUNE, MLP, BOTH = "blocks", "channels", "MLPs alone", "both"


@dataclass(frozen=True)
class Arm:
    """One way to a cheaper model.

    Attributes:
        family: arms of one kind.
        name: of this one.
        drops: blocks to drop, one at a time.
        widths: of `prune_channels`, afterwards; None: nothing is pruned.
    """

    family: str
    name: str
    drops: int = 0
    widths: dict | None = None


def widths_of(model, share: float) -> dict:
    """Channels of MLPs and heads that leave a share of a block's arithmetic."""
    layer = model_blocks(model)[0].module
    heads, mlp = layer.attention.attention, layer.intermediate.dense.out_features
    return {"intermediate_size": round(share * mlp), "head_dim": round(share * heads.attention_head_size)}


def mlp_width_of(model, example, share: float) -> dict:
    """Channels of MLPs that leave a share of the model's arithmetic, the rest of a block being as it is."""
    mlp = model_blocks(model)[0].module.intermediate.dense
    whole = arithmetic(model, example)["gmacs"]
    tokens = model.videomae.embeddings.num_patches
    per_channel = len(model_blocks(model)) * tokens * 2 * mlp.in_features / 1e9
    return {"intermediate_size": round(mlp.out_features - (1 - share) * whole / per_channel)}


def line_up(model, example, dropped: list[int]) -> list[Arm]:
    """The arms; for every number of dropped blocks one pruned model of the same arithmetic."""
    depth, arms = len(model_blocks(model)), [Arm(TRAINED_ON, TRAINED_ON)]
    for number in dropped:
        arms.append(Arm(DROP, f"{number} of {depth} blocks dropped", number))
        widths = widths_of(model, 1 - number / depth)
        arms.append(Arm(PRUNE, "MLPs {intermediate_size}, heads {head_dim}".format(**widths), 0, widths))
    fewest, most = min(dropped), max(dropped)
    mlp = mlp_width_of(model, example, 1 - fewest / depth)
    if mlp["intermediate_size"] > 0:
        arms.append(Arm(MLP, "MLPs {intermediate_size}".format(**mlp), 0, mlp))
    if most > fewest:
        widths = widths_of(model, (depth - most) / (depth - fewest))
        name = f"{fewest} dropped, " + "MLPs {intermediate_size}, heads {head_dim}".format(**widths)
        arms.append(Arm(BOTH, name, fewest, widths))
    return arms


def make_arm(arm: Arm, run, work, *, steps: int, learning_rate: float, seed: int = 0):
    """The model of an arm, recovered for `steps` optimiser steps in all: in equal parts after every drop and after pruning.

    Args:
        arm: what to do.
        run: from `open_run`; its model is the start, the teacher, and stays as it is.
        work: folder for the recoveries.
        steps: at least one for every drop and one for pruning.
        learning_rate: its peak, after a tenth of the steps; it falls to 0.
        seed: of adapters and clips.

    Returns:
        the model, and the original indices of the blocks that went, in order.
    """
    student, parts = copy.deepcopy(run.uncompressed), max(1, arm.drops + (arm.widths is not None))
    counts, order = [steps // parts] * parts, []
    counts[-1] += steps - sum(counts)
    scored = {"depth": run.depth, "seed": seed, "device": run.device, "batch_size": run.batch_size}
    for number, count in enumerate(counts):
        if number < arm.drops:
            choice = choose_blocks(student, run.data, run.settings, 1, **scored)
            present = {block.original_index: block.index for block in model_blocks(student)}
            drop_blocks(student, [present[block] for block in choice.dropped])
            order += choice.dropped
        elif arm.widths is not None:
            prune_channels(student, **arm.widths)
        told = {
            "max_steps": count,
            "learning_rate": learning_rate,
            "warmup_steps": count // 10,
            "ema_decay": 0.0,
            "save_strategy": "no",
        }
        options = {"settings": run.settings, "args": told, "seed": seed + number, "progress": False}
        student = recover(
            student, run.uncompressed, run.data, output_dir=work / f"{arm.name}-{number}", **options
        ).model
    return student.eval(), order
