"""Arms of a distillation study: means over seeds, paired differences, and one set of videos."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hf_effvid.evaluation.distillation_arms import TASK, arm_entries


ABOUT = {"model": "m", "dataset": "d", "split": "test"}


def test_every_seed_and_their_mean():
    answers = [[True, True, False, False], [True, False, False, False]]
    entries = arm_entries("full", answers, {"student alone": [[False, True, False, False]]}, seeds=(5, 7), **ABOUT)
    assert [(entry.provenance.seed, entry.metric("top1").value) for entry in entries] == [
        (5, 0.5),
        (7, 0.25),
        (None, 0.375),
    ]
    assert {entry.task for entry in entries} == {TASK} and entries[-1].protocol == {"arm": "full", "seeds": 2}
    difference = entries[-1].metric("top1 minus student alone")
    assert difference.value == pytest.approx(0.125) and difference.n == 4
    assert difference.interval[0] <= 0.125 <= difference.interval[1]
    assert len({entry.key for entry in entries}) == 3


@settings(deadline=None, max_examples=15)
@given(arrays(bool, (3, 20)))
def test_an_arm_does_not_differ_from_itself(answers):
    difference = arm_entries("full", answers, {"itself": answers}, seeds=(0, 1, 2), **ABOUT)[-1].metric(
        "top1 minus itself"
    )
    assert (difference.value, tuple(difference.interval)) == (0.0, (0.0, 0.0))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 1000))
def test_the_difference_is_that_of_the_accuracies(seeds, videos, seed):
    generator = np.random.default_rng(seed)
    ours, others = generator.random((seeds, videos)) < 0.7, generator.random((2, videos)) < 0.5
    mean = arm_entries("full", ours, {"other": others}, seeds=range(seeds), **ABOUT)[-1]
    assert mean.metric("top1 minus other").value == pytest.approx(ours.mean() - others.mean())


def test_other_videos_and_missing_seeds_are_refused():
    with pytest.raises(ValueError, match="3 and 4 videos"):
        arm_entries("full", [[True] * 3], {"alone": [[True] * 4]}, seeds=(0,), **ABOUT)
    with pytest.raises(ValueError, match="2 seeds"):
        arm_entries("full", [[True] * 3], {}, seeds=(0, 1), **ABOUT)
