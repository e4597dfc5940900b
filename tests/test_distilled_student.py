"""The X3D of examples/checkpoints that two teachers taught: it is what its card says, and its recipe runs."""

import pytest

from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.training.distillation_record import DistillationRecord

from .test_examples import EXAMPLES, run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_runs_and_goes_on(tmp_path):
    (tmp_path / "cards").mkdir()
    flags = ("--smoke", "--work", "work", "--output", "checkpoints", "--cards", "cards")
    run(EXAMPLES / "make_distilled_student.py", tmp_path, *flags, "--only", "cnn", "alone-0")
    assert not (tmp_path / "cards" / "results").exists()
    printed = run(EXAMPLES / "make_distilled_student.py", tmp_path, *flags)
    assert printed.count("verified") == 1 and "full, mean of 1 seed" in printed
    card = (tmp_path / "cards" / "x3d-motion-student.md").read_text()
    assert "## Distilled" in card and "license: apache-2.0" in card and "| ViT teacher: videomae-motion-12 |" in card
    record = DistillationRecord.load(tmp_path / "checkpoints" / "x3d-motion-student")
    assert [teacher.role for teacher in record.teachers] == ["vit", "cnn"]
    results = ResultsFile.load(tmp_path / "cards" / "results" / "x3d-motion-student.json").results
    assert [entry.protocol["arm"] for entry in results if ", mean of " in entry.variant] == [
        "ViT teacher",
        "CNN teacher",
        "student alone",
        "ViT only",
        "CNN only",
        "uniform",
        "full",
    ]
