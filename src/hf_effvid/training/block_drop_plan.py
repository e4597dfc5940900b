"""What a compression would do, before it does it: its data, the blocks, and what the model costs after every drop."""

import statistics
from dataclasses import asdict, dataclass

import torch

from ..compression.block_skip import BlockSkip
from ..compression.block_table import model_blocks
from ..evaluation.benchmark_timing import paired_ratio
from ..evaluation.opening import evaluation_mode
from .block_drop_costs import arithmetic, interleaved, pass_over


@dataclass(frozen=True)
class PlannedModel:
    """The model after some drops.

    Attributes:
        num_dropped: blocks that it lacks.
        assumed: original indices of them.
        parameters, gmacs: of it; gmacs None where they cannot be counted.
        milliseconds: of one input on this machine; None without timing.
        speedup: the whole model's time over this one's, in turns.
    """

    num_dropped: int
    assumed: tuple[int, ...]
    parameters: int
    gmacs: float | None
    milliseconds: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class CompressionPlan:
    """What would be done.

    Attributes:
        model: what would be compressed.
        blocks: per block `index` (original), `name`, `parameters`, `gmacs`, and `must_stay` where it cannot go.
        models: the model with none, one, two, ... blocks less.
        known: whether the blocks that go are known before anything is scored.
        data: name and sizes of the parts.
        metric: what steps would be judged by.
        settings: what was asked for.
    """

    model: str
    blocks: tuple[dict, ...]
    models: tuple[PlannedModel, ...]
    known: bool
    data: dict
    metric: str
    settings: dict

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """For a terminal."""
        sizes, items = self.data, self.data["items"]
        lines = [
            f"{self.model}: {len(self.blocks)} blocks; {sizes['recovery']} {items} to recover on, {sizes['scoring']} to score on, "
            f"{sizes['held_out']} held out to judge by {self.metric}"
        ]
        for block in self.blocks:
            macs = "" if block["gmacs"] is None else f"{block['gmacs']:9.4g} GMACs"
            stays = f"   stays: {block['must_stay']}" if block["must_stay"] else ""
            lines.append(
                f"  {block['index']:>3}  {block['name']:<36} {block['parameters'] / 1e6:8.3f} M {macs}{stays}"
            )
        which = "" if self.known else " (if blocks of average cost go)"
        lines.append(f"after each drop{which}:")
        whole = self.models[0]
        for model in self.models:
            gone = ", ".join(map(str, model.assumed)) if self.known and model.assumed else ""
            line = f"  {model.num_dropped:>3}  {model.parameters / 1e6:8.3f} M"
            if model.gmacs is not None:
                line += f" {model.gmacs:9.4g} GMACs ({100 * model.gmacs / whole.gmacs:.1f} %)"
            if model.milliseconds is not None:
                line += f" {model.milliseconds:8.4g} ms ({model.speedup:.2f}x)"
            lines.append(f"{line}   {gone}".rstrip())
        return "\n".join(lines)


def plan_of(run) -> CompressionPlan:
    """The plan of a `BlockDropRun`; nothing is trained or written."""
    model, settings, data = run.uncompressed, run.settings, run.data
    example = data.example(run.device)
    with evaluation_mode(model, run.device):
        blocks = model_blocks(model, settings.part)
        whole = arithmetic(model, example)
        without = {
            block.index: _without(model, [block.index], example, settings.part)
            for block in blocks
            if not block.must_stay
        }
        described = tuple(_describe(block, whole["gmacs"], without.get(block.index)) for block in blocks)
        order, known = _order(run, blocks, described)
        sets = [order[:count] for count in range(run.wanted + 1)]
        if settings.together:
            sets = [sets[0], sets[-1]] if run.wanted else sets[:1]
        times = _times(model, sets, example, settings, run.device)
        models = tuple(
            _planned(model, blocks, chosen, whole, example, settings.part, times.get(len(chosen), {}))
            for chosen in sets
        )
    sizes = {"name": data.name, "items": data.items, **data.sizes()}
    return CompressionPlan(run.source, described, models, known, sizes, data.metric, settings.to_dict())


def _order(run, blocks, described):
    """Running indices in the order in which blocks would go, and whether that is known."""
    running = {block.original_index: block.index for block in blocks}
    free = [block.index for block in blocks if not block.must_stay]
    if run.settings.blocks is not None:
        return [running[block] for block in run.settings.blocks], True
    if run.settings.order.startswith("random"):
        depth = max(running) + 1
        order = torch.randperm(depth, generator=torch.Generator().manual_seed(run.arguments.seed)).tolist()
        return [running[block] for block in order if running.get(block) in free], True
    costs = {index: described[index]["gmacs"] or described[index]["parameters"] for index in free}
    middle = statistics.median(costs.values())
    return sorted(free, key=lambda index: (abs(costs[index] - middle), index)), False


def _without(model, indices, example, part) -> dict:
    with BlockSkip(model, indices, part):
        return arithmetic(model, example)


def _describe(block, gmacs, without) -> dict:
    modules = (block.module, *block.companions)
    parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())
    own = None if gmacs is None or without is None or without["gmacs"] is None else gmacs - without["gmacs"]
    return {
        "index": block.original_index,
        "name": block.name,
        "parameters": parameters,
        "gmacs": own,
        "must_stay": block.must_stay,
    }


def _planned(model, blocks, chosen, whole, example, part, timed) -> PlannedModel:
    left = whole if not chosen else _without(model, chosen, example, part)
    modules = [module for index in chosen for module in (blocks[index].module, *blocks[index].companions)]
    gone = sum(parameter.numel() for module in modules for parameter in module.parameters())
    originals = tuple(blocks[index].original_index for index in chosen)
    return PlannedModel(len(chosen), originals, whole["parameters"] - gone, left["gmacs"], **timed)


def _times(model, sets, example, settings, device) -> dict:
    """Number of dropped blocks -> `milliseconds` and `speedup`; all models take turns."""
    if not settings.timing_rounds:
        return {}
    whole = pass_over(model, example)
    steps = {str(len(chosen)): _skipping(model, chosen, settings.part, whole) for chosen in sets}
    times = interleaved(steps, settings.timing_rounds, device)
    found = {}
    for name, own in times.items():
        milliseconds = statistics.median(ms for visit in own for ms in visit)
        found[int(name)] = {"milliseconds": milliseconds, "speedup": paired_ratio(times["0"], own).median}
    return found


def _skipping(model, chosen, part, step):
    if not chosen:
        return step

    def shorter():
        with BlockSkip(model, chosen, part):
            return step()

    return shorter
