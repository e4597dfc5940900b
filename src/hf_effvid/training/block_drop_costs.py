"""What a compressed model costs beside the uncompressed one: parameters, multiply-accumulates, and milliseconds in turns."""

import statistics
from collections.abc import Callable, Mapping

import torch

from ..evaluation.benchmark_execution import make_timer
from ..evaluation.benchmark_timing import paired_ratio, time_interleaved, warm_up
from ..evaluation.macs import MacsError, count_macs, count_parameters
from ..evaluation.opening import evaluation_mode


def arithmetic(model, example) -> dict:
    """`parameters` and `gmacs` of one input; the latter None when not every operator can be counted.

    Args:
        model: the model.
        example: keyword arguments of one input.
    """
    found = {"parameters": count_parameters(model), "gmacs": None}
    if getattr(model.config, "budget_policy", None):
        return found  # clips have budgets of their own (LITE++): one clip's count would not be that of another
    try:
        count = count_macs(model, example)
    except MacsError:
        return found
    return found if count.uncounted else found | {"gmacs": count.gmacs or None}


def times_beside(uncompressed, model, example, rounds: int) -> dict:
    """Milliseconds of one input, and how many times faster that is than the uncompressed model.

    The two take turns, so that the ratio holds where others use the machine too.

    Args:
        uncompressed: on its device; the model itself for its own milliseconds.
        model: on the same.
        example: keyword arguments of one input, there too.
        rounds: of both; 0 measures nothing.

    Returns:
        `milliseconds`, `speedup` and `speedup_interval`; nothing of the latter two for the uncompressed model itself.
    """
    if not rounds:
        return {}
    with evaluation_mode(uncompressed, uncompressed.device), evaluation_mode(model, model.device):
        steps = {"uncompressed": pass_over(uncompressed, example)}
        if model is not uncompressed:
            steps["model"] = pass_over(model, example)
        times = interleaved(steps, rounds, model.device)
    own = times["model"] if "model" in times else times["uncompressed"]
    found = {"milliseconds": statistics.median(ms for visit in own for ms in visit)}
    if "model" in times:
        ratio = paired_ratio(times["uncompressed"], own)
        found |= {"speedup": ratio.median, "speedup_interval": ratio.interval}
    return found


def interleaved(steps: Mapping[str, Callable[[], object]], rounds: int, device) -> dict[str, list[list[float]]]:
    """Milliseconds of every call of every step, which take turns; see `time_interleaved`."""
    timer = make_timer(torch.device(device))
    calls = {name: warm_up(step, timer) for name, step in steps.items()}
    return time_interleaved(steps, timer, rounds, calls)


def pass_over(model, example) -> Callable[[], object]:
    """One forward pass over an input, as a function without arguments."""

    def step():
        with torch.inference_mode():
            return model(**example)

    return step
