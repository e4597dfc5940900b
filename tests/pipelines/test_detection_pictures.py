"""Timelines and videos with labels, read back: the SVG by an XML parser, the mp4 frame by frame."""

import xml.etree.ElementTree as ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from hf_effvid import probe_video, read_video
from hf_effvid.models.video_errors import VideoNotReadable
from hf_effvid.pipelines.detection_timeline import CLASS_COLOURS, classes_of, clock, plot_timeline
from hf_effvid.pipelines.detection_video import write_detection_video
from tests.video_corpus.encode import encode
from tests.video_corpus.mp4_edit import set_matrix


FOUND = [
    {"label": "pole vault", "score": 0.91, "start": 1.0, "end": 3.0},
    {"label": "$x & <b>", "score": 0.4, "start": 0.0, "end": 2.0},
    {"label": "pole vault", "score": 0.2, "start": 2.0, "end": 3.5},
]
TRUTH = [{"label": "pole vault", "start": 1.1, "end": 3.1}, {"label": "missed", "start": 3.0, "end": 3.5}]


def svg_of(path):
    root = ElementTree.parse(path).getroot()
    texts = ["".join(one.itertext()).strip() for one in root.iter("{http://www.w3.org/2000/svg}text")]
    return texts, path.read_text(encoding="utf-8")


def colours_in(svg):
    return {colour.upper() for colour in CLASS_COLOURS if colour.lower() in svg.lower()}


def test_a_timeline_shows_lanes_scores_and_annotations(tmp_path):
    texts, svg = svg_of(plot_timeline(FOUND, tmp_path / "t.svg", duration=4.0, truth=TRUTH, title="v.mp4"))
    assert {"pole vault", "$x & <b>", "missed", "0.91", "0.40", "0.20", "seconds"} <= set(texts)
    assert "v.mp4; 3 detections, darker is surer; black: annotated" in texts
    assert colours_in(svg) == {CLASS_COLOURS[0], CLASS_COLOURS[1]}  # nothing was detected of the third class
    again = plot_timeline(FOUND, tmp_path / "again.svg", duration=4.0, truth=TRUTH, title="v.mp4")
    assert again.read_bytes() == (tmp_path / "t.svg").read_bytes()
    picture = np.asarray(Image.open(plot_timeline(FOUND, tmp_path / "t.png", duration=4.0)).convert("RGB"))
    assert picture.shape[1] == 1320 and (picture == (0, 114, 178)).all(-1).any()


def test_timelines_without_anything_of_hours_and_of_many_classes(tmp_path):
    assert "0 detections, darker is surer" in svg_of(plot_timeline([], tmp_path / "none.svg"))[0]
    long = [{"label": f"class {number}", "score": number / 60, "start": 100.0 * number, "end": 100.0 * number + 90} for number in range(60)]  # fmt: skip
    texts, _ = svg_of(plot_timeline(long, tmp_path / "long.svg"))
    assert "60 detections, darker is surer; 36 more classes not shown" in texts
    assert "class 59" in texts and "class 35" not in texts and "1:00:00" in texts
    assert [clock(*times) for times in ((12.5, 20), (187, 300), (3723, 8000))] == ["12.5", "3:07", "1:02:03"]
    assert classes_of(FOUND, TRUTH, ["a"]) == ["a", "pole vault", "$x & <b>", "missed"]
    with pytest.raises(ValueError, match=r"\.png or \.svg, got 'x\.jpg'"):
        plot_timeline(FOUND, tmp_path / "x.jpg")


def with_sound(codec="aac", **options):
    """A video of 4 s at 10 fps, 64x48, with a tone of 4 s."""
    tone = (0.3 * np.sin(np.arange(4 * 16_000) / 16_000 * 2 * np.pi * 440)).astype(np.float32)[None]

    def add_tone(output, stream):
        sound = output.add_stream(codec, rate=16_000, layout="mono")
        for first in range(0, tone.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(tone[:, first : first + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, first
            output.mux(sound.encode(frame))
        output.mux(sound.encode(None))

    return bytes(encode(size=(64, 48), num_frames=40, rate=10, prepare=add_tone, **options))


def test_labels_are_shown_while_the_action_lasts(tmp_path):
    source = tmp_path / "v.mp4"
    source.write_bytes(with_sound())
    path = write_detection_video(source, FOUND[:1], tmp_path / "out.mp4")
    before, after = probe_video(source), probe_video(path)
    assert (after.fps, after.duration) == pytest.approx((before.fps, before.duration), abs=1e-3)
    assert (after.width, after.height, after.num_frames) == (320, 240, 40)
    shown, plain = read_video(path), read_video(source)
    assert np.abs(shown.timestamps - plain.timestamps).max() < 1e-3
    blue = np.array([0, 114, 178])
    corner = shown.frames[:, :, 8:22, 7:9].float().mean((2, 3)).numpy()  # in the box, left of its text
    is_label = np.abs(corner - blue).max(1) < 30
    assert is_label.tolist() == [1.0 <= time < 3.0 - 1e-6 for time in plain.timestamps.tolist()]
    # the rest of the picture is that of the source
    inner = shown.frames[:, :, 80:200:5, 2::5].float() - plain.frames[:, :, 16:40, :].float()
    assert inner.abs().mean() < 6
    # when what happens: the bar along the lower edge
    edge = shown.frames[0, :, 236:239].float().mean(1).numpy().T
    assert [bool(np.abs(edge[x] - blue).max() < 40) for x in (40, 120, 200, 280)] == [False, True, True, False]
    with av.open(str(path)) as container, av.open(str(source)) as original:
        copied = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        given = [bytes(packet) for packet in original.demux(audio=0) if packet.size]
        assert len(copied) > 55 and set(copied) <= set(given) and len(given) - len(copied) <= 2


def test_orientation_uneven_times_and_odd_sizes_stay(tmp_path):
    turned = set_matrix(bytearray(encode(size=(64, 48), num_frames=12, rate=6, seed=1)), (0, 1, -1, 0))
    (tmp_path / "turned.mp4").write_bytes(bytes(turned))
    after = probe_video(write_detection_video(tmp_path / "turned.mp4", [], tmp_path / "a.mp4"))
    assert (after.width, after.height, after.rotation) == (48 * 4, 64 * 4, 0)
    upright, drawn = (read_video(tmp_path / name, num_frames=3).frames.float() for name in ("turned.mp4", "a.mp4"))
    assert (drawn[:, :, 2:200:4, 2::4] - upright[:, :, :50]).abs().mean() < 6

    times = np.cumsum([0.0] + [0.05 if index % 3 else 0.3 for index in range(29)])
    data = encode("matroska", size=(322, 242), num_frames=30, times=times.tolist(), seed=4)
    (tmp_path / "uneven.mkv").write_bytes(bytes(data))
    path = write_detection_video(tmp_path / "uneven.mkv", FOUND, tmp_path / "b.mp4", classes=["a", "pole vault"])
    shown = read_video(path)
    assert shown.frames.shape[-2:] == (242, 322)
    assert np.abs(shown.timestamps.numpy() - times).max() < 2e-3
    odd = [np.full((241, 33, 3), 60, np.uint8)] * 4
    gif = tmp_path / "odd.gif"
    Image.fromarray(odd[0]).save(gif, save_all=True, append_images=[Image.fromarray(one) for one in odd[1:]], duration=100)  # fmt: skip
    after = probe_video(write_detection_video(gif, FOUND, tmp_path / "c.mp4"))
    assert (after.width, after.height) == (34, 242)


def test_what_cannot_be_read_leaves_nothing(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 50)
    (tmp_path / "out.mp4").write_bytes(b"from an earlier run")
    with pytest.raises(VideoNotReadable):
        write_detection_video(tmp_path / "bad.mp4", FOUND, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"from an earlier run"
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(ValueError, match=r"\.mp4, got 'out\.avi'"):
        write_detection_video(tmp_path / "bad.mp4", FOUND, tmp_path / "out.avi")
