# /// script
# dependencies = ["hf_effvid"]
# ///
"""How much faster are our ways to compute Video-FocalNet than the network written one operation after the other?

    python examples/bench_focal_paths.py --threads 2 --results model_cards/results/focal-paths.json
    python examples/bench_focal_paths.py --sizes tiny --variants composite fast --rounds 5 --train-rounds 0

Run it from a checkout: the literal network is tests/literal/video_focalnet.py. Batch 1, 8 x 224 x 224, random weights, the same for all. All
variants take turns (literal, composite, fast, literal, ...), so that ratios hold on a machine that is not quiet; their intervals are
order statistics over rounds. `fast` is what a user gets without asking; the recorded GEMM probe says what it rests on. Peak memory is that of
a fresh process each. A training step is forward, loss, backward; stochastic depth is off, since the literal network has none.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hf_effvid import benchmark
from hf_effvid.evaluation.benchmark_execution import execution_settings
from hf_effvid.evaluation.benchmark_report import BENCHMARK_DATASET, BENCHMARK_SPLIT
from hf_effvid.evaluation.benchmark_timing import WallTimer, paired_ratio, percentile, time_interleaved, warm_up
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.evaluation.results import Cost, ResultEntry, add_results, current_provenance
from hf_effvid.models import gemm_probe
from hf_effvid.models.focal_ops import focal_implementation
from tests.literal.variants import NUM_CLASSES, make_literal, make_ours


# name -> (implementation, number type, compile mode); the literal network is always there
VARIANTS = {
    "literal-bf16-autocast": (None, "bfloat16-autocast", None),
    "composite": ("composite", "float32", None),
    "channels_last": ("channels_last", "float32", None),
    "fast": ("auto", "float32", None),
    "composite-bf16": ("composite", "bfloat16", None),
    "fast-bf16": ("auto", "bfloat16", None),
    "fast-bf16-autocast": ("auto", "bfloat16-autocast", None),
    "compiled": ("plain", "float32", "default"),
}
# name -> (implementation, autocast)
TRAINING = {"composite": ("composite", False), "fast": ("auto", False), "fast-bf16-autocast": ("auto", True)}


def variants_of(preset: str, names: list[str], shape: tuple) -> list[BenchmarkVariant]:
    chosen = [BenchmarkVariant(f"video-focalnet-{preset}, literal", partial(make_literal, preset), clip_shape=shape)]
    for name in names:
        implementation, dtype, mode = VARIANTS[name]
        make = partial(make_ours, preset, None if implementation == "plain" else implementation)
        make = partial(make_literal, preset) if implementation is None else make
        chosen.append(
            BenchmarkVariant(f"video-focalnet-{preset}, {name}", make, dtype=dtype, compile=mode, clip_shape=shape)
        )
    return chosen


def differences(preset: str, shape: tuple) -> str:
    """How far the logits of each implementation lie from those of the literal network, in words."""
    clips = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    literal, ours, found = make_literal(preset), make_ours(preset), []
    with torch.inference_mode():
        reference = literal(clips)
        for name in ("composite", "auto"):
            with focal_implementation(name):
                found.append(f"{name} {(ours(clips).logits - reference).abs().max().item():.1e}")
    largest = reference.abs().max().item()
    return f"largest float32 difference from the literal logits (of up to {largest:.2f}): {', '.join(found)}"


def training_entries(preset: str, shape: tuple, rounds: int, threads: int, notes: tuple, command: str | None) -> list:
    """Times training steps in turns, prints them, and gives one entry for each."""
    literal, ours = make_literal(preset).train(), make_ours(preset).train()
    clips = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([7 % NUM_CLASSES])

    def step(model, implementation, autocast):
        with focal_implementation(implementation):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = model(clips)
                logits = logits if torch.is_tensor(logits) else logits.logits
            F.cross_entropy(logits.float(), labels).backward()
        model.zero_grad()

    steps = {"literal": partial(step, literal, "auto", False)}
    steps |= {name: partial(step, ours, *options) for name, options in TRAINING.items()}
    timer = WallTimer()
    calls = {name: warm_up(function, timer) for name, function in steps.items()}
    times = time_interleaved(steps, timer, rounds, calls)
    provenance = current_provenance(command, seed=0, dtype="float32", decode_included=False)
    entries = []
    for name, visits in times.items():
        every, ratio = [ms for visit in visits for ms in visit], paired_ratio(times["literal"], visits)
        compared = {} if name == "literal" else {
            "baseline": f"video-focalnet-{preset}, literal",
            "speedup": float(f"{ratio.median:.5g}"),
            "speedup_interval": tuple(float(f"{end:.5g}") for end in ratio.interval),
            "speedup_interval_method": ratio.method,
        }  # fmt: skip
        dtype = "bfloat16-autocast" if "autocast" in name else "float32"
        cost = Cost(
            latency_ms=float(f"{statistics.median(every):.5g}"),
            latency_p90_ms=float(f"{percentile(every, 90):.5g}"),
            batch_size=1,
            hardware=provenance.hardware,
            dtype=dtype,
            decode_included=False,
            num_threads=threads,
            execution="eager, forward and backward",
            num_rounds=rounds,
            **compared,
        )
        entries.append(
            ResultEntry(
                task="video-classification",
                model=f"video-focalnet-{preset}, {name}",
                dataset=BENCHMARK_DATASET,
                split=BENCHMARK_SPLIT,
                metrics=(),
                cost=cost,
                provenance=replace(provenance, dtype=dtype),
                protocol={"num_frames": shape[0], "size": {"height": shape[2], "width": shape[3]}},
                variant=f"training step, batch 1, {dtype}, {threads} threads, {provenance.hardware}",
                notes=notes,
            )
        )
        print(
            f"training step, {preset}, {name:20s} {cost.latency_ms:9.1f} ms   {cost.speedup or 1:.2f} times",
            flush=True,
        )
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["tiny", "small", "base"], choices=["tiny", "small", "base"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the forward passes")
    parser.add_argument("--train-rounds", type=int, default=7, help="rounds of the training steps; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--side", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, a fresh process each")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    arguments = parser.parse_args()
    from rich.console import Console

    gemm_probe.MAX_SECONDS = 3.0  # here the probe is a record, which may take longer than a choice
    console = Console(width=170)
    shape, threads = (arguments.frames, 3, arguments.side, arguments.side), arguments.threads
    for preset in arguments.sizes:
        with execution_settings(threads, compiling=False):
            probes = [str(gemm_probe.probe_gemm(dtype)) for dtype in (torch.float32, torch.bfloat16)]
            notes = (*probes, differences(preset, shape))
        print(*notes, sep="\n", flush=True)
        report = benchmark(
            variants_of(preset, arguments.variants, shape),
            rounds=arguments.rounds,
            threads=threads,
            stages=False,
            memory=not arguments.no_memory,
            device="cpu",
        )
        report = replace(report, notes=(*report.notes, *notes))
        console.print(report.to_table())
        entries = report.to_result_entries()
        if arguments.train_rounds:
            with execution_settings(threads, compiling=False):
                entries += training_entries(preset, shape, arguments.train_rounds, threads, notes, None)
        if arguments.results is not None:
            add_results(arguments.results, entries)
    if arguments.results is not None:
        print(f"written to {arguments.results}")


if __name__ == "__main__":
    main()
