"""The benchmark as a whole, on models so small that it takes a second; nothing here says how fast anything has to be."""

import io
from pathlib import Path

import av
import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

from hf_effvid.evaluation import benchmark_measuring
from hf_effvid.evaluation.benchmark import BenchmarkError, BenchmarkVariant, benchmark
from hf_effvid.evaluation.benchmark_progress import benchmark_progress
from hf_effvid.evaluation.benchmark_stages import benchmark_video, stage_steps, write_panning_texture
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.evaluation.results import Metric, ResultsFile
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
from hf_effvid.models.video_reader import probe_video


def tiny_model(layers=1, **kwargs):
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=16, **kwargs,
    )  # fmt: skip
    return VideoMAEForVideoClassification(config)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "clip.mp4"
    write_panning_texture(path, seconds=1, fps=10, width=64, height=48)
    return path


@pytest.fixture(scope="module")
def report(video):
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    shallow, deep = tiny_model(1), tiny_model(3)
    recipe = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 36}, crop_size=32)
    found = benchmark(
        [
            BenchmarkVariant("deep", deep, processor=recipe),
            BenchmarkVariant(
                "shallow", shallow, processor=VideoMAEImageProcessor(crop_size={"height": 32, "width": 32})
            ),
            BenchmarkVariant("half", shallow, dtype="bf16"),
        ],
        batch_sizes=(1, 2),
        rounds=3,
        threads=1,
        device="cpu",
        video=video,
        accuracies={"deep": Metric.proportion("top1", 8, 10), "shallow": 0.7},
        budget_ms=1e6,
        memory=False,
        command="effvid bench deep shallow",
        progress=False,
    )
    assert torch.get_num_threads() == threads
    assert shallow.dtype == torch.float32 and shallow.training
    return found


def test_processor_time_is_recorded_under_its_own_name():
    models = {"deep": tiny_model(2), "shallow": tiny_model(1)}
    settings = {"rounds": 2, "stages": False, "memory": False, "device": "cpu", "progress": False}
    found = benchmark(models, clock="processor", threads=1, **settings)
    assert {m.execution for m in found.measurements} == {"eager, processor time"}
    assert all(", eager, processor time, 1 thread, " in entry.variant for entry in found.to_result_entries())
    with pytest.raises(BenchmarkError, match="pass threads=1, got 2"):
        benchmark(models, clock="processor", threads=2, **settings)


def test_every_model_at_every_batch_size(report):
    assert [(m.name, m.batch_size) for m in report.measurements] == [
        (name, batch) for batch in (1, 2) for name in ("deep", "shallow", "half")
    ]
    for m in report.measurements:
        assert len(m.times_ms) == 3 and all(visit and min(visit) > 0 for visit in m.times_ms)
        calls = [milliseconds for visit in m.times_ms for milliseconds in visit]
        assert min(calls) <= m.latency_ms <= m.latency_p90_ms <= max(calls)
        assert m.throughput_clips_per_s == pytest.approx(1e3 * m.batch_size / m.latency_ms)
        assert m.clip_shape == (4, 3, 32, 32) and m.execution == "eager" and m.decode_ms > 0
    assert report.num_threads == 1
    assert any("load average" in note for note in report.notes)


def test_counts_are_those_of_one_clip_whatever_the_batch(report):
    model = tiny_model(3)
    count = count_macs(model, {"pixel_values": torch.empty(1, 4, 3, 32, 32, device="meta")})
    for batch in (1, 2):
        assert report.get("deep", batch).gmacs == count.gmacs
        assert report.get("deep", batch).parameters == model.num_parameters()
    assert report.get("half").dtype == "bfloat16"


def test_stages_need_a_processor(report):
    assert report.get("deep").preprocess_ms > 0 and report.get("shallow").preprocess_ms > 0
    assert report.get("half").preprocess_ms is None
    assert "no processor, so no preprocessing time: half" in report.notes
    assert "decoding and preprocessing: video clip.mp4" in report.notes


def test_speedups_are_against_the_baseline_at_the_same_batch(report):
    assert report.baseline == "deep" and report.get("deep").speedup is None
    for batch in (1, 2):
        ours, baseline = report.get("shallow", batch), report.get("deep", batch)
        for ratio, visit, reference in zip(ours.speedup.per_round, ours.times_ms, baseline.times_ms, strict=True):
            assert min(reference) / max(visit) <= ratio <= max(reference) / min(visit)


def test_entries_are_results_like_any_other(report, tmp_path):
    entries = report.to_result_entries()
    path = tmp_path / "results.json"
    report.save(path)
    assert ResultsFile.load(path).results == entries
    assert len(report.save(path).results) == len(entries) == 6  # the same settings again replace themselves
    entry = next(e for e in entries if e.model == "shallow" and e.cost.batch_size == 2)
    measurement = report.get("shallow", 2)
    assert entry.cost.latency_ms == pytest.approx(measurement.latency_ms, rel=1e-4)
    assert entry.cost.speedup_interval == pytest.approx(measurement.speedup.interval, rel=1e-4)
    assert (entry.cost.baseline, entry.cost.num_rounds, entry.cost.num_threads) == ("deep", 3, 1)
    assert entry.cost.speedup_interval_method == "order statistics of 3 paired rounds, 75.0%"
    assert entry.provenance.command == "effvid bench deep shallow" and entry.provenance.decode_included is False
    assert entry.metrics == () and entry.protocol == {"num_frames": 4, "size": {"height": 32, "width": 32}}
    half = next(e for e in entries if e.model == "half")
    assert half.provenance.dtype == half.cost.dtype == "bfloat16"


def test_table(report):
    text = rendered(report)
    for expected in (
        "model",
        "dtype",
        "GMACs",
        "p90 (ms)",
        "x deep",
        "80.0%",
        "3 interleaved rounds",
        "execution eager",
    ):
        assert expected in text
    assert "peak (MB)" not in text  # not measured
    assert text.count("shallow") == 2


def rendered(report):
    console = Console(file=io.StringIO(), width=200)
    console.print(report.to_table())
    return console.file.getvalue()


def test_budget_and_chart(report, tmp_path):
    choice = report.best_under_budget()
    assert choice.setting.name == "deep" and "80.0%" in choice.reason
    assert report.best_under_budget(1e-9).setting is None
    png, svg = report.plot_pareto(tmp_path / "chart")
    assert png.stat().st_size > 10_000 and "deep" in svg.read_text() and "half" not in svg.read_text()


def test_one_model_alone(video):
    report = benchmark(tiny_model(), rounds=2, threads=1, device="cpu", memory=False, stages=False, progress=False)
    (measurement,) = report.measurements
    assert report.baseline is None and measurement.speedup is None and measurement.decode_ms is None
    assert "x " not in rendered(report).splitlines()[2]
    with pytest.raises(BenchmarkError, match="no budget"):
        report.best_under_budget()
    with pytest.raises(BenchmarkError, match="needs accuracies"):
        report.plot_pareto("chart")
    with pytest.raises(KeyError, match="batch size 7"):
        report.get(measurement.name, 7)


def test_memory_of_every_setting_is_asked_for_and_a_failure_is_a_note(monkeypatch):
    asked = []

    def measure(variant, shape, batch_size, threads):
        asked.append((variant.name, shape, batch_size, threads))
        if variant.name == "b":
            raise benchmark_measuring.MemoryNotMeasured("b cannot be sent")
        return 12.5 * batch_size

    monkeypatch.setattr(benchmark_measuring, "measure_peak_memory", measure)
    report = benchmark(
        {"a": tiny_model(), "b": tiny_model}, batch_sizes=(1, 2), rounds=1, threads=1, device="cpu", stages=False,
        progress=False,
    )  # fmt: skip
    shape = (4, 3, 32, 32)
    assert asked == [("a", shape, 1, 1), ("b", shape, 1, 1), ("a", shape, 2, 1)]
    assert [report.get("a", n).peak_memory_mb for n in (1, 2)] == [12.5, 25.0]
    assert report.get("b").peak_memory_mb is None
    assert "peak memory not measured: b cannot be sent" in report.notes


class NeedsMemory(nn.Module):
    """Runs on the meta device, and out of memory at batch 2 everywhere else."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, pixel_values):
        if len(pixel_values) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return self.linear(pixel_values)


def test_a_model_that_runs_out_of_memory_leaves_the_others_alone():
    big = BenchmarkVariant("big", NeedsMemory(), clip_shape=(1, 1, 1, 4))
    report = benchmark(
        [big, ("small", tiny_model())], batch_sizes=(1, 2), rounds=1, threads=1, device="cpu", memory=False, stages=False,
        progress=False,
    )  # fmt: skip
    assert [(m.name, m.batch_size) for m in report.measurements] == [("big", 1), ("small", 1), ("small", 2)]
    assert "big does not fit into memory at batch 2" in report.notes
    assert report.get("small", 2).speedup is None  # nothing to compare with


def test_a_model_that_does_not_take_its_own_clips():
    variant = BenchmarkVariant("wrong", tiny_model(), clip_shape=(4, 3, 48, 48))
    with pytest.raises(BenchmarkError, match=r"wrong does not take clips of shape \(4, 3, 48, 48\)"):
        benchmark(variant, rounds=1, device="cpu", memory=False, stages=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes must be positive"),
        ({"batch_sizes": (0,)}, "batch_sizes must be positive"),
        ({"batch_sizes": (1, 1)}, "appears twice"),
        ({"rounds": 0}, "rounds must be a positive number"),
        ({"baseline": "nobody"}, "'nobody' is none of the models"),
        ({"threads": -1}, "threads must be a positive number"),
        ({"dtype": "int3"}, "unknown dtype"),
        ({"compile": "quickly"}, "unknown compile mode"),
        ({"cuda_graph": True}, "needs a CUDA device"),
        ({"accuracies": {"other": 0.5}}, "accuracies name"),
        ({"budget_ms": -3}, "budget_ms must be"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(BenchmarkError, match=message):
        benchmark({"m": tiny_model()}, **{"device": "cpu", "memory": False, "stages": False, "rounds": 1, **arguments})


def test_a_generated_video_is_a_video_and_goes_away():
    with benchmark_video(None) as (path, description):
        info = probe_video(path)
        assert (info.width, info.height, info.num_frames) == (340, 256, 300)
        assert "10 s, 340x256" in description
        with av.open(path) as container:
            frames = [
                frame.to_ndarray(format="gray") for _, frame in zip(range(2), container.decode(video=0), strict=False)
            ]
        assert frames[0].std() > 20  # detail ...
        assert (frames[0] != frames[1]).mean() > 0.5  # ... that moves
    assert not Path(path).exists()


def test_stages_do_what_the_recipe_says(video):
    recipe = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 36}, crop_size=32)
    ours = stage_steps(recipe, 4, video)
    assert ours["decode"]().frames.shape == (4, 3, 48, 64)
    assert ours["preprocess"]().shape == (4, 3, 32, 32)
    stock = stage_steps(VideoMAEImageProcessor(crop_size={"height": 32, "width": 32}), 4, video)
    assert stock["preprocess"]().shape == (4, 3, 32, 32)
    assert list(stage_steps(None, 4, video)) == ["decode"]


def test_progress_goes_to_stderr_and_only_when_wanted(capsys):
    with benchmark_progress(2, show=False) as advance:
        advance("silent")
    assert capsys.readouterr() == ("", "")
    with benchmark_progress(2, show=True) as advance:
        advance("loading [model]")
        advance("loading [model]")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "loading [model]\n"
