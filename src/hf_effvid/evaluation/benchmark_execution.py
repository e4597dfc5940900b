"""How a model is run while it is timed: number type, compiler, CUDA graph, and the clock that goes with the device."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .benchmark_timing import WallTimer


COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

CLOCKS = ("wall", "processor")

_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
_AUTOCAST = "-autocast"
_CPU = torch.device("cpu")
# on a GPU: the first compiles, the second runs what was compiled, the third records that in a graph where the mode has graphs
_CALLS_UNTIL_COMPILED = 3


class BenchmarkError(ValueError):
    """The benchmark cannot be run as asked; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class NumberType:
    """Type of the weights, and of the arithmetic where that differs.

    Attributes:
        name: as recorded: `"float32"`, `"bfloat16"` (weights are cast), `"bfloat16-autocast"` (weights stay float32).
        weights: type of weights and inputs.
        autocast: type that `torch.autocast` computes in, None without.
    """

    name: str
    weights: torch.dtype
    autocast: torch.dtype | None = None

    @classmethod
    def parse(cls, name: str) -> "NumberType":
        """Reads `"float32"`, `"bf16"`, `"bfloat16-autocast"`, ...

        Raises:
            BenchmarkError: no such type.
        """
        base, autocast = str(name).removesuffix(_AUTOCAST), str(name).endswith(_AUTOCAST)
        base = _SHORT_DTYPES.get(base, base)
        if base not in _DTYPES or (autocast and base in ("float32", "float64")):
            raise BenchmarkError(
                f"unknown dtype {name!r}: expected one of {', '.join(_DTYPES)}, or bfloat16-autocast / float16-autocast "
                "for float32 weights with arithmetic in half precision."
            )
        if autocast:
            return cls(base + _AUTOCAST, torch.float32, _DTYPES[base])
        return cls(base, _DTYPES[base])


def resolve_device(device=None) -> torch.device:
    """The device asked for, with its number; by default the current GPU where there is one, else the processor."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and device.index is None:
        # weights know their number, and "cuda" does not equal "cuda:0"
        return torch.device("cuda", torch.cuda.current_device())
    return device


def choose_execution(device_type: str, compile_mode: str | None, cuda_graph: bool | None) -> str:
    """Name of the way a model is run.

    Args:
        device_type: `"cpu"`, `"cuda"`, ...
        compile_mode: a mode of `torch.compile`, None to run eagerly.
        cuda_graph: record the pass once and replay it; None means yes on CUDA when nothing is compiled (small batches are
            otherwise bound by launching kernels), no elsewhere.

    Returns:
        `"eager"`, `"compile:<mode>"` or `"cuda graph"`.

    Raises:
        BenchmarkError: unknown mode, or the two contradict each other or the device.
    """
    if compile_mode is not None and compile_mode not in COMPILE_MODES:
        raise BenchmarkError(f"unknown compile mode {compile_mode!r}: expected one of {', '.join(COMPILE_MODES)}.")
    if cuda_graph and device_type != "cuda":
        raise BenchmarkError(f"cuda_graph=True needs a CUDA device, got {device_type!r}.")
    if cuda_graph and compile_mode is not None:
        raise BenchmarkError(
            f'cuda_graph=True does not go with compile={compile_mode!r}: compile="reduce-overhead" uses graphs itself.'
        )
    if compile_mode is not None:
        return f"compile:{compile_mode}"
    use_graph = device_type == "cuda" if cuda_graph is None else cuda_graph
    return "cuda graph" if use_graph else "eager"


def make_step(
    model, inputs: Mapping[str, torch.Tensor], number_type: NumberType, execution: str
) -> tuple[Callable[[], object], str, str | None]:
    """A function without arguments that makes one forward pass over `inputs`.

    Args:
        model: on its device, in evaluation mode, weights in `number_type.weights`.
        inputs: keyword arguments, on the same device.
        number_type: decides about autocast.
        execution: what `choose_execution` gave.

    Returns:
        `(step, execution, note)`: the way it is really run, and why where that differs from what was asked (a model that
        cannot be recorded in a graph runs eagerly).
    """
    device_type = next(iter(inputs.values())).device.type
    compiling = execution.startswith("compile:")
    if compiling:
        model = torch.compile(model, mode=execution.split(":", 1)[1], dynamic=False)
    # the compiler's graphs of several models otherwise take turns for one long pass, and are recorded again and again
    begin = torch.compiler.cudagraph_mark_step_begin if compiling and device_type == "cuda" else _nothing

    def step():
        begin()
        with torch.inference_mode(), _autocast(device_type, number_type):
            return model(**inputs)

    if compiling and device_type == "cuda":
        for _ in range(_CALLS_UNTIL_COMPILED):
            step()
    if execution != "cuda graph":
        return step, execution, None
    try:
        return capture_cuda_graph(step), execution, None
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:160]
        return step, "eager", f"no CUDA graph, run eagerly: {reason}"


def _nothing():
    pass


def _autocast(device_type: str, number_type: NumberType):
    if number_type.autocast is None:
        return contextlib.nullcontext()
    # the cache of cast weights would be filled in every pass anyway, and must not outlive a captured graph
    return torch.autocast(device_type, dtype=number_type.autocast, cache_enabled=False)


def capture_cuda_graph(step: Callable[[], object]) -> "CudaGraphReplay":
    """Records the kernels of `step` once; what is returned replays them on the same memory.

    Raises:
        RuntimeError: the step does what a graph cannot hold, such as looking at a value. The current stream is then what it
            was before.
    """
    before = torch.cuda.current_stream()
    # a side stream, as capturing requires: libraries choose their kernels and take their workspaces before it
    stream = torch.cuda.Stream()
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    before.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except BaseException:
        # a capture that fails leaves its own stream behind as the current one in some releases of torch
        torch.cuda.set_stream(before)
        raise
    return CudaGraphReplay(graph, step)


@dataclass(frozen=True)
class CudaGraphReplay:
    """A recorded pass.

    Attributes:
        graph: the recording.
        step: what was recorded. Its inputs are memory that the graph reads and does not own: they live as long as this.
    """

    graph: object
    step: Callable[[], object]

    def __call__(self) -> None:
        self.graph.replay()


class CudaEventTimer:
    """Times one call by two events on the device: the clock of the GPU, without the way there and back."""

    def __call__(self, step: Callable[[], object]) -> float:
        """Milliseconds of `step()`."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def make_timer(device: torch.device, clock: str = "wall") -> Callable[[Callable[[], object]], float]:
    """The clock that goes with a device.

    Args:
        device: where the model runs.
        clock: `"wall"`, or `"processor"`: seconds that this process computed, which hold on a machine that others use too.

    Raises:
        BenchmarkError: unknown clock, or one that cannot see the device.
    """
    check_clock(clock, device)
    if device.type == "cuda":
        return CudaEventTimer()
    if clock == "processor":
        return WallTimer(clock=time.process_time)
    module = getattr(torch, device.type, None)
    return WallTimer(synchronize=getattr(module, "synchronize", None) if device.type != "cpu" else None)


def check_clock(clock: str, device: torch.device, threads: int | None = 1) -> None:
    """Refuses a clock that would not tell the time of this device with so many threads.

    Raises:
        BenchmarkError: unknown clock; or processor time of an accelerator, or of several threads, whose waiting would count.
    """
    if clock not in CLOCKS:
        raise BenchmarkError(f"clock must be one of {', '.join(CLOCKS)}, got {clock!r}.")
    if clock == "processor" and device.type != "cpu":
        raise BenchmarkError(f'clock="processor" does not see what {device.type} computes: leave it at "wall".')
    if clock == "processor" and threads != 1:
        raise BenchmarkError(
            f'clock="processor" would count threads that wait for each other: pass threads=1, got {threads}.'
        )


@contextlib.contextmanager
def execution_settings(threads: int | None, compiling: bool, device: torch.device = _CPU):
    """Threads as asked, `device` the current one, no limit on variants of what is compiled; as before afterwards.

    `torch.compile` otherwise gives up silently, and runs eagerly, after eight shapes or models that share a function.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise BenchmarkError(f"threads must be a positive number, got {threads!r}.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    current = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    try:
        with current, _many_compiled_variants() if compiling else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


def _many_compiled_variants():
    config = torch._dynamo.config
    settings = {"recompile_limit": 4096, "accumulated_recompile_limit": 65536, "fail_on_recompile_limit_hit": True}
    return config.patch(**{name: value for name, value in settings.items() if hasattr(config, name)})
