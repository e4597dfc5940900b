"""What the arms of a study cost: multiply-accumulates by counting, milliseconds in turns, so that a busy machine is busy for all."""

import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..evaluation.benchmark_timing import WallTimer, percentile, time_interleaved, warm_up
from ..evaluation.macs import count_macs, count_parameters
from ..evaluation.provenance import describe_hardware
from ..evaluation.results import Cost
from .selection_arms import Arm


MS_PER_VISIT = 20.0
"""How long an arm is timed in each round; a hundred arms take turns."""


def arm_costs(
    arms: list[Arm],
    keep_ratios: list[float],
    clips: torch.Tensor,
    *,
    rounds: int = 7,
    cache: Path | None = None,
    identity: dict | None = None,
    progress: bool = True,
) -> dict[tuple[str, float], Cost]:
    """Costs of every arm at every budget that it reaches.

    Args:
        arms: the full model first.
        keep_ratios: budgets; the full model counts at 1.0.
        clips: (B, T, C, H, W); B is the batch size of the times.
        rounds: interleaved rounds; 0 measures no time.
        cache: file with what an earlier run measured under the same `identity`; written at the end.
        identity: what has to be equal for that.
        progress: show a progress bar.

    Returns:
        (arm, keep_ratio) -> cost of one clip; times are of one pass over the batch.
    """
    subjects = {(arm.name, ratio): arm for arm in arms for ratio in (1.0, *keep_ratios) if arm.reaches(ratio)}
    wanted = {"identity": identity, "batch": len(clips), "rounds": rounds, "arms": {a.name: a.settings for a in arms}}
    known = _read(cache, wanted)
    if known is not None and known.keys() >= subjects.keys():
        return known
    costs, steps = {}, {}
    for (name, ratio), arm in tqdm(subjects.items(), desc="counting", disable=not progress):
        model, seen = arm.model_at(ratio).eval(), arm.clip_at(clips, ratio)
        gmacs = arm.known_gmacs(ratio)
        if gmacs is None:
            count = count_macs(model, {"pixel_values": seen[:1]})
            # a lower bound is no number to print
            gmacs = None if count.uncounted else count.gmacs
        costs[name, ratio] = Cost(gmacs=gmacs, parameters=count_parameters(model))
        if arm.is_timed:
            steps[name, ratio] = _step(model, seen)
    if rounds:
        costs |= _with_times(costs, steps, clips, rounds, progress)
    if cache is not None:
        document = [{"arm": name, "keep_ratio": ratio, "cost": asdict(cost)} for (name, ratio), cost in costs.items()]
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps({**wanted, "costs": document}) + "\n", encoding="utf-8")
    return costs


def _step(model, clips):
    def step():
        with torch.inference_mode():
            return model(clips)

    return step


def _with_times(costs, steps, clips, rounds: int, progress: bool) -> dict:
    device = clips.device
    synchronize = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
    timer = WallTimer(synchronize=synchronize)
    calls = {}
    for key, step in steps.items():
        warm_up(step, timer)
        calls[key] = max(1, round(MS_PER_VISIT / max(timer(step), 1e-3)))
    with tqdm(total=rounds, desc="timing, rounds", disable=not progress) as bar:
        times = time_interleaved(steps, timer, rounds, calls, on_round=bar.update)
    timed = {}
    for key, of_rounds in times.items():
        per_round = [statistics.median(one) for one in of_rounds]
        timed[key] = replace(
            costs[key],
            latency_ms=statistics.median(per_round),
            latency_p90_ms=percentile(per_round, 90),
            batch_size=len(clips),
            hardware=describe_hardware(device),
            dtype=str(clips.dtype).removeprefix("torch."),
            decode_included=False,
            num_threads=torch.get_num_threads() if device.type == "cpu" else None,
            execution="eager",
            num_rounds=rounds,
        )
    return timed


def _read(cache: Path | None, wanted: dict) -> dict | None:
    """What a file holds when it is about the same arms, else None."""
    try:
        document = json.loads(cache.read_text(encoding="utf-8")) if cache is not None else {}
        costs = document.pop("costs")
    except (OSError, ValueError, KeyError):
        return None
    if document != json.loads(json.dumps(wanted)):
        return None
    return {(one["arm"], one["keep_ratio"]): Cost(**one["cost"]) for one in costs}
