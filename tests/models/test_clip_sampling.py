"""Clip sampling: golden indices of published recipes, and properties that hold for every video."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.clip_sampling import (
    SAMPLINGS,
    SHORT_CLIP_POLICIES,
    sample_clips,
    sample_train_clip,
    sliding_windows,
)
from hf_effvid.models.video_errors import VideoTooShort


FRAMES = st.integers(1, 5000)
CLIP = st.integers(1, 64)
STRIDE = st.integers(1, 40)
RATES = st.one_of(st.none(), st.floats(1, 240))
SEEDS = st.integers(0, 2**63)


def test_videomae_kinetics_dense_16x4_five_clips():
    """The test protocol of VideoMAE: every fourth frame, five clips of 16, evenly over the strided frames."""
    clips = sample_clips(300, 16, sampling="dense", frame_stride=4, num_clips=5)
    assert [clip[0] for clip in clips] == [0, 56, 116, 176, 236]
    assert clips[1] == [56, 60, 64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116]
    assert clips[-1][-1] == 296


def test_videomae_short_video_repeats_the_last_sampled_frame():
    clips = sample_clips(30, 16, sampling="dense", frame_stride=4, num_clips=5)
    assert clips == [[0, 4, 8, 12, 16, 20, 24, 28] + [28] * 8] * 5


def test_videomae_uniform_16():
    (clip,) = sample_clips(300, 16, sampling="uniform")
    assert clip == [9, 28, 46, 65, 84, 103, 121, 140, 159, 178, 196, 215, 234, 253, 271, 290]


def test_videomae_sparse_two_clips_interleave():
    clips = sample_clips(32, 4, sampling="uniform", num_clips=2)
    assert clips == [[2, 10, 18, 26], [6, 14, 22, 30]]


def test_timesformer_8x32_takes_the_middle_of_the_video():
    (clip,) = sample_clips(300, 8, sampling="dense", frame_stride=32)
    assert clip == [32, 64, 96, 128, 160, 192, 224, 256]


def test_timesformer_8x32_reads_the_same_seconds_at_60_fps():
    at_30 = sample_clips(300, 8, sampling="dense", frame_stride=32, fps=30.0, target_fps=30.0)[0]
    at_60 = sample_clips(600, 8, sampling="dense", frame_stride=32, fps=60.0, target_fps=30.0)[0]
    assert at_60 == [2 * index for index in at_30]


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (300, [18, 55, 92, 129, 167, 204, 241, 278]),
        (64, [3, 11, 19, 26, 34, 41, 49, 57]),
        (10, [0, 1, 2, 3, 3, 4, 5, 6]),
        (6, [0, 0, 0, 1, 1, 2, 2, 2]),
        (3, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_video_focalnet_eight_segments_interval_four(total, expected):
    """The single-view test of Video-FocalNet: floor((i + 1/2) * a) with a = (n - 3) / 8."""
    assert sample_clips(total, 8, sampling="segment", frame_stride=4) == [expected]


def test_video_focalnet_four_clips_are_the_centres_of_the_published_draws():
    clips = sample_clips(320, 8, sampling="segment", frame_stride=4, num_clips=4)
    assert [clip[:2] for clip in clips] == [[5, 45], [15, 55], [25, 65], [35, 75]]


def test_video_focalnet_published_four_clips_are_training_draws_of_every_frame():
    """F = 1 whatever the stride of training: one frame of each of 8 equal segments, four times, by the seed alone."""
    published = {"sampling": "segment", "frame_stride": 4, "num_clips": 4, "clip_draw": "random"}
    clips = sample_clips(300, 8, seed="7/a.mp4", **published)
    assert clips == sample_clips(300, 8, seed="7/a.mp4", **published)
    assert all(i * 37 <= index < (i + 1) * 37 for clip in clips for i, index in enumerate(clip))
    assert len({tuple(clip) for clip in clips}) == 4
    assert clips != sample_clips(300, 8, seed="8/a.mp4", **published)
    assert clips != sample_clips(300, 8, seed="7/b.mp4", **published)
    # a single clip is the deterministic one of the validation during training
    single = sample_clips(300, 8, seed=1, **published | {"num_clips": 1})
    assert single == sample_clips(300, 8, sampling="segment", frame_stride=4)
    # draws cover their segments evenly: the mean of many is the middle of the segment
    many = [clip[3] for seed in range(300) for clip in sample_clips(300, 8, seed=seed, **published)]
    assert min(many) == 111 and max(many) == 147 and abs(sum(many) / len(many) - 129) < 1.5


def test_random_clips_of_short_videos_and_of_other_samplings():
    assert sample_clips(5, 8, sampling="segment", num_clips=4, clip_draw="random") == [[0, 1, 1, 2, 2, 3, 4, 4]] * 4
    dense = sample_clips(300, 4, sampling="dense", frame_stride=8, num_clips=3, clip_draw="random", seed=3)
    assert all(clip == [clip[0] + 8 * j for j in range(4)] for clip in dense) and len({clip[0] for clip in dense}) == 3
    with pytest.raises(ValueError, match="clip_draw"):
        sample_clips(300, 8, clip_draw="once")


def test_video_focalnet_training_draws_one_frame_per_segment():
    length = (300 - 3) // 8
    for seed in range(200):
        clip = sample_train_clip(300, 8, sampling="segment", frame_stride=4, seed=seed)
        assert all(i * length <= index < (i + 1) * length for i, index in enumerate(clip))
    assert len({tuple(sample_train_clip(300, 8, sampling="segment", frame_stride=4, seed=s)) for s in range(50)}) > 40


@pytest.mark.parametrize(("total", "expected"), [(8, [0, 1, 1, 2, 2, 3, 4, 4]), (5, [0, 0, 0, 1, 1, 1, 2, 2])])
def test_video_focalnet_training_on_short_videos_is_spread(total, expected):
    assert sample_train_clip(total, 8, sampling="segment", frame_stride=4, seed=0) == expected


def test_policies_on_a_short_video():
    assert sample_clips(3, 8) == [[0, 1, 2, 2, 2, 2, 2, 2]]
    assert sample_clips(3, 8, short_clip_policy="loop") == [[0, 1, 2, 0, 1, 2, 0, 1]]
    with pytest.raises(VideoTooShort, match="only 3 of 8 frames") as caught:
        sample_clips(3, 8, short_clip_policy="error")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (VideoTooShort, str(caught.value))


@settings(max_examples=150, deadline=None)
@given(
    FRAMES,
    CLIP,
    st.sampled_from(SAMPLINGS),
    STRIDE,
    RATES,
    RATES,
    st.integers(1, 10),
    st.sampled_from(("repeat_last", "loop")),
)
def test_clips_are_in_range_sorted_complete(total, num, sampling, stride, fps, target, clips, policy):
    kwargs = dict(sampling=sampling, frame_stride=stride, fps=fps, target_fps=target, short_clip_policy=policy)
    result = sample_clips(total, num, num_clips=clips, **kwargs)
    assert len(result) == clips
    assert result == sample_clips(total, num, num_clips=clips, **kwargs)
    for clip in result:
        assert len(clip) == num
        assert all(isinstance(index, int) and 0 <= index < total for index in clip)
        if policy == "repeat_last":
            assert clip == sorted(clip)
    starts = [clip[0] for clip in result]
    assert starts == sorted(starts)


@settings(max_examples=150, deadline=None)
@given(FRAMES, CLIP, st.sampled_from(SAMPLINGS), STRIDE, RATES, RATES, SEEDS, st.sampled_from(("repeat_last", "loop")))
def test_train_clips_are_in_range_sorted_and_a_function_of_the_seed(
    total, num, sampling, stride, fps, target, seed, policy
):
    kwargs = dict(sampling=sampling, frame_stride=stride, fps=fps, target_fps=target, short_clip_policy=policy)
    clip = sample_train_clip(total, num, seed=seed, **kwargs)
    assert clip == sample_train_clip(total, num, seed=seed, **kwargs)
    assert len(clip) == num
    assert all(isinstance(index, int) and 0 <= index < total for index in clip)
    if policy == "repeat_last":
        assert clip == sorted(clip)


@settings(max_examples=100, deadline=None)
@given(CLIP, st.integers(0, 500), st.integers(1, 6))
def test_uniform_never_repeats_a_frame_when_there_are_enough(num, extra, clips):
    for clip in sample_clips(num + extra, num, num_clips=clips):
        assert len(set(clip)) == num
    assert len(set(sample_train_clip(num + extra, num, seed=extra))) == num


@settings(max_examples=100, deadline=None)
@given(CLIP, STRIDE, st.integers(0, 500))
def test_dense_keeps_its_stride_when_there_is_room(num, stride, extra):
    total = (num - 1) * stride + 1 + extra
    for clip in [*sample_clips(total, num, sampling="dense", frame_stride=stride, num_clips=3)] + [
        sample_train_clip(total, num, sampling="dense", frame_stride=stride, seed=extra)
    ]:
        assert {b - a for a, b in zip(clip, clip[1:], strict=False)} <= {stride}


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 5000), st.floats(0.5, 100), st.floats(0.5, 100))
def test_windows_cover_the_video(duration, window, stride):
    windows = sliding_windows(duration, window, stride)
    assert windows[0][0] == 0
    for i, (start, end) in enumerate(windows):
        assert start == i * stride
        assert start < end <= duration
        assert end - start <= window + 1e-6
    if stride <= window:
        assert windows[-1][1] == duration
        assert all(later[0] <= earlier[1] + 1e-6 for earlier, later in zip(windows, windows[1:], strict=False))


def test_windows_of_a_short_and_of_an_even_video():
    assert sliding_windows(1.5, 4.0, 2.0) == [(0.0, 1.5)]
    assert sliding_windows(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert sliding_windows(9, 4, 2)[-1] == (6, 9)


@pytest.mark.parametrize(
    "bad",
    [
        dict(total_frames=0),
        dict(num_frames=0),
        dict(num_frames=1.5),
        dict(num_clips=0),
        dict(frame_stride=0),
        dict(sampling="sometimes"),
        dict(short_clip_policy="guess"),
        dict(fps=0.0),
        dict(target_fps=float("inf")),
    ],
)
def test_bad_arguments_name_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        sample_clips(**{"total_frames": 10, "num_frames": 4, **bad})


def test_names_are_the_public_ones():
    assert SAMPLINGS == ("uniform", "dense", "segment")
    assert SHORT_CLIP_POLICIES == ("repeat_last", "loop", "error")
    for bad in (0, -1, float("nan"), "3"):
        with pytest.raises(ValueError, match="window must be"):
            sliding_windows(10.0, bad, 1.0)
