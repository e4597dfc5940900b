"""Peak memory of a forward pass, with nobody else in the process.

On a CPU the only honest place is a fresh process: in one that has loaded other models, memory that they gave back is used
again and the next peak looks small. Counted from the point where everything is imported and has run once, so that what is
reported is weights and activations, and the gigabyte of libraries is not.

`python -m hf_effvid.evaluation.benchmark_memory <request>` is that fresh process; `measure_peak_memory` starts it.
"""

import contextlib
import ctypes
import gc
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from .benchmark_execution import NumberType, choose_execution, execution_settings, make_step
from .benchmark_inputs import random_clips
from .benchmark_variants import BenchmarkVariant, built


_CPU = torch.device("cpu")


class MemoryNotMeasured(RuntimeError):
    """The fresh process could not be started, or did not get through; the message says why."""


def measure_peak_memory(
    variant: BenchmarkVariant,
    shape: tuple[int, int, int, int],
    batch_size: int,
    *,
    threads: int | None = None,
    timeout: float = 1800,
) -> float:
    """Peak resident memory of loading a model and classifying a batch on the CPU, in MB (1e6 bytes).

    Args:
        variant: with `dtype` filled in. A model, or a function that gives one, is sent to the other process: its class
            has to be importable there.
        shape: (T, C, H, W).
        batch_size: clips per batch.
        threads: processor threads, None for torch's choice.
        timeout: seconds after which the process is ended.

    Returns:
        Weights and activations together.

    Raises:
        MemoryNotMeasured: the model cannot be sent, or the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="effvid-memory-") as folder:
        request, answer = Path(folder, "request.pkl"), Path(folder, "answer.json")
        try:
            # the processor has no part in it, and need not be picklable
            request.write_bytes(pickle.dumps((replace(variant, processor=None), shape, batch_size, threads)))
        except Exception as error:  # pickle raises what it likes
            raise MemoryNotMeasured(
                f"{variant.name} cannot be sent to a fresh process ({type(error).__name__}: {error}). Pass a folder, or a "
                "function that is defined at the top of a module."
            ) from error
        _run_child(variant.name, [str(request), str(answer)], timeout)
        return json.loads(answer.read_text())["peak_memory_mb"]


def measure_cuda_peak_memory(model, inputs: dict, step: Callable[[], object]) -> float:
    """Peak memory of one pass on the GPU, in MB: this model's weights, its input and its activations.

    Args:
        model: on the GPU, as are other models, which do not count.
        inputs: its input.
        step: one pass over it.
    """
    own = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers(), *inputs.values()))
    torch.cuda.synchronize()
    others = torch.cuda.memory_allocated() - own
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - others) / 1e6


def _run_child(name: str, arguments: list[str], timeout: float) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired as error:
        raise MemoryNotMeasured(f"{name}: the process took more than {timeout} s.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MemoryNotMeasured(f"{name}: the process failed with {reason}")


def peak_of(request: Callable[[], tuple]) -> float:
    """The measurement itself, in this process: MB between the state without the model and the peak of its passes.

    Args:
        request: gives `(variant, shape, batch_size, threads)` anew at every call; a model in it is loaded by the call.
    """
    # once for nothing: importing the model's code, starting threads and building workspaces is not what is measured
    _passes(*request(), lambda: None)
    gc.collect()
    _give_back_freed_memory()
    before = resident_bytes()
    _passes(*request(), _reset_peak)
    return (peak_resident_bytes() - before) / 1e6


def _passes(variant: BenchmarkVariant, shape, batch_size: int, threads: int | None, when_loaded: Callable) -> None:
    number_type = NumberType.parse(variant.dtype or "float32")
    execution = choose_execution("cpu", variant.compile, None)
    if isinstance(variant.model, torch.nn.Module):
        # here it belongs to nobody else: it is cast as it is, where a copy would count twice
        variant = replace(variant, model=partial(_identity, variant.model))
    with execution_settings(threads, variant.compile is not None), built(variant, number_type, _CPU) as model:
        inputs = random_clips(model, shape, batch_size, number_type.weights, _CPU)
        step, _, _ = make_step(model, inputs, number_type, execution)
        step()
        _give_back_freed_memory()  # what loading and compiling needed for a moment
        when_loaded()
        step()
        step()


def _identity(value):
    return value


def resident_bytes() -> int:
    """Resident memory of this process now."""
    status = _proc_status()
    return status["VmRSS"] if "VmRSS" in status else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most this process ever had resident, or since the peak was reset."""
    status = _proc_status()
    if "VmHWM" in status:
        return status["VmHWM"]
    # kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _proc_status() -> dict[str, int]:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
    return {}


def _reset_peak() -> None:
    """Lets the peak begin at the present; where the system cannot do that, the peak includes loading."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _give_back_freed_memory() -> None:
    """Loading frees much that the C library keeps for later; it would hide that much of the passes."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def main(arguments: list[str]) -> None:
    """Entry of the fresh process: reads the request, writes the answer."""
    request, answer = map(Path, arguments)

    def read():
        # written a moment ago, by the process that started this one, into a folder of its own
        with request.open("rb") as file:
            return pickle.load(file)

    answer.write_text(json.dumps({"peak_memory_mb": peak_of(read)}))


if __name__ == "__main__":
    main(sys.argv[1:])
