"""The detection study of examples/: on generated streams, on composed ones, and its loading on real videos."""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_effvid.data import load_detection_annotations
from hf_effvid.evaluation.results import ResultsFile

from .test_examples import EXAMPLES, run


SHORT = {"SEEDS": "0 1", "STEPS": "2", "PIXEL_STEPS": "2", "RESULTS_DIR": ".", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # fmt: skip


@pytest.fixture
def splits():
    return runpy.run_path(str(EXAMPLES / "detection_splits.py"))


def test_every_fourth_video_of_a_class_is_held_out(splits, tmp_path):
    rows = [f"{label}{number}.mp4,{number},{number + 1},{label},train" for label in "ab" for number in range(8)]
    (tmp_path / "a.csv").write_text("\n".join(["file,start,end,label,split", *rows, "t.mp4,0,1,a,test"]))
    annotations = load_detection_annotations(tmp_path / "a.csv", missing="keep")
    held = splits["hold_out"](annotations).in_split("validation")
    assert sorted(video.name for video in held.videos) == ["a3.mp4", "a7.mp4", "b3.mp4", "b7.mp4"]
    assert len(annotations.in_split("train").videos) == 12 and len(annotations.in_split("test").videos) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study_on_pixels(tmp_path):
    """Two steps from scratch on generated streams; a second call trains nothing and gives the same numbers."""
    from hf_effvid.data.synthetic_streams import tiny_action_streams

    tiny_action_streams(tmp_path / "streams")
    command = (EXAMPLES / "real_detection.sh", tmp_path, "streams", "streams", "out")
    printed = run(*command, program="bash", environment=SHORT)
    assert "pixels, from scratch, seed 1: average mAP" in printed
    images = "no ImageNet features" not in printed  # where the two packages are installed
    results = {
        (entry.model, entry.variant, entry.provenance.seed): entry
        for entry in ResultsFile.load(tmp_path / "detection-streams.json").results
    }
    assert len(results) == 4 + 2 + 1 + 4 * images
    mean = results["actionformer-mini", "pixels, from scratch, mean of 2 seeds", None]
    single = [results["actionformer-mini", "pixels, from scratch", seed] for seed in (0, 1)]
    assert mean.metric("average_mAP").value == pytest.approx(np.mean([e.metric("average_mAP").value for e in single]))
    baselines = {e.model.removeprefix("baseline: "): e for e in results.values() if e.variant == "mean of 10 draws"}
    assert len(baselines) == 4
    (difference,) = [metric for metric in mean.metrics if metric.name.startswith("average_mAP minus ")]
    best = max(baselines.values(), key=lambda e: e.metric("average_mAP").value)
    assert difference.name.endswith(best.model.removeprefix("baseline: "))
    assert difference.value == pytest.approx(mean.metric("average_mAP").value - best.metric("average_mAP").value)
    before = {path: path.stat().st_mtime for path in tmp_path.rglob("model.safetensors")}
    again = run(*command, program="bash", environment=SHORT)
    numbers = [[line for line in text.splitlines() if "average mAP" in line] for text in (printed, again)]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 2 + 2 * images
    assert {path: path.stat().st_mtime for path in tmp_path.rglob("model.safetensors")} == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study_on_composed_streams(tmp_path):
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(6), 8)
    split = np.array(["train", "train", "train", "train", "val", "test"])[subject]
    label = np.array(["serve", "smash"])[np.arange(48) % 2]
    (tmp_path / "clips").mkdir()
    np.savez(
        tmp_path / "clips" / "clips.npz",
        feats=rng.normal(size=(48, 16, 8)),
        label=label,
        subject=subject,
        split=split,
    )
    command = (EXAMPLES / "real_detection.sh", tmp_path, "clips", "clips", "out")
    pictures = {"PICTURES": "pictures", "NOTE": "composed"}
    printed = run(*command, program="bash", environment=SHORT | pictures)
    assert "baseline: nearest class mean, sliding windows, clip features: " in printed
    results = ResultsFile.load(tmp_path / "detection-clips.json").results
    assert [entry.variant for entry in results][-1] == "clip features, mean of 2 seeds" and len(results) == 4 + 1 + 3
    assert all(entry.notes == ("composed",) for entry in results)
    assert (tmp_path / "pictures" / "false_positives.png").stat().st_size > 10_000


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes", "classes", "actions"),
    [
        ("workout_reps_tad", {"train": 31, "validation": 9, "test": 17}, 4, 189),
        ("egogestar_streams_tad", {"train": 27, "validation": 7, "test": 12}, 10, 217),
    ],
)
def test_real_annotations(splits, name, sizes, classes, actions):
    folder = Path(os.environ.get("EFFVID_REAL_DATA", "")) / name
    if not folder.is_dir():
        pytest.skip(f"EFFVID_REAL_DATA names no folder with {name}")
    annotations = load_detection_annotations(folder / "annotations.json")  # every video is there, or this fails
    if "validation" not in annotations.splits:
        splits["hold_out"](annotations)
    assert {split: len(annotations.in_split(split).videos) for split in annotations.splits} == sizes
    assert len(annotations.class_names) == classes
    assert sum(len(video.usable()) for video in annotations.videos) == actions
    for video in annotations.videos:
        assert all(0 <= one.start < one.end <= video.duration + 0.05 for one in video.segments), video.name
