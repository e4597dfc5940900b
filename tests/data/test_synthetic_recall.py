"""Clips of the memory tasks: what they show, and that no frame gives the class away."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid import load_video_dataset, read_video
from hf_effvid.data.synthetic_recall import RECALL_CLASSES, draw_recall_clips, make_recall_dataset


QUIET = {"noise": 0.0, "num_frames": 16, "duration": 2}


def bars_of(clip):
    """Per frame: None, or whether its bar stands. Read off the pixels: a standing bar covers more rows than columns."""
    bright = clip.mean(-1) > 150
    return [None if not frame.any() else bool(frame.any(1).sum() > frame.any(0).sum()) for frame in bright]


@settings(max_examples=60, deadline=None)
@given(
    task=st.sampled_from(sorted(RECALL_CLASSES)),
    label=st.integers(0, 1),
    duration=st.integers(1, 3),
    distance=st.integers(3, 13),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_clip_shows_cue_and_answer_so_many_frames_apart(task, label, duration, distance, seed):
    rng = np.random.default_rng(seed)
    (clip,) = draw_recall_clips(task, [label], [distance], rng, num_frames=16, duration=duration, noise=0.0)
    bars = bars_of(clip)
    shown = [time for time, bar in enumerate(bars) if bar is not None]
    begin = shown[0]
    assert shown == sorted({*range(begin, begin + duration), *range(begin + distance, begin + distance + duration)})
    cue, answer = bars[begin], bars[begin + distance]
    assert all(bars[begin + frame] == cue and bars[begin + distance + frame] == answer for frame in range(duration))
    name = RECALL_CLASSES[task][label]
    assert {"same": cue == answer, "different": cue != answer}.get(name, True)
    assert {"horizontal_first": not cue and answer, "vertical_first": cue and not answer}.get(name, True)


@pytest.mark.parametrize("task", RECALL_CLASSES)
def test_no_frame_tells_the_class(task):
    """How often a standing and a lying bar is shown does not depend on the class: at every time, or for `order` over all times."""
    count, shares = 500, []
    for label in (0, 1):
        rng = np.random.default_rng(label + 1)
        bright = draw_recall_clips(task, [label] * count, [5] * count, rng, size=16, **QUIET).mean(-1) > 150
        stands = bright.any(3).sum(2) > bright.any(2).sum(2)
        shares.append(np.stack([bright.any((2, 3)).mean(0), stands.mean(0)]))
    difference = np.abs(shares[0] - shares[1])
    if task == "order":  # the first bar is the cue: its time alone would tell
        assert difference.max() > 0.1
        difference = np.abs((shares[0] - shares[1]).mean(1))
    assert shares[0].max() > 0.1 and difference.max() < 4.5 * np.sqrt(0.25 * 2 / count), difference


def test_sums_of_per_frame_scores_are_blind_to_the_class():
    """What a model without a temporal branch computes: whatever it sees in a frame, the classes have the same mean score."""
    scores = {True: 0.7, False: -1.3, None: 0.1}
    for task in RECALL_CLASSES:
        means = []
        for label in (0, 1):
            clips = draw_recall_clips(task, [label] * 400, [4] * 400, np.random.default_rng(3), **QUIET)
            means.append(np.mean([np.mean([scores[bar] for bar in bars_of(clip)]) for clip in clips]))
        assert means[0] == pytest.approx(means[1], abs=0.04), task


def test_clips_depend_on_the_generator_alone():
    first, second = (draw_recall_clips("match", [0, 1], [4, 9], np.random.default_rng(7)) for _ in range(2))
    assert first.dtype == np.uint8 and first.shape == (2, 32, 16, 16, 3) and np.array_equal(first, second)


def test_files_carry_the_same_task(tmp_path):
    root = make_recall_dataset(
        tmp_path,
        "order",
        distances=(3, 8),
        clips_per_class={"train": 2, "test": 1},
        num_frames=12,
        duration=2,
        progress=False,
    )
    data = load_video_dataset(str(root))
    assert {name: len(split) for name, split in data.items()} == {"train": 4, "test": 2}
    for row in data["train"]:
        path = row["video"]["path"]
        bars = [bar for bar in bars_of(read_video(path).frames.permute(0, 2, 3, 1).numpy()) if bar is not None]
        assert len(bars) == 4 and bars[0] != bars[-1]
        assert ("vertical_first" in path) == bars[0]
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}
    again = {"clips_per_class": {"train": 2, "test": 1}, "num_frames": 12, "duration": 2, "progress": False}
    make_recall_dataset(tmp_path, "order", distances=(3, 8), **again)
    assert times == {path: path.stat().st_mtime_ns for path in root.rglob("*.mp4")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("count", [0], [4]), "`task` is one of match, order"),
        (("match", [0], [3]), r"`distances` must be 4 to 28 .* got \[3\]"),
        (("match", [0], [29]), "`distances` must be 4 to 28"),
        (("match", [2], [8]), "a label 0 or 1"),
        (("match", [0, 1], [8]), "for each of 1 distances"),
    ],
)
def test_impossible_clips_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_recall_clips(*arguments, np.random.default_rng(0))


def test_impossible_data_sets_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`task`"):
        make_recall_dataset(tmp_path, "count")
    with pytest.raises(ValueError, match="even and at least 16"):
        make_recall_dataset(tmp_path, size=15)
