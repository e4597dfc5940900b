"""Detectors in the benchmark: every stage timed, shares that add up, counts both ways; LITE checkpoints from their folders."""

import json

import pytest
import torch
from transformers import VideoMAEConfig
from typer.testing import CliRunner

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    ActionFormerProcessor,
    EffVidVideoProcessor,
    LiteVideoMAEConfig,
    LiteVideoMAEForVideoClassification,
    VideoFocalNetConfig,
)
from hf_effvid.cli import app
from hf_effvid.evaluation.benchmark_detector import benchmark_detectors, count_detector
from hf_effvid.evaluation.benchmark_detector_chart import plot_detector_costs
from hf_effvid.evaluation.benchmark_execution import BenchmarkError
from hf_effvid.evaluation.benchmark_stages import write_panning_texture
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.evaluation.results import ResultsFile


VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "patch_size": 8}
VIDEOMAE = VideoMAEConfig(**VIT, image_size=16, num_frames=4, tubelet_size=2)
FOCALNET = VideoFocalNetConfig(
    embed_dim=8, depths=[1], focal_levels=[1], focal_windows=[3], num_frames=4, initialization="fan_in"
)
SPATIAL = {"size": {"shortest_edge": 18}, "crop_size": 16}


def make_detector(trunk=None, **options):
    size = {"hidden_size": 8, "num_attention_heads": 2, "num_stem_layers": 1, "num_branch_layers": 1}
    fields = {**size, "attention_window": 3, "num_labels": 3, "max_sequence_length": 12, **options}
    if trunk is not None:
        fields |= {"backbone_config": trunk.to_dict(), "frames_per_step": 2}
    torch.manual_seed(0)
    return ActionFormerForTemporalActionDetection(ActionFormerConfig(**fields)).eval()


def processor_of(model, **options):
    step = model.config.frames_per_step
    fields = {"feature_stride": step, "feature_num_frames": step, "feature_fps": 8, **SPATIAL, **options}
    return ActionFormerProcessor(**fields)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "texture.mp4"
    write_panning_texture(path, seconds=2, fps=8, width=48, height=32)
    return path


@pytest.fixture(scope="module")
def report(video):
    pixels, features = make_detector(VIDEOMAE), make_detector(input_size=4)
    variants = [
        BenchmarkVariant("on pixels", pixels, processor_of(pixels)),
        BenchmarkVariant("on focal pixels", make_detector(FOCALNET), processor_of(pixels, window_length=6)),
        BenchmarkVariant("on features", features, processor_of(features, feature_stride=4, feature_fps=None)),
    ]
    return benchmark_detectors(variants, rounds=3, threads=1, video=video, clock="processor", fps=16)


def test_every_stage_of_every_detector(report):
    pixels, focal, features = report.measurements
    stages = ["decode", "preprocess", "backbone", "head", "post-processing"]
    assert list(pixels.times_ms) == list(focal.times_ms) == stages and list(features.times_ms) == stages[3:]
    # 12 steps of 2 frames at 8 per second; 6 of them; 12 steps of 4 frames at 16 per second
    assert (pixels.seconds, focal.seconds, features.seconds) == (3.0, 1.5, 3.0)
    assert (pixels.num_frames, focal.num_frames, features.num_frames) == (24, 12, 12)
    assert pixels.frame_shape == (3, 16, 16) and features.frame_shape is None
    for m in report.measurements:
        assert all(len(visits) == 3 and min(map(min, visits)) > 0 for visits in m.times_ms.values())
        for number, whole in enumerate(m.per_round()):
            assert whole == pytest.approx(sum(m.per_round([stage])[number] for stage in m.times_ms))
        share = m.share(["head", "post-processing"])
        assert 0 < share.interval[0] <= share.value <= share.interval[1] <= 1
        speed = m.speed("processor")
        assert speed.name == "seconds_of_video_per_processor_second"
        assert speed.value == pytest.approx(m.seconds * 1e3 / m.milliseconds(), rel=1e-3)
    assert features.share(["head", "post-processing"]).value == 1


def test_a_window_longer_than_the_video_counts_proportionally(report, video):
    """2 s of video for a window of 3 s: decoding counts half as much again; a window of 1.5 s is decoded as it is."""
    model = make_detector(VIDEOMAE)
    short = processor_of(model, window_length=2)  # 0.5 s: 4 of the 16 frames
    quick = benchmark_detectors([BenchmarkVariant("quick", model, short)], rounds=1, video=video).get("quick")
    assert quick.seconds == 0.5 and quick.num_frames == 4
    whole = processor_of(model, resize_length=12)  # every video whole, 24 frames evenly over its 2 s
    stretched = benchmark_detectors([BenchmarkVariant("stretched", model, whole)], rounds=1, video=video)
    assert stretched.get("stretched").seconds == pytest.approx(2.0) and stretched.get("stretched").num_frames == 24


def test_counts_are_those_of_a_window(report):
    model = make_detector(VIDEOMAE)
    whole = count_macs(model, {"pixel_values": torch.zeros(1, 24, 3, 16, 16)}).gmacs
    head = count_macs(model, {"input_features": torch.zeros(1, 12, 8)}).gmacs
    counts = report.get("on pixels").counts
    assert (counts.gmacs, counts.head_gmacs) == (whole, head) and 0 < head < whole
    assert counts.paper_head_gmacs < counts.paper_gmacs < counts.gmacs
    assert counts == count_detector(model, (1, 24, 3, 16, 16))
    assert report.get("on focal pixels").counts.paper_gmacs is None
    features = report.get("on features").counts
    assert features.gmacs == features.head_gmacs


def test_entries_table_and_chart(report, tmp_path):
    report.save(tmp_path / "r.json")
    entry = ResultsFile.load(tmp_path / "r.json").results[0]
    assert entry.task == "temporal-action-detection" and entry.metric("backbone_share").n == 1
    shares = [
        entry.metric(f"{stage}_share").value
        for stage in ("decode", "preprocess", "backbone", "head", "post_processing")
    ]
    assert sum(shares) == pytest.approx(1, abs=0.25)  # medians of three rounds each
    assert entry.metric("hook_style_gmacs").value < entry.cost.gmacs and "processor time" in entry.variant
    assert entry.protocol == {"seconds": 3.0, "num_steps": 12, "num_frames": 24, "size": {"height": 16, "width": 16}}
    pytest.importorskip("matplotlib", reason="charts need matplotlib")
    further = {"<b>a</b>": report.get("on pixels").counts}
    assert plot_detector_costs(report, tmp_path / "c.png", further).stat().st_size > 10_000
    with pytest.raises(KeyError, match="nothing"):
        report.get("nothing")


def test_what_is_no_detector(video):
    model = make_detector(VIDEOMAE)
    with pytest.raises(BenchmarkError, match="no processor of a detector"):
        benchmark_detectors([BenchmarkVariant("x", model)], rounds=1, video=video)
    with pytest.raises(BenchmarkError, match="no temporal action detector"):
        benchmark_detectors([BenchmarkVariant("x", torch.nn.Linear(2, 2), processor_of(model))], rounds=1, video=video)
    features = make_detector(input_size=4)
    alone = benchmark_detectors([BenchmarkVariant("x", features, processor_of(features))], rounds=1, video=video)
    assert not any("decoding" in note for note in alone.notes)
    with pytest.raises(BenchmarkError, match="rounds"):
        benchmark_detectors([], rounds=0)


# ---- folders, through the command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """LITE with half of its tokens and with all of them, and a detector."""
    root = tmp_path_factory.mktemp("folders")
    for name, ratio in (("all", 1.0), ("half", 0.5)):
        torch.manual_seed(0)
        size = {**VIT, "image_size": 32, "num_frames": 4, "tubelet_size": 2}
        config = LiteVideoMAEConfig(**size, keep_ratio=ratio, scorer="random")
        model = LiteVideoMAEForVideoClassification(config)
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(root / name)
        EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32).save_pretrained(root / name)
    make_detector(VIDEOMAE).save_pretrained(root / "detector")
    processor_of(make_detector(VIDEOMAE)).save_pretrained(root / "detector")
    return root


def run_bench(*arguments):
    common = ["--rounds", "2", "--threads", "1", "--clock", "processor", "--no-memory", "-q", "--json"]
    result = CliRunner().invoke(app, ["bench", *map(str, arguments), *common], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["results"]


def test_a_lite_folder_costs_less_than_one_that_keeps_all(folders, video):
    full, half = run_bench(folders / "all", folders / "half", "--video", video)
    assert (full["model"], half["model"]) == ("all", "half")
    assert 0.3 < half["cost"]["gmacs"] / full["cost"]["gmacs"] < 0.8
    assert half["cost"]["baseline"] == "all" and half["cost"]["speedup"] > 0
    assert half["cost"]["execution"] == "eager, processor time"


def test_a_detector_folder(folders, video, tmp_path):
    (found,) = run_bench(folders / "detector", "--video", video, "--results", tmp_path / "r.json")
    assert found["model"] == "detector" and found["protocol"]["num_steps"] == 12
    assert ResultsFile.load(tmp_path / "r.json").results[0].to_dict() == found
    with pytest.raises(ValueError, match="one kind at a time"):
        run_bench(folders / "detector", folders / "half")
    result = CliRunner().invoke(app, ["bench", str(folders / "detector"), "--compile", "default"])
    assert result.exit_code == 2 and "--compile" in result.output
