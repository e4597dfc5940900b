"""How fast Video-FocalNet is on a GPU, beside what the GPU could do.

    python -m tests.literal.gpu_speed --sizes tiny --batch-sizes 1,8 --compile default --results gpu.json

Paired rounds in bfloat16 of the literal network (one operation after the other, in eager mode: the baseline), of ours with the
composite and with the Triton kernels, eager, as CUDA graphs and compiled. All have the same weights; how far each is from the
literal network in float32 is printed. Two ceilings are measured first, a copy and a matrix product; from them follow, as
calculated limits, the time of the multiplications alone and that of the bytes which the literal network moves operation by operation.
"""

import argparse
import statistics

import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_effvid import VideoFocalNetForVideoClassification
from hf_effvid.convert import CONVERTERS
from hf_effvid.evaluation.benchmark_execution import (
    NumberType,
    execution_settings,
    make_step,
    make_timer,
    resolve_device,
)
from hf_effvid.evaluation.benchmark_measuring import with_speedups
from hf_effvid.evaluation.benchmark_report import BenchmarkReport, Measurement
from hf_effvid.evaluation.benchmark_timing import percentile, time_interleaved, warm_up
from hf_effvid.evaluation.macs import count_macs, count_parameters
from hf_effvid.evaluation.provenance import current_provenance
from hf_effvid.evaluation.results import add_results
from hf_effvid.models.focal_ops import set_focal_implementation

from .video_focalnet import LiteralVideoFocalNet


SIZES = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2]},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2]},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2]},
}
CLIP_SHAPE = (8, 3, 224, 224)
BASELINE = "literal"
DTYPE = "bfloat16"


# a view that is not called one, and memory that nobody writes yet
_MOVE_NOTHING = ("_unsafe_view", "empty", "empty_like", "new_empty", "empty_strided")


class CountBytes(TorchDispatchMode):
    """Bytes that operators read and write when each of them goes to memory; views move nothing."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.overloadpacket.__name__ not in _MOVE_NOTHING:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def traffic(arguments, shape=CLIP_SHAPE, dtype=torch.bfloat16):
    """Bytes per clip of the literal network, operation by operation, weights included."""
    with torch.device("meta"):
        model, clips = (
            LiteralVideoFocalNet(num_classes=400, **arguments).to(dtype),
            torch.empty(1, *shape, dtype=dtype),
        )
    with torch.no_grad(), CountBytes() as counter:
        model(clips)
    return counter.total


def ceilings(device, copied=2**31, width=8192):
    """`(bytes per second of a copy, read and written; bfloat16 operations per second of a matrix product)`, on random data."""
    timer = make_timer(device)
    source = torch.randint(255, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matrices = [torch.randn(width, width, device=device).to(torch.bfloat16) for _ in range(2)]
    rates = []
    for step, amount in (
        (lambda: target.copy_(source), 2 * copied),
        (lambda: matrices[0] @ matrices[1], 2 * width**3),
    ):
        for _ in range(3):
            step()
        rates.append(amount / (statistics.median(timer(step) for _ in range(10)) / 1e3))
    return rates


def make_models(arguments, device):
    """The literal network in float32 and in bfloat16, and ours in bfloat16, with the same weights."""
    torch.manual_seed(0)
    exact = LiteralVideoFocalNet(num_classes=400, **arguments).eval()
    build_config, convert_state_dict = CONVERTERS["video_focalnet"]
    ours = VideoFocalNetForVideoClassification(build_config({"num_classes": 400, **arguments})).eval()
    ours.load_state_dict(convert_state_dict(exact.state_dict()))
    literal = LiteralVideoFocalNet(num_classes=400, **arguments).eval()
    literal.load_state_dict(exact.state_dict())
    return exact.to(device), literal.to(device, torch.bfloat16), ours.to(device, torch.bfloat16)


def forms(device_type, compile_mode):
    """Name -> (ours?, implementation of focal modulation, execution); the baseline first."""
    executions = ["eager"] + (["cuda graph"] if device_type == "cuda" else [])
    executions += [f"compile:{compile_mode}"] if compile_mode else []
    found = {BASELINE if how == "eager" else f"{BASELINE}, {how}": (False, "composite", how) for how in executions}
    for name in ("composite", "triton"):
        found |= {f"{name}, {how}": (True, name, how) for how in executions}
    return found


def measure(size, batch_size, device, rounds, compile_mode, shape=CLIP_SHAPE):
    """Measurements of every form of one size at one batch size, and notes about them."""
    exact, literal, ours = make_models(SIZES[size], device)
    clips = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        expected = exact(clips[:1]).double()
    inputs, number_type = {"pixel_values": clips.to(torch.bfloat16)}, NumberType.parse(DTYPE)
    steps, executions, notes = {}, {}, []
    for name, (is_ours, implementation, execution) in forms(device.type, compile_mode).items():
        model, label = ours if is_ours else literal, f"{size} {name}"
        set_focal_implementation(implementation)
        with torch.no_grad():
            output = model(inputs["pixel_values"][:1])
        logits = output.logits if is_ours else output
        error = ((logits.double() - expected).norm() / expected.norm()).item()
        run, executions[label], note = make_step(model, inputs, number_type, execution)
        notes += [f"{label}: logits differ from the literal network in float32 by {error:.1e}"] * (
            execution == "eager"
        )
        notes += [f"{label}: {note}"] * bool(note)

        def step(run=run, implementation=implementation):
            set_focal_implementation(implementation)  # what is compiled asks for it at every call
            run()

        steps[label] = step
    timer = make_timer(device)
    calls = {label: warm_up(step, timer, calls=5) for label, step in steps.items()}
    times = time_interleaved(steps, timer, rounds, calls)
    set_focal_implementation()
    gmacs = count_macs(ours, {"pixel_values": inputs["pixel_values"][:1]}).gmacs
    measurements = []
    for label, visits in times.items():
        every_call = [milliseconds for visit in visits for milliseconds in visit]
        median = statistics.median(every_call)
        measurements.append(
            Measurement(
                name=label,
                batch_size=batch_size,
                dtype=DTYPE,
                execution=executions[label],
                clip_shape=shape,
                parameters=count_parameters(ours),
                gmacs=gmacs,
                latency_ms=median,
                latency_p90_ms=percentile(every_call, 90),
                throughput_clips_per_s=batch_size / median * 1e3,
                times_ms=tuple(map(tuple, visits)),
            )
        )
    return with_speedups(measurements, f"{size} {BASELINE}"), notes


def limits(size, gmacs, copy_rate, product_rate, shape=CLIP_SHAPE):
    """In words, what the measured ceilings allow."""
    moved = traffic(SIZES[size], shape)
    return (
        f"{size}: {gmacs:.1f} GMACs and {moved / 1e9:.2f} GB per clip of the literal network; calculated limits at "
        f"{product_rate / 1e12:.0f} TFLOP/s and {copy_rate / 1e12:.2f} TB/s: {product_rate / (2e9 * gmacs):.0f} clips/s by "
        f"multiplications alone, {copy_rate / moved:.0f} clips/s operation by operation"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="tiny", help="of tiny, small, base")
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", help="mode of torch.compile to measure as well")
    parser.add_argument("--device", help="default: the GPU")
    parser.add_argument("--results", help="results file (JSON) to write or extend")
    options = parser.parse_args(arguments)
    device, console = resolve_device(options.device), Console(width=160)
    with execution_settings(None, options.compile is not None, device):
        copy_rate, product_rate = ceilings(device) if device.type == "cuda" else ceilings(device, 2**24, 512)
        for size in options.sizes.split(","):
            for batch_size in map(int, options.batch_sizes.split(",")):
                measurements, notes = measure(size, batch_size, device, options.rounds, options.compile)
                report = BenchmarkReport(
                    measurements=tuple(measurements),
                    provenance=current_provenance(None, seed=0, dtype=DTYPE, device=device, decode_included=False),
                    num_threads=torch.get_num_threads(),
                    baseline=f"{size} {BASELINE}",
                    notes=(limits(size, measurements[0].gmacs, copy_rate, product_rate), *notes),
                )
                console.print(report.to_table())
                if options.results:
                    add_results(options.results, report.to_result_entries())


if __name__ == "__main__":
    main()
