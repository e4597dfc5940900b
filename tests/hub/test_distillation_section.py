"""The card of a distilled student: its teachers, their licences, what each arm of the ablation is worth, and no claim that the numbers do not carry."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_effvid import X3DConfig, X3DForVideoClassification
from hf_effvid.evaluation.distillation_arms import (
    ALONE,
    CNN_TEACHER,
    FULL,
    UNIFORM,
    VIT_TEACHER,
    arm_entries,
)
from hf_effvid.evaluation.results import Cost, ResultsFile
from hf_effvid.hub.card_check import card_problems, split_card
from hf_effvid.hub.card_info import CardInfo
from hf_effvid.hub.distillation_results import overview_table, students_table, verdicts
from hf_effvid.hub.distillation_section import distillation_section, with_teachers
from hf_effvid.hub.model_card import render_model_card
from hf_effvid.hub.selection_results import own_results
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint
from hf_effvid.training.distillation_record import RECORD_NAME, DistillationRecord, TeacherRecord

from .tiny_checkpoint import tiny_processor


TINY = X3DConfig(num_frames=4, image_size=32, stem_size=4, hidden_sizes=[4, 8], depths=[1, 1], head_size=8)
TEACHERS = (
    TeacherRecord("vit", "org/vit", "cc-by-nc-4.0", "videomae", 87_000_000),
    TeacherRecord("cnn", "/home/me/runs/cnn/model", None, "x3d", 3_800_000),
)
SETTINGS = {"kd_weight": 1.0, "weighting": "discrepancy_aware", "residual": "discrepancy", "residual_weight": 1.0, "relation_weight": 1.0}  # fmt: skip
PROVENANCE = {"command": "effvid distill --student x3d:s", "commit": "0" * 40, "date": "2026-11-20"}
RECORD = DistillationRecord(TEACHERS, SETTINGS, {"name": "clips", "views": 4}, PROVENANCE)


def study(shares, seeds=(0, 1, 2), n=200):
    """Entries of arms that are right on a share of n videos, the same first ones in every arm."""
    answers = {
        arm: [np.arange(n) < round(share * n)] * (1 if "teacher" in arm else len(seeds))
        for arm, share in shares.items()
    }
    entries = []
    for arm, right in answers.items():
        references = {} if "teacher" in arm else {name: other for name, other in answers.items() if name != arm}
        entries += arm_entries(
            arm, right, references, model="teacher" if "teacher" in arm else "student", dataset="clips", split="test",
            seeds=seeds[: len(right)], cost=Cost(parameters=11_000, gmacs=0.004),
        )  # fmt: skip
    return entries


STUDY = study({VIT_TEACHER: 0.95, CNN_TEACHER: 0.8, ALONE: 0.7, UNIFORM: 0.85, FULL: 0.85})


def test_the_section_names_both_teachers_with_licence_accuracy_and_architecture():
    text = distillation_section(RECORD, STUDY)
    assert (
        "| ViT | [`org/vit`](https://huggingface.co/org/vit) | `videomae` | 87,000,000 | cc\\-by\\-nc\\-4\\.0 | 95.0% ["
        in text
    )
    assert "| CNN | `cnn` | `x3d` | 3,800,000 | not stated | 80.0% [" in text
    assert "excludes commercial use" in text and "states no licence" in text
    assert "the surer it is and the more the student disagrees" in text and "4 random views" in text
    assert "the same cost" in text and "/home/me" not in text


def test_what_the_intervals_say_is_what_the_words_say():
    ahead, behind, alone, uniform = "the CNN teacher", "the ViT teacher", "labels alone", "equal weights"
    told = {one.split(": ")[0]: one for one in verdicts(STUDY)}
    assert any("is ahead of" in name and ahead in name for name in told)
    assert any("is behind" in name and behind in name for name in told)
    assert any("is ahead of" in name and alone in name for name in told)
    assert any("is not shown to differ from" in name and uniform in name for name in told)
    assert verdicts([]) == [] and verdicts(STUDY, "no such arm") == []


def test_seeds_that_overlap_are_no_proof():
    worst, best = [np.arange(200) < n for n in (100, 190)]
    references = {ALONE: [np.arange(200) < 120] * 2}
    about = {"model": "m", "dataset": "clips", "split": "test"}
    entries = arm_entries(FULL, [worst, best], references, seeds=(0, 1), **about)
    entries += arm_entries(ALONE, references[ALONE], {}, seeds=(0, 1), **about)
    (told,) = verdicts(entries)
    assert (
        "is ahead of" in told
        and "seeds lie from 50.0 to 95.0, the others' from 60.0 to 60.0" in told
        and "luck" in told
    )
    assert not any("luck" in one for one in verdicts(STUDY))


def test_a_record_without_numbers_claims_none():
    text = distillation_section(RECORD)
    assert text.count("not measured") == 2 and "What it bought" not in text and "ahead" not in text
    assert distillation_section(None, STUDY) is None


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"residual": "none"}, "class scores of both", "branch"),
        ({"residual": "vit"}, "the ViT's features, by a branch", "what the ViT sees and the CNN"),
        ({"weighting": "uniform"}, "each counting equally", "the surer"),
        ({"kd_weight": 0.0}, "distances and angles", "class scores"),
        ({"relation_weight": 0.0}, "class scores", "angles"),
    ],
)
def test_the_section_tells_ablations_apart(changes, said, unsaid):
    text = distillation_section(replace(RECORD, settings=SETTINGS | changes))
    assert said in text and unsaid not in text


def test_one_teacher_is_no_two():
    text = distillation_section(replace(RECORD, teachers=TEACHERS[:1], settings=SETTINGS | {"residual": "none"}))
    assert (
        "from a teacher beside the labels" in text and "class scores of the teacher" in text and "| CNN |" not in text
    )


def test_permissive_teachers_need_no_warning():
    record = replace(RECORD, teachers=tuple(replace(one, license="apache-2.0") for one in TEACHERS))
    text = distillation_section(record)
    assert "commercial" not in text and "states no licence" not in text and text.count("apache\\-2\\.0") == 2


def test_text_of_strangers_stays_text():
    hostile = TeacherRecord("vit", "`x` | <b>\n# Owned", "<script>| a", "`|`", 1)
    text = distillation_section(replace(RECORD, teachers=(hostile,)))
    assert "| ViT | ` x    <b> # Owned" not in text and "\n# Owned" not in text
    assert "<script>" not in text and "\n# Owned" not in text and "](" not in text


def test_the_arms_are_no_results_of_the_checkpoint(tmp_path):
    again = ResultsFile.load(ResultsFile(STUDY).save(tmp_path / "study.json")).results
    assert own_results(again) == [] and students_table(again) == students_table(STUDY) != ""
    assert students_table([]) == ""
    table = students_table(STUDY).splitlines()
    row = next(line for line in table if line.startswith("| full |"))
    assert "| 0.011 M | 0.004 | 85.0 [" in row and "85.0, 85.0, 85.0" in row and "+15.0 [" in row
    assert any(line.startswith("| ViT teacher: teacher |") and "one run" in line for line in table)


def test_several_studies_are_rows_of_one_table():
    others = [replace(entry, dataset="gestures") for entry in STUDY if entry.protocol["arm"] != UNIFORM]
    chosen_on = [replace(entry, split="validation") for entry in STUDY]
    first, second = overview_table([*STUDY, *others, *chosen_on]).splitlines()[2:]
    assert first.startswith("| clips (test) | 200 | 70.0 | - | - | 85.0 | 85.0 | 95.0 | 80.0 | +15.0 [")
    assert second.startswith("| gestures (test) | 200 | 70.0 | - | - | - | 85.0 | 95.0 | 80.0 | +15.0 [")
    assert overview_table([]) == overview_table([one for one in STUDY if one.protocol["arm"] != FULL]) == ""


def test_the_card_cites_the_method_and_the_architecture_and_passes_its_check():
    card = render_model_card(TINY, tiny_processor(), repo_id="org/student", results=STUDY, distillation=RECORD)
    assert "peng2025dualteacher" in card and "feichtenhofer2020x3d" in card and "2511.09469" in card
    assert card_problems(card, STUDY) == []
    assert "base_model" not in split_card(card)[0], "no weight of a teacher is in the student"
    assert "peng2025dualteacher" not in render_model_card(TINY, tiny_processor(), repo_id="org/student")


def test_the_licence_of_a_teacher_is_not_the_students():
    found = with_teachers(CardInfo(license="apache-2.0"), RECORD)
    assert (found.license, found.training_command) == ("apache-2.0", PROVENANCE["command"])
    assert with_teachers(CardInfo(training_command="mine"), RECORD).training_command == "mine"


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "run" / "model"
    X3DForVideoClassification(TINY).save_pretrained(folder)
    tiny_processor(num_clips=1, num_crops=1).save_pretrained(folder)
    RECORD.save(folder)
    return folder


def test_staging_takes_the_record_along_without_paths_and_it_can_be_staged_again(student, tmp_path):
    staged = stage_checkpoint(student, tmp_path / "student", reference=False)
    assert RECORD_NAME in {path.name for path in staged.iterdir()}
    assert [teacher.name for teacher in DistillationRecord.load(staged).teachers] == ["org/vit", "cnn"]
    assert "/home/me" not in (staged / RECORD_NAME).read_text()
    card = (staged / "README.md").read_text()
    assert "## Distilled" in card and PROVENANCE["command"] in card and f"Commit: `{'0' * 40}`" in card
    again = stage_checkpoint(staged, tmp_path / "again", reference=False)
    assert (again / RECORD_NAME).read_bytes() == (staged / RECORD_NAME).read_bytes()


@pytest.mark.slow
def test_the_staged_student_is_verified_without_the_package(student, tmp_path):
    report = verify_checkpoint(stage_checkpoint(student, tmp_path / "student"))
    assert report.ok and all(check.ok for check in report.checks), report.to_text()
