"""The X3D of examples/checkpoints that two teachers taught: it is what its card says, and its recipe runs."""

import json

import pytest
import torch
from transformers import AutoModelForVideoClassification, pipeline

import hf_effvid
from hf_effvid.data.synthetic import ALL_MOTION_CLASSES, make_motion_dataset
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.distillation_results import arm_means, verdicts
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint
from hf_effvid.training.distillation_record import RECORD_NAME, DistillationRecord

from .test_examples import EXAMPLES, run


NAME = "x3d-motion-student"
CHECKPOINT, CARDS = EXAMPLES / "checkpoints" / NAME, EXAMPLES.parent / "model_cards"
CLASSES = tuple(name for name in ALL_MOTION_CLASSES if not name.startswith("turns"))
ARMS = ["ViT teacher", "CNN teacher", "student alone", "ViT only", "CNN only", "uniform", "full"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of another seed than those that the student learned from."""
    folder = tmp_path_factory.mktemp("clips")
    make_motion_dataset(folder, {"test": 4}, seed=77, classes=CLASSES, progress=False)
    return hf_effvid.load_video_dataset(str(folder), split="test")


def test_the_folder_is_small_and_holds_no_code_and_nothing_of_a_teacher():
    files = {path.name: path.stat().st_size for path in CHECKPOINT.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "video_preprocessor_config.json", "preprocessor_config.json", RECORD_NAME}  # fmt: skip
    assert sum(files.values()) < 200_000
    assert "auto_map" not in json.loads((CHECKPOINT / "config.json").read_text())
    model, info = AutoModelForVideoClassification.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(model) is hf_effvid.X3DForVideoClassification and model.num_parameters() < 20_000


def test_the_record_names_both_teachers_and_their_licences():
    record = DistillationRecord.load(CHECKPOINT)
    assert [(one.role, one.name, one.license, one.model_type) for one in record.teachers] == [
        ("vit", "hf-effvid/videomae-motion-12", "apache-2.0", "videomae"),
        ("cnn", "x3d-motion-teacher", "apache-2.0", "x3d"),
    ]
    assert record.provenance["commit"] and "/" not in record.provenance["command"].partition(" ")[0]


def test_it_tells_clips_apart_that_nobody_has_seen(clips):
    report = hf_effvid.evaluate_classifier(str(CHECKPOINT), clips, batch_size=32, progress=False)
    assert report.n == 32 and report.top1 > 0.4  # chance is 0.125


def test_the_stock_pipeline_runs_it(clips):
    video = clips[0]["video"]["path"]
    model = AutoModelForVideoClassification.from_pretrained(CHECKPOINT).eval()
    processor = hf_effvid.EffVidVideoProcessor.from_pretrained(CHECKPOINT)
    with torch.no_grad():
        expected = model(**processor(video, return_tensors="pt")).logits.softmax(-1)[0].max()
    found = pipeline("video-classification", model=str(CHECKPOINT), device="cpu")(video, top_k=1)
    assert found[0]["score"] == pytest.approx(expected.item(), abs=1e-5)


def test_card_and_results_hold_the_whole_ablation():
    results = ResultsFile.load(CARDS / "results" / f"{NAME}.json").results
    means = {entry.protocol["arm"]: entry for entry in arm_means(results)}
    assert list(means) == ARMS and {entry.metrics[0].n for entry in means.values()} == {480}
    for arm in ARMS[2:]:
        assert means[arm].protocol["seeds"] == 3
        gaps = {metric.name for metric in means[arm].metrics[1:]}
        assert gaps == {f"top1 minus {other}" for other in ARMS if other != arm}
    card = (CARDS / f"{NAME}.md").read_text(encoding="utf-8")
    assert len(verdicts(results)) == 4 and all(sentence in card for sentence in verdicts(results))
    assert "huggingface.co/hf-effvid/videomae-motion-12" in card and "peng2025dualteacher" in card
    (own,) = [entry for entry in results if entry.task == "video-classification"]
    assert own.metric("top1").n == 480 and "validation clips" in own.notes[0]
    # one graph for all students: what they cost does not depend on who taught them
    assert len({(means[arm].cost.parameters, means[arm].cost.gmacs) for arm in ARMS[2:]}) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_staged_it_opens_without_the_package(tmp_path):
    report = verify_checkpoint(stage_checkpoint(str(CHECKPOINT), tmp_path / NAME))
    assert report.ok and all(check.ok for check in report.checks), report.to_text()
    assert "## Distilled" in (tmp_path / NAME / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_runs_and_goes_on(tmp_path):
    (tmp_path / "cards").mkdir()
    flags = ("--smoke", "--work", "work")
    run(EXAMPLES / "train_motion_students.py", tmp_path, *flags, "--only", "cnn", "alone-0")
    assert not (tmp_path / "work" / "full-0").exists()
    places = ("--output", "checkpoints", "--cards", "cards")
    printed = run(EXAMPLES / "make_distilled_student.py", tmp_path, *flags, *places)
    assert printed.count("verified") == 1 and "full, mean of 1 seed" in printed
    card = (tmp_path / "cards" / f"{NAME}.md").read_text()
    assert "## Distilled" in card and "license: apache-2.0" in card and "| ViT teacher: videomae-motion-12 |" in card
    record = DistillationRecord.load(tmp_path / "checkpoints" / NAME)
    assert [teacher.role for teacher in record.teachers] == ["vit", "cnn"]
    results = ResultsFile.load(tmp_path / "cards" / "results" / f"{NAME}.json").results
    assert [entry.protocol["arm"] for entry in arm_means(results)] == ARMS
