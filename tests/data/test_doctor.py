import json
import shutil

import av
import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from hf_effvid.data.doctor import check_dataset
from hf_effvid.data.loading import load_video_dataset
from hf_effvid.data.synthetic import draw_motion_clip, write_clip


def found(report):
    return {(finding.severity, finding.code): finding for finding in report.findings}


@pytest.fixture
def folder(motion_folder, tmp_path):
    return shutil.copytree(motion_folder, tmp_path / "data")


def check(source, **kwargs):
    return check_dataset(source, progress=False, num_workers=2, **kwargs)


def test_a_sound_data_set(motion_folder):
    report = check(motion_folder)
    assert report.ok and list(found(report)) == [("note", "directional_labels")]
    assert len(report.files) == len(report.readable) == 16
    assert report.class_counts()["train"] == dict.fromkeys(report.class_names, 2)
    file = report.files[0]
    assert (file.width, file.height, file.num_frames, file.fps) == (32, 32, 8, 16)
    assert file.duration == pytest.approx(0.5) and file.num_bytes > 0
    assert "train: 8 videos, 2 to 2 per class" in report.to_text() and report.to_text().endswith("\nok")


@pytest.mark.parametrize("depth", ["probe", "ends", "full"])
def test_unreadable_files_are_named_with_their_error(folder, depth):
    bad = {
        "train/moves_left/text.mp4": (b"just text\n" * 99, "VideoNotReadable"),
        "train/moves_left/empty.mp4": (b"", "VideoEmpty"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    report = check(folder, depth=depth)
    errors = {file.path: file.error for file in report.files if file.error}
    assert errors == {str(folder / name): error for name, (_, error) in bad.items()}
    assert not report.ok and "text.mp4" in report.to_text()


def test_a_listed_file_that_is_not_there(folder):
    (folder / "train.csv").write_text("train/moves_left/moves_left_00000.mp4,a\ntrain/gone.mp4,a\n")
    report = check(folder)
    assert [file.error for file in report.files] == ["", "VideoNotFound"] and not report.ok


def test_a_cut_file_is_found(folder):
    path = folder / "train/moves_left/long.mp4"
    frames = draw_motion_clip("grows", np.random.default_rng(0), 32, 24)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:  # the index comes before the frames
        stream = container.add_stream("mpeg4", rate=16)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.gop_size = "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert found(check(folder)).keys() == {("note", "directional_labels")}
    path.write_bytes(content[: len(content) // 2])
    assert str(path) in found(check(folder))["warning", "damaged"].items[0]


def test_duplicates_across_splits_and_within_one_and_under_two_labels(folder):
    source = folder / "train/moves_left/moves_left_00000.mp4"
    shutil.copy(source, folder / "test/moves_left/copy.mp4")
    within = folder / "train/moves_right/moves_right_00000.mp4"
    shutil.copy(within, within.with_name("again.mp4"))
    report = check(folder)
    findings = found(report)
    assert not report.ok
    assert "copy.mp4" in findings["error", "duplicates_across_splits"].items[0]
    assert "again.mp4" in findings["warning", "duplicates"].items[0]
    assert ("error", "conflicting_labels") not in findings
    shutil.copy(source, folder / "train/moves_right/other.mp4")
    assert ("error", "conflicting_labels") in found(check(folder))


def test_two_parts_of_one_file_are_no_duplicates(folder):
    name = "train/moves_left/moves_left_00000.mp4"
    (folder / "train.csv").write_text(f"path,label,start,end\n{name},a,0,0.25\n{name},b,0.25,0.5\n")
    report = check(folder, min_frames=4)
    assert list(found(report)) == [("error", "no_validation")] and [file.num_frames for file in report.files] == [4, 4]


def test_classes_without_videos(folder):
    (folder / "train/nothing_yet").mkdir()
    shutil.rmtree(folder / "train/moves_right")
    findings = found(check(folder))
    assert findings["error", "empty_classes"].items == ["train/nothing_yet"]
    assert findings["error", "classes_without_videos"].items == ["moves_right"]
    shutil.rmtree(folder / "train/nothing_yet")
    shutil.copytree(folder / "test/moves_right", folder / "train/moves_right", dirs_exist_ok=True)
    shutil.rmtree(folder / "validation/moves_left")
    findings = found(check(folder))
    assert findings["warning", "classes_without_videos"].items == ["moves_left"]


def test_short_clips_mixed_rates_and_imbalance(folder):
    for i in range(20):
        clip = draw_motion_clip("grows", np.random.default_rng(i), 16, 4)
        write_clip(folder / f"train/moves_left/{i}.mp4", clip, fps=8)
    report = check(folder)
    findings = found(report)
    assert len(findings["warning", "too_short"].items) == 20
    assert ("note", "mixed_frame_rates") in findings and ("warning", "imbalance") in findings
    assert report.ok  # warnings do not fail


def test_loaded_data_sets_and_embedded_videos(motion_folder, train_rows):
    assert check(train_rows).ok
    assert len(check(load_video_dataset(motion_folder)).files) == 16
    path = train_rows[0]["video"]["path"]
    content = open(path, "rb").read()
    rows = {"video": [{"bytes": content, "path": None}] * 2, "label": [0, 0]}
    report = check(Dataset.from_dict(rows, features=train_rows.features))
    assert ("warning", "duplicates") in found(report)
    with pytest.raises(ValueError, match="stream"):
        check(load_video_dataset(motion_folder, streaming=True))
    with pytest.raises(ValueError, match="depth"):
        check(train_rows, depth="deep")


def test_plain_values_and_picture(folder, tmp_path):
    name = "price $5 $x^{ <b>bold"
    (folder / "train" / name).mkdir()
    write_clip(folder / "train" / name / "a.mp4", draw_motion_clip("grows", np.random.default_rng(0), 48, 12), fps=25)
    (folder / "train" / name / "bad $\\frac{.mp4").write_bytes(b"x")
    report = check(folder)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is False and values["num_files"] == 18 and values["num_readable"] == 17
    assert values["statistics"]["frames"] == {"min": 8, "median": 8, "max": 12}
    assert name in report.to_text()
    with Image.open(report.plot(tmp_path / "report.png")) as picture:
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_a_picture_of_very_many_classes_and_of_nothing_readable(tmp_path):
    for i in range(60):
        (tmp_path / f"class {i:03d}").mkdir()
        (tmp_path / f"class {i:03d}/a.mp4").write_bytes(b"no")
    report = check(tmp_path)
    assert len(report.readable) == 0 and not report.ok
    assert report.plot(tmp_path / "report.png").stat().st_size > 10_000


def test_names_cannot_rewrite_the_terminal(folder):
    (folder / "train/moves_left/a\x1b[2J\u202e.mp4").write_bytes(b"x")
    text = check(folder).to_text()
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[2J" in text


def test_one_class_is_nothing_to_learn(folder):
    for other in folder.glob("*/*"):
        if other.is_dir() and other.name != "moves_left":
            shutil.rmtree(other)
    report = check(folder)
    assert report.class_names == ["moves_left"] and not report.ok
    assert ("error", "single_class") in found(report)


def test_one_video_per_class_without_a_validation_split_is_what_training_refuses(motion_folder, tmp_path):
    for path in motion_folder.glob("train/*/*_00000.mp4"):
        target = tmp_path / "data" / path.parent.name
        target.mkdir(parents=True)
        shutil.copy(path, target)
    report = check(tmp_path / "data")
    assert ("error", "no_validation") in found(report) and "--validation-share 0" in report.to_text()
    shutil.copytree(tmp_path / "data", tmp_path / "split" / "train")
    shutil.copytree(motion_folder / "validation", tmp_path / "split" / "validation")
    assert "no_validation" not in {code for _, code in found(check(tmp_path / "split"))}
    # one class with two videos is enough to hold one out
    name = sorted(path.name for path in (tmp_path / "data").iterdir())[0]
    shutil.copy(motion_folder / f"train/{name}/{name}_00001.mp4", tmp_path / "data" / name)
    assert check(tmp_path / "data").ok
