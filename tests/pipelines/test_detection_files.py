"""Detections as files: each format is read back by a reader that is not ours, or by the part of the package that takes it."""

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid import evaluate_detector
from hf_effvid.data.detection_annotations import load_detection_annotations
from hf_effvid.pipelines.detection_files import (
    detections_csv,
    detections_json,
    detections_srt,
    detections_vtt,
    read_detections,
    write_detections,
)


FOUND = [
    {"label": "pole vault", "score": 0.91, "start": 61.0625, "end": 3723.4567},
    {"label": "run & <b>jump</b>\n\n{\\an8} --> x", "score": 0.5, "start": 0.0004, "end": 0.0004},
    {"label": "走る, \"laufen\"", "score": 0.25, "start": 61.0, "end": 62.0},
]  # fmt: skip

detections = st.builds(
    lambda label, score, start, length: {"label": label, "score": score, "start": start, "end": start + length},
    label=st.text(max_size=20).map(lambda text: f"x{text}"),
    score=st.floats(0, 1),
    start=st.floats(0, 400_000),
    length=st.floats(0, 10_000),
)


def read_cues(text, point):
    """(start, end, text) of the cues of a subtitle file, as a player reads them: blank lines part cues."""
    cues = []
    for block in re.split(r"\n{2,}", text.strip("\n")):
        lines = block.split("\n")
        place = next((number for number, line in enumerate(lines) if " --> " in line), None)
        if place is None:
            continue
        assert place in (0, 1) and (place == 0 or lines[0].isdigit())
        times = []
        for clock in lines[place].split(" --> "):
            hours, minutes, seconds, milli = re.fullmatch(
                rf"(\d{{2,}}):([0-5]\d):([0-5]\d){re.escape(point)}(\d{{3}})", clock
            ).groups()
            times.append(((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(milli))
        cues.append((*times, "\n".join(lines[place + 1 :])))
    return cues


def test_srt_shows_every_detection_at_its_millisecond():
    text = detections_srt(FOUND)
    assert text.startswith("1\n00:00:00,000 --> 00:00:00,001\nrun & ‹b›jump‹/b› (\\an8) --› x 0.50\n\n2\n")
    cues = read_cues(text, ",")
    assert [cue[:2] for cue in cues] == [(0, 1), (61_000, 62_000), (61_062, 3_723_457)]
    assert cues[2][2] == "pole vault 0.91"
    assert [int(number) for number in re.findall(r"^(\d+)$", text, re.MULTILINE)] == [1, 2, 3]


def test_vtt_escapes_what_it_reads_as_markup():
    text = detections_vtt(FOUND)
    assert text.startswith("WEBVTT\n\n")
    cues = read_cues(text, ".")
    assert cues[0][2] == "run &amp; &lt;b&gt;jump&lt;/b&gt; {\\an8} --&gt; x 0.50"
    assert html.unescape(cues[0][2]) == "run & <b>jump</b> {\\an8} --> x 0.50"
    assert read_cues(detections_vtt([]), ".") == [] and detections_srt([]) == ""


@given(st.lists(detections, max_size=8))
def test_subtitles_keep_every_cue_whatever_the_labels_are(found):
    wanted = sorted((round(1000 * one["start"]), round(1000 * one["end"])) for one in found)
    wanted = sorted((start, max(end, start + 1)) for start, end in wanted)
    for text, point in ((detections_srt(found), ","), (detections_vtt(found), ".")):
        assert [cue[:2] for cue in read_cues(text, point)] == wanted


def test_csv_is_a_list_of_segments(tmp_path):
    write_detections(tmp_path / "found.csv", {"clips/a.mp4": FOUND, "b.mp4": FOUND[:1], "none.mp4": []})
    read = load_detection_annotations(tmp_path / "found.csv", missing="keep")
    assert {video.name: len(video.segments) for video in read.videos} == {"clips/a.mp4": 3, "b.mp4": 1}
    (only,) = read.videos[1].segments
    assert (only.label, only.start, only.end) == ("pole vault", 61.062, 3723.457)
    assert {one.label for one in read.videos[0].segments} >= {FOUND[2]["label"]}


@given(st.lists(detections, max_size=5))
def test_csv_has_one_row_per_detection_whatever_the_labels_are(found):
    assert len(detections_csv({"v.mp4": found}).splitlines()) == len(found) + 1


def test_json_is_what_the_evaluator_reads(tmp_path):
    path = write_detections(tmp_path / "found.json", {"v": FOUND[:1]}, model="org/name")
    truth = {"v": {"annotations": [{"label": "pole vault", "segment": [61.0, 3723.0]}]}}
    assert evaluate_detector(truth, path, tious=[0.9]).average_mAP == 1.0
    read = read_detections(path)
    assert read["results"] == {"v": FOUND[:1]} and read["model"] == "org/name"
    odd = "caf\udce9.mp4"  # a name that is not UTF-8 stays the same name
    assert list(json.loads(detections_json({odd: []}))["results"]) == [odd]


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"\.json, \.csv, \.srt or \.vtt, got 'x\.txt'"):
        write_detections(tmp_path / "x.txt", {})
    with pytest.raises(ValueError, match="one video, got 2"):
        write_detections(tmp_path / "x.srt", {"a": [], "b": []})
    (tmp_path / "x.json").write_text('{"results": [1]}')
    with pytest.raises(ValueError, match="does not hold detections"):
        read_detections(tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
