"""examples/compare_students.py: arms over their seeds, paired on the same videos, with the cost of their kind of model."""

import json

import pytest

from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.evaluation.results import Cost, Metric, ResultEntry, ResultsFile, add_results, current_provenance

from .test_examples import EXAMPLES, run


# run -> for each of eight videos: is the answer right?
ANSWERS = {
    "full-0": "11111100",
    "full-1": "11111110",
    "alone-0": "11110000",
    "alone-1": "11100000",
    "teacher-vit": "11111000",
}


@pytest.fixture
def study(tmp_path):
    """Runs with predictions, folders of models and a benchmark of two of them."""
    for name, right in ANSWERS.items():
        frames = 4 if name == "teacher-vit" else 2
        config = VideoFocalNetConfig(
            num_frames=frames, image_size=32, patch_size=8, embed_dim=8, depths=[1], focal_levels=[1], focal_windows=[3], num_labels=2
        )  # fmt: skip
        VideoFocalNetForVideoClassification(config).save_pretrained(tmp_path / name / "model")
        sizes = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}
        EffVidVideoProcessor(num_frames=frames, **sizes).save_pretrained(tmp_path / name / "model")
        (tmp_path / name / "training.json").write_text(json.dumps({"steps": 300}))
        (tmp_path / name / "processor_seconds.txt").write_text("a warning\n100.5 2.5\n")
        lines = [
            {"source": f"{video}.mp4", "label": 1, "scores": [0.0, 1.0] if bit == "1" else [1.0, 0.0]}
            for video, bit in enumerate(right)
        ]
        (tmp_path / f"test-{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name, milliseconds in (("alone-0", 10.0), ("teacher-vit", 40.0)):
        cost = Cost(
            latency_ms=milliseconds, batch_size=1, hardware="a machine", dtype="float32", decode_included=False
        )
        entry = ResultEntry("benchmark", f"{name}/model", "random", "-", (Metric("x", 1.0, 1),), current_provenance(), cost)  # fmt: skip
        add_results(tmp_path / "speed.json", [entry])
    return tmp_path


def test_compare_students(study):
    arms = ["--arm", "full=full", "--arm", "student alone=alone", "--arm", "ViT teacher=teacher-vit"]
    told = (study, *arms, "--name", "made up", "--speed", study / "speed.json", "--results", study / "r.json", "--picture", study / "p.png")  # fmt: skip
    printed = run(EXAMPLES / "compare_students.py", study, *told)
    assert "full: 81.2%" in printed
    entries = ResultsFile.load(study / "r.json").results
    assert [entry.variant for entry in entries] == [
        "full", "full", "full, mean of 2 seeds", "student alone", "student alone", "student alone, mean of 2 seeds",
        "ViT teacher", "ViT teacher, mean of 1 seed",
    ]  # fmt: skip
    mean = entries[2]
    assert mean.metric("top1").value == pytest.approx(13 / 16) and mean.metric("top1").n == 8
    assert mean.metric("top1 minus student alone").value == pytest.approx(6 / 16)
    assert mean.metric("top1 minus ViT teacher").value == pytest.approx(3 / 16)
    assert mean.notes == ("training: 300 steps, 103, 103 s of one CPU core",)
    # a time is of a kind of model: both students have the one that was measured, the teacher its own
    assert [entry.cost.latency_ms for entry in entries] == [10.0] * 6 + [40.0] * 2
    assert mean.protocol["num_frames"] == 2 and mean.protocol["image_size"] == [32, 32]
    assert (study / "p.png").stat().st_size > 10_000


def test_compare_students_refuses_other_videos(study):
    (study / "test-teacher-vit.jsonl").write_text(
        json.dumps({"source": "other.mp4", "label": 1, "scores": [0.0, 1.0]})
    )
    told = ("--arm", "full=full", "--arm", "ViT teacher=teacher-vit", "--results", study / "r.json")
    with pytest.raises(AssertionError, match="different videos"):
        run(EXAMPLES / "compare_students.py", study, study, *told)
