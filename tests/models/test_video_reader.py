"""The reader: every kind of source, every way to select, orientation, colour, time, and that it decodes no more than needed."""

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from hf_effvid.models.video_errors import VideoEmpty, VideoNotFound, VideoNotReadable, VideoTooShort
from hf_effvid.models.video_pixels import Orientation, orientation_of_matrix
from hf_effvid.models.video_reader import DecodedVideo, iterate_video, probe_video, read_video
from tests.video_corpus.cases import MIRRORS, ROTATIONS, base_file
from tests.video_corpus.encode import encode, pattern
from tests.video_corpus.mp4_edit import set_edit_list, set_matrix


FLAT = [np.full((48, 64, 3), 10 * index + 5, np.uint8) for index in range(24)]


@pytest.fixture(scope="module")
def gray_steps():
    """24 frames at 12 fps whose brightness tells their number; a key frame every 6."""
    return encode(frames=FLAT, options={"g": "6", "keyint_min": "6", "sc_threshold": "0", "bf": "2"})


def shown_numbers(frames):
    """Return the frame numbers that the brightness of frames of `gray_steps` stands for."""
    return [round((frame.float().mean().item() - 5) / 10) for frame in frames]


class TestSources:
    @pytest.fixture(scope="class")
    def data(self):
        return base_file("h264.mp4")

    @pytest.fixture(scope="class")
    def expected(self, data):
        return read_video(data, num_frames=4)

    def test_result(self, expected):
        assert isinstance(expected, DecodedVideo)
        assert expected.frames.dtype == torch.uint8
        assert expected.frames.shape == (4, 3, 48, 64)
        assert expected.frames.is_contiguous()
        assert expected.timestamps.dtype == torch.float64
        assert expected.indices == [3, 9, 15, 21]
        assert torch.allclose(expected.timestamps, torch.tensor(expected.indices, dtype=torch.float64) / 12)
        assert expected.notes == []

    def test_files_bytes_and_datasets_values(self, data, expected, tmp_path):
        path = tmp_path / "clip with spaces: 100%.mp4"
        path.write_bytes(data)
        with open(path, "rb") as file:
            sources = [str(path), path, bytearray(data), memoryview(data), io.BytesIO(data), file, {"path": str(path)}]
            sources += [{"bytes": data, "path": None}, {"bytes": data, "path": "inside/archive.mp4"}]
            for source in sources:
                assert torch.equal(read_video(source, num_frames=4).frames, expected.frames), source

    def test_the_callers_file_object_stays_open_and_is_read_from_its_beginning(self, data, expected):
        file = io.BytesIO(data)
        file.seek(100)
        assert torch.equal(read_video(file, num_frames=4).frames, expected.frames)
        assert not file.closed

    def test_a_stream_that_cannot_seek(self, data, expected):
        class Pipe(io.RawIOBase):
            def __init__(self):
                self.rest = io.BytesIO(data)

            def readable(self):
                return True

            def readinto(self, buffer):
                return self.rest.readinto(buffer)

        assert torch.equal(read_video(Pipe(), num_frames=4).frames, expected.frames)

    def test_texts_of_numpy_are_paths(self, tmp_path):
        (tmp_path / "a.mp4").write_bytes(encode(num_frames=3))
        for path in (np.str_(tmp_path / "a.mp4"), np.array([str(tmp_path / "a.mp4")])[0]):
            assert len(read_video(path).frames) == 3 == probe_video(path).num_frames
        assert len(read_video(np.bytes_((tmp_path / "a.mp4").read_bytes())).frames) == 3
        with pytest.raises(VideoNotReadable, match="a list of paths, such as"):
            read_video([np.str_("a.mp4"), "b.mp4"])
        with pytest.raises(TypeError, match="A video is a path"):
            read_video(np.array("a.mp4"))

    def test_frames_in_memory(self, expected):
        frames = expected.frames
        images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        sources = [frames, frames.permute(0, 2, 3, 1), frames.numpy(), images, tuple(images), list(frames)]
        sources += [[np.asarray(image) for image in images], frames.permute(0, 2, 3, 1).numpy()]
        for source in sources:
            video = read_video(source)
            assert torch.equal(video.frames, frames)
            assert video.timestamps.isnan().all(), "bare frames carry no clock"
            assert (video.info.width, video.info.height, video.info.num_frames) == (64, 48, 4)
            assert probe_video(source) == video.info
        assert read_video(images, num_frames=2).indices == [1, 3]
        assert read_video(images, indices=[3, 9], size=16).frames.shape == (2, 3, 16, 21)
        gray = read_video([np.full((4, 6), 7, np.uint8)]).frames
        assert torch.equal(gray, torch.full((1, 3, 4, 6), 7, dtype=torch.uint8))

    @pytest.mark.parametrize("bad", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), ["a.mp4"]])
    def test_frames_of_the_wrong_type(self, bad):
        with pytest.raises(VideoNotReadable, match="Give"):
            read_video(bad)

    def test_bare_frames_refuse_seconds_and_emptiness(self, expected):
        with pytest.raises(ValueError, match="no clock"):
            read_video(expected.frames, start=0.1)
        with pytest.raises(VideoEmpty):
            read_video([])

    def test_torchcodec_decoder(self, data, expected):
        decoders = pytest.importorskip("torchcodec.decoders", exc_type=Exception, reason="torchcodec cannot be loaded")
        for order in ("NCHW", "NHWC"):
            decoder = decoders.VideoDecoder(data, dimension_order=order)
            video = read_video(decoder, num_frames=4)
            assert torch.equal(video.frames, expected.frames)
            assert torch.allclose(video.timestamps, expected.timestamps)
        assert read_video(decoder, start=1.0, end=1.5, size=(8, 10)).indices == [12, 13, 14, 15, 16, 17]
        assert probe_video(decoder).num_frames == 24
        assert len(list(iterate_video(decoder, target_fps=2))) == 4

    @pytest.mark.parametrize("decode", [False, True])
    def test_a_video_column_of_datasets(self, data, expected, tmp_path, decode):
        if decode:
            pytest.importorskip("torchcodec.decoders", exc_type=Exception, reason="torchcodec cannot be loaded")
        datasets = pytest.importorskip("datasets")
        path = tmp_path / "clip.mp4"
        path.write_bytes(set_matrix(data, MIRRORS[0]))
        rows = datasets.Dataset.from_dict({"video": [str(path)]}).cast_column("video", datasets.Video(decode=decode))
        value = rows[0]["video"]
        assert isinstance(value, dict) is not decode
        video = read_video(value, num_frames=4)
        assert torch.equal(video.frames, expected.frames.flip(3))
        assert video.info.mirrored
        assert probe_video(value).source == str(path)
        assert len(list(iterate_video(value, target_fps=2))) == 4

    def test_text_mode_wrong_types_and_missing_files(self, tmp_path):
        with pytest.raises(VideoNotReadable, match="text mode"):
            read_video(io.StringIO("frames"))
        with pytest.raises(TypeError, match="A video is a path"):
            read_video(12)
        with pytest.raises(TypeError, match="'bytes' or 'path'"):
            read_video({"file": "x"})
        for missing, reason in ((tmp_path / "no.mp4", "no such file"), (tmp_path, "a directory"), ("\0", "file name")):
            with pytest.raises(VideoNotFound, match=reason):
                read_video(missing)


class TestSelection:
    def test_all_frames(self, gray_steps):
        video = read_video(gray_steps)
        assert shown_numbers(video.frames) == list(range(24)) == video.indices

    def test_indices_in_any_order_repeated_and_beyond_the_end(self, gray_steps):
        video = read_video(gray_steps, indices=[20, 3, 3, 99])
        assert shown_numbers(video.frames) == [20, 3, 3, 23] == video.indices
        assert video.notes == ["1 of 4 indices lie beyond the last frame (24 frames): it was repeated"]

    @pytest.mark.parametrize(
        ("selection", "numbers"),
        [
            (dict(start=1.0, end=1.5), [12, 13, 14, 15, 16, 17]),
            (dict(start=1.0), list(range(12, 24))),
            (dict(end=0.25), [0, 1, 2]),
            (dict(start=1.01, end=1.02), [12]),
            (dict(start=1.0, end=1.5, num_frames=2), [13, 16]),
            (dict(num_frames=3), [4, 12, 20]),
            (dict(num_frames=48), [i // 2 for i in range(48)]),
            (dict(target_fps=4), [0, 3, 6, 9, 12, 15, 18, 21]),
            (dict(target_fps=4, start=1.0, num_frames=6), [12, 15, 18, 21, 23, 23]),
            (dict(target_fps=24, end=0.25), [0, 0, 1, 1, 2, 2]),
        ],
    )
    def test_by_time_and_number(self, gray_steps, selection, numbers):
        video = read_video(gray_steps, **selection)
        assert shown_numbers(video.frames) == numbers == video.indices
        assert torch.allclose(video.timestamps, torch.tensor(numbers, dtype=torch.float64) / 12)

    def test_a_sampler_sees_the_part_and_counts_from_its_start(self, gray_steps):
        seen = []

        def sampler(info):
            seen.append(info)
            return [0, info.num_frames - 1, info.num_frames - 1]

        assert read_video(gray_steps, sampler=sampler).indices == [0, 23, 23]
        assert read_video(gray_steps, sampler=sampler, start=0.5, end=1.0).indices == [6, 11, 11]
        assert [info.num_frames for info in seen] == [24, 6]
        assert seen[1].duration == pytest.approx(0.5)

    @pytest.mark.parametrize(
        "bad",
        [
            dict(num_frames=0),
            dict(num_frames=2, indices=[1]),
            dict(indices=[]),
            dict(indices=[-1]),
            dict(indices=[1], start=1),
            dict(start=-1),
            dict(start=2, end=1),
            dict(target_fps=0),
            dict(size=0),
            dict(size=(1, 2, 3)),
            dict(size=1.5),
            dict(backend="decord"),
            dict(sampler=lambda info: []),
            dict(isolate=True, backend="torchcodec"),
        ],
    )
    def test_bad_arguments(self, gray_steps, bad):
        with pytest.raises(ValueError):
            read_video(gray_steps, **bad)

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("start", "1"),
            ("start", float("nan")),
            ("start", [1.0]),
            ("end", "x"),
            ("end", b"2"),
            ("target_fps", "25"),
            ("target_fps", float("inf")),
            ("num_frames", "4"),
            ("num_frames", 2.5),
            ("indices", 3),
            ("indices", ["1"]),
            ("indices", [1.5, None]),
        ],
    )
    def test_a_selection_of_the_wrong_type_is_named(self, gray_steps, name, bad):
        for source in (gray_steps, [np.zeros((8, 8, 3), np.uint8)] * 3):
            with pytest.raises(ValueError, match=f"{name} must be"):
                read_video(source, **{name: bad})

    def test_numbers_of_any_library_select(self, gray_steps):
        assert read_video(gray_steps, start=np.float32(1), end=torch.tensor(1.25)).indices == [12, 13, 14]
        assert read_video(gray_steps, indices=torch.tensor([3, 1])).indices == [3, 1]
        assert read_video(gray_steps, indices=np.array([2]), size=8).indices == [2]
        assert len(read_video(gray_steps, num_frames=np.int64(5)).indices) == 5

    def test_a_start_behind_the_end(self, gray_steps):
        with pytest.raises(VideoTooShort, match="ends at 2.000 s"):
            read_video(gray_steps, start=2.5)

    def test_variable_rate_is_read_by_its_time_stamps(self):
        times = [0, 0.1, 0.15, 0.5, 1.2, 1.25, 2.0]
        data = encode(frames=FLAT[:7], times=times)
        video = read_video(data, start=0.12, end=1.22)
        assert video.indices == [2, 3, 4] == shown_numbers(video.frames)
        assert torch.allclose(video.timestamps, torch.tensor([0.15, 0.5, 1.2], dtype=torch.float64), atol=1e-3)
        assert read_video(data, target_fps=2).indices[:4] == [0, 3, 3, 5]

    def test_times_count_from_the_first_frame(self):
        late = encode("matroska", frames=FLAT[:4], times=[10.0, 10.1, 10.2, 10.3])
        video = read_video(late)
        assert torch.allclose(video.timestamps, torch.tensor([0, 0.1, 0.2, 0.3], dtype=torch.float64), atol=1e-3)
        assert video.info.start_time == pytest.approx(10.0)
        cut = set_edit_list(encode(frames=FLAT, options={"g": "250", "bf": "0"}), 7 * 1024)
        video = read_video(cut)
        assert video.timestamps[0] == 0
        assert shown_numbers(video.frames) == list(range(7, 24))


class TestOnlyWhatIsNeeded:
    @pytest.fixture(scope="class")
    def long(self):
        frames = (pattern(64, 48, index) for index in range(240))
        return encode(frames=frames, rate=24, options={"g": "24", "keyint_min": "24", "sc_threshold": "0", "bf": "2"})

    def test_one_late_frame_costs_one_group_of_pictures(self, long):
        late = read_video(long, indices=[200])
        assert late.num_decoded <= 1 + 24 + 4
        assert torch.equal(late.frames[0], read_video(long).frames[200])

    def test_sparse_frames_skip_what_lies_between(self, long):
        assert read_video(long, indices=[2, 100, 220]).num_decoded <= 3 * (24 + 4)
        assert read_video(long).num_decoded == 240

    def test_a_part_costs_a_part(self, long):
        assert read_video(long, start=8.0, end=8.5).num_decoded <= 1 + 12 + 4

    @pytest.mark.parametrize("container", ["matroska", "mpegts", "flv", "avi", "nut"])
    def test_seeking_never_changes_a_frame(self, container):
        codec = "mpeg4" if container in ("avi", "nut") else "libx264"
        data = encode(container, codec, num_frames=72, options={"g": "12", "bf": "2"})
        every = read_video(data)
        assert every.indices == list(range(72))
        for index in (0, 1, 11, 12, 13, 35, 50, 71):
            assert torch.equal(read_video(data, indices=[index]).frames[0], every.frames[index]), index
        scattered = [70, 5, 30, 31, 64]
        assert torch.equal(read_video(data, indices=scattered).frames, every.frames[scattered])


class TestPixels:
    @pytest.mark.parametrize("degrees", ROTATIONS)
    def test_rotations(self, degrees):
        stored = read_video(encode(num_frames=2)).frames
        video = read_video(set_matrix(encode(num_frames=2), ROTATIONS[degrees]))
        assert (video.info.rotation, video.info.mirrored) == (degrees, False)
        assert torch.equal(video.frames, torch.rot90(stored, -degrees // 90, (2, 3)))
        assert (video.info.width, video.info.height) == (video.frames.shape[3], video.frames.shape[2])

    @pytest.mark.parametrize("degrees", MIRRORS)
    def test_mirrors(self, degrees):
        stored = read_video(encode(num_frames=2)).frames
        video = read_video(set_matrix(encode(num_frames=2), MIRRORS[degrees]))
        assert (video.info.rotation, video.info.mirrored) == (degrees, True)
        assert torch.equal(video.frames, torch.rot90(stored.flip(3), -degrees // 90, (2, 3)))

    @pytest.mark.parametrize("matrix", [*ROTATIONS.values(), *MIRRORS.values()])
    def test_a_matrix_moves_the_corners_where_the_standard_says(self, matrix):
        """ISO 14496-12: (x, y, 1) times the matrix, y down. Checked corner by corner, without the code under test."""
        a, b, c, d = matrix
        picture = np.arange(4, dtype=np.uint8).reshape(2, 2, 1).repeat(3, 2)
        moved = np.empty_like(picture)
        corners = {(x, y): (a * x + c * y, b * x + d * y) for x, y in itertools.product((-1, 1), repeat=2)}
        for (x, y), (u, v) in corners.items():
            moved[(v + 1) // 2, (u + 1) // 2] = picture[(y + 1) // 2, (x + 1) // 2]
        orientation = orientation_of_matrix((a, b, 0, c, d, 0, 0, 0, 1))
        assert np.array_equal(orientation.apply(picture), moved)

    def test_a_degenerate_matrix_changes_nothing(self):
        assert orientation_of_matrix((0,) * 9) == Orientation()

    @pytest.mark.parametrize(("size", "shape"), [(24, (24, 32)), ((30, 20), (30, 20)), (96, (96, 128)), (7, (7, 9))])
    def test_size(self, size, shape):
        assert read_video(base_file("h264.mp4"), num_frames=2, size=size).frames.shape == (2, 3, *shape)

    def test_resizing_shrinks_with_antialiasing(self):
        stripes = np.zeros((48, 64, 3), np.uint8)
        stripes[:, ::2] = 255
        video = read_video(encode("matroska", "ffv1", "bgr0", frames=[stripes]), size=(6, 8))
        assert (video.frames.int() - 127).abs().max() <= 16

    @pytest.mark.parametrize(("colorspace", "color_range"), [(1, 1), (1, 2), (5, 1), (5, 2), (9, 1)])
    @pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p10le"])
    def test_colours_come_back_with_the_matrix_and_range_of_the_stream(self, colorspace, color_range, pixel_format):
        """Flat saturated frames, converted to YCbCr here by the textbook formula and stored without loss."""
        red_weight, blue_weight = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[colorspace]
        depth = 10 if "10" in pixel_format else 8
        for color in ((200, 30, 60), (20, 180, 90), (40, 60, 220), (255, 255, 255), (0, 0, 0)):
            data = _stored_flat(color, red_weight, blue_weight, color_range, pixel_format, depth, colorspace)
            pixel = read_video(data).frames[0, :, 8, 8].tolist()
            assert np.abs(np.subtract(pixel, color)).max() <= 3, (color, pixel)


def _stored_flat(color, red_weight, blue_weight, color_range, pixel_format, depth, colorspace):
    av = pytest.importorskip("av")
    red, green, blue = (channel / 255 for channel in color)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    cb, cr = (blue - luma) / (2 - 2 * blue_weight), (red - luma) / (2 - 2 * red_weight)
    top = 2**depth - 1
    if color_range == 2:
        values = luma * top, cb * top + 2 ** (depth - 1), cr * top + 2 ** (depth - 1)
    else:
        unit = 2 ** (depth - 8)
        values = (16 + 219 * luma) * unit, (128 + 224 * cb) * unit, (128 + 224 * cr) * unit
    planes = [
        np.full((16, 16), round(min(max(value, 0), top)), np.uint16 if depth > 8 else np.uint8) for value in values
    ]
    frame = av.VideoFrame(16, 16, pixel_format)
    for plane, target in zip(planes, frame.planes, strict=True):
        padded = np.zeros((16, target.line_size), np.uint8)
        padded[:, : planes[0].itemsize * 16] = plane.view(np.uint8)
        target.update(padded.tobytes())
    frame.colorspace, frame.color_range, frame.pts = colorspace, color_range, 0
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("ffv1", rate=12)
        stream.width = stream.height = 16
        stream.pix_fmt = pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


class TestIterate:
    def test_every_frame(self, gray_steps):
        seconds, frames = zip(*iterate_video(gray_steps), strict=True)
        assert shown_numbers(frames) == list(range(24))
        assert np.allclose(seconds, np.arange(24) / 12)
        assert all(frame.shape == (3, 48, 64) and frame.dtype == torch.uint8 for frame in frames)

    def test_ticks(self, gray_steps):
        seconds, frames = zip(*iterate_video(gray_steps, target_fps=4, start=0.5, end=1.5, size=12), strict=True)
        assert np.allclose(seconds, [0.5, 0.75, 1.0, 1.25])
        assert frames[0].shape == (3, 12, 16)

    def test_the_same_frames_as_read_video(self, gray_steps):
        for target_fps in (3, 5, 12, 30):
            once = read_video(gray_steps, target_fps=target_fps)
            frames = torch.stack([frame for _, frame in iterate_video(gray_steps, target_fps=target_fps)])
            assert torch.equal(frames, once.frames), target_fps

    def test_a_late_part_is_reached_by_seeking(self):
        data = encode(num_frames=120, options={"g": "12"})
        (first, frame), *rest = iterate_video(data, start=8.0, end=9.0)
        assert first == pytest.approx(8.0)
        assert len(rest) == 11
        assert torch.equal(frame, read_video(data, indices=[96]).frames[0])

    def test_arguments_are_checked_at_once(self, gray_steps):
        with pytest.raises(ValueError):
            iterate_video(gray_steps, target_fps=-1)

    def test_it_can_be_left_in_the_middle(self, gray_steps):
        frames = iterate_video(gray_steps)
        next(frames)
        frames.close()


@pytest.mark.parametrize("name", ["vp9.webm", "h264.mkv", "h264.ts", "fragmented.mp4", "h264.flv", "mpeg4.avi"])
def test_containers_that_do_not_carry_a_count(name):
    info = probe_video(base_file(name))
    assert (info.num_frames, info.num_frames_exact) == (24, True)
    assert info.fps == pytest.approx(12, rel=0.01)
    assert info.duration == pytest.approx(2.0, rel=0.05)


def test_a_large_file_is_counted_from_its_header(monkeypatch):
    """Listing the packets of a long film would read all of it: then duration x rate is the count."""
    from hf_effvid.models import video_timeline

    data = encode(frames=FLAT * 4, options={"g": "12", "bf": "0"})
    webm = encode("webm", "libvpx", frames=FLAT * 4, options={"g": "12"})
    exact = read_video(data)
    monkeypatch.setattr(video_timeline, "MAX_SCAN_BYTES", 100)
    info = probe_video(data)
    assert (info.num_frames, info.num_frames_exact) == (96, False)
    assert abs(probe_video(webm).num_frames - 96) <= 1
    video = read_video(data, indices=[0, 20, 40, 95])
    assert torch.equal(video.frames, exact.frames[[0, 20, 40, 95]])
    assert read_video(data, start=4.0, end=4.25).indices == [48, 49, 50]
