"""Real video files of several kinds, written once."""

import math
from types import SimpleNamespace

import pytest

from tests.video_corpus.encode import encode
from tests.video_corpus.mp4_edit import set_matrix


QUARTER_TURN = (0, 1, -1, 0)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Paths by name: different lengths, sizes, containers and contents."""
    folder = tmp_path_factory.mktemp("videos")
    upright = encode(size=(64, 48), num_frames=20, rate=10, seed=1)
    contents = {
        "long.mp4": upright,
        "other.mp4": encode(size=(48, 64), num_frames=31, rate=10, seed=2),
        "short.mp4": encode(size=(64, 48), num_frames=2, rate=10, seed=3),
        "single.mp4": encode(size=(40, 40), num_frames=1, rate=10, seed=4),
        "turned.mp4": set_matrix(upright, QUARTER_TURN),
        "clip.webm": encode("webm", "libvpx", size=(64, 48), num_frames=13, rate=10, seed=5),
        "clip.mkv": encode("matroska", "libx264", size=(64, 48), num_frames=14, rate=10, seed=6),
        "clip.ts": encode("mpegts", "mpeg2video", size=(64, 48), num_frames=15, rate=25, seed=7),
        "twelve.mp4": encode(size=(64, 48), num_frames=120, rate=10, seed=8),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(bytes(data))
    (folder / "broken.mp4").write_bytes(b"not a video at all" * 40)
    (folder / "empty.mp4").write_bytes(b"")
    paths = {name.replace(".", "_"): folder / name for name in [*contents, "broken.mp4", "empty.mp4"]}
    return SimpleNamespace(folder=folder, **paths)


def largest_difference(left, right):
    """Between two results of a pipeline for the same videos; infinite when their labels differ."""
    if isinstance(left, dict) and "score" in left:
        return abs(left["score"] - right["score"]) if left["label"] == right["label"] else math.inf
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        return max(largest_difference(left[key], right[key]) for key in left)
    if isinstance(left, list):
        assert len(left) == len(right)
        return max((largest_difference(a, b) for a, b in zip(left, right, strict=True)), default=0.0)
    return 0.0 if left == right else (abs(left - right) if isinstance(left, float) else math.inf)
