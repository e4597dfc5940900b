import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.data.label_directions import labels_forbid_flips
from hf_effvid.data.synthetic import MOTION_CLASSES


@pytest.mark.parametrize(
    "labels",
    [
        ("left", "right"),
        ("move_left", "move_right"),
        ("TurnLeft", "TurnRight"),
        ("swipe-left", "Swipe Right"),
        ("lefthand wave", "righthand wave"),
        ("Pulling something from left to right", "Pulling something from right to left"),
        ("clockwise", "counter-clockwise"),
        ("spin_clockwise", "spin_anticlockwise"),
        ("rotate cw", "rotate ccw"),
        ("RotateClockwise", "RotateCounterClockwise"),
        ("leftward", "rightward"),
        ("arm_l", "arm_r"),
    ],
)
def test_mirrored_labels_are_found(labels):
    assert labels_forbid_flips(["run", *labels, "jump"]) == [labels]


@pytest.mark.parametrize(
    "labels",
    [
        ("up", "down"),
        ("bright", "leftover"),
        ("left", "straight"),
        ("run_left", "jump_right"),
        ("clockwise", "spin"),
        ("right answer", "wrong answer"),
        ("carry", "car"),
        (),
    ],
)
def test_others_are_not(labels):
    assert labels_forbid_flips(labels) == []


def test_the_motion_classes():
    assert labels_forbid_flips(MOTION_CLASSES) == [
        ("moves_left", "moves_right"),
        ("turns_clockwise", "turns_counter_clockwise"),
    ]


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_text_is_taken(labels):
    for first, second in labels_forbid_flips(labels):
        assert first in labels and second in labels
