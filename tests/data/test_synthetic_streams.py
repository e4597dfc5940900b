"""Generated streams: what the annotations say is what the decoded files show, to the frame."""

import json

import numpy as np
import pytest

import hf_effvid
from hf_effvid.data import load_detection_annotations
from hf_effvid.data.synthetic_streams import (
    STREAM_CLASSES,
    draw_action_stream,
    make_action_streams,
    tiny_action_streams,
)


FPS = 10


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Streams in which nothing moves but actions."""
    return make_action_streams(
        tmp_path_factory.mktemp("still"),
        {"train": 3, "test": 1},
        size=48,
        fps=FPS,
        seconds=(10, 14),
        hard_negatives=0,
        noise=0,
        progress=False,
    )


def moving(frames, by=20, pixels=10):
    """bool (T - 1,): whether some pixels change from one frame to the next; by default by more than a new key frame changes them."""
    change = np.abs(np.diff(np.asarray(frames, dtype=np.float32), axis=0)).reshape(len(frames) - 1, -1)
    return (change > by).sum(axis=1) > pixels


def expected(segments, count):
    truth = np.zeros(count, dtype=bool)
    for one in segments:
        truth[round(one.start * FPS) : round(one.end * FPS)] = True
    return truth


def test_the_decoded_files_move_where_the_annotations_say(still):
    annotations = load_detection_annotations(still / "annotations.csv")
    assert len(annotations.videos) == 4 and annotations.splits == ["train", "test"]
    assert set(annotations.class_names) <= set(STREAM_CLASSES)
    for video in annotations.videos:
        clip = hf_effvid.read_video(video.path)
        np.testing.assert_allclose(clip.timestamps, np.arange(len(clip.frames)) / FPS, atol=1e-3)
        found = moving(clip.frames)
        truth = expected(video.segments, len(found))
        assert not found[~truth].any()
        for one in video.segments:  # a small object that shrinks changes few pixels, so a step of it may be missed
            steps = np.flatnonzero(found[round(one.start * FPS) : round(one.end * FPS)])
            length = round((one.end - one.start) * FPS)
            assert steps[0] <= 1 and steps[-1] >= length - 2 and len(steps) > 0.8 * length
        assert video.segments[0].start > 0 and video.segments[-1].end < len(found) / FPS


def test_both_annotation_files_say_the_same(still):
    table = load_detection_annotations(still / "annotations.csv")
    database = load_detection_annotations(still / "annotations.json")
    assert table.class_names == database.class_names
    for one, other in zip(table.videos, database.videos, strict=True):
        assert one.path == other.path and one.split == other.split and one.segments == other.segments
        assert other.duration == pytest.approx(hf_effvid.probe_video(other.path).duration, abs=1e-3)
        assert other.fps == FPS


def test_what_happens_between_actions_is_no_action():
    """With hard negatives pictures change in gaps, too; actions stand by themselves and are as long as asked for."""
    changed = 0
    for number in range(6):
        stream = draw_action_stream(np.random.default_rng(number), size=32, fps=FPS, hard_negatives=1.0, noise=0)
        found = moving(stream.frames, by=0, pixels=0)
        truth = expected(stream.segments, len(found))
        assert found[truth].all()
        changed += found[~truth].sum()
        for one in stream.segments:
            assert 0.8 - 1 / FPS <= one.end - one.start <= 4 + 1 / FPS
            for quiet in (round(one.start * FPS) - 1, round(one.end * FPS)):
                assert not found[quiet]
        gaps = np.diff([0, *(t for one in stream.segments for t in (one.start, one.end))])[::2]
        assert gaps.min() >= 0.5 - 1 / FPS
    assert changed > 30


def test_every_class_happens():
    labels = [
        one.label for n in range(12) for one in draw_action_stream(np.random.default_rng(n), size=16, fps=4).segments
    ]
    counts = [labels.count(name) for name in STREAM_CLASSES]
    assert min(counts) > 0.5 * np.mean(counts)


def test_a_stream_depends_on_seed_split_and_number_alone(tmp_path):
    few = tiny_action_streams(tmp_path / "few", {"train": 1})
    many = tiny_action_streams(tmp_path / "many", {"test": 1, "train": 2})
    other = tiny_action_streams(tmp_path / "other", {"train": 1}, seed=1)
    first, second, third = (folder / "train" / "train_00000.mp4" for folder in (few, many, other))
    assert first.read_bytes() == second.read_bytes() != third.read_bytes()
    assert first.read_bytes() != (many / "test" / "test_00000.mp4").read_bytes()


def test_what_is_there_is_left_and_what_is_missing_is_written(tmp_path):
    tiny_action_streams(tmp_path, {"train": 1})
    path = tmp_path / "train" / "train_00000.mp4"
    stamp = path.stat().st_mtime_ns
    tiny_action_streams(tmp_path, {"train": 1})
    assert path.stat().st_mtime_ns == stamp
    (tmp_path / "annotations.csv").unlink()
    tiny_action_streams(tmp_path, {"train": 1})
    assert (tmp_path / "annotations.csv").is_file()
    assert set(json.loads((tmp_path / "annotations.json").read_text())["database"]) == {"train_00000"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("flies",)}, "unknown motion classes"),
        ({"classes": ()}, "distinct and not empty"),
        ({"size": 15}, "even `size`"),
        ({"seconds": (5, 9)}, "cannot hold the longest action"),
        ({"gap_seconds": (2, 1)}, r"\(least, greatest\)"),
        ({"hard_negatives": 2}, "from 0 to 1"),
        ({"num_videos": {"train": -1}}, "not be negative"),
    ],
)
def test_requests_that_cannot_be_drawn(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_action_streams(tmp_path, **{"num_videos": 1, "progress": False} | change)
