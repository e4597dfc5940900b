"""Clips with known informative tokens: the class is where the truth says, nowhere else, and survives the video file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid import load_video_dataset, read_video
from hf_effvid.data.synthetic_needle import (
    LOCATIONS,
    NEEDLE_TASKS,
    NeedleTask,
    draw_needle_clips,
    make_needle_dataset,
)


def cells(frames, task):
    """(N, tokens, pixels, 3) fp: the pixels that each token sees, minus the clip's mean colour."""
    clips = frames.astype(float) - frames.mean((1, 2, 3), keepdims=True)
    steps, rows, columns = task.grid
    split = clips.reshape(
        len(clips), steps, task.tubelet_size, rows, task.patch_size, columns, task.patch_size, 3
    ).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return split.reshape(len(clips), task.num_tokens, -1, 3)


def red_answers(frames, task):
    """How much of each class's texture every token shows in red: (N, tokens, classes), by projection."""
    from hf_effvid.data.synthetic_needle import _texture

    textures = np.stack([_texture(number, task.patch_size) for number in range(task.num_classes)])
    whole = np.stack([textures] * task.tubelet_size, axis=1).reshape(task.num_classes, -1)
    return cells(frames, task)[..., 0] @ whole.T / whole.shape[1]


@settings(max_examples=20, deadline=None)
@given(
    location=st.sampled_from(LOCATIONS),
    num_needles=st.integers(1, 8),
    label=st.integers(0, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_needles_show_the_class_and_only_they(location, num_needles, label, seed):
    task = NeedleTask(location=location, num_needles=num_needles, noise=0.0, amplitude=(40.0, 40.0))
    clips = draw_needle_clips(task, [label], np.random.default_rng(seed))
    answers = red_answers(clips.frames, task)[0]
    assert clips.informative.sum() == num_needles and not clips.decoys.any()
    np.testing.assert_array_equal(np.abs(answers).max(1) > 20, clips.informative[0])
    assert (answers[clips.informative[0]].argmax(1) == label).all()
    by_step = clips.informative[0].reshape(task.grid[0], -1).sum(1)
    assert by_step.max() - by_step.min() <= 1, "needles are spread evenly over time"


def test_locations():
    """Static needles keep their places over a clip, fixed ones over all clips, random ones do neither."""
    places = {}
    for location in LOCATIONS:
        task = NeedleTask(location=location, num_needles=4)
        informative = draw_needle_clips(task, [0] * 20, np.random.default_rng(1)).informative
        places[location] = informative.reshape(20, 4, 16)
    still = {name: (found == found[:, :1]).all((1, 2)).mean() for name, found in places.items()}
    same = {name: (found == found[:1]).all((1, 2)).mean() for name, found in places.items()}
    assert still == {"random": 0.0, "static": 1.0, "fixed": 1.0}
    assert same["fixed"] == 1.0 and same["static"] < 0.5 and same["random"] < 0.1


def test_a_conjunction_shows_one_texture_twice_and_others_once():
    task = NeedleTask("conjunction", num_needles=2, num_decoys=5, noise=0.0, amplitude=(40.0, 40.0))
    labels = np.arange(8).repeat(4)
    clips = draw_needle_clips(task, labels, np.random.default_rng(0))
    shown = red_answers(clips.frames, task).argmax(-1)
    for clip, label, needles, decoys in zip(shown, labels, clips.informative, clips.decoys, strict=True):
        assert needles.sum() == 2 and decoys.sum() == 5 and not (needles & decoys).any()
        assert set(clip[needles]) == {label}
        assert len(set(clip[decoys])) == 5 and label not in clip[decoys]


def test_no_token_of_a_conjunction_knows_whether_it_counts():
    """Over many clips needles and decoys show every texture equally often, at the same places."""
    task = NeedleTask("conjunction", num_needles=2, num_decoys=2)
    labels = np.arange(8).repeat(40)
    clips = draw_needle_clips(task, labels, np.random.default_rng(0))
    by_place = np.abs(clips.informative.mean(0) - clips.decoys.mean(0))
    assert by_place.max() < 4.5 * np.sqrt(2 * 0.032 / 320)


def test_the_global_control_is_the_same_everywhere():
    task = NeedleTask("global", noise=0.0, num_distractors=0, amplitude=(10.0, 10.0))
    clips = draw_needle_clips(task, [0, 1], np.random.default_rng(0))
    assert clips.informative.all()
    assert (clips.frames.std((1, 2, 3)) == 0).all() and (clips.frames[0, 0, 0, 0] != clips.frames[1, 0, 0, 0]).any()


def test_distractors_move_and_know_no_class():
    """Green and blue hold them, their places and heights do not depend on the label, and they cross token borders."""
    task = NeedleTask(noise=0.0)
    energy = []
    for label in (0, 5):
        clips = draw_needle_clips(task, [label] * 60, np.random.default_rng(label))
        energy.append(cells(clips.frames, task)[..., 1:].std((2, 3)))
        moved = np.abs(np.diff(clips.frames[..., 1].astype(int), axis=1)).max((2, 3))
        assert (moved > 40).all(), "something moves between any two frames"
    difference = np.abs(energy[0].mean(0) - energy[1].mean(0)) / energy[0].std()
    assert difference.max() < 4.5 * np.sqrt(2 / 60)


@pytest.mark.parametrize("kind", NEEDLE_TASKS)
def test_clips_depend_on_the_generator_alone(kind):
    first, second = (draw_needle_clips(NeedleTask(kind), [0, 7], np.random.default_rng(3)) for _ in range(2))
    assert first.frames.dtype == np.uint8 and first.frames.shape == (2, 8, 32, 32, 3)
    assert all(np.array_equal(left, right) for left, right in zip(first, second, strict=True))


def test_files_carry_the_task_and_the_truth(tmp_path):
    task = NeedleTask(num_classes=3, num_needles=4, noise=8.0, amplitude=(40.0, 50.0))
    root = make_needle_dataset(tmp_path, task, {"train": 2, "test": 1}, progress=False)
    data = load_video_dataset(str(root))
    assert {name: len(split) for name, split in data.items()} == {"train": 6, "test": 3}
    truth = json.loads((root / "informative_tokens.json").read_text())
    assert len(truth) == 9
    for path, tokens in truth.items():
        frames = read_video(root / path).frames.permute(0, 2, 3, 1).numpy()
        answers = red_answers(frames[None], task)[0]
        label = task.class_names.index(path.split("/")[1])
        assert set(np.argsort(answers[:, label])[-4:]) == set(tokens), "the codec keeps what the class is read from"
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}
    make_needle_dataset(tmp_path, task, {"train": 2, "test": 1}, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "haystack"}, "`kind` is one of needle, global, conjunction"),
        ({"location": "moon"}, "`location` one of random, static, fixed"),
        ({"size": 30}, "tokens must fill the clip"),
        ({"patch_size": 2}, "multiples of 4"),
        ({"num_classes": 16}, "2 to 15"),
        ({"num_needles": 65}, "do not fit into 64 tokens"),
        ({"kind": "conjunction", "num_needles": 1}, "at least 2 needles"),
        ({"kind": "conjunction", "num_decoys": 8}, "fewer decoys than classes"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        NeedleTask(**fields)


def test_labels_that_are_no_class_are_refused():
    with pytest.raises(ValueError, match="labels are 0 to 7"):
        draw_needle_clips(NeedleTask(), [8], np.random.default_rng(0))
