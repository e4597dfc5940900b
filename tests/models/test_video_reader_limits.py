"""Limits, typed errors and isolation: what a hostile or broken file may cost, and that it can never take the caller down."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch

from hf_effvid.models import video_container, video_errors
from hf_effvid.models.video_errors import (
    ERROR_TYPES,
    VideoEmpty,
    VideoError,
    VideoNotFound,
    VideoNotReadable,
    VideoSourceNotAllowed,
    VideoTimeout,
    VideoTooLarge,
    VideoTooShort,
)
from hf_effvid.models.video_reader import VideoLimits, iterate_video, probe_video, read_video, set_default_limits
from tests.video_corpus.cases import PLAYLISTS, base_file, bomb
from tests.video_corpus.encode import encode, encode_two_videos, remux


MODELS = Path(video_errors.__file__).parent


@pytest.fixture(scope="module")
def data():
    return base_file("h264.mp4")


def decoding_workers():
    """The reader's own workers: a test process may have other children, such as multiprocessing's resource tracker."""
    return [
        child for child in psutil.Process().children() if any("video_isolation" in part for part in child.cmdline())
    ]


class TestErrors:
    @pytest.mark.parametrize("kind", ERROR_TYPES.values())
    def test_they_name_source_finding_and_remedy_and_can_be_pickled(self, kind):
        error = kind("clip.mp4", "nothing", "Try another")
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == "clip.mp4: nothing. Try another"
        assert (type(again), again.source, again.found, again.hint) == (kind, "clip.mp4", "nothing", "Try another")
        assert isinstance(error, VideoError) and isinstance(error, ValueError)

    def test_pyav_missing(self, data, monkeypatch):
        monkeypatch.setattr(video_container, "av", None)
        with pytest.raises(VideoNotReadable, match="PyAV is not installed. Run: pip install av"):
            read_video(data)

    @pytest.mark.parametrize("name", PLAYLISTS)
    def test_playlists_are_never_followed(self, name, tmp_path):
        path = tmp_path / name
        path.write_text(PLAYLISTS[name])
        for source in (path, path.read_bytes(), io.BytesIO(b"\xef\xbb\xbf\n " + path.read_bytes())):
            with pytest.raises(VideoSourceNotAllowed, match="a playlist"):
                read_video(source)

    @pytest.mark.parametrize(
        "text", ["concat:/etc/passwd|/etc/hosts", "data:video/mp4;base64,AAAA", "subfile,,:/etc/x"]
    )
    def test_protocols_of_ffmpeg_are_file_names_here(self, text):
        with pytest.raises(VideoNotFound):
            read_video(text)

    @pytest.mark.parametrize("text", ["file:///etc/passwd", "rtmp://host/live", "ftp://host/a.mp4", "hls+http://h/x"])
    def test_other_schemes_are_refused(self, text):
        with pytest.raises(VideoSourceNotAllowed, match="scheme"):
            read_video(text, allow_remote=True)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
    def test_a_fifo_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.mp4")
        with pytest.raises(VideoNotFound, match="not a regular file"):
            read_video(tmp_path / "pipe.mp4")

    @pytest.mark.parametrize("name", ["playlist.m3u8", "concat.txt"])
    def test_ffmpeg_itself_follows_no_playlist(self, name, tmp_path, monkeypatch):
        """The second line of defence: a list that names a good neighbour, past the check of the first bytes."""
        (tmp_path / "clip.ts").write_bytes(base_file("h264.ts"))
        path = tmp_path / name
        path.write_text(PLAYLISTS[name].replace("file:///etc/passwd", "clip.ts").replace("/etc/passwd", "clip.ts"))
        monkeypatch.chdir(tmp_path)
        with av.open(str(path), options={"safe": "0"}) as container:
            assert container.streams.video, "FFmpeg left to itself does follow it"
        monkeypatch.setattr(video_container, "refuse_playlists", lambda *_: None)
        with pytest.raises(VideoNotReadable):
            read_video(path)


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "value", "kind"),
        [
            ("max_bytes", 1000, VideoTooLarge),
            ("max_pixels", 64 * 48 - 1, VideoTooLarge),
            ("max_duration", 1.5, VideoTooLarge),
            ("max_decoded_frames", 10, VideoTooLarge),
            ("max_output_bytes", 64 * 48 * 3 * 23, VideoTooLarge),
            ("timeout", 1e-9, VideoTimeout),
        ],
    )
    def test_each_limit_refuses_and_says_how_to_raise_it(self, data, limit, value, kind):
        with pytest.raises(kind, match=limit) as caught:
            read_video(data, limits=VideoLimits(**{limit: value}))
        assert str(len(data)) in caught.value.source
        generous = VideoLimits(
            max_bytes=len(data),
            max_pixels=64 * 48,
            max_duration=2.1,
            max_decoded_frames=24,
            max_output_bytes=64 * 48 * 72,
        )
        assert read_video(data, limits=generous).frames.shape[0] == 24

    def test_streams(self):
        many = encode_two_videos(True)
        with pytest.raises(VideoTooLarge, match="3 streams, the limit is 2"):
            read_video(many, limits=VideoLimits(max_streams=2))

    def test_file_objects_that_never_end(self):
        class Endless(io.RawIOBase):
            def readable(self):
                return True

            def readinto(self, buffer):
                buffer[:] = bytes(len(buffer))
                return len(buffer)

        with pytest.raises(VideoTooLarge, match="more than 5000000 bytes"):
            read_video(Endless(), limits=VideoLimits(max_bytes=5_000_000))

    def test_defaults_are_set_in_one_place(self, data):
        previous = set_default_limits(VideoLimits(max_pixels=100))
        try:
            for reading in (read_video, probe_video, lambda source: next(iterate_video(source))):
                with pytest.raises(VideoTooLarge):
                    reading(data)
        finally:
            set_default_limits(previous)
        assert VideoLimits.default() is previous
        assert read_video(data, num_frames=1).frames.shape[0] == 1

    @pytest.mark.parametrize(
        "bad", [dict(max_pixels=0), dict(timeout=-1), dict(max_bytes="1"), dict(max_streams=True)]
    )
    def test_bad_limits(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            VideoLimits(**bad)
        with pytest.raises(TypeError):
            set_default_limits({"max_pixels": 1})

    def test_the_size_of_the_result_is_checked_before_it_is_allocated(self, data):
        with pytest.raises(VideoTooLarge, match="need"):
            read_video(data, size=(60_000, 60_000))
        with pytest.raises(VideoTooLarge, match="need"):
            read_video(np.zeros((2, 4, 4, 3), np.uint8), size=(60_000, 60_000))
        with pytest.raises(VideoTooLarge, match="need"):
            next(iterate_video(data, size=(60_000, 60_000)))

    def test_iterating_grants_the_time_for_every_frame(self, data, monkeypatch):
        clock = iter(range(10**6))
        monkeypatch.setattr("hf_effvid.models.video_sources.time.monotonic", lambda: next(clock) * 0.05)
        assert len(list(iterate_video(data, limits=VideoLimits(timeout=60.0)))) == 24
        with pytest.raises(VideoTimeout):
            read_video(data, limits=VideoLimits(timeout=2.0))


MEASURE = """
import importlib, json, resource, sys, types
package = types.ModuleType("reader")
package.__path__ = [sys.argv[3]]
sys.modules["reader"] = package
importlib.import_module("reader.video_reader")
from reader.video_reader import VideoError, VideoLimits, read_video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
limits = VideoLimits(max_pixels=int(sys.argv[2]), timeout=600)
try:
    outcome = list(read_video(sys.argv[1], num_frames=16, size=224, limits=limits).frames.shape)
except VideoError as error:
    outcome = type(error).__name__
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([outcome, (after - before) * 1024]))
"""


def outcome_and_memory(path, max_pixels):
    """Read 16 frames at 224 pixels in a fresh interpreter; returns the outcome and the bytes above the imports."""
    command = [sys.executable, "-c", MEASURE, str(path), str(max_pixels), str(MODELS)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


class TestBomb:
    """Kilobytes that unpack to 4096 x 4096 frames (25 MB each as stored, 50 MB as RGB)."""

    @pytest.mark.parametrize("container", ["mp4", "flv"])
    def test_refused_by_default_without_decoding(self, tmp_path, container):
        path = tmp_path / f"bomb.{container}"
        path.write_bytes(bomb(container, num_frames=3))
        outcome, memory = outcome_and_memory(path, VideoLimits().max_pixels)
        assert outcome == "VideoTooLarge"
        assert memory < 100e6

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_120_frames_refused_or_read_in_bounded_memory(self, tmp_path):
        path = tmp_path / "bomb"
        data = bomb("mp4", num_frames=120)
        assert len(data) < 80_000
        for container in (None, "mpegts", "flv", "matroska"):
            path.write_bytes(data if container is None else remux(data, container))
            outcome, memory = outcome_and_memory(path, VideoLimits().max_pixels)
            assert (container, outcome, memory < 100e6) == (container, "VideoTooLarge", True)
            if container in (None, "flv"):  # FLV reveals its streams late, too late for FFmpeg's own limit
                outcome, memory = outcome_and_memory(path, 4096 * 4096)
                assert (container, outcome) == (container, [16, 3, 224, 224])
                assert memory < 300e6, (container, memory)


class TestIsolation:
    def test_same_result(self, data, tmp_path):
        path = tmp_path / "clip.mp4"
        path.write_bytes(data)
        expected = read_video(data, num_frames=4, size=(20, 30))
        for source in (data, path, io.BytesIO(data), {"bytes": data}):
            video = read_video(source, num_frames=4, size=(20, 30), isolate=True)
            assert torch.equal(video.frames, expected.frames)
            assert torch.equal(video.timestamps, expected.timestamps)
            assert (video.indices, video.notes) == (expected.indices, expected.notes)
            assert video.info.num_frames == 24

    def test_every_selection_and_a_sampler_that_lives_here(self, data):
        for selection in (dict(indices=[np.int64(5), 99]), dict(start=0.5, end=1.0, target_fps=4), dict(end=0.3)):
            assert read_video(data, isolate=True, **selection).indices == read_video(data, **selection).indices
        seen = []
        assert read_video(data, isolate=True, sampler=lambda info: seen.append(info) or [2, 1]).indices == [2, 1]
        assert seen == [probe_video(data)]

    def test_errors_come_back_as_themselves(self, data):
        with pytest.raises(VideoNotReadable, match="cannot be read as a video"):
            read_video(b"no video" * 99, isolate=True)
        with pytest.raises(VideoTooShort):
            read_video(data, start=99, isolate=True)
        with pytest.raises(VideoEmpty):
            read_video(b"", isolate=True)
        with pytest.raises(ValueError, match="indices >= 0"):
            read_video(data, sampler=lambda info: [-1], isolate=True)

        for kind in (RuntimeError, OSError, KeyError):

            def broken(info, kind=kind):
                raise kind("from the sampler")

            with pytest.raises(kind, match="from the sampler"):
                read_video(data, sampler=broken, isolate=True)

    @pytest.mark.parametrize(
        ("signal_number", "found"), [(signal.SIGSEGV, "killed by SIGSEGV"), (signal.SIGKILL, "killed by SIGKILL")]
    )
    def test_a_crash_of_the_worker_is_an_error_here(self, data, signal_number, found):
        """The sampler runs here while the worker waits: it kills the worker with a real signal."""

        def kill_the_worker(info):
            (worker,) = decoding_workers()
            os.kill(worker.pid, signal_number)
            return [0]

        with pytest.raises(VideoNotReadable, match=found):
            read_video(data, sampler=kill_the_worker, isolate=True)
        assert decoding_workers() == []
        assert read_video(data, num_frames=1, isolate=True).indices == [11 + 1]

    def test_a_worker_that_hangs_is_killed(self, data, monkeypatch):
        monkeypatch.setattr("hf_effvid.models.video_isolation._START_SECONDS", 1.0)

        def stop_the_worker(info):
            (worker,) = decoding_workers()
            os.kill(worker.pid, signal.SIGSTOP)
            return [0]

        with pytest.raises(VideoTimeout, match="did not finish within 1 s"):
            read_video(data, sampler=stop_the_worker, isolate=True, limits=VideoLimits(timeout=1.0))
        assert decoding_workers() == []

    @pytest.mark.skipif(sys.platform != "linux", reason="the memory limit needs /proc")
    def test_memory_of_the_worker_is_bounded(self):
        wide = encode(size=(2048, 1024), num_frames=20, options={"preset": "ultrafast"})
        assert read_video(wide, isolate=True, limits=VideoLimits(max_memory=2**28)).frames.shape[0] == 20
        with pytest.raises(VideoError, match="memory|allocate"):
            read_video(wide, isolate=True, limits=VideoLimits(max_memory=2**24))

    def test_a_lying_worker_is_not_believed(self, data, monkeypatch):
        """What a decoder that was taken over might answer: never more memory than allowed, never an untyped error."""
        answers = [
            dict(type="clip", shape=[10**6, 10**6, 10**3, 3], times=[0.0], indices=[0]),
            dict(type="clip", shape=[-1, 2, 2, 3], times=[0.0], indices=[0]),
            dict(type="clip", shape=[1, 2, 2, 3], times=[0.0]),
            dict(type="error", kind="SystemExit", source="", found="", hint=""),
            dict(type="error"),
            dict(type="argument", kind="ValueError"),
            dict(type="info", info={}),
            dict(type="frames"),
            {},
        ]
        for answer in answers:
            script = f"""
                import json, struct, sys
                raw = json.dumps({answer!r}).encode()
                sys.stdout.buffer.write(struct.pack(">Q", len(raw)) + raw + bytes(12))
                sys.stdout.buffer.flush()
                sys.stdin.buffer.read()
            """
            command = [sys.executable, "-c", textwrap.dedent(script)]
            monkeypatch.setattr("hf_effvid.models.video_isolation.worker_command", lambda command=command: command)
            with pytest.raises(VideoNotReadable, match="no sensible answer"):
                read_video(data, isolate=True)
        for script in ("print('hello')", "import sys; sys.exit(3)"):
            command = [sys.executable, "-c", script]
            monkeypatch.setattr("hf_effvid.models.video_isolation.worker_command", lambda command=command: command)
            with pytest.raises(VideoNotReadable, match="ended early"):
                read_video(data, isolate=True)

    def test_it_works_from_a_folder_of_the_hub_cache(self, data, tmp_path):
        """transformers copies the files flat into a package of another name; ours is not importable there."""
        folder = tmp_path / "transformers_modules" / "org" / "repo" / "0123abcd"
        folder.mkdir(parents=True)
        for file in MODELS.glob("video_*.py"):
            if not file.name.startswith("video_processing"):
                shutil.copy(file, folder)
        for parent in (folder, *list(folder.parents)[:3]):
            (parent / "__init__.py").touch()
        (tmp_path / "clip.mp4").write_bytes(data)
        script = """
            import sys
            class Refuse:
                def find_spec(self, name, *_):
                    if name.split(".")[0] in ("hf_effvid", "transformers"):
                        raise ImportError(name)
            sys.meta_path.insert(0, Refuse())
            sys.path.insert(0, sys.argv[1])
            import importlib
            reader = importlib.import_module("transformers_modules.org.repo.0123abcd.video_reader")
            video = reader.read_video("clip.mp4", num_frames=3, isolate=True)
            try:
                reader.read_video(b"nothing" * 9, isolate=True)
            except reader.VideoNotReadable as error:
                print(video.indices, tuple(video.frames.shape), type(error).__name__)
        """
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stdout.strip() == "[4, 12, 20] (3, 3, 48, 64) VideoNotReadable", done.stderr

    def test_the_worker_needs_neither_torch_nor_transformers(self):
        script = """
            import importlib, sys, types
            package = types.ModuleType("worker")
            package.__path__ = [sys.argv[1]]
            sys.modules["worker"] = package
            importlib.import_module("worker.video_isolation")
            print(sorted({"torch", "transformers", "hf_effvid"} & set(sys.modules)))
        """
        command = [sys.executable, "-I", "-c", textwrap.dedent(script), str(MODELS)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def resident_bytes():
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("clips", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_stays_flat(clips):
    sources = [base_file(name) for name in ("h264.mp4", "vp9.webm", "mpeg4.avi", "h264.ts", "gif.gif")]
    sources.append(sources[0][:2000])  # a damaged one: errors must not hold memory either
    resident = []
    for index in range(clips):
        try:
            read_video(sources[index % len(sources)], num_frames=4, size=32)
        except VideoError:
            assert index % len(sources) == 5
        if index % (clips // 10) == clips // 10 - 1:
            resident.append(resident_bytes())
    assert resident[-1] - resident[2] < 8e6, [round(value / 1e6, 1) for value in resident]
