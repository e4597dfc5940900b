"""Streams of models that remember: whatever the pieces and the source, a prediction is that of the whole model on the frames so far."""

import gc
import itertools
import os
import threading
import time
import weakref

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid import (
    EffVidVideoProcessor,
    TSMConfig,
    TSMForVideoClassification,
    VideoClassificationPipeline,
    read_video,
)
from hf_effvid.models.video_errors import VideoNotReadable, VideoSourceNotAllowed
from hf_effvid.pipelines.stream_frames import StreamRateError
from tests.models.test_modeling_movinet import make_model
from tests.video_corpus.encode import encode

from .hosts import randomise, videomae


LABELS = ["left", "right", "still"]


def tsm(**options):
    pytest.importorskip("timm")
    torch.manual_seed(0)
    config = TSMConfig(
        architecture="resnet18",
        model_args={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
        num_labels=3,
        id2label=dict(enumerate(LABELS)),
        **options,
    )
    return randomise(TSMForVideoClassification(config))


def movinet(**options):
    return make_model(id2label=dict(enumerate(LABELS)), **options)


FAMILIES = {"tsm": tsm, "movinet": movinet}


def make_pipe(family, dtype=torch.float64, **recipe):
    recipe = {"size": {"shortest_edge": 32}, "crop_size": 32, "num_frames": 4, **recipe}
    return VideoClassificationPipeline(
        FAMILIES[family](causal=True).to(dtype), video_processor=EffVidVideoProcessor(**recipe), device="cpu"
    )


@pytest.fixture(scope="module", params=FAMILIES)
def pipe(request):
    return make_pipe(request.param)


LOGITS = {"function_to_apply": "none", "top_k": 3}


def logits_of(record):
    found = {one["label"]: one["score"] for one in record["predictions"]}
    return [found[name] for name in LABELS]


def offline(pipe, frames):
    """Logits of the model on all of these frames at once, uint8 (T, 3, H, W)."""
    pixels = pipe.video_processor.transform_clip(frames)[None].to(pipe.model.dtype)
    with torch.no_grad():
        return pipe.model(pixels).logits[0].tolist()


def frames_of(count, seed=0, size=(40, 52)):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 255, (count, 3, *size), dtype=np.uint8))


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


# ---- equal to the whole video ------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(1, 14),
    piece=st.integers(1, 15),
    queue_size=st.sampled_from([1, 5]),
    source=st.sampled_from([iter, list, torch.stack]),
)
def test_a_stream_says_after_every_piece_what_the_model_says_of_the_frames_so_far(
    pipe, count, piece, queue_size, source
):
    frames = frames_of(count, seed=count)
    records = list(pipe.stream(source(list(frames)), target_fps=5, piece=piece, queue_size=queue_size, **LOGITS))
    seen = [*range(piece, count, piece), count]
    assert [one["num_frames"] for one in records] == seen
    for one, until in zip(records, seen, strict=True):
        assert logits_of(one) == pytest.approx(offline(pipe, frames[:until]), rel=1e-6, abs=1e-6)
        assert (one["start"], one["end"]) == (0.0, pytest.approx((until - 1) / 5))


@pytest.mark.parametrize(
    "options",
    [
        {"target_fps": 5},
        {"target_fps": 4, "start": 2.0, "end": 5.0},
        {"target_fps": 20},  # frames of the file repeat
        {"sampling": "dense", "target_fps": 10, "frame_stride": 4},
    ],
)
def test_a_file_at_the_rate_of_the_recipe(pipe, videos, options):
    rate = options["target_fps"] / options.get("frame_stride", 1)
    part = {name: options[name] for name in ("start", "end") if name in options}
    frames = read_video(videos.twelve_mp4, target_fps=rate, size=32, **part).frames
    *_, last = pipe.stream(videos.twelve_mp4, piece=7, **options, **LOGITS)
    assert last["num_frames"] == len(frames)
    assert logits_of(last) == pytest.approx(offline(pipe, frames), rel=1e-6, abs=1e-6)
    assert (last["start"], last["end"]) == (
        options.get("start", 0.0),
        pytest.approx(options.get("start", 0.0) + (len(frames) - 1) / rate),
    )


@pytest.mark.parametrize("name", ["long_mp4", "clip_webm", "clip_mkv", "clip_ts", "turned_mp4", "single_mp4"])
def test_every_frame_of_a_file(pipe, videos, name):
    frames = read_video(getattr(videos, name), size=32).frames
    every = list(pipe.stream(getattr(videos, name), frame_sampling_rate=1, **LOGITS))
    assert [one["num_frames"] for one in every] == list(range(1, len(frames) + 1))
    assert logits_of(every[-1]) == pytest.approx(offline(pipe, frames), rel=1e-6, abs=1e-6)
    third = list(pipe.stream(getattr(videos, name), frame_sampling_rate=3, piece=2, **LOGITS))
    assert logits_of(third[-1]) == pytest.approx(offline(pipe, frames[::3]), rel=1e-6, abs=1e-6)


def test_the_recipe_of_the_checkpoint_says_the_rate(videos):
    pipe = make_pipe("movinet", sampling="dense", target_fps=5, num_frames=60)
    *_, last = pipe.stream(videos.twelve_mp4, piece=60, top_k=3)
    # 12 s at 5 frames per second are all of the 60 frames of a clip
    assert last["num_frames"] == 60
    expected = {one["label"]: one["score"] for one in pipe(videos.twelve_mp4, top_k=3)}
    assert {one["label"]: one["score"] for one in last["predictions"]} == pytest.approx(expected, abs=1e-6)


def test_seconds_that_frames_bring_with_them(pipe):
    frames = frames_of(8)
    timed = [(100.0 + 0.25 * index, frame) for index, frame in enumerate(frames)]
    *_, last = pipe.stream(iter(timed), target_fps=2, **LOGITS)
    assert (last["num_frames"], last["end"]) == (4, 1.5)
    assert logits_of(last) == pytest.approx(offline(pipe, frames[::2]), rel=1e-6, abs=1e-6)
    every = list(pipe.stream(iter(timed), frame_sampling_rate=1, start=0.5, end=1.5, **LOGITS))
    assert [one["end"] for one in every] == [0.5, 0.75, 1.0, 1.25]
    assert logits_of(every[-1]) == pytest.approx(offline(pipe, frames[2:6]), rel=1e-6, abs=1e-6)


def test_another_processor_than_ours(videos):
    _, processor = videomae()
    pipe = VideoClassificationPipeline(tsm(causal=True), video_processor=processor, device="cpu")
    frames = read_video(videos.twelve_mp4, target_fps=2).frames
    expected = processor([list(frames)], return_tensors="pt", do_sample_frames=False)["pixel_values"]
    with torch.no_grad():
        logits = pipe.model(expected).logits[0].tolist()
    *_, last = pipe.stream(videos.twelve_mp4, target_fps=2, piece=5, **LOGITS)
    assert logits_of(last) == pytest.approx(logits, abs=1e-4)


def test_a_row_of_a_data_set_and_a_file_in_memory(pipe, videos):
    of_path = list(pipe.stream(videos.long_mp4, target_fps=5, **LOGITS))
    for source in ({"video": str(videos.long_mp4), "label": 1}, {"bytes": videos.long_mp4.read_bytes(), "path": None}):
        assert list(pipe.stream(source, target_fps=5, **LOGITS)) == of_path


# ---- what is remembered ------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_the_video_before(pipe, videos):
    alone = list(pipe.stream(videos.long_mp4, target_fps=5, **LOGITS))
    list(pipe.stream(videos.twelve_mp4, target_fps=5, **LOGITS))
    assert list(pipe.stream(videos.long_mp4, target_fps=5, **LOGITS)) == alone
    # two at a time do not meet
    both = zip(*(pipe.stream(videos.long_mp4, target_fps=5, **LOGITS) for _ in range(2)), strict=True)
    assert all(left == right for left, right in both)


def test_forgetting_every_so_many_seconds(pipe):
    frames = frames_of(12)
    records = list(pipe.stream(iter(frames), target_fps=2, piece=2, reset_every=2.5, **LOGITS))
    assert [(one["start"], one["num_frames"]) for one in records] == [
        (0.0, 2), (0.0, 4), (0.0, 5), (2.5, 2), (2.5, 4), (2.5, 5), (5.0, 2),
    ]  # fmt: skip
    assert logits_of(records[5]) == pytest.approx(offline(pipe, frames[5:10]), rel=1e-6, abs=1e-6)


def test_forgetting_when_told(pipe):
    frames = frames_of(6)
    with pipe.stream(iter(frames), target_fps=2, **LOGITS) as stream:
        for _ in range(4):
            next(stream)
        stream.reset()
        records = list(stream)
    assert [(one["start"], one["num_frames"]) for one in records] == [(2.0, 1), (2.0, 2)]
    assert logits_of(records[-1]) == pytest.approx(offline(pipe, frames[4:]), rel=1e-6, abs=1e-6)


# ---- what goes wrong -----------------------------------------------------------------------------------------------------------


def test_a_frame_that_is_none_is_recorded_and_the_stream_goes_on(pipe):
    frames = list(frames_of(6))
    broken = [*frames[:3], "no frame", np.zeros((4, 4), dtype=np.float32), *frames[3:]]
    records = list(pipe.stream(iter(broken), fps=2, frame_sampling_rate=1, piece=2, on_error="record", **LOGITS))
    errors = [one for one in records if "error" in one]
    assert [(one["error"], one["seconds"]) for one in errors] == [("VideoNotReadable", 1.5), ("VideoNotReadable", 2.0)]
    assert records[-1]["num_frames"] == 6
    assert logits_of(records[-1]) == pytest.approx(offline(pipe, torch.stack(frames)), rel=1e-6, abs=1e-6)
    # at a rate, the frame before stays on display
    *_, last = pipe.stream(iter(broken), target_fps=2, on_error="record", **LOGITS)
    shown = torch.stack([*frames[:3], frames[2], frames[2], *frames[3:]])
    assert logits_of(last) == pytest.approx(offline(pipe, shown), rel=1e-6, abs=1e-6)
    with pytest.raises(VideoNotReadable):
        list(pipe.stream(iter(broken), target_fps=2))


def test_a_bad_file_is_a_record(pipe, videos):
    for path in (videos.broken_mp4, videos.empty_mp4, videos.folder / "nowhere.mp4"):
        (record,) = pipe.stream(path, target_fps=5, on_error="record")
        assert record["source"] == str(path) and record["error"].startswith("Video")
        with pytest.raises(VideoNotReadable if path == videos.broken_mp4 else Exception):
            list(pipe.stream(path, target_fps=5))
    for options in ({"target_fps": 5}, {"frame_sampling_rate": 1}):
        (record,) = pipe.stream(videos.long_mp4, start=50.0, on_error="record", **options)
        assert record["error"] == "VideoTooShort"
        first, last = pipe.stream(iter(["no frame"]), fps=5, on_error="record", **options)
        assert (first["seconds"], last["error"]) == (0.0, "VideoTooShort")


def test_what_was_seen_before_a_failure_is_said(pipe):
    def cut_off():
        yield from frames_of(5)
        raise OSError("the cable was pulled")

    records = list(pipe.stream(cut_off(), target_fps=5, piece=2, on_error="record"))
    # what follows a frame says how long it was on display: of the last one before the failure nobody knows
    assert [one.get("num_frames") for one in records] == [2, 4, None]
    assert (records[-1]["error"], records[-1]["message"]) == ("OSError", "the cable was pulled")
    stream = pipe.stream(cut_off(), target_fps=5)
    assert [next(stream)["num_frames"] for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(OSError, match="cable"):
        next(stream)


def test_what_cannot_be_streamed_is_said_at_once(pipe, videos):
    with pytest.raises(StreamRateError, match="target_fps"):
        pipe.stream(videos.long_mp4)
    with pytest.raises(StreamRateError, match="fps"):
        pipe.stream(list(frames_of(3)), frame_sampling_rate=1)
    for options in ({"num_crops": 3}, {"multi_view": True}, {"explain": True}, {"num_frames": 3}, {"batch_size": 2}):
        with pytest.raises(ValueError, match="whole clips"):
            pipe.stream(videos.long_mp4, target_fps=5, **options)
    for options in ({"piece": 0}, {"queue_size": 0}, {"reset_every": -1.0}, {"isolate": True}, {"live_options": {}}):
        with pytest.raises(ValueError):
            pipe.stream(videos.long_mp4, target_fps=5, **options)
    with pytest.raises(ValueError, match="without window"):
        pipe.stream(videos.long_mp4, window=1.0, live=True)
    with pytest.raises(VideoSourceNotAllowed, match="live=True"):
        pipe.stream("rtsp://127.0.0.1/nothing", target_fps=5)


@pytest.mark.parametrize("make", [lambda: tsm(), lambda: movinet(), lambda: videomae()[0]])
def test_models_without_states_need_windows(make, videos):
    recipe = EffVidVideoProcessor(size={"shortest_edge": 32}, crop_size=32, num_frames=4)
    pipe = VideoClassificationPipeline(make(), video_processor=recipe, device="cpu")
    with pytest.raises(ValueError, match="window"):
        pipe.stream(videos.twelve_mp4, target_fps=5)
    assert [one["start"] for one in pipe.stream(videos.twelve_mp4, window=4.0)] == [0.0, 4.0, 8.0]


def test_models_with_states_in_windows_all_the_same(pipe, videos):
    streamed = list(pipe.stream(videos.twelve_mp4, window=4.0))
    assert streamed == pipe(videos.twelve_mp4, window=4.0)


# ---- what never ends ---------------------------------------------------------------------------------------------------------


def test_an_endless_source_in_constant_memory_that_ends_when_told(pipe):
    alive, closed, numbers = set(), [], itertools.count()

    def endless():
        try:
            while True:
                frame, number = np.zeros((32, 32, 3), dtype=np.uint8), next(numbers)
                alive.add(number)
                weakref.finalize(frame, alive.discard, number)
                yield frame
        finally:
            closed.append(True)

    before = len(threads())
    with pipe.stream(endless(), target_fps=5, queue_size=4) as stream:
        for one in stream:
            assert len(alive) < 4 + 8
            if one["num_frames"] == 60:
                break
    assert closed == [True] and len(threads()) == before
    stream = pipe.stream(endless(), target_fps=5, queue_size=4)
    next(stream)
    del stream
    gc.collect()
    assert len(closed) == 2 and len(threads()) == before


def test_a_pipe_while_it_is_written(pipe, tmp_path):
    data, fifo = (
        bytes(encode("mpegts", "mpeg2video", size=(64, 48), num_frames=50, rate=25, seed=1)),
        tmp_path / "live",
    )
    (tmp_path / "same.ts").write_bytes(data)
    os.mkfifo(fifo)

    def write():
        with open(fifo, "wb") as out:
            for first in range(0, len(data), 10_000):
                out.write(data[first : first + 10_000])
                time.sleep(0.01)

    with pytest.raises(VideoSourceNotAllowed):
        pipe.stream(fifo, target_fps=5)
    writer = threading.Thread(target=write)
    writer.start()
    live = list(pipe.stream(fifo, live=True, target_fps=5, **LOGITS))
    writer.join()
    of_file = list(pipe.stream(tmp_path / "same.ts", target_fps=5, **LOGITS))
    assert len(live) == len(of_file)
    assert logits_of(live[-1]) == pytest.approx(logits_of(of_file[-1]), rel=1e-6, abs=1e-6)
    (record,) = pipe.stream("/dev/video99", live=True, target_fps=5, on_error="record")
    assert record["error"] == "VideoNotReadable"


def test_a_long_file_in_constant_memory(tmp_path):
    pipe, path = make_pipe("movinet", torch.float32), tmp_path / "long.mp4"
    options = {"preset": "ultrafast", "g": "50", "crf": "40"}
    # fifty frames of this size that are kept would be 44 MB
    path.write_bytes(encode(size=(640, 480), num_frames=70, rate=5, options=options))
    process, base, peak = psutil.Process(), None, 0
    for one in pipe.stream(path, target_fps=5, piece=5):
        if one["num_frames"] == 20:
            base = process.memory_info().rss
        peak = max(peak, process.memory_info().rss)
    assert one["num_frames"] == 70
    assert (peak - base) / 2**20 < 25
