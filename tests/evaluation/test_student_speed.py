"""What the benchmark of the small video CNNs measures, and when a goal counts as met."""

from dataclasses import replace

import pytest
import torch

from hf_effvid.evaluation.benchmark_report import BenchmarkReport, Measurement
from hf_effvid.evaluation.benchmark_timing import PairedRatio
from hf_effvid.evaluation.results import current_provenance
from hf_effvid.evaluation.student_speed import (
    BASELINE,
    FOLDING,
    GOALS,
    STUDENTS,
    TEACHERS,
    Subject,
    build,
    build_one_by_one,
    check_goals,
    variants,
)
from hf_effvid.models import folded_convolution


def measured(name, speedup=None):
    ratio = speedup and PairedRatio((speedup,) * 6, speedup, (speedup - 1, speedup + 1), 0.96)
    return Measurement(name, 1, "float32", "eager", (8, 3, 32, 32), 1, 1.0, 5.0, 6.0, 200.0, ((5.0,),), speedup=ratio)


def report(**speedups):
    rows = (measured(BASELINE.name), *(measured(name, ratio) for name, ratio in speedups.items()))
    return BenchmarkReport(rows, current_provenance("test", dtype="float32"), 2, BASELINE.name)


def test_every_subject_has_a_name_of_its_own_and_goals_are_measured():
    names = [subject.name for subject in (BASELINE, *STUDENTS, *TEACHERS)]
    assert len(set(names)) == len(names) and GOALS.keys() <= set(STUDENTS)
    assert [variant.clip_shape for variant in variants([BASELINE])] == [(16, 3, 224, 224)]


@pytest.mark.parametrize("subject", [*STUDENTS, *TEACHERS], ids=lambda subject: subject.name)
def test_subjects_can_be_built(subject):
    if subject.family not in ("tsm", "videomae"):  # both compute with numbers, for which there has to be a device
        with torch.device("meta"):
            model = build(subject, num_labels=7)
        assert model.config.num_labels == 7 and model.config.num_frames == subject.frames
    assert variants([subject])[0].clip_shape == (subject.frames, 3, subject.size, subject.size)


def test_weights_are_the_same_at_every_call():
    subject = Subject("movinet", "a0", 4, 32)
    first, second = (build(subject, num_labels=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert build(subject, num_labels=3)(torch.rand(1, 4, 3, 32, 32)).logits.shape == (1, 3)


def test_folded_models_can_be_timed_with_their_modules_one_by_one(monkeypatch):
    monkeypatch.setattr(folded_convolution, "_folded", None)  # not called
    subject = Subject("x3d", "xs", 2, 32)
    with torch.no_grad():
        assert build_one_by_one(subject)(torch.rand(1, 2, 3, 32, 32)).logits.shape == (1, 400)
    assert set(FOLDING) <= set(STUDENTS)
    assert [v.name for v in variants([subject], [subject])] == ["x3d xs, 2x32", "x3d xs, 2x32, modules one by one"]


@pytest.mark.parametrize(("margin", "met"), [(1, True), (-1, False)])
def test_goals(margin, met):
    lines, all_met = check_goals(report(**{subject.name: goal + margin for subject, goal in GOALS.items()}))
    assert all_met is met and len(lines) == len(GOALS)
    assert all(line.endswith("met" if met else "MISSED") for line in lines)
    assert (
        "x3d s, 13x160: 26.0 times (25.0 to 27.0) faster than videomae base, 16x224, goal 25: met" in lines or not met
    )


def test_other_models_and_batches_have_no_goal():
    (name, goal), *_ = ((subject.name, goal) for subject, goal in GOALS.items())
    several = report(**{name: goal / 2, "another": 1.0})
    several = replace(several, measurements=tuple(replace(m, batch_size=4) for m in several.measurements))
    assert check_goals(several) == ([], True)
