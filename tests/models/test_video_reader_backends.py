"""PyAV and torchcodec give the same frames and the same time stamps, pixel by pixel, for every well-formed video."""

import functools
import sys

import pytest
import torch

from hf_effvid.models.video_errors import VideoError, VideoNotReadable
from hf_effvid.models.video_reader import read_video
from hf_effvid.models.video_torchcodec import load_decoder_class
from tests.video_corpus.cases import well_formed_cases


CASES = {case.name: case for case in well_formed_cases() if case.kind != "large"}

# torchcodec fails on these by itself (it says so, or returns another frame than the one asked for), whatever we do.
TORCHCODEC_CANNOT = ("raw.h264", ".ts", ".mpg", "container_h264.avi")


@functools.cache
def decoder_class():
    try:
        return load_decoder_class("test")
    except VideoError as error:
        return error


@pytest.fixture(scope="module", autouse=True)
def torchcodec_loads():
    if isinstance(decoder_class(), VideoError):
        print(f"\ntorchcodec is not compared with PyAV: {decoder_class().found}")
        pytest.skip(decoder_class().found)


@pytest.mark.parametrize("name", CASES)
def test_frames_and_times_are_identical(name):
    data = CASES[name].make()
    ours = read_video(data, backend="pyav")
    theirs = read_video(data, backend="torchcodec")
    if name.endswith(TORCHCODEC_CANNOT):
        assert any("because torchcodec failed" in note for note in theirs.notes) or theirs.notes == []
    else:
        assert theirs.notes == [], "PyAV had to step in"
    assert theirs.info == ours.info
    assert theirs.indices == ours.indices
    assert torch.equal(theirs.timestamps, ours.timestamps)
    assert theirs.frames.shape == ours.frames.shape
    assert torch.equal(theirs.frames, ours.frames)


@pytest.mark.parametrize(
    "name", ["b_frames.mp4", "vfr.mp4", "10_bit_h264.mp4", "rotated_90.mp4", "interlaced_h264.mp4"]
)
def test_torchcodec_itself_agrees(name):
    """Without our backend in between: the decoder's own frames and time stamps."""
    data = CASES[name].make()
    ours = read_video(data)
    batch = decoder_class()(data).get_frames_at(list(range(len(ours.indices))))
    assert torch.equal(batch.data, ours.frames)
    assert torch.allclose(batch.pts_seconds - ours.info.start_time, ours.timestamps, atol=1e-6)


def test_selection_and_resizing_are_identical():
    data = CASES["long_gop.mp4"].make()
    for kwargs in (dict(num_frames=5, size=24), dict(start=1.0, end=2.0, target_fps=5), dict(indices=[40, 3, 99])):
        ours, theirs = read_video(data, **kwargs), read_video(data, backend="torchcodec", **kwargs)
        assert torch.equal(theirs.frames, ours.frames)
        assert (theirs.indices, theirs.notes) == (ours.indices, ours.notes)


def test_where_torchcodec_fails_pyav_reads_and_a_note_says_so():
    data = CASES["raw.h264"].make()
    video = read_video(data, num_frames=3, backend="torchcodec")
    assert "decoded with PyAV, because torchcodec failed" in video.notes[0]
    assert torch.equal(video.frames, read_video(data, num_frames=3).frames)


def test_a_missing_torchcodec_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(VideoNotReadable, match="torchcodec cannot be loaded .*Use backend='pyav'"):
        read_video(CASES["b_frames.mp4"].make(), backend="torchcodec")
