"""What `effvid detect` runs: many files, one of them bad, killed and resumed, every format; and the command around it."""

import json
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_effvid import probe_video
from hf_effvid.cli import app
from hf_effvid.data.detection_annotations import load_detection_annotations
from hf_effvid.pipelines.detect_paths import detect_paths, detections_table, write_found
from tests.models.test_detection_stream import smooth_frames, transport_stream
from tests.models.test_pipeline_temporal_action_detection import make_pixel_pipeline
from tests.video_corpus.encode import encode


THRESHOLD = 0.2
runner = CliRunner()


@pytest.fixture(scope="module")
def pipe():
    return make_pixel_pipeline()


@pytest.fixture(scope="module")
def model(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        (folder / f"v{number}.mp4").write_bytes(bytes(encode(size=(64, 48), num_frames=40, rate=10, seed=number)))
    (folder / "bad.mp4").write_bytes(b"no video" * 50)
    return folder


def call(*arguments):
    return runner.invoke(app, ["detect", *map(str, arguments)])


class Counting:
    """A pipeline that says which videos it looked at, and may be killed."""

    def __init__(self, pipe, dies_after=None):
        self.pipe, self.looked_at, self.dies_after, self.reads_pixels = pipe, [], dies_after, True

    def iterate(self, inputs, **options):
        for source in inputs:
            if len(self.looked_at) == self.dies_after:
                raise KeyboardInterrupt
            self.looked_at.append(Path(source).name)
            yield from self.pipe.iterate([source], **options)


def test_one_bad_file_costs_nothing(pipe, videos, tmp_path):
    records = list(detect_paths(pipe, videos, out_dir=tmp_path, formats=("json", "csv"), threshold=THRESHOLD))
    assert [Path(record["source"]).name for record in records] == ["bad.mp4", "v0.mp4", "v1.mp4"]
    assert records[0]["error"] == "VideoNotReadable" and "detections" not in records[0]
    assert records[1]["detections"] == pipe(videos / "v0.mp4", threshold=THRESHOLD) != []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v0.csv", "v0.json", "v1.csv", "v1.json"]
    segments = load_detection_annotations(tmp_path / "v0.csv", root=videos).videos[0].segments
    assert len(segments) == len(records[1]["detections"])


def test_what_is_done_is_not_done_again(pipe, videos, tmp_path):
    killed = Counting(pipe, dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        list(detect_paths(killed, videos, out_dir=tmp_path, threshold=THRESHOLD))
    assert [path.name for path in tmp_path.iterdir()] == ["v0.json"]
    again = Counting(pipe)
    records = list(detect_paths(again, videos, out_dir=tmp_path, formats=("json", "srt"), threshold=THRESHOLD))
    assert again.looked_at == ["bad.mp4", "v1.mp4"]  # what failed is tried again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v0.json", "v0.srt", "v1.json", "v1.srt"]
    fresh = list(detect_paths(pipe, videos, threshold=THRESHOLD))
    assert [record.get("detections") for record in records] == [record.get("detections") for record in fresh]
    with pytest.raises(ValueError, match="other settings.*--overwrite"):
        list(detect_paths(pipe, videos, out_dir=tmp_path, threshold=0.1))
    redone = Counting(pipe)
    list(detect_paths(redone, videos, out_dir=tmp_path, threshold=0.1, overwrite=True))
    assert len(redone.looked_at) == 3
    (tmp_path / "v0.json").write_text('{"results": {"other.mp4": []}}')
    with pytest.raises(ValueError, match="of other.mp4"):
        list(detect_paths(pipe, videos, out_dir=tmp_path, threshold=0.1))


def test_names_that_are_not_unique_and_a_video_that_would_be_overwritten(pipe, videos, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "v.mp4").write_bytes((videos / "v0.mp4").read_bytes())
    records = list(detect_paths(pipe, tmp_path / "in", out_dir=tmp_path / "out", threshold=THRESHOLD))
    assert [record["files"]["json"] for record in records] == [str(tmp_path / "out" / one / "v.mp4.json") for one in "ab"]  # fmt: skip
    before = (videos / "v0.mp4").read_bytes()
    with pytest.raises(ValueError, match="is one of the videos"):
        list(detect_paths(pipe, videos / "v0.mp4", out_dir=videos, formats=("mp4",)))
    with pytest.raises(ValueError, match="is the video itself"):
        write_found(videos / "v0.mp4", {str(videos / "v0.mp4"): []})
    assert (videos / "v0.mp4").read_bytes() == before
    with pytest.raises(ValueError, match="several|one video, got 2"):
        write_found(tmp_path / "x.png", {"a": [], "b": []})


def test_the_table_shows_the_best_and_says_how_many_more():
    from rich.console import Console

    found = [{"label": "[red]x\x1b[2J", "score": 0.5, "start": 1.0, "end": 2.0}] * 12
    records = [{"source": "a.mp4", "detections": found}, {"source": "b.mp4", "detections": []}, {"source": "c", "error": "E", "message": "why"}]  # fmt: skip
    console = Console(width=120, record=True, file=open(os.devnull, "w"))
    console.print(detections_table(records))
    text = console.export_text()
    assert "[red]x�[2J" in text and "... and 2 more" in text and "nothing found" in text and "E: why" in text


# ---- the command ---------------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_everything(model, videos, tmp_path):
    annotations = tmp_path / "truth.csv"
    annotations.write_text("file,start,end,label\nv0.mp4,0.5,2.5,run\n")
    arguments = [
        videos,
        "-m",
        model,
        "--out-dir",
        tmp_path / "out",
        "--write",
        "json,csv,srt,vtt,png,svg,mp4",
        "--quiet",
    ]
    arguments += ["--threshold", THRESHOLD, "--annotations", annotations, "--root", videos]
    result = call(*arguments, "--output", tmp_path / "all.json", "--json")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    assert "bad.mp4" in result.stderr and [("error" in record) for record in records] == [True, False, False]
    assert set(records[1]["files"]) == {"json", "csv", "srt", "vtt", "png", "svg", "mp4"}
    assert all(Path(path).stat().st_size > 50 for path in records[1]["files"].values())
    assert "black: annotated" in Path(records[1]["files"]["svg"]).read_text()
    assert probe_video(records[1]["files"]["mp4"]).duration == pytest.approx(4.0, abs=0.01)
    together = json.loads((tmp_path / "all.json").read_text())["results"]
    assert {Path(name).name: len(found) for name, found in together.items()} == {
        Path(record["source"]).name: len(record["detections"]) for record in records[1:]
    }
    again = call(*arguments)
    assert again.exit_code == 0 and "run" in again.stdout and "score" in again.stdout


def test_one_video_to_one_file(model, videos, tmp_path):
    for name in ("found.srt", "found.svg"):
        result = call(
            videos / "v0.mp4", "-m", model, "-o", tmp_path / name, "--threshold", THRESHOLD, "--top-k", 3, "-q"
        )
        assert result.exit_code == 0, result.output
    assert (tmp_path / "found.srt").read_text().count(" --> ") == 3
    assert "3 detections" in (tmp_path / "found.svg").read_text()


def test_the_default_threshold_is_said_in_the_help(model, videos, pipe):
    result = call(videos / "v0.mp4", "-m", model, "--json", "-q", "--window", 1.6, "--overlap", 0.8)
    (record,) = json.loads(result.stdout)
    assert record["detections"] == pipe(videos / "v0.mp4", threshold=0.3, window=1.6, overlap=0.8)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bad.mp4"], 1, "bad.mp4"),
        (["v0.mp4", "--write", "docx"], 2, "docx"),
        (["v0.mp4", "--output", "found.docx"], 2, "docx"),
        (["v0.mp4", "--threshold", "2"], 2, "threshold"),
        (["v0.mp4", "--live", "--output", "x.json"], 2, "--live"),
        (["v0.mp4", "v1.mp4", "--live"], 2, "one camera"),
    ],
)
def test_exit_codes(model, videos, arguments, code, said):
    arguments = [videos / one if one.endswith(".mp4") else one for one in arguments]
    result = call(*arguments, "-m", model, "-q")
    assert result.exit_code == code and said in result.output + result.stderr


def test_a_pipe_is_followed_as_it_comes(model, tmp_path):
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    data = transport_stream(smooth_frames(120), 25)
    writer = threading.Thread(target=lambda: fifo.write_bytes(data), daemon=True)
    writer.start()
    result = call(fifo, "-m", model, "--live", "--threshold", 0.1, "--json")
    writer.join(10)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines and set(lines[0]) == {"start", "end", "label", "score"}
    assert max(line["end"] for line in lines) <= 4.9
