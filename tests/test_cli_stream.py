"""`effvid predict --stream`: running predictions, a line per frame."""

import json

import pytest
from typer.testing import CliRunner

from hf_effvid import EffVidVideoProcessor, VideoClassificationPipeline
from hf_effvid.cli import app
from tests.models.test_modeling_movinet import make_model
from tests.video_corpus.encode import encode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    make_model(causal=True, id2label={0: "left", 1: "right", 2: "still"}).save_pretrained(folder)
    EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    (folder / "video.mp4").write_bytes(bytes(encode(size=(64, 48), num_frames=20, rate=10, seed=1)))
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_a_line_per_frame_of_a_file(folder):
    options = (folder / "video.mp4", "--model", folder, "--stream", "--target-fps", "5", "--start", "0.4")
    result = call(*options, "--json")
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert records == list(VideoClassificationPipeline(folder).stream(folder / "video.mp4", target_fps=5, start=0.4))
    lines = call(*options).stdout.splitlines()
    assert len(lines) == len(records) == 8
    assert f"{records[0]['predictions'][0]['label']} {records[0]['predictions'][0]['score']:.3f}" in lines[0]


def test_options_that_belong_together(folder):
    video = folder / "video.mp4"
    for options in (("--stream", "--window", "1"), ("--stream", "--output", "x.csv"), ("--target-fps", "5")):
        assert call(video, "--model", folder, *options).exit_code == 2
    # a recipe without a rate; a source that is no file is opened as a live one
    assert "target_fps" in str(call(video, "--model", folder, "--stream").exception)
    assert "nowhere" in str(call("nowhere.mp4", "--model", folder, "--stream", "--target-fps", "5").exception)
