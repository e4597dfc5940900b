"""Sliding windows: the same frames as `start` / `end`, in one pass, in memory that does not grow with the video."""

import itertools
import weakref

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid import VideoClassificationPipeline, read_video
from hf_effvid.models.clip_sampling import sliding_windows
from hf_effvid.models.video_processing_effvid import ReadOptions
from hf_effvid.models.video_reader import VideoTooShort
from hf_effvid.pipelines import clips
from hf_effvid.pipelines.clips import ClipRecipe, cut_windows
from tests.video_corpus.encode import encode

from .conftest import largest_difference
from .hosts import HOSTS, video_focalnet, videomae


@pytest.fixture(scope="module")
def pipe():
    model, processor = videomae()
    return VideoClassificationPipeline(model, video_processor=processor, device="cpu")


@pytest.mark.parametrize(("window", "stride"), [(2.0, 2.0), (3.0, 1.0), (1.0, 2.5), (5.0, 4.0), (0.25, 0.2)])
def test_a_window_is_what_start_and_end_give(pipe, videos, window, stride):
    windows = pipe(videos.twelve_mp4, window=window, stride=stride, batch_size=4)
    planned = sliding_windows(12.0, window, stride)
    assert [one["start"] for one in windows] == pytest.approx([start for start, _ in planned])
    assert [one["end"] for one in windows] == pytest.approx([end for _, end in planned])
    assert windows[-1]["end"] == pytest.approx(12.0) or stride > window
    for one in windows[:6] + windows[-2:]:
        part = pipe(videos.twelve_mp4, start=one["start"], end=one["end"])
        assert largest_difference(one["predictions"], part) < 1e-5


def test_a_video_without_a_window_is_an_error_and_not_an_empty_result(pipe, videos):
    with pytest.raises(VideoTooShort, match="start=100"):
        pipe(videos.twelve_mp4, window=1.0, start=100.0)
    record = pipe(videos.twelve_mp4, window=1.0, start=100.0, on_error="record")
    assert (record["error"], record["windows"]) == ("VideoTooShort", [])
    with pytest.raises(VideoTooShort, match="frames without a file"):
        pipe(torch.zeros(9, 3, 32, 32, dtype=torch.uint8), window=1.0)


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_and_several_views(videos, host):
    model, processor = HOSTS[host]()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    views = {"num_clips": 2, "num_crops": 3}
    windows = pipe(videos.twelve_mp4, window=4.0, **views)
    assert len(windows) == 3
    for one in windows:
        part = pipe(videos.twelve_mp4, start=one["start"], end=one["end"], **views)
        assert largest_difference(one["predictions"], part) < 1e-5


def test_clips_know_when_their_frames_are_shown(pipe, videos):
    recipe, reading = ClipRecipe(num_frames=4, num_clips=2), ReadOptions()
    whole = clips.read_clips(videos.twelve_mp4, recipe, reading)
    assert [len(times) for times in whole.times] == [4, 4]
    frames = read_video(videos.twelve_mp4)
    for window in clips.read_windows(videos.twelve_mp4, recipe, reading, window=3.0):
        for clip, times in zip(window.frames, window.times, strict=True):
            for frame, seconds in zip(clip, times, strict=True):
                assert window.start - 1e-6 <= seconds < window.end
                nearest = (frames.timestamps - seconds).abs().argmin()
                assert frames.timestamps[nearest] == pytest.approx(seconds)
                assert torch.equal(frame, frames.frames[nearest])


def test_isolated_windows_are_the_same(pipe, videos):
    expected = pipe(videos.twelve_mp4, window=5.0)
    assert largest_difference(pipe(videos.twelve_mp4, window=5.0, isolate=True), expected) < 1e-6


def test_start_and_end_bound_the_windows(pipe, videos):
    windows = pipe(videos.twelve_mp4, window=2.0, start=3.0, end=8.0)
    assert [(one["start"], one["end"]) for one in windows] == [(3.0, 5.0), (5.0, 7.0), (7.0, 8.0)]
    assert largest_difference(windows[0]["predictions"], pipe(videos.twelve_mp4, start=3.0, end=5.0)) < 1e-6


def test_a_window_longer_than_the_video_is_the_video(pipe, videos):
    windows = pipe(videos.long_mp4, window=60.0)
    assert [(one["start"], one["end"]) for one in windows] == [(0.0, pytest.approx(2.0))]
    assert largest_difference(windows[0]["predictions"], pipe(videos.long_mp4)) < 1e-6
    assert len(pipe(videos.single_mp4, window=1.0)) == 1


def test_lists_mix_videos_and_failures(pipe, videos):
    results = pipe(
        [videos.long_mp4, videos.broken_mp4, videos.twelve_mp4], window=1.0, on_error="record", batch_size=5
    )
    assert [len(results[0]), len(results[2])] == [2, 12]
    assert results[1]["error"] == "VideoNotReadable"
    assert results[1]["windows"] == []
    assert largest_difference(results[0], pipe(videos.long_mp4, window=1.0)) < 1e-5


def test_windows_before_a_failure_are_kept(pipe, videos, monkeypatch):
    whole = clips.iterate_video

    def failing(*args, **kwargs):
        yield from itertools.islice(whole(*args, **kwargs), 55)
        raise OSError("the cable was pulled")

    expected = pipe(videos.twelve_mp4, window=2.0)
    monkeypatch.setattr(clips, "iterate_video", failing)
    result = pipe([videos.twelve_mp4], window=2.0, on_error="record", batch_size=4)[0]
    assert (result["error"], len(result["windows"])) == ("OSError", 2)
    assert largest_difference(result["windows"], expected[:2]) < 1e-5
    stream = pipe.stream(videos.twelve_mp4, window=2.0)
    assert [next(stream)["start"] for _ in range(2)] == [0.0, 2.0]
    with pytest.raises(OSError, match="cable"):
        next(stream)


def test_streams_deliver_as_they_compute(pipe, videos):
    stream = pipe.stream(videos.twelve_mp4, window=1.0)
    assert not isinstance(stream, list)
    assert largest_difference(list(stream), pipe(videos.twelve_mp4, window=1.0)) == 0


# ---- the cutter alone ------------------------------------------------------------------------------------------------------


def numbered(count, fps):
    return ((i / fps, torch.tensor([float(i)])) for i in range(count))


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 200),
    fps=st.sampled_from([5.0, 10.0, 24.0, 25.0, 30.0]),
    window=st.floats(0.1, 12.0),
    stride=st.floats(0.1, 12.0),
    num_frames=st.integers(1, 9),
    sampling=st.sampled_from(["uniform", "dense"]),
)
def test_windows_take_the_frames_of_their_part(count, fps, window, stride, num_frames, sampling):
    recipe = ClipRecipe(num_frames=num_frames, sampling=sampling, frame_stride=2)
    duration = count / fps
    plan = sliding_windows(duration, window, stride)
    cut = list(cut_windows(numbered(count, fps), plan, recipe, fps))
    # A window between two frames (shorter than one frame, at the very end) may find nothing new.
    assert len(cut) >= len([one for one in plan if one[0] <= (count - 1) / fps])
    for one, (start, end) in zip(cut, plan, strict=False):
        assert one.start == start
        assert one.end == pytest.approx(end)
        numbers = one.frames[0][:, 0].tolist()
        inside = [i for i in range(count) if start - 1e-6 <= i / fps < end - 1e-6]
        if inside:
            assert numbers == [inside[index] for index in recipe.clips(len(inside), fps)[0]]


def test_unknown_durations_end_with_the_frames():
    plan = ((k * 1.0, k * 1.0 + 2.0) for k in itertools.count())
    cut = list(cut_windows(numbered(45, 10.0), plan, ClipRecipe(num_frames=4), 10.0))
    assert [(one.start, one.end) for one in cut] == [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (3.0, pytest.approx(4.5))]
    assert cut[-1].notes == ["the video ended at 4.500 s"]


def test_containers_that_promise_too_much():
    cut = list(cut_windows(numbered(30, 10.0), sliding_windows(100.0, 2.0, 2.0), ClipRecipe(num_frames=4), 10.0))
    assert [(one.start, one.end) for one in cut] == [(0.0, 2.0), (2.0, pytest.approx(3.0))]


def test_variable_frame_rate_follows_the_clock():
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 3.9]
    frames = ((t, torch.tensor([float(i)])) for i, t in enumerate(times))
    cut = list(cut_windows(frames, [(0.0, 2.0), (2.0, 4.0)], ClipRecipe(num_frames=4), 10.0))
    assert cut[0].frames[0][:, 0].tolist() == [2.0, 3.0, 3.0, 3.0]
    assert cut[1].frames[0][:, 0].tolist() == [4.0, 4.0, 4.0, 4.0]


def test_never_holds_more_than_the_open_windows():
    alive = weakref.WeakSet()

    def frames():
        for i in range(2000):
            frame = torch.full((1,), float(i))
            alive.add(frame)
            yield i / 10.0, frame
            del frame
            # at most three windows are open at a time; two more frames are the last one shown and the loop's own
            assert len(alive) <= 3 * 4 + 2

    cut = list(cut_windows(frames(), sliding_windows(200.0, 4.0, 2.0), ClipRecipe(num_frames=4), 10.0))
    assert len(cut) == 99


# ---- memory ----------------------------------------------------------------------------------------------------------------


def long_video(path, seconds, fps=5):
    """64x64, one key frame every 10 s, encoded in pieces of almost nothing."""
    data = encode(
        size=(64, 64),
        num_frames=seconds * fps,
        rate=fps,
        options={"preset": "ultrafast", "g": str(10 * fps), "crf": "40"},
    )
    path.write_bytes(data)
    return path


def growth_in_mb(pipe, path, window):
    """Windows seen, and how far the resident memory rose above that after the first few windows."""
    process, count, peak, base = psutil.Process(), 0, 0, None
    for one in pipe.stream(path, window=window, batch_size=4):
        count += 1
        assert one["end"] > one["start"]
        if count == 10:
            base = process.memory_info().rss
        if count % 10 == 0:
            peak = max(peak, process.memory_info().rss)
    return count, (peak - base) / 2**20


def test_two_minutes_in_constant_memory(tmp_path):
    model, processor = video_focalnet()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    count, growth = growth_in_mb(pipe, long_video(tmp_path / "long.mp4", 120), window=2.0)
    assert count == 60
    assert growth < 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hours_in_constant_memory(tmp_path):
    model, processor = video_focalnet()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    count, growth = growth_in_mb(pipe, long_video(tmp_path / "long.mp4", 7200), window=10.0)
    assert count == 720
    assert growth < 30
