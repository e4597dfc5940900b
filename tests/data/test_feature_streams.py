"""Streams composed from clip features: times are where the clips were put, splits share nothing, everything follows from the seed."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.data.detection_annotations import load_detection_annotations
from hf_effvid.data.feature_store import FeatureStore
from hf_effvid.data.feature_streams import StreamComposition, compose_streams, write_feature_streams


def clips(people=4, each=5, steps=8, channels=6, seed=0):
    """Features of clips, labels, people, splits: the last person is the validation split."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), each)
    labels = [f"c{number % 3}" for number in range(len(person))]
    splits = ["val" if one == people - 1 else "train" for one in person]
    return generator.normal(size=(len(person), steps, channels)), labels, person, splits


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 6), gap=st.integers(2, 9))
def test_every_clip_is_in_one_stream_of_its_own_split(seed, most, gap):
    features, labels, person, splits = clips()
    how = StreamComposition(clips=(1, most), gap_steps=(2, gap), seed=seed)
    streams = list(compose_streams(features, labels, person, splits, how))
    assert sorted(clip for stream in streams for clip in stream.clips) == list(range(len(features)))
    for stream in streams:
        assert {splits[clip] for clip in stream.clips} == {stream.split} and len(
            {person[c] for c in stream.clips}
        ) == 1
        assert [label for label, _, _ in stream.steps] == [labels[clip] for clip in stream.clips]
        ends = [0, *(step for _, first, stop in stream.steps for step in (first, stop)), len(stream.features)]
        gaps = np.diff(ends)[::2]
        assert gaps.min() >= 2 and gaps.max() <= gap, "a gap before, between and after the actions"
        lengths = np.diff(ends)[1::2]
        assert lengths.min() >= 4 and lengths.max() <= 12, "clips of 8 steps, stretched by .5 to 1.5"


def test_actions_are_the_clips_themselves():
    features, labels, person, splits = clips()
    how = StreamComposition(stretch=(1.0, 1.0))
    for stream in compose_streams(features, labels, person, splits, how):
        for clip, (_, first, stop) in zip(stream.clips, stream.steps, strict=True):
            np.testing.assert_allclose(stream.features[first:stop], features[clip], rtol=0, atol=1e-6)
    slow = StreamComposition(stretch=(1.5, 1.5))
    stream = next(compose_streams(features, labels, person, splits, slow))
    (_, first, stop), clip = stream.steps[0], stream.clips[0]
    np.testing.assert_allclose(stream.features[[first, stop - 1]], features[clip][[0, -1]], rtol=0, atol=1e-6)


def test_gaps_join_clips_without_a_jump_and_are_not_the_clips():
    features, labels, person, splits = clips(steps=16)
    how = StreamComposition(gap_steps=(30, 30), stretch=(1.0, 1.0), noise=0.0)
    stream = next(compose_streams(features, labels, person, splits, how))
    (_, _, stop), (_, first, _) = stream.steps[:2]
    gap = stream.features[stop:first]
    to_edges = [np.linalg.norm(gap - edge, axis=1) for edge in (stream.features[stop - 1], stream.features[first])]
    assert to_edges[0][0] < 0.1 * to_edges[0][15] and to_edges[1][-1] < 0.1 * to_edges[1][14]
    # in the middle it is between steps of the first quarter of some clip of the group
    quarter = features[:5, :5].reshape(-1, features.shape[-1])
    assert np.linalg.norm(gap[15] - quarter, axis=1).min() < np.linalg.norm(gap[15] - features[:5, 6:].reshape(-1, 6), axis=1).min()  # fmt: skip


def test_the_seed_decides():
    given = clips()
    first, again, other = (list(compose_streams(*given, StreamComposition(seed=seed))) for seed in (1, 1, 2))
    assert all(
        np.array_equal(a.features, b.features) and a.steps == b.steps for a, b in zip(first, again, strict=True)
    )
    assert [stream.clips for stream in first] != [stream.clips for stream in other]


def test_written_streams_are_read_as_any_other_data(tmp_path):
    how = StreamComposition(clips=(2, 3), fps=4.0)
    written = write_feature_streams(*clips(), tmp_path, how)
    annotations = load_detection_annotations(tmp_path / "annotations.json", missing="keep")
    store = FeatureStore.open(tmp_path)
    assert annotations.class_names == written.class_names == ["c0", "c1", "c2"]
    assert annotations.splits == written.splits == ["train", "validation"] and len(store) == len(annotations.videos)
    streams = {stream.name: stream for stream in compose_streams(*clips(), how)}
    for video in annotations.videos:
        stored, stream = store[video.name], streams[video.name]
        np.testing.assert_array_equal(stored.features.numpy(), stream.features)
        assert stored.duration == video.duration == len(stream.features) / 4
        steps = [
            (stored.grid().to_steps(one.start) + 0.5, stored.grid().to_steps(one.end) + 0.5) for one in video.segments
        ]
        assert steps == [(first, stop) for _, first, stop in stream.steps], "a step stands for the middle of its time"
    assert store.recipe["composed"]["clips"] in ([2, 3], (2, 3))
    json.loads((tmp_path / "annotations.json").read_text())
    write_feature_streams(*clips(), tmp_path, how)  # again: nothing changes


def test_what_does_not_fit_is_named():
    features, labels, person, splits = clips()
    with pytest.raises(ValueError, match="groups in more than one split, such as '0'"):
        next(compose_streams(features, labels, person, ["val", *splits[1:]]))
    with pytest.raises(ValueError, match="one label, group and split per clip"):
        next(compose_streams(features, labels[1:], person, splits))
    with pytest.raises(ValueError, match="finite"):
        next(compose_streams(features * np.inf, labels, person, splits))
    with pytest.raises(ValueError, match="`gap_steps` must be"):
        StreamComposition(gap_steps=(9, 3))
