"""Annotated actions: every layout, what is refused, and what the doctor says of their times and videos."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_effvid.cli import app
from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.detection_annotations import ActionSegment, load_detection_annotations
from hf_effvid.data.detection_doctor import check_detection_data
from hf_effvid.data.synthetic import draw_motion_clip, write_clip
from hf_effvid.evaluation.detection import evaluate_detector


def touch(root, *names):
    """Empty files stand for videos: reading annotations opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def segments_of(annotations):
    return {video.name: [(one.label, one.start, one.end) for one in video.segments] for video in annotations.videos}


ACTIVITYNET = {
    "version": "x",
    "database": {
        "a1": {"subset": "training", "duration": 30.5, "fps": 25.0,
               "annotations": [{"label": "jump", "segment": [1.5, 4]}, {"label": "run", "segment": [2, 2]}]},
        "b2": {"subset": "validation", "duration": 20, "annotations": [{"label": "run", "segment": [0, 25.0]}]},
        "c3": {"subset": "Test", "annotations": []},
    },
}  # fmt: skip


@pytest.fixture
def activitynet(tmp_path):
    file = tmp_path / "anno.json"
    file.write_text(json.dumps(ACTIVITYNET))
    touch(tmp_path / "videos", "v_a1.mp4", "deep/b2.webm", "c3.mkv")
    return file


def test_activitynet(activitynet, tmp_path):
    found = load_detection_annotations(activitynet, root=tmp_path / "videos")
    assert found.class_names == ["jump", "run"] and found.splits == ["train", "validation", "test"]
    assert [Path(video.path).name for video in found.videos] == ["v_a1.mp4", "b2.webm", "c3.mkv"]
    first = found.videos[0]
    assert (first.duration, first.fps) == (30.5, 25.0)
    # as written: not cut to the video, not cleaned
    assert segments_of(found) == {"a1": [("jump", 1.5, 4.0), ("run", 2.0, 2.0)], "b2": [("run", 0.0, 25.0)], "c3": []}
    assert first.usable() == [ActionSegment("jump", 1.5, 4.0)]
    only = load_detection_annotations(activitynet, root=tmp_path / "videos", split="val")
    assert [video.name for video in only.videos] == ["b2"] and only.class_names == ["jump", "run"]
    with pytest.raises(AnnotationError, match="no split 'dev2'"):
        found.in_split("dev2")


def test_what_was_read_is_what_the_evaluator_takes(activitynet):
    found = load_detection_annotations(activitynet, missing="keep")
    truth = found.to_activitynet()
    perfect = {
        video.name: [{"label": one.label, "segment": [one.start, one.end], "score": 1.0} for one in video.usable()]
        for video in found.videos
    }
    report = evaluate_detector(truth, perfect, protocol="opentad")
    assert report.average_mAP == 1.0 and report.data.num_dropped == 1


def test_thumos_text_files(tmp_path, caplog):
    (tmp_path / "Diving_val.txt").write_text("video_validation_0000051  67.5 75.9\nvideo_validation_0000051  1 2.25\n")
    (tmp_path / "CliffDiving_val.txt").write_text("video_validation_0000051  67.5 75.9\n\n")
    (tmp_path / "Diving_test.txt").write_text("video_test_0000004 0.2 1.1\n")
    (tmp_path / "Ambiguous_test.txt").write_text("video_test_0000004 5 6\n")
    (tmp_path / "readme.txt").write_text("anything at all\n")
    touch(tmp_path, "videos/video_test_0000004.mp4", "videos/video_validation_0000051.mp4")
    found = load_detection_annotations(tmp_path)
    assert found.class_names == ["CliffDiving", "Diving"] and "1 ambiguous" in caplog.text
    assert segments_of(found) == {
        "video_validation_0000051": [("CliffDiving", 67.5, 75.9), ("Diving", 67.5, 75.9), ("Diving", 1.0, 2.25)],
        "video_test_0000004": [("Diving", 0.2, 1.1)],
    }
    assert {video.name: video.split for video in found.videos} == {
        "video_validation_0000051": "validation", "video_test_0000004": "test"
    }  # fmt: skip


THUMOS_TABLE = "video,type,type_idx,start,end,startFrame,endFrame\n"


def test_a_table_of_thumos_is_recognised(tmp_path, caplog):
    rows = (
        "video_validation_0000051,Billiards,12,67.5,75.9,2025,2277\nvideo_validation_0000051,Ambiguous,0,1,2,30,60\n"
    )
    (tmp_path / "val_Annotation.csv").write_text(THUMOS_TABLE + rows + "video_test_0000004,Diving,23,0.2,1.1,6,33\n")
    found = load_detection_annotations(tmp_path / "val_Annotation.csv", missing="keep")
    assert segments_of(found) == {
        "video_validation_0000051": [("Billiards", 67.5, 75.9)],
        "video_test_0000004": [("Diving", 0.2, 1.1)],
    }
    assert [video.split for video in found.videos] == ["validation", "test"] and "1 ambiguous" in caplog.text


@pytest.mark.parametrize(
    "row", ["video_test_0000004,Diving,23,,1.1,6,33", ",Diving,23,0.2,1.1,6,33", "a,Diving,23,x,1,6,33"]
)
def test_a_bad_row_of_a_thumos_table_is_named(tmp_path, row):
    (tmp_path / "val_Annotation.csv").write_text(THUMOS_TABLE + row + "\n")
    with pytest.raises(AnnotationError, match="line 2"):
        load_detection_annotations(tmp_path / "val_Annotation.csv", missing="keep")


def test_seconds_in_quotes_are_seconds(tmp_path):
    entry = {"subset": "test", "annotations": [{"segment": ["18.6", "24.8"], "label": "HighJump"}]}
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"a": entry}}))
    found = load_detection_annotations(tmp_path / "gt.json", missing="keep")
    assert segments_of(found) == {"a": [("HighJump", 18.6, 24.8)]}


def test_multithumos_text_files_take_the_split_from_the_video(tmp_path):
    (tmp_path / "Run.txt").write_text("video_test_0000004 0.2 1.1\nvideo_validation_0000001 3 4\n")
    found = load_detection_annotations(tmp_path, "thumos14", missing="keep")
    assert [video.split for video in found.videos] == ["test", "validation"]


EPIC = (
    "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,noun_class\n"
    'P01_01_0,P01,P01_01,00:00:00.14,00:00:03.37,8,202,"open door, slowly",open,3,door,3\n'
    "P01_01_1,P01,P01_01,00:01:04.37,01:00:06.17,262,370,turn on light,turn-on,6,light,114\n"
)


def test_epic_kitchens(tmp_path):
    (tmp_path / "EPIC_100_train.csv").write_text(EPIC)
    (tmp_path / "EPIC_100_validation.csv").write_text(EPIC.replace("P01_01", "P02_01"))
    (tmp_path / "EPIC_100_verb_classes.csv").write_text("id,key\n0,take\n")
    verbs = load_detection_annotations(tmp_path, "epic-verb", missing="keep")
    assert verbs.splits == ["train", "validation"] and verbs.class_names == [str(n) for n in range(7)]
    assert segments_of(verbs)["P01_01"] == [("3", 0.14, 3.37), ("6", 64.37, 3606.17)]
    names = [f"verb {number}" for number in range(9)]
    named = load_detection_annotations(tmp_path, "epic-verb", missing="keep", class_names=names)
    assert [one.label for one in named.videos[0].segments] == ["verb 3", "verb 6"] and named.class_names == names
    nouns = load_detection_annotations(tmp_path / "EPIC_100_train.csv", "epic-noun", missing="keep")
    assert [one.label for one in nouns.videos[0].segments] == ["3", "114"]
    with pytest.raises(AnnotationError, match="epic-noun"):
        load_detection_annotations(tmp_path / "EPIC_100_train.csv", missing="keep")


def test_a_plain_table(tmp_path):
    (tmp_path / "list.csv").write_text(
        "file,start,end,label,split\na.mp4,0.5,2,wave,train\nsub/b.mp4,1,1,wave,test\na.mp4,3,4.5,clap,train\n"
    )
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    found = load_detection_annotations(tmp_path / "list.csv")
    assert segments_of(found) == {"a.mp4": [("wave", 0.5, 2.0), ("clap", 3.0, 4.5)], "sub/b.mp4": [("wave", 1.0, 1.0)]}
    assert found.class_names == ["clap", "wave"] and found.splits == ["train", "test"]
    # names without suffixes, videos elsewhere
    (tmp_path / "names.csv").write_text("video,start,end,label\nb,0,1,wave\n")
    (video,) = load_detection_annotations(tmp_path / "names.csv").videos
    assert video.path == str(tmp_path / "sub" / "b.mp4") and video.split == "train"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"database": []}', "layout|JSON|database"),
        ("a.json", '{"database": {"v": {"subset": "x", "annotations": [{"label": "a", "segment": [1]}]}}}', "segment"),
        ("a.json", '{"database": {"v": {"subset": "x", "annotations": [{"segment": [1, 2]}]}}}', "empty label"),
        ("a.json", '{"database": {"../v": {"subset": "x", "annotations": []}}}', "not the name"),
        ("a.json", '{"database": {"v": {"subset": "x", "annotations": []}}}', "no annotation"),
        ("a.csv", "file,start,end,label\na.mp4,,2,wave\n", "without start or end"),
        ("a.csv", "file,start,end,label\na.mp4,x,2,wave\n", "the time"),
        ("a.csv", "file,start,end,label\n../a.mp4,1,2,wave\n", "leaves the data set"),
        ("a.csv", "file,start,end,label,split\na.mp4,1,2,wave,train\na.mp4,1,2,wave,test\n", "two splits"),
        ("a.csv", EPIC.replace("00:00:00.14", "soon"), "epic"),
        ("Run_val.txt", "v 1\n", "Expected '<video>"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(AnnotationError, match=message):
        load_detection_annotations(tmp_path / name, missing="keep")


def test_times_and_classes_of_epic_that_cannot_be_read(tmp_path):
    for change, message in ((("00:00:00.14", "soon"), "HH:MM:SS"), ((",3,door", ",open,door"), "its number")):
        (tmp_path / "a.csv").write_text(EPIC.replace(*change))
        with pytest.raises(AnnotationError, match=message):
            load_detection_annotations(tmp_path / "a.csv", "epic-verb", missing="keep")


def test_missing_videos_and_options(activitynet, tmp_path, caplog):
    with pytest.raises(AnnotationError, match="3 of 3 annotated videos"):
        load_detection_annotations(activitynet, root=tmp_path / "elsewhere")
    (tmp_path / "videos" / "c3.mkv").unlink()
    found = load_detection_annotations(activitynet, root=tmp_path / "videos", missing="skip")
    assert len(found.videos) == 2 and "left out" in caplog.text
    with pytest.raises(AnnotationError, match="class_names"):
        load_detection_annotations(activitynet, missing="keep", class_names=["jump"])
    with pytest.raises(AnnotationError, match="no such file"):
        load_detection_annotations(tmp_path / "absent.csv")
    for change in ({"format": "coco"}, {"missing": "perhaps"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            load_detection_annotations(activitynet, **change)


@pytest.fixture
def filmed(tmp_path):
    """Two real videos of two seconds, and annotations with one of everything that can be wrong."""
    for number in range(2):
        frames = draw_motion_clip("moves_left", np.random.default_rng(number), size=32, num_frames=16)
        write_clip(tmp_path / f"{number}.mp4", frames, fps=8)
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    rows = [
        ("0.mp4", 0, 1, "a"), ("0.mp4", 0.5, 1.5, "a"), ("0.mp4", 0.2, 0.3, "b"), ("0.mp4", 1, 1, "b"), ("0.mp4", 0.9, 0.8, "b"),
        ("1.mp4", 0, 1, "a"), ("1.mp4", 0, 1, "a"), ("1.mp4", 5, 6, "b"), ("1.mp4", 1.2, 4, "b"), ("broken.mp4", 0, 1, "a"),
    ]  # fmt: skip
    file = tmp_path / "actions.csv"
    file.write_text("file,start,end,label\n" + "".join(f"{f},{a},{b},{c}\n" for f, a, b, c in rows))
    return file


def test_the_doctor_finds_every_kind(filmed):
    report = check_detection_data(filmed, progress=False, num_workers=2)
    found = {finding.code: finding for finding in report.findings}
    assert {code: (finding.severity, len(finding.items)) for code, finding in found.items()} == {
        "unreadable": ("error", 1),
        "reversed_segments": ("error", 1),
        "zero_length_segments": ("warning", 1),
        "repeated_segments": ("warning", 1),
        "overlapping_segments": ("warning", 1),
        "overlapping_classes": ("note", 1),
        "segments_beyond_video": ("error", 1),
        "segments_past_end": ("warning", 1),
    }
    assert found["overlapping_segments"].items == ["0.mp4: a 0-1 and a 0.5-1.5"]
    assert found["segments_beyond_video"].items == ["1.mp4: b 5-6; the video has 2 s"]
    assert not report.ok and report.files[0].duration == pytest.approx(2.0)
    assert "overlap" in report.to_text()


def test_the_doctor_on_sound_data_and_without_videos(activitynet, tmp_path):
    sound = {"database": {"0": {"subset": "train", "duration": 9, "annotations": [{"label": "a", "segment": [0, 1]}]}}}
    (tmp_path / "sound.json").write_text(json.dumps(sound))
    report = check_detection_data(tmp_path / "sound.json", read_videos=False, progress=False)
    assert report.ok and report.findings == [] and "frames:" not in report.to_text()
    report = check_detection_data(activitynet, read_videos=False, progress=False)
    codes = {finding.code for finding in report.findings}
    assert codes == {
        "zero_length_segments", "segments_past_end", "videos_without_segments", "classes_without_segments"
    }  # fmt: skip


def test_an_annotated_duration_that_is_not_the_files(filmed):
    content = {
        "database": {"0": {"subset": "train", "duration": 60, "annotations": [{"label": "a", "segment": [0, 1]}]}}
    }
    file = filmed.with_name("anno.json")
    file.write_text(json.dumps(content))
    (finding,) = check_detection_data(file, progress=False).findings
    assert finding.code == "duration_differs" and finding.items == ["0: 60 s annotated, 2 s in the file"]


def test_the_command(filmed):
    runner = CliRunner()
    done = runner.invoke(app, ["check", str(filmed), "--task", "detection", "--json", "--quiet"])
    assert done.exit_code == 1
    assert "overlapping_segments" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    done = runner.invoke(app, ["check", str(filmed), "--task", "detection", "--annotations-only", "--quiet"])
    assert done.exit_code == 1 and "end before they start" in done.stdout and "cannot be read" not in done.stdout
    assert runner.invoke(app, ["check", str(filmed), "--task", "segmentation"]).exit_code == 2
