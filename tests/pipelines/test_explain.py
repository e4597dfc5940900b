"""`explain=True`: the same predictions, and with them what the model itself says about modulators and gates of the right view."""

import json
from pathlib import Path

import pytest
import torch

import hf_effvid
from hf_effvid import VideoClassificationPipeline
from hf_effvid.explanation import NoModulatorsError, explain_clip
from hf_effvid.pipelines import explainer, predict_paths

from .conftest import largest_difference
from .hosts import FRAMES, video_focalnet, videomae


@pytest.fixture(scope="module")
def pipe():
    model, processor = video_focalnet()
    return VideoClassificationPipeline(model, video_processor=processor, device="cpu")


@pytest.fixture
def quick_pictures(monkeypatch):
    """Folders are made as always, and what would be drawn is written down in them."""

    def render(explanation, frames, folder, *, title, seconds):
        folder.mkdir(parents=True)
        (folder / "overlay.mp4").write_text(title)
        return {"overlay": str(folder / "overlay.mp4")}

    monkeypatch.setattr(explainer, "render_explanation", render)


def test_predictions_stay_and_the_numbers_are_those_of_the_model(pipe, videos):
    plain = pipe(videos.long_mp4)
    explained = pipe(videos.long_mp4, explain=True)
    assert largest_difference(explained["predictions"], plain) < 1e-6
    told = explained["explanation"]
    assert json.loads(json.dumps(told)) == told
    assert (told["label"], told["score"]) == (plain[0]["label"], pytest.approx(plain[0]["score"]))
    rows = pipe.preprocess(videos.long_mp4)["pixel_values"]
    expected = explain_clip(pipe.model, rows).to_dict()
    assert told["gates"] == expected["gates"] and told["temporal_weight"] == expected["temporal_weight"]
    assert told["view"] == {"clip": 0, "crop": 0, "of": 1} and "files" not in told
    assert told["seconds"] == pytest.approx([0.2, 0.7, 1.2, 1.7])


def test_of_several_views_the_one_that_speaks_for_the_label_is_explained(pipe, videos):
    told = pipe(videos.twelve_mp4, multi_view=True, explain=True, explain_block=0)["explanation"]
    rows = pipe.preprocess(videos.twelve_mp4, multi_view=True)["pixel_values"]
    with torch.no_grad():
        views = pipe.model(rows).logits.softmax(-1)
    label = views.mean(0).argmax().item()
    best = views[:, label].argmax().item()
    assert told["label"] == pipe.model.config.id2label[label] and told["block"] == 0
    assert told["view"] == {"clip": best // 3, "crop": best % 3, "of": 6}
    assert told["temporal_weight"] == pytest.approx(explain_clip(pipe.model, rows[best], block=0).temporal_weight)
    # the first of two clips lies in the first half of the video
    assert (told["seconds"][0] < 5) == (told["view"]["clip"] == 0)


def test_every_window_is_explained_and_the_stream_too(pipe, videos, tmp_path, quick_pictures):
    windows = pipe(videos.long_mp4, window=1.0, explain_dir=tmp_path)
    assert [(one["start"], one["end"]) for one in windows] == [(0.0, 1.0), (1.0, 2.0)]
    for one in windows:
        part = pipe(videos.long_mp4, start=one["start"], end=one["end"], explain=True)
        assert one["explanation"]["temporal_weight"] == pytest.approx(part["explanation"]["temporal_weight"], abs=1e-5)
        assert all(one["start"] <= seconds < one["end"] for seconds in one["explanation"]["seconds"])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["long_0.00-1.00s", "long_1.00-2.00s"]
    streamed = list(pipe.stream(videos.long_mp4, window=1.0, explain=True))
    assert [one["explanation"]["label"] for one in streamed] == [one["explanation"]["label"] for one in windows]


def test_files_of_videos_with_one_name_do_not_overwrite_each_other(pipe, videos, tmp_path, quick_pictures):
    other = tmp_path / "other" / "long.mp4"
    other.parent.mkdir()
    other.write_bytes(videos.other_mp4.read_bytes())
    sources = [videos.long_mp4, videos.broken_mp4, other, videos.long_mp4.read_bytes()]
    results = pipe(sources, explain=True, explain_dir=tmp_path / "out", on_error="record", batch_size=3)
    assert "error" in results[1] and "explanation" not in results[1]
    files = [one["explanation"]["files"] for one in results if "explanation" in one]
    assert [Path(one["overlay"]).parent.name for one in files] == ["long", "long_2", f"bytes_{len(sources[3])}_B"]
    assert Path(files[0]["overlay"]).read_text().startswith("long.mp4: predicted move ")
    numbers = json.loads(Path(files[1]["numbers"]).read_text())
    assert numbers["source"] == str(other) and numbers["gates"] == results[2]["explanation"]["gates"]


def test_frames_without_a_file_have_no_times(pipe):
    frames = torch.randint(0, 255, (9, 3, 40, 40), dtype=torch.uint8)
    told = pipe(frames, explain=True)["explanation"]
    assert told["seconds"] == [None] * FRAMES and json.dumps(told, allow_nan=False)


def test_a_threshold_that_nothing_passes_still_explains(pipe, videos):
    result = pipe(videos.long_mp4, explain=True, threshold=2.0)
    assert result["predictions"] == [] and 0 < result["explanation"]["score"] < 1


@pytest.mark.parametrize("window", [None, 1.0])
def test_records_of_many_files_carry_the_explanation(pipe, videos, tmp_path, window):
    for name in ("out.jsonl", "out.csv"):
        records = list(
            predict_paths(pipe, videos.long_mp4, window=window, output=tmp_path / name, explain=True, top_k=1)
        )
        assert len(records) == (2 if window else 1)
        assert all(one["explanation"]["label"] == one["predictions"][0]["label"] for one in records)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == records and "explanation" not in (tmp_path / "out.csv").read_text()


def test_a_model_without_modulators_is_refused_before_anything_is_read():
    model, processor = videomae()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    with pytest.raises(NoModulatorsError, match="video_focalnet"):
        pipe("no_such_file.mp4", explain=True, on_error="record")


def test_explain_is_one_call(videos, tmp_path):
    model, processor = video_focalnet()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    result = hf_effvid.explain(videos.long_mp4, tmp_path / "model", tmp_path / "out", top_k=2)
    assert len(result["predictions"]) == 2
    files = result["explanation"]["files"]
    assert sorted(files) == ["contact_sheet", "gates", "numbers", "overlay"]
    assert all(
        Path(path).parent == tmp_path / "out" / "long" and Path(path).stat().st_size > 500 for path in files.values()
    )
    again = hf_effvid.explain(videos.long_mp4, model, None, processor=processor, block=0)
    assert again["explanation"]["block"] == 0 and "files" not in again["explanation"]
