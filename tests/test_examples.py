"""Every script in examples/ runs as its docstring says, offline, on generated clips; every recipe in examples/configs/ builds and trains."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, VideoMAEConfig, VideoMAEForVideoClassification
from transformers import VideoMAEVideoProcessor as StockProcessor

import hf_effvid
from hf_effvid.auto import register
from hf_effvid.data.synthetic import MOTION_CLASSES, tiny_motion_dataset
from hf_effvid.data.transforms import AugmentationConfig
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.training import train_classifier
from hf_effvid.training.arguments import EffVidTrainingArguments
from hf_effvid.training.recipe import load_recipe


register()  # folders are opened in this process, as an installed user does
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
RECIPES = sorted(EXAMPLES.glob("configs/*.yaml"))


def run(script, folder, *flags, program=sys.executable, environment=()):
    """Runs a script in `folder`, offline and without a GPU; returns what it printed."""
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **dict(environment)}
    command = [str(part) for part in (program, script, *flags)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def name_of(path):
    return path.name


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("examples") / "motion", size=64, num_frames=20)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_say_how_they_are_run(path):
    """Dependencies, a docstring with the command, and no option in that docstring which the parser does not know."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert source.startswith("# /// script\n# dependencies = [")
    text = ast.get_docstring(tree)
    assert f"examples/{path.name}" in text
    known = {
        argument.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for argument in call.args
    }
    # of `effvid` and `torchrun` lines only what belongs to the script
    own = "\n".join(line.partition(path.name)[2] or line for line in text.splitlines() if " effvid " not in f" {line}")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*", own)) <= known
    assert len(source.splitlines()) <= 200


def test_every_script_and_recipe_is_in_the_table():
    rows = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| \[`([\w./]+)`\]", rows, re.MULTILINE))
    files = {path.relative_to(EXAMPLES).as_posix() for path in [*SCRIPTS, *EXAMPLES.glob("*.sh"), *RECIPES]}
    # recipes of one paper share a row
    folders = {f"{path.relative_to(EXAMPLES).as_posix()}/" for path in EXAMPLES.glob("configs/*") if path.is_dir()}
    assert named == files | folders


@pytest.mark.slow
def test_classify_video_says_that_its_weights_are_random(tmp_path):
    printed = run(EXAMPLES / "01_classify_video.py", tmp_path)
    assert printed.startswith("RANDOM WEIGHTS") and "pixel_values (1, 8, 3, 224, 224)" in printed
    assert len(re.findall(r"^  0\.\d{3}  LABEL_\d$", printed, re.MULTILINE)) == 5


@pytest.mark.slow
def test_classify_video_with_a_stock_model(tmp_path, clips):
    config = VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3,
    )  # fmt: skip
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "model")
    StockProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "model"
    )
    video = next(clips.rglob("*.mp4"))
    printed = run(EXAMPLES / "01_classify_video.py", tmp_path, video, "--model", tmp_path / "model")
    assert "RANDOM" not in printed and "(1, 4, 3, 32, 32)" in printed and printed.count("LABEL_") == 3


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, each of which imports torch
def test_quickstart(tmp_path):
    printed = run(EXAMPLES / "quickstart.py", tmp_path, "--smoke", "--work", "work", "--report", "report")
    assert re.findall(r"^\[(\d)/7\]", printed, re.MULTILINE) == list("1234567")
    assert "on 12 held-out clips" in printed
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"model_card.md", "confusion.png", "modulators.png", "results.json"}
    (entry,) = ResultsFile.load(tmp_path / "report" / "results.json").results
    assert entry.metric("top1").n == 12 and entry.cost.parameters > 0
    # the first read finds what the quickstart left
    (tmp_path / "quickstart_work").symlink_to(tmp_path / "work")
    printed = run(EXAMPLES / "01_classify_video.py", tmp_path)
    assert "RANDOM" not in printed and "grows" in printed


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--lora", "4"]], ids=["full", "lora"])
def test_finetune_classifier(tmp_path, flags):
    printed = run(EXAMPLES / "finetune_classifier.py", tmp_path, "--max_steps", "2", *flags)
    assert "32 validation clips: loss" in printed
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "finetuned" / "model")
    assert model.config.num_labels == 8


@pytest.mark.slow
def test_detector_cost(tmp_path):
    options = ("--rounds", "1", "--blocks", "1", "--results", "cost.json", "--chart", "cost.png")
    printed = run(EXAMPLES / "detector_cost.py", tmp_path, *options)
    assert "1122.0 GMACs, 274.1 hook-style" in printed and "13182.0 GMACs, 3886.9 hook-style" in printed
    assert "post-processing of 400000 candidates" in printed and (tmp_path / "cost.png").stat().st_size > 10_000
    results = {entry.model: entry for entry in ResultsFile.load(tmp_path / "cost.json").results}
    assert results["post-processing"].metric("processor_seconds").value < 5  # 1 where nobody else counts
    assert results["VideoMAE-S, THUMOS14"].metric("head_gmacs").value == pytest.approx(14.456, abs=0.001)


@pytest.mark.slow
def test_bench_detection(tmp_path):
    """That both evaluators agree is checked inside; how much faster ours is depends on the number of predictions."""
    printed = run(EXAMPLES / "bench_detection.py", tmp_path, "--predictions", "1500", "--results", "speed.json")
    assert int(re.search(r"with pandas .* (\d+) times as much", printed)[1]) > 20
    entries = ResultsFile.load(tmp_path / "speed.json").results
    assert [entry.model for entry in entries] == ["evaluate_detector", "evaluator with pandas", "nms_1d"]
    assert all(entry.metric("processor_seconds").value > 0 for entry in entries)


@pytest.mark.slow
def test_finetune_raw_accelerate_and_its_resume(tmp_path):
    script = EXAMPLES / "finetune_raw_accelerate.py"
    printed = run(script, tmp_path, "--max_steps", "2")
    assert "on 32 clips (chance 0.125)" in printed
    AutoModelForVideoClassification.from_pretrained(tmp_path / "finetuned_raw" / "model")
    (tmp_path / "finetuned_raw" / "partial").mkdir()
    printed = run(script, tmp_path, "--max_steps", "4", "--resume")
    assert "epoch 2:" in printed
    assert [path.name for path in (tmp_path / "finetuned_raw").glob("checkpoint-*")] == ["checkpoint-00002"]


@pytest.mark.slow
def test_static_baselines(tmp_path, clips):
    printed = run(EXAMPLES / "static_baselines.py", tmp_path, clips, "--name", "motions", "--output", "baselines.json")
    results = ResultsFile.load(tmp_path / "baselines.json").results
    assert {entry.dataset for entry in results} == {"motions"} and len(results) >= 3
    for entry in results:
        assert entry.metric("top1").n == 4 and entry.model.removeprefix("baseline: ") in printed
    assert results[0].metric("top1").value == 0.25


def test_compare_predictions(tmp_path, monkeypatch, capsys):
    """Two seeds of A: 8 and 6 of 10 right; two of B: 5 and 5. The difference of the means is 20 points."""
    for name, right in (("a-0", 8), ("a-1", 6), ("b-0", 5), ("b-1", 5)):
        lines = [
            {"source": f"{index}.mp4", "label": 0, "scores": [1.0, 0.0] if index < right else [0.0, 1.0]}
            for index in range(10)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    monkeypatch.chdir(tmp_path)
    flags = "--a a-0.jsonl a-1.jsonl --b b-0.jsonl b-1.jsonl --name motions --results results.json"
    monkeypatch.setattr(sys, "argv", ["compare_predictions.py", *flags.split(), "--label", "A against B"])
    runpy.run_path(str(EXAMPLES / "compare_predictions.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "seeds: 80.0%, 60.0%" in printed and "difference +20.0%" in printed
    (entry,) = ResultsFile.load(tmp_path / "results.json").results
    metric = entry.metrics[-1]
    assert np.isclose(metric.value, 0.2) and metric.n == 10
    assert metric.interval[0] < 0.2 < metric.interval[1] and metric.interval[0] >= 0  # B is nowhere better


@pytest.mark.slow
def test_explain_modulators(tmp_path):
    printed = run(EXAMPLES / "explain_modulators.py", tmp_path, "--output", "out", "--block", "0")
    assert printed.startswith("RANDOM WEIGHTS") and "stage 2, block 3, temporal" in printed
    written = {path.name for path in (tmp_path / "out" / "moves_right_00001").iterdir()}
    assert written == {"overlay.mp4", "contact_sheet.png", "gates.png", "explanation.json"}


@pytest.mark.slow
def test_score_explanations(tmp_path, clips):
    recipe = load_recipe(EXAMPLES / "configs" / "quickstart.yaml")
    for seed in range(2):
        torch.manual_seed(seed)
        config = recipe.build_model_source()
        config.id2label = dict(enumerate(sorted(MOTION_CLASSES[:4])))
        hf_effvid.VideoFocalNetForVideoClassification(config).save_pretrained(tmp_path / f"seed-{seed}")
        recipe.build_processor().save_pretrained(tmp_path / f"seed-{seed}")
    printed = run(
        EXAMPLES / "score_explanations.py", tmp_path, "seed-0", "seed-1", "--data", clips, "--name", "motions",
        "--num-steps", "4", "--results", "scores.json", "--picture", "curves.png",
    )  # fmt: skip
    assert "spatial modulator against centre prior: insertion" in printed and "2 training seeds" in printed
    results = ResultsFile.load(tmp_path / "scores.json").results
    assert len(results) == 12 and {entry.protocol["fill"] for entry in results} == {"colour", "still"}
    assert results[0].model == "video-focalnet-mini" and results[0].metric("insertion_auc").n == 4
    assert (tmp_path / "curves.png").stat().st_size > 5000 and (tmp_path / "curves-still.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, each of which imports torch
def test_real_videos_study(tmp_path, clips):
    """The whole study with one seed and two training steps: its own commands, in its own order."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    commands = tmp_path / "bin"
    commands.mkdir()
    effvid = Path(sys.executable).with_name("effvid")
    short = " ".join(f"--set training.{name}=2" for name in ("max_steps", "eval_steps", "save_steps"))
    (commands / "effvid").write_text(
        f'#!/bin/sh\n[ "$1" = train ] && exec "{effvid}" "$@" {short}\nexec "{effvid}" "$@"\n'
    )
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    script = tmp_path / "one_seed.sh"
    text = (EXAMPLES / "real_videos.sh").read_text(encoding="utf-8")
    assert "for seed in 0 1 2; do" in text
    script.write_text(text.replace("for seed in 0 1 2; do", "for seed in 0; do"))
    path = {"PATH": f"{commands}:{os.environ['PATH']}", "RESULTS_DIR": str(tmp_path)}
    run(script, tmp_path, clips, "motions", program="bash", environment=path)
    results = ResultsFile.load(tmp_path / "real-motions.json").results
    assert [entry.variant for entry in results] == [
        "from scratch",
        "from scratch, test frames shuffled",
        "from scratch, no temporal branch",
        "temporal branch against none",
        "frames in order against shuffled",
    ]
    assert results[0].metric("top1").n == 4 and results[0].cost.gmacs > 0


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, each of which imports torch
def test_real_token_selection(tmp_path, clips):
    """The whole study with one seed and two training steps: its own commands, in its own order."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    short = {"SEEDS": "0", "STEPS": "2", "RESULTS_DIR": str(tmp_path)}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run(EXAMPLES / "real_token_selection.sh", tmp_path, clips, "motions", program="bash", environment=short | path)
    results = ResultsFile.load(tmp_path / "token-selection-motions.json").results
    found = {entry.variant for entry in results}
    assert {
        "all tokens",
        "random, keep 0.1",
        "lite, keep 0.5",
        "lite (shuffled), keep 0.5",
        "smaller frames, keep 0.3",
    } <= found
    assert (tmp_path / "outputs" / "token_selection" / "motions" / "study" / "accuracy.png").is_file()


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipes_build(path, tmp_path):
    recipe = load_recipe(path)
    config, processor, augmentation = (
        recipe.build_model_source(),
        recipe.build_processor(),
        recipe.build_augmentation(),
    )
    model = AutoModelForVideoClassification.from_config(config)
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    frames = torch.zeros(processor.num_frames * 2, 3, 70, 90, dtype=torch.uint8)
    pixels = processor(frames, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, config.num_frames, 3, height, width)
    assert model.eval()(pixel_values=pixels).logits.isfinite().all()
    if isinstance(augmentation, str):
        AugmentationConfig.from_preset(augmentation)
    EffVidTrainingArguments(output_dir=str(tmp_path / "run"), **recipe.training)


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipes_train_two_steps(path, clips, tmp_path):
    short = [f"training.{name}=2" for name in ("max_steps", "eval_steps", "save_steps")]
    recipe = load_recipe(path, short)
    outcome = train_classifier(
        recipe.build_model_source(),
        clips,
        output_dir=tmp_path / "run",
        processor=recipe.build_processor(),
        augmentation=recipe.build_augmentation(),
        cache=recipe.cache,
        args=recipe.training,
        progress=False,
    )
    report = hf_effvid.evaluate_classifier(
        outcome.model_dir, hf_effvid.load_video_dataset(str(clips), split="test"), progress=False
    )
    assert outcome.to_dict()["steps"] == 2 and report.n == 4 and report.labels == sorted(MOTION_CLASSES[:4])


@pytest.mark.slow
def test_bench_focal_paths(tmp_path):
    """The released size on one small frame: every way is timed, compared with the literal network and recorded."""
    flags = "--sizes tiny --variants fast fast-bf16 --rounds 2 --train-rounds 1 --threads 1 --frames 1 --side 32 --no-memory"
    results = tmp_path / "paths.json"
    text = run(EXAMPLES / "bench_focal_paths.py", tmp_path, *flags.split(), "--results", results)
    entries = ResultsFile.load(results).results
    names = {entry.model.partition(", ")[2] for entry in entries}
    assert names == {"literal", "fast", "fast-bf16", "composite", "fast-bf16-autocast"}
    assert len(entries) == 3 + 4  # forward passes, training steps
    for entry in entries:
        assert (entry.cost.speedup is None) == entry.model.endswith("literal")
        assert any(note.startswith("GEMM probe, float32, 1 thread: F.linear ") for note in entry.notes)
    (difference,) = {note for note in entries[0].notes if note.startswith("largest float32 difference")}
    assert difference in text and all(float(part.split()[-1]) < 1e-5 for part in difference.split(": ")[1].split(", "))


@pytest.mark.slow
def test_bench_token_selection(tmp_path):
    """A tiny model: every arm that fits takes its turn, is counted and recorded; mergers that reach no equal cost say so."""
    flags = "--size tiny --rounds 2 --threads 1 --batch-sizes 1 --arms".split()
    arms = ["random 0.5", "lite 0.5", "tome 0.5", "sta 0.3", "frames 8", "choosing alone"]
    results, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    text = run(
        EXAMPLES / "bench_token_selection.py", tmp_path, *flags, *arms, "--results", results, "--picture", picture
    )
    entries = {entry.model.partition(", ")[2]: entry.cost for entry in ResultsFile.load(results).results}
    assert list(entries) == ["full", *(arm for arm in arms if arm != "sta 0.3")]
    assert "sta 0.3 is left out" in text and picture.stat().st_size > 10_000
    assert entries["tome 0.5"].gmacs == pytest.approx(0.0755, rel=0.01)  # equal cost, all patches embedded
    assert entries["random 0.5"].gmacs < entries["tome 0.5"].gmacs < entries["lite 0.5"].gmacs < entries["full"].gmacs
    assert all(cost.speedup is not None for name, cost in entries.items() if name != "full")


@pytest.fixture(scope="module")
def all_motions(tmp_path_factory):
    """Every class that the committed VideoMAE knows."""
    folder = tmp_path_factory.mktemp("all_motions") / "clips"
    counts = {"train": 2, "validation": 1, "test": 1}
    return tiny_motion_dataset(folder, MOTION_CLASSES, counts, size=64, num_frames=16)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_token_selection_budgets(tmp_path, all_motions):
    """Every gauge at one budget, and at a wanted mean cost: calibrated, measured, timed, and batches equal loops."""
    flags = ["--data", all_motions, "--work", tmp_path / "work", "--budgets", 0.5, "--epochs", 1]
    flags += ["--gauges", "probe", "cascade", "student", "--student-epochs", 1, "--time-rounds", 2]
    run(EXAMPLES / "token_selection_budgets.py", tmp_path, *flags, "--results", tmp_path / "budgets.json")
    results = {entry.variant: entry for entry in ResultsFile.load(tmp_path / "budgets.json").results}
    adaptive = [variant for variant in results if variant.startswith("LITE++ (")]
    assert len(adaptive) == 6 and len(results) == 18
    for variant in adaptive:
        (exact,) = [m for m in results[variant].metrics if m.name.startswith("largest difference of logits")]
        assert exact.value < 1e-4 and results[variant].metric("top1").interval and results[variant].cost.gmacs > 0
    assert (tmp_path / "work" / "cascade-0.5" / "budget_calibration.json").is_file()
    student = results["LITE++ (student, keep 0.3 or 0.5)"]
    assert student.metric("gauge_ms").value > 0 and student.metric("calibration error of the gauge before") is not None
    assert student.protocol["budget_policy"]["gauge_temperature"] > 0


@pytest.mark.slow
def test_bench_difficulty_gauge(tmp_path):
    flags = ["--size", "tiny", "--keep-ratios", 0.5, "--gauges", "movinet:a0", "--gauge-frames", 2, "--rounds", 1]
    run(EXAMPLES / "bench_difficulty_gauge.py", tmp_path, *flags, "--results", tmp_path / "speed.json")
    (entry,) = ResultsFile.load(tmp_path / "speed.json").results
    assert entry.protocol["easy_share"] == 0.5 and entry.metric("gauge_ms").value > 0
    assert entry.metric("time at the base budget / time of the policy").interval is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_token_selection_one_host(tmp_path, all_motions):
    """Two seeds of both trainings, three hosts studied, and the paired difference between the two at every budget."""
    flags = ["--data", all_motions, "--work", tmp_path / "work", "--seeds", 0, 1, "--epochs", 1]
    text = run(EXAMPLES / "token_selection_one_host.py", tmp_path, *flags, "--results", tmp_path / "hosts.json")
    results = {entry.variant: entry for entry in ResultsFile.load(tmp_path / "hosts.json").results}
    tuned = results["fine-tuned under random keep ratios: random, keep 0.3"]
    assert tuned.metric("top1 minus the host as it was").interval is not None and "training seeds" in tuned.notes[0]
    assert {"as it was: random, keep 1", "fine-tuned with all tokens: embedding_norm, keep 0.1"} <= set(results)
    assert len(results["random keep ratios minus all tokens"].metrics) == 11 and "all tokens: " in text
