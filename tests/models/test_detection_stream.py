"""Streams: what is confirmed is what the pipeline says of the whole video, as early as stated, from files, iterators, pipes and sockets."""

import gc
import io
import os
import socket
import threading
import time

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.detection_frames import DetectorInputError
from hf_effvid.models.detection_stream import StreamedDetection, stream_detections
from hf_effvid.models.streaming_hysteresis import hysteresis
from hf_effvid.models.video_errors import VideoNotReadable, VideoSourceNotAllowed
from tests.models.test_pipeline_temporal_action_detection import FPS, LENGTH, PER_STEP, make_pixel_pipeline
from tests.video_corpus.encode import encode


STEP = PER_STEP / FPS  # seconds
ALL = 10**9


@pytest.fixture(scope="module")
def pipe():
    """A detector whose segments are long enough to overlap across windows."""
    made = make_pixel_pipeline()
    made.model.level_scales.data.mul_(6)
    return made


@pytest.fixture(scope="module")
def long_video(tmp_path_factory):
    """Half a minute of video."""
    path = tmp_path_factory.mktemp("videos") / "long.mp4"
    path.write_bytes(bytes(encode(size=(64, 48), num_frames=160, rate=5, seed=7)))
    return path


def frames_of(count, seed=0):
    return list(np.random.default_rng(seed).integers(0, 255, (count, 20, 24, 3), dtype=np.uint8))


def rows(found):
    """Sorted, to be compared with any other order."""
    if found and isinstance(found[0], dict):
        found = [StreamedDetection(one["start"], one["end"], one["label"], one["score"]) for one in found]
    # rounded, so that the last digit of a start does not decide which of two comes first
    by_place = sorted(found, key=lambda one: (one.label, round(one.start, 5), round(one.end, 5), one.score))
    return [(one.label, one.start, one.end, one.score) for one in by_place]


def assert_same(streamed, offline, tolerance=1e-5):
    streamed, offline = rows(streamed), rows(offline)
    assert [one[0] for one in streamed] == [one[0] for one in offline]
    for place in (1, 2, 3):
        assert [one[place] for one in streamed] == pytest.approx([one[place] for one in offline], abs=tolerance)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


# ---- equal to the whole video ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 90),
    window=st.sampled_from([0.8, 1.6, 3.2]),
    share=st.sampled_from([0.0, 0.5, 0.75]),
    reach=st.sampled_from([0.0, 0.4, 5.0]),
    threshold=st.sampled_from([0.0, 0.1, 0.2, {"run": 0.25}]),
    queue_size=st.sampled_from([1, 7]),
    changes=st.sampled_from(
        [
            {},
            {"nms_method": "hard", "nms_iou_threshold": 0.4},
            {"class_agnostic": True, "voting_threshold": 0.6},
            {"min_duration": 0.7, "nms_sigma": 0.2},
        ]
    ),
)
def test_a_stream_says_what_the_pipeline_says_of_the_whole_video(
    pipe, count, window, share, reach, threshold, queue_size, changes
):
    options = {"window": window, "overlap": share * window, "window_reach": reach, "threshold": threshold, **changes}
    frames = frames_of(count, seed=count)
    streamed = list(pipe.stream(iter(frames), queue_size=queue_size, **options))
    assert_same(streamed, pipe(frames, max_segments=ALL, **options))


def test_files_with_their_recipe(pipe, long_video):
    streamed = list(pipe.stream(long_video, threshold=0.15))
    reach = 0.5 * LENGTH * STEP
    offline = pipe(long_video, threshold=0.15, max_segments=ALL, window_reach=reach)
    assert len(streamed) > 50
    assert_same(streamed, offline)
    assert isinstance(streamed[0], tuple) and streamed[0] == (streamed[0].start, *streamed[0][1:])
    # frames with the times of the file, part of a video
    with av.open(str(long_video)) as container:
        timed = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert_same(list(pipe.stream(iter(timed), threshold=0.15)), offline, tolerance=1e-3)
    part = pipe(long_video, threshold=0.15, start=10.0, end=25.0, max_segments=ALL, window_reach=reach)
    assert_same(list(pipe.stream(long_video, threshold=0.15, start=10.0, end=25.0)), part)
    assert min(one.start for one in pipe.stream(long_video, threshold=0.15, start=10.0)) >= 10.0


def test_a_video_shorter_than_a_window(pipe):
    frames = frames_of(3)
    streamed = list(pipe.stream(iter(frames), threshold=0.0))
    assert streamed
    assert_same(streamed, pipe(frames, threshold=0.0, window_reach=0.5 * LENGTH * STEP, max_segments=ALL))


def test_hysteresis_is_that_of_the_whole_video(pipe, long_video):
    def table(found):
        names = sorted({one["label"] for one in found})
        return names, {
            "segments": torch.tensor([[one["start"], one["end"]] for one in found], dtype=torch.float64),
            "scores": torch.tensor([one["score"] for one in found], dtype=torch.float64),
            "labels": torch.tensor([names.index(one["label"]) for one in found]),
        }

    clear = list(pipe.stream(long_video, threshold=0.22))
    streamed = list(pipe.stream(long_video, threshold=0.22, hysteresis=0.7, gap=0.1))
    everything = pipe(long_video, threshold=0.7 * 0.22, window_reach=0.5 * LENGTH * STEP, max_segments=ALL)
    names, found = table(everything)
    kept = hysteresis(found, 0.22, gap=0.1)
    columns = (kept["segments"].tolist(), kept["labels"].tolist(), kept["scores"].tolist())
    expected = [StreamedDetection(*ends, names[label], score) for ends, label, score in zip(*columns, strict=True)]
    assert len(clear) < len(expected) < len(everything)
    assert_same(streamed, expected)


# ---- when it is said -----------------------------------------------------------------------------------------------------------


def delays_of(stream):
    """Seconds of video between the end of a detection and its being said."""
    return np.array([stream.position - one.end for one in stream])


def test_the_stated_latency(pipe, long_video):
    stream = pipe.stream(long_video, threshold=0.15, window_reach=0.8, nms_method="none")
    assert stream.latency == pytest.approx((LENGTH + 2) * STEP + 0.8)
    delays = delays_of(stream)  # nothing waits for better candidates
    assert len(delays) > 100 and delays.max() <= stream.latency + 1e-6
    stream = pipe.stream(long_video, threshold=0.25, window_reach=0.8)
    delays = delays_of(stream)
    assert len(delays) > 10 and np.median(delays) <= stream.latency
    assert pipe.stream(long_video, window=1.6, overlap=0.8, window_reach=0.0).latency == pytest.approx(2.4)


def test_it_is_said_before_the_video_is_over(pipe):
    seen = []

    def endless():
        rng = np.random.default_rng(0)
        while True:
            seen.append(None)
            yield rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)

    with pipe.stream(endless(), threshold=0.2, queue_size=4) as stream:
        first = next(stream)
        assert first.end < stream.position and not threads() == []
        assert len(seen) <= round(stream.position * FPS) + 6  # four wait, one is in hand, one is looked at
    assert threads() == []
    with pytest.raises(StopIteration):
        next(stream)


def test_memory_does_not_grow_with_the_stream(pipe):
    frame = frames_of(1)[0]
    stream = pipe.stream((np.roll(frame, index, 1) for index in range(400)), threshold=0.2)
    alive = []
    for index, _ in enumerate(stream):
        if index % 40 == 0:
            alive.append(sum(isinstance(one, torch.Tensor) and one.dtype == torch.uint8 for one in gc.get_objects()))
    assert stream.position == pytest.approx(80.0)
    # a window, the one that the end may need, the clips that windows share, and the queue
    assert max(alive) <= 3 * LENGTH * PER_STEP + 64 + 16


# ---- when it ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [VideoNotReadable("camera", "gone"), ZeroDivisionError("camera: gone")])
def test_a_source_that_fails_ends_there_and_says_so(pipe, error):
    frames, streamed = frames_of(60, seed=5), []

    def cut_off():
        yield from frames
        raise error

    with pytest.raises(type(error), match="camera: gone"):
        streamed.extend(pipe.stream(cut_off(), threshold=0.1, window_reach=1.0))
    assert streamed
    # how long the last frame was on display is not known
    assert_same(streamed, pipe(frames[:-1], threshold=0.1, window_reach=1.0, max_segments=ALL))
    assert threads() == []


def test_a_forgotten_stream_closes_its_source(pipe):
    closed = threading.Event()

    def source():
        try:
            while True:
                yield frames_of(1)[0]
        finally:
            closed.set()

    next(pipe.stream(source(), threshold=0.0))
    assert closed.wait(5)  # without the help of the garbage collector


def test_bad_files_and_options(pipe, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    with pytest.raises(VideoNotReadable):
        list(pipe.stream(tmp_path / "bad.mp4"))
    for options, message in (
        ({"hysteresis": 0.0}, "share of the threshold"),
        ({"gap": -1}, "gap must be 0 or more"),
        ({"queue_size": 0}, "queue_size"),
        ({"threshold": 2}, "score from 0 to 1"),
        ({"window_reach": -1}, "window_reach"),
        ({"window": 0}, "window"),
        ({"live_options": {}}, "live=True"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.stream(tmp_path / "bad.mp4", **options)
    with pytest.raises(TypeError, match="nonsense"):
        pipe.stream(tmp_path / "bad.mp4", nonsense=1)
    stretched = make_pixel_pipeline(recipe={"resize_length": 8})
    with pytest.raises(DetectorInputError, match="resize_length"):
        stretched.stream(tmp_path / "bad.mp4")


# ---- what never ends -------------------------------------------------------------------------------------------------------------


def transport_stream(frames, rate):
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=rate, options={"qmin": "2", "qmax": "2"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def smooth_frames(count):
    y, x = np.mgrid[0:48, 0:64]
    return [np.stack([(x * 4 + 9 * t) % 256, (y * 5 + 3 * t) % 256, (x + y + 20 * t) % 256], -1).astype(np.uint8) for t in range(count)]  # fmt: skip


def test_a_pipe_of_the_operating_system(pipe, tmp_path):
    data = transport_stream(smooth_frames(200), 25)
    (tmp_path / "same.ts").write_bytes(data)
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    with pytest.raises(VideoSourceNotAllowed, match="live=True"):
        pipe.stream(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(data), daemon=True)
    writer.start()
    streamed = list(pipe.stream(fifo, live=True, threshold=0.1))
    writer.join(10)
    assert streamed
    assert_same(streamed, list(pipe.stream(tmp_path / "same.ts", threshold=0.1)), tolerance=0.05)


def test_an_address_that_is_cut_off(pipe):
    with pytest.raises(VideoSourceNotAllowed, match="live=True"):
        pipe.stream("tcp://127.0.0.1:9")
    data = transport_stream(smooth_frames(100), 25)
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = server.accept()
        for first in range(0, len(data), 4096):
            connection.sendall(data[first : first + 4096])
            time.sleep(0.001)
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    streamed = list(pipe.stream(address, live=True, threshold=0.1, live_options={"format": "mpegts"}))
    thread.join(10)
    server.close()
    assert streamed and max(one.end for one in streamed) <= 4.1


def test_a_camera_that_is_not_there(pipe, tmp_path):
    with pytest.raises(VideoNotReadable, match="video99"):
        list(pipe.stream("/dev/video99", live=True))


def test_feature_detectors_have_no_streams(monkeypatch, pipe):
    monkeypatch.setattr(pipe, "reads_pixels", False)
    with pytest.raises(DetectorInputError, match="backbone"):
        stream_detections(pipe, "video.mp4")
