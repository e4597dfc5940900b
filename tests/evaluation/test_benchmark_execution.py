"""How a model is run: number types, compiler, CUDA graphs; what needs a GPU is behind the marker, the choice is not."""

import contextlib
import gc
import time
import weakref

import pytest
import torch
from torch import nn

from hf_effvid.evaluation import benchmark_execution
from hf_effvid.evaluation.benchmark import BenchmarkVariant, benchmark
from hf_effvid.evaluation.benchmark_execution import (
    BenchmarkError,
    CudaEventTimer,
    NumberType,
    capture_cuda_graph,
    choose_execution,
    execution_settings,
    make_step,
    make_timer,
    resolve_device,
)
from hf_effvid.evaluation.benchmark_memory import measure_cuda_peak_memory
from hf_effvid.evaluation.benchmark_timing import WallTimer


@pytest.mark.parametrize(
    ("given", "name", "weights", "autocast"),
    [
        ("float32", "float32", torch.float32, None),
        ("fp32", "float32", torch.float32, None),
        ("bf16", "bfloat16", torch.bfloat16, None),
        ("float16", "float16", torch.float16, None),
        ("bfloat16-autocast", "bfloat16-autocast", torch.float32, torch.bfloat16),
        ("fp16-autocast", "float16-autocast", torch.float32, torch.float16),
    ],
)
def test_number_types(given, name, weights, autocast):
    assert NumberType.parse(given) == NumberType(name, weights, autocast)


@pytest.mark.parametrize("given", ["int8", "float32-autocast", "", "bf17"])
def test_unknown_number_types_are_refused(given):
    with pytest.raises(BenchmarkError, match="unknown dtype"):
        NumberType.parse(given)


@pytest.mark.parametrize(
    ("device", "compile_mode", "cuda_graph", "expected"),
    [
        ("cpu", None, None, "eager"),
        ("cpu", None, False, "eager"),
        ("cpu", "default", None, "compile:default"),
        ("cuda", None, None, "cuda graph"),
        ("cuda", None, True, "cuda graph"),
        ("cuda", None, False, "eager"),
        ("cuda", "reduce-overhead", None, "compile:reduce-overhead"),
        ("mps", None, None, "eager"),
    ],
)
def test_choice_of_execution(device, compile_mode, cuda_graph, expected):
    assert choose_execution(device, compile_mode, cuda_graph) == expected


@pytest.mark.parametrize(
    ("device", "compile_mode", "cuda_graph", "message"),
    [
        ("cpu", "fastest", None, "unknown compile mode 'fastest'"),
        ("cpu", None, True, "needs a CUDA device, got 'cpu'"),
        ("cuda", "default", True, "does not go with compile"),
    ],
)
def test_contradictions_are_refused(device, compile_mode, cuda_graph, message):
    with pytest.raises(BenchmarkError, match=message):
        choose_execution(device, compile_mode, cuda_graph)


@pytest.mark.parametrize(
    ("dtype", "output"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("bfloat16-autocast", torch.bfloat16)],
)
def test_a_step_computes_in_the_type_it_names(dtype, output):
    number_type = NumberType.parse(dtype)
    model = nn.Linear(4, 2).to(number_type.weights)
    step, execution, note = make_step(
        model, {"input": torch.zeros(1, 4, dtype=number_type.weights)}, number_type, "eager"
    )
    result = step()
    assert result.dtype == output and result.is_inference()
    assert (execution, note) == ("eager", None)


def test_a_model_that_no_graph_can_hold_runs_eagerly_and_says_so(monkeypatch):
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(benchmark_execution, "capture_cuda_graph", refuse)
    step, execution, note = make_step(
        nn.Linear(4, 2), {"input": torch.zeros(1, 4)}, NumberType.parse("float32"), "cuda graph"
    )
    assert execution == "eager" and step().shape == (1, 2)
    assert note == "no CUDA graph, run eagerly: operation not permitted when stream is capturing"


class FakeCuda:
    """Streams, events and graphs of a machine without a GPU: notes what is done to them, in order."""

    def __init__(self, monkeypatch, fault=None):
        self.log, self.fault, self.now = [], fault, 0.0
        self.main = self.current = self.Stream(self, "main")
        for name in ("current_stream", "set_stream", "stream", "graph", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.Stream(self, "side"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self.Graph(self))
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self.Event(self, enable_timing))

    class Stream:
        def __init__(self, cuda, name):
            self.cuda, self.name = cuda, name

        def wait_stream(self, other):
            self.cuda.log.append(f"{self.name} waits for {other.name}")

    class Graph:
        def __init__(self, cuda):
            self.cuda = cuda

        def replay(self):
            self.cuda.log.append("replay")

    class Event:
        def __init__(self, cuda, enable_timing):
            assert enable_timing
            self.cuda = cuda

        def record(self):
            self.time = self.cuda.now
            self.cuda.log.append("record")

        def synchronize(self):
            self.cuda.log.append("wait for event")

        def elapsed_time(self, end):
            return end.time - self.time

    def current_stream(self):
        return self.current

    def set_stream(self, stream):
        self.current = stream

    def synchronize(self):
        self.log.append("synchronize")

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph):
        self.current = self.Stream(self, "capture")
        self.log.append("capture")
        yield
        if self.fault:  # as when ending an invalid capture fails: the stream stays
            raise RuntimeError(self.fault)
        self.current = self.main


def test_a_graph_is_recorded_after_warming_up_on_a_side_stream(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    replay = capture_cuda_graph(lambda: cuda.log.append(f"step on {cuda.current.name}"))
    assert cuda.log == [
        "side waits for main",
        *["step on side"] * 3,
        "main waits for side",
        "capture",
        "step on capture",
    ]
    cuda.log.clear()
    replay()
    assert cuda.log == ["replay"] and cuda.current is cuda.main


def test_what_a_graph_reads_lives_as_long_as_the_graph(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    inputs = {"input": torch.zeros(1, 4)}
    alive = weakref.ref(inputs["input"])
    step, execution, note = make_step(nn.Linear(4, 2), inputs, NumberType.parse("float32"), "cuda graph")
    assert (execution, note) == ("cuda graph", None)
    del inputs
    gc.collect()
    assert alive() is not None
    step()
    assert cuda.log[-1] == "replay"
    del step
    gc.collect()
    assert alive() is None


def test_a_capture_that_fails_leaves_the_stream_as_it_was(monkeypatch):
    cuda = FakeCuda(monkeypatch, fault="operation not permitted when stream is capturing")
    inputs = {"input": torch.zeros(1, 4)}
    step, execution, note = make_step(nn.Linear(4, 2), inputs, NumberType.parse("float32"), "cuda graph")
    assert execution == "eager" and note.startswith("no CUDA graph, run eagerly: operation not permitted")
    assert cuda.current is cuda.main and step().shape == (1, 2)


def test_events_enclose_the_step_and_the_device_is_idle_before(monkeypatch):
    cuda = FakeCuda(monkeypatch)

    def step():
        cuda.log.append("step")
        cuda.now += 2.5

    assert CudaEventTimer()(step) == 2.5
    assert cuda.log == ["synchronize", "record", "step", "record", "wait for event"]


def test_compiled_models_on_a_gpu_are_timed_after_their_graphs_are_recorded(monkeypatch):
    log = []

    class OnAGpu:
        device = torch.device("cuda", 0)

    monkeypatch.setattr(torch, "compile", lambda model, mode, dynamic: log.append((mode, dynamic)) or model)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: log.append("begin"))
    step, execution, note = make_step(
        lambda x: log.append("pass"), {"x": OnAGpu()}, NumberType.parse("float32"), "compile:reduce-overhead"
    )
    assert (execution, note) == ("compile:reduce-overhead", None)
    assert log == [("reduce-overhead", False), *["begin", "pass"] * 3]
    step()
    assert log[-2:] == ["begin", "pass"]


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_clocks():
    assert isinstance(make_timer(torch.device("cpu")), WallTimer)
    assert isinstance(make_timer(torch.device("cuda")), CudaEventTimer)
    assert make_timer(torch.device("cpu"), "processor")(lambda: time.sleep(0.05)) < 25, "waiting is not computing"
    for clock, device, message in (("sun", "cpu", "one of wall, processor"), ("processor", "cuda", "does not see")):
        with pytest.raises(BenchmarkError, match=message):
            make_timer(torch.device(device), clock)


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with execution_settings(before + 1, compiling=False):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(BenchmarkError, match="threads must be a positive number, got 0"):
        with execution_settings(0, compiling=False):
            pass


def test_the_compiler_may_not_give_up_silently():
    before = torch._dynamo.config.recompile_limit
    with execution_settings(None, compiling=True):
        assert torch._dynamo.config.recompile_limit > 1000
        assert torch._dynamo.config.fail_on_recompile_limit_hit
    assert torch._dynamo.config.recompile_limit == before


@pytest.mark.slow
def test_more_shapes_than_the_compiler_would_keep():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU()).eval()
    with execution_settings(1, compiling=True):
        for batch in range(1, 11):
            inputs = {"input": torch.randn(batch, 4)}
            step, execution, _ = make_step(model, inputs, NumberType.parse("float32"), "compile:default")
            with torch.no_grad():
                torch.testing.assert_close(step(), model(**inputs))
            assert execution == "compile:default"
    torch.compiler.reset()


@pytest.mark.gpu
def test_memory_that_a_graph_reads_is_not_given_to_others():
    model = nn.Linear(1024, 1024).cuda().eval()
    outputs = []
    model.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    inputs = {"input": torch.randn(1024, 1024, device="cuda")}
    expected = model(**inputs).detach().clone()
    step, execution, _ = make_step(model, inputs, NumberType.parse("float32"), "cuda graph")
    recorded = outputs[-1]
    del inputs
    gc.collect()
    others = [torch.full((1024, 1024), float("nan"), device="cuda") for _ in range(8)]
    step()
    torch.cuda.synchronize()
    assert execution == "cuda graph" and len(others) == 8
    torch.testing.assert_close(recorded, expected)


@pytest.mark.gpu
def test_a_model_that_looks_at_a_value_runs_eagerly_and_the_device_still_works():
    class Looking(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum().item() > 0 else x

    inputs = {"x": torch.ones(4, device="cuda")}
    before = torch.cuda.current_stream()
    step, execution, note = make_step(Looking(), inputs, NumberType.parse("float32"), "cuda graph")
    assert execution == "eager" and note.startswith("no CUDA graph")
    assert torch.cuda.current_stream() == before
    torch.testing.assert_close(step().clone(), inputs["x"] * 2)


@pytest.mark.gpu
def test_compiled_graphs_of_two_models_take_turns():
    models = [nn.Sequential(nn.Linear(64, 64), nn.GELU()).cuda().eval() for _ in range(2)]
    inputs = {"input": torch.randn(8, 64, device="cuda")}
    with execution_settings(None, compiling=True):
        steps = [make_step(m, inputs, NumberType.parse("float32"), "compile:reduce-overhead")[0] for m in models]
        for _ in range(4):
            for model, step in zip(models, steps, strict=True):
                with torch.no_grad():
                    torch.testing.assert_close(step().clone(), model(**inputs), rtol=1e-3, atol=1e-3)
    torch.compiler.reset()


@pytest.mark.gpu
def test_a_replayed_graph_computes_the_same():
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU()).cuda().eval()
    inputs = {"input": torch.randn(8, 64, device="cuda")}
    outputs = []

    def step():
        with torch.inference_mode():
            outputs[:] = [model(**inputs)]

    replay = capture_cuda_graph(step)
    with torch.no_grad():
        inputs["input"].normal_()
        replay()
        torch.testing.assert_close(outputs[0], model(**inputs))


@pytest.mark.gpu
def test_a_benchmark_on_the_gpu():
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU())
    variants = [
        BenchmarkVariant("graph", model, clip_shape=(1, 1, 8, 64)),
        BenchmarkVariant("half", model, dtype="bfloat16", clip_shape=(1, 1, 8, 64)),
        BenchmarkVariant("compiled", model, compile="default", clip_shape=(1, 1, 8, 64)),
    ]
    # a plain module takes its input by another name than a video model
    for variant in variants:
        variant.model.main_input_name = "input"
    report = benchmark(variants, batch_sizes=(1, 4), rounds=3, device="cuda", stages=False, progress=False)
    assert [m.execution for m in report.measurements] == ["cuda graph", "cuda graph", "compile:default"] * 2
    assert all(m.peak_memory_mb > 0 and m.latency_ms > 0 for m in report.measurements)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.gpu
def test_events_time_what_the_device_does():
    matrix = torch.randn(8192, 8192, device="cuda")
    timer = make_timer(torch.device("cuda"))
    timer(lambda: matrix @ matrix)
    one, ten = timer(lambda: matrix @ matrix), timer(lambda: [matrix @ matrix for _ in range(10)])
    assert 0 < one < ten


@pytest.mark.gpu
def test_peak_memory_of_one_model_among_others():
    class Hungry(nn.Module):
        def forward(self, x):
            return torch.ones(50_000_000, device=x.device).sum() + x

    gc.collect()
    neighbour = torch.zeros(100_000_000, device="cuda")
    inputs = {"x": torch.zeros(1, device="cuda")}
    model = Hungry()
    peak = measure_cuda_peak_memory(model, inputs, lambda: model(**inputs))
    assert 200 <= peak < 215
    assert neighbour.numel() == 100_000_000
