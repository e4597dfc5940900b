"""Official annotation files: the exact layouts, the order of classes, missing videos, and what is refused."""

import json
import logging
from pathlib import Path

import pytest

from hf_effvid.data import check_dataset
from hf_effvid.data.annotation_formats import FORMATS, detect_format
from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.loading import label_names, load_video_dataset


def touch(root, *names):
    """Empty files stand for videos: listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_of(dataset):
    return [Path(row["video"]["path"]).name for row in dataset]


def labels_of(dataset):
    return [label_names(dataset)[row["label"]] for row in dataset]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    return folder


# ---- Kinetics -----------------------------------------------------------------------------------------------------------

KINETICS_TRAIN = (
    "label,youtube_id,time_start,time_end,split,is_cc\n"
    '"massaging person\'s head",-0abcDEF_12,63,73,train,0\n'
    "abseiling,_4YTwq0-73Y,4,14,train,0\n"
    "zumba,ZZZZZZZZZZZ,1110,1120,train,0\n"
)
KINETICS_VAL = "label,youtube_id,time_start,time_end,split\nabseiling,0wR5jVB-WPk,417,427,validate\n"


@pytest.fixture
def kinetics(notes, videos):
    (notes / "train.csv").write_text(KINETICS_TRAIN)
    (notes / "validate.csv").write_text(KINETICS_VAL)
    (notes / "test.csv").write_text("youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n")
    touch(videos, "train/massage/-0abcDEF_12_000063_000073.mp4", "train/_4YTwq0-73Y_000004_000014.webm")
    touch(videos, "val/0wR5jVB-WPk.mkv")  # a whole YouTube video
    return notes


def test_kinetics_finds_trimmed_and_whole_videos_in_any_folder(kinetics, videos, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = load_video_dataset(kinetics, root=videos, missing="skip")
    assert "test.csv has no labels" in caplog.text
    assert "1 of 4 listed files do not exist" in caplog.text and "ZZZZZZZZZZZ_001110_001120" in caplog.text
    train, validation = loaded["train"], loaded["validation"]
    assert names_of(train) == ["-0abcDEF_12_000063_000073.mp4", "_4YTwq0-73Y_000004_000014.webm"]
    assert labels_of(train) == ["massaging person's head", "abseiling"]
    # the classes are those of the whole list, in alphabetical order, whatever is on the disk
    assert label_names(loaded) == ["abseiling", "massaging person's head", "zumba"]
    assert (train[0]["start"], train[0]["end"]) == (None, None)
    assert names_of(validation) == ["0wR5jVB-WPk.mkv"]
    assert (validation[0]["start"], validation[0]["end"], validation[0]["youtube_id"]) == (417.0, 427.0, "0wR5jVB-WPk")


def test_kinetics_missing_videos_are_an_error_unless_skipped(kinetics, videos):
    with pytest.raises(AnnotationError, match="1 of 4 listed files do not exist.*ZZZZZZZZZZZ_001110_001120"):
        load_video_dataset(kinetics, root=videos)
    assert len(load_video_dataset(kinetics, split="train", root=videos, missing="keep")) == 3


def test_only_the_videos_of_the_split_asked_for_have_to_exist(kinetics, videos):
    loaded = load_video_dataset(kinetics, split="validation", root=videos)
    assert names_of(loaded) == ["0wR5jVB-WPk.mkv"]
    assert label_names(loaded) == ["abseiling", "massaging person's head", "zumba"]


def test_one_kinetics_file_and_a_held_out_test_set(kinetics, videos):
    (one,) = load_video_dataset(kinetics / "validate.csv", split="validation", root=videos)
    assert one["youtube_id"] == "0wR5jVB-WPk"
    with pytest.raises(AnnotationError, match="no labels"):
        load_video_dataset(kinetics / "test.csv", root=videos)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run,../../etc/passwd,1,2,train", "not the name of a video"),
        ("run,https://x.y/z,1,2,train", "not the name of a video"),
        ("run,..,1,2,train", "not the name of a video"),
        ("run,abc,soon,2,train", "the time 'soon'"),
        ("run,abc,-4,2,train", "the time '-4'"),
        ("run,abc,1", "3 of 5 columns"),
        (",abc,1,2,train", "an empty label"),
    ],
)
def test_kinetics_lines_that_are_refused_are_named(notes, line, said):
    (notes / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + line + "\n")
    with pytest.raises(AnnotationError, match=f"line 2.*{said}"):
        load_video_dataset(notes / "train.csv", missing="keep")


def test_a_table_with_paths_stays_a_plain_table(notes):
    touch(notes, "a.mp4")
    (notes / "train.csv").write_text("file_name,label,youtube_id,time_start,time_end\na.mp4,run,x,1,2\n")
    assert detect_format(notes / "train.csv") is None
    assert names_of(load_video_dataset(notes, split="train")) == ["a.mp4"]


# ---- Something-Something v2 -----------------------------------------------------------------------------------------------

SSV2 = [
    {
        "id": "78687",
        "label": "letting go of a ball, then watching it",
        "template": "Lifting up one end of [something], then letting it drop down",
        "placeholders": ["a ball"],
    },
    {
        "id": "42326",
        "label": "pushing two cups from left to right",
        "template": "Pushing [something] from left to right",
        "placeholders": ["two cups"],
    },
    {
        "id": "100904",
        "label": "putting 3 coins onto a plate",
        "template": "Putting [number of] [something] onto [something]",
        "placeholders": ["3", "coins", "a plate"],
    },
]
SSV2_CLASSES = [
    "Lifting up one end of something, then letting it drop down",
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Putting number of something onto something",
]


@pytest.fixture
def ssv2(notes, videos):
    (notes / "something-something-v2-train.json").write_text(json.dumps(SSV2))
    (notes / "something-something-v2-validation.json").write_text(json.dumps(SSV2[1:2]))
    (notes / "something-something-v2-test.json").write_text(json.dumps([{"id": "1420"}]))
    (notes / "something-something-v2-labels.json").write_text(
        json.dumps({name: str(number) for number, name in enumerate(SSV2_CLASSES)})
    )
    touch(videos, "78687.webm", "42326.webm", "100904.webm")
    return notes


def test_ssv2_templates_are_the_classes(ssv2, videos):
    loaded = load_video_dataset(ssv2, root=videos)
    assert {name: len(part) for name, part in loaded.items()} == {"train": 3, "validation": 1}
    assert label_names(loaded) == SSV2_CLASSES
    assert loaded["train"]["label"][:] == [0, 1, 3]
    assert names_of(loaded["train"]) == ["78687.webm", "42326.webm", "100904.webm"]
    assert loaded["train"][2]["caption"] == "putting 3 coins onto a plate"
    assert json.loads(loaded["train"][2]["placeholders"]) == ["3", "coins", "a plate"]


def test_ssv2_order_without_a_label_file_is_alphabetical_and_a_list_of_names_may_be_given(ssv2, videos, tmp_path):
    (ssv2 / "something-something-v2-labels.json").unlink()
    loaded = load_video_dataset(ssv2, root=videos)
    assert label_names(loaded) == [SSV2_CLASSES[0], SSV2_CLASSES[1], SSV2_CLASSES[3]]
    listed = tmp_path / "labels.csv"  # names with commas that nobody quoted
    listed.write_text("id,name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(SSV2_CLASSES)))
    assert label_names(load_video_dataset(ssv2, root=videos, class_names=listed)) == SSV2_CLASSES
    with pytest.raises(AnnotationError, match="Putting number of something"):
        load_video_dataset(ssv2, root=videos, class_names=SSV2_CLASSES[:3])


def test_ssv2_says_what_is_wrong(ssv2, videos, notes):
    with pytest.raises(AnnotationError, match="entry 0: no template"):
        load_video_dataset(notes / "something-something-v2-test.json", root=videos, format="ssv2")
    (notes / "train.json").write_text(json.dumps(SSV2))
    with pytest.raises(AnnotationError, match="several files for one split"):
        load_video_dataset(notes, root=videos, format="ssv2")
    (notes / "train.json").write_text(json.dumps([SSV2[0] | {"id": "../78687"}]))
    with pytest.raises(AnnotationError, match="entry 0.*not the name of a video"):
        load_video_dataset(notes / "train.json", root=videos)
    (notes / "train.json").write_text('[{"id": "1", "template": "x"')
    with pytest.raises(AnnotationError, match="train.json: not JSON"):
        load_video_dataset(notes / "train.json", root=videos)


# ---- Diving-48 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def diving48(notes, videos):
    entry = {"vid_name": "_8Vy3dlHg2w_00000", "label": 1, "start_frame": 0, "end_frame": 85}
    other = {"vid_name": "-mqmYvYdLZw_00012", "label": 0, "start_frame": 0, "end_frame": 120}
    (notes / "Diving48_V2_train.json").write_text(json.dumps([entry]))
    (notes / "Diving48_V2_test.json").write_text(json.dumps([other]))
    (notes / "Diving48_vocab.json").write_text(
        json.dumps(
            [
                ["Back", "15som", "05Twis", "FREE"],
                ["Back", "15som", "15Twis", "FREE"],
                ["Forward", "Dive", "NoTwis", "STR"],
            ]
        )
    )
    touch(videos, "_8Vy3dlHg2w_00000.mp4", "-mqmYvYdLZw_00012.mp4")
    return notes


def test_diving48_with_and_without_its_vocabulary(diving48, videos):
    loaded = load_video_dataset(diving48, root=videos)
    assert {name: len(part) for name, part in loaded.items()} == {"train": 1, "test": 1}
    assert label_names(loaded) == ["Back_15som_05Twis_FREE", "Back_15som_15Twis_FREE", "Forward_Dive_NoTwis_STR"]
    assert labels_of(loaded["train"]) == ["Back_15som_15Twis_FREE"]
    assert (loaded["train"][0]["start_frame"], loaded["train"][0]["end_frame"]) == ("0", "85")
    (diving48 / "Diving48_vocab.json").unlink()
    assert label_names(load_video_dataset(diving48, root=videos)) == ["0", "1"]
    (one,) = load_video_dataset(diving48 / "Diving48_V2_test.json", root=videos, split="test")
    assert one["label"] == 0


def test_diving48_says_what_is_wrong(diving48, videos, caplog):
    file = diving48 / "Diving48_V2_train.json"
    for entry, said in (
        ({"vid_name": "a", "label": 3}, "the label 3"),
        ({"vid_name": "a", "label": True}, "the label True"),
        ({"vid_name": "/etc/passwd", "label": 1}, "not the name of a video"),
        ({"label": 1, "vid_name": None}, "vid_name"),
    ):
        file.write_text(json.dumps([entry]))
        with pytest.raises(AnnotationError, match=said):
            load_video_dataset(file, root=videos)
    file.write_text(json.dumps([{"vid_name": "_8Vy3dlHg2w_00000", "label": 1, "start_frame": 9, "end_frame": 12}]))
    load_video_dataset(file, root=videos)
    assert "1 clips start after frame 0" in caplog.text


# ---- ActivityNet ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def activitynet(notes, videos):
    database = {
        "sJFgo9H6zNo": {
            "subset": "training",
            "duration": 139.962,
            "resolution": "1280x720",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0, 10.5], "label": "Fun sliding down"},
                {"segment": [20.0, 150.0], "label": "Snow tubing"},
                {"segment": [30.0, 30.0], "label": "Snow tubing"},
            ],
        },
        "V1zhqaGFY2A": {
            "subset": "validation",
            "duration": 21.0,
            "annotations": [{"segment": [0.01, 20.9], "label": "BMX"}],
        },
        "JDg--pjY5gg": {"subset": "testing", "duration": 5.0, "annotations": []},
    }
    content = {
        "taxonomy": [{"nodeId": 269, "nodeName": "Fun sliding down"}],
        "version": "VERSION 1.3",
        "database": database,
    }
    (notes / "activity_net.v1-3.min.json").write_text(json.dumps(content))
    touch(videos, "v_sJFgo9H6zNo.mp4", "V1zhqaGFY2A.mkv")
    return notes


def test_activitynet_one_class_per_video(activitynet, videos, caplog):
    loaded = load_video_dataset(activitynet / "activity_net.v1-3.min.json", root=videos)
    assert names_of(loaded["train"]) == ["v_sJFgo9H6zNo.mp4"] and names_of(loaded["validation"]) == ["V1zhqaGFY2A.mkv"]
    assert labels_of(loaded["train"]) == ["Snow tubing"]
    assert "start" not in loaded["train"].features
    assert "1 videos without annotations left out" in caplog.text and "1 videos with several classes" in caplog.text
    assert label_names(loaded) == ["BMX", "Snow tubing"]  # without the official list: alphabetical


def test_activitynet_segments_in_seconds(activitynet, videos, caplog):
    loaded = load_video_dataset(activitynet, root=videos, format="activitynet-segments")
    assert [(row["start"], row["end"]) for row in loaded["train"]] == [(0.0, 10.5), (20.0, 139.962)]
    assert labels_of(loaded["train"]) == ["Fun sliding down", "Snow tubing"]
    assert "1 segments of no length left out" in caplog.text


def test_activitynet_in_the_order_of_the_official_list(activitynet, videos, tmp_path):
    official = tmp_path / "activitynet_200_labels.csv"
    official.write_text("id,name\n0,Fun sliding down\n1,Snow tubing\n2,BMX\n")
    loaded = load_video_dataset(activitynet, root=videos, class_names=official)
    assert label_names(loaded) == ["Fun sliding down", "Snow tubing", "BMX"]
    assert loaded["train"]["label"][:] == [1] and loaded["validation"]["label"][:] == [2]


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        (
            "../x",
            {"subset": "training", "annotations": [{"segment": [0, 1], "label": "a"}]},
            "not the name of a video",
        ),
        ("x", {"subset": "training", "annotations": [{"segment": [0], "label": "a"}]}, "segment"),
        ("x", {"subset": "training", "annotations": [{"segment": [0, None], "label": "a"}]}, "segment"),
        ("x", {"subset": "training", "annotations": [{"segment": [0, 1]}]}, "an empty label"),
        ("x", ["subset"], "Expected"),
    ],
)
def test_activitynet_says_what_is_wrong(notes, name, entry, said):
    file = notes / "anet.json"
    file.write_text(json.dumps({"database": {name: entry}}))
    with pytest.raises(AnnotationError, match=said):
        load_video_dataset(file, format="activitynet", missing="keep")


# ---- HMDB51 and UCF101 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hmdb51(notes, videos):
    clips = [
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0.avi",
        "A Trip [1] ride_bike_f_cm_np1_ri_goo_1.avi",
        "c.avi",
    ]
    for number, uses in (("1", "120"), ("2", "021")):
        text = "".join(f"{clip} {use} \n" for clip, use in zip(clips, uses, strict=True))
        (notes / f"ride_bike_test_split{number}.txt").write_text(text)
        (notes / f"brush_hair_test_split{number}.txt").write_text("April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n")
    touch(videos, *(f"ride_bike/{clip}" for clip in clips), "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi")
    return notes


def test_hmdb51_splits(hmdb51, videos):
    first = load_video_dataset(hmdb51, root=videos)
    assert names_of(first["train"]) == [
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "#437_How_To_Ride_A_Bike_ride_bike_f_cm_np1_ba_med_0.avi",
    ]
    assert names_of(first["test"]) == ["A Trip [1] ride_bike_f_cm_np1_ri_goo_1.avi"]
    assert label_names(first) == ["brush_hair", "ride_bike"]
    second = load_video_dataset(hmdb51, root=videos, format="hmdb51-2")
    assert names_of(second["train"])[1:] == ["c.avi"]
    with pytest.raises(AnnotationError, match="no labelled videos"):
        load_video_dataset(hmdb51, root=videos, format="hmdb51-3")


def test_hmdb51_paths_stay_inside(hmdb51, videos):
    file = hmdb51 / "ride_bike_test_split1.txt"
    file.write_text("../../../etc/passwd 1\n")
    with pytest.raises(AnnotationError, match="line 1.*leaves the data set's folder"):
        load_video_dataset(hmdb51, root=videos)
    file.write_text("video.avi 3\n")
    with pytest.raises(AnnotationError, match="line 1.*Expected"):
        load_video_dataset(hmdb51, root=videos)


@pytest.fixture
def ucf101(notes, videos):
    (notes / "classInd.txt").write_bytes(b"1 YoYo\r\n2 ApplyEyeMakeup\r\n3 HandstandPushups\r\n")
    (notes / "trainlist01.txt").write_bytes(
        b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\r\nHandstandPushups/v_HandStandPushups_g08_c01.avi 3\r\n"
    )
    (notes / "testlist01.txt").write_bytes(b"YoYo/v_YoYo_g01_c01.avi\r\n")
    (notes / "trainlist02.txt").write_bytes(b"YoYo/v_YoYo_g01_c01.avi 1\r\n")
    (notes / "testlist02.txt").write_bytes(b"ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\r\n")
    touch(videos, "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "HandstandPushups/v_HandStandPushups_g08_c01.avi")
    touch(videos, "flat/v_YoYo_g01_c01.avi")  # found by name wherever it lies
    return notes


def test_ucf101_classes_count_from_one_in_the_file_and_from_zero_here(ucf101, videos):
    loaded = load_video_dataset(ucf101, root=videos)
    assert label_names(loaded) == ["YoYo", "ApplyEyeMakeup", "HandstandPushups"]
    assert loaded["train"]["label"][:] == [1, 2] and loaded["test"]["label"][:] == [0]
    assert names_of(loaded["test"]) == ["v_YoYo_g01_c01.avi"]
    second = load_video_dataset(ucf101, root=videos, format="ucf101-2")
    assert labels_of(second["train"]) == ["YoYo"] and labels_of(second["test"]) == ["ApplyEyeMakeup"]
    (one,) = load_video_dataset(ucf101 / "trainlist02.txt", root=videos, split="train")
    assert one["label"] == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("trainlist01.txt", "ApplyEyeMakeup/v.avi 1\n", "class number 1"),
        ("trainlist01.txt", "v.avi 1\n", "Expected '<class>/<video>'"),
        ("trainlist01.txt", "../../../../etc/passwd\n", "leaves the data set's folder"),
        ("classInd.txt", "0 ApplyEyeMakeup\n", "counted from 1"),
    ],
)
def test_ucf101_says_what_is_wrong(ucf101, videos, name, text, said):
    (ucf101 / name).write_text(text)
    with pytest.raises(AnnotationError, match=f"{name}, line 1.*{said}"):
        load_video_dataset(ucf101, root=videos)


# ---- all of them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kinetics", "ssv2", "diving48", "activitynet", "hmdb51", "ucf101"])
def test_each_is_recognised_and_no_other_is(name, request, videos):
    folder = request.getfixturevalue(name)
    assert detect_format(folder) == name
    assert [other for other, layout in FORMATS.items() if layout.matches and layout.matches(folder)] == [name]
    assert detect_format(videos) is None


def test_folders_of_two_formats_and_class_folders_are_not_guessed(ssv2, diving48, videos, notes):
    assert detect_format(notes) is None
    assert len(load_video_dataset(notes, root=videos, format="diving48", split="train")) == 1
    (notes / "metadata.csv").write_text("file_name,label\na.mp4,run\n")
    assert load_video_dataset(notes, split="train", missing="keep").num_rows == 1  # a metadata table comes first


def test_unknown_formats_and_files(notes):
    with pytest.raises(ValueError, match="`format` must be one of kinetics, ssv2"):
        load_video_dataset(notes, format="kinetics-2")
    with pytest.raises(ValueError, match="got 'youtube'"):
        load_video_dataset(notes, format="youtube")
    with pytest.raises(AnnotationError, match="no such file"):
        load_video_dataset(notes / "missing.csv", format="kinetics")
    with pytest.raises(AnnotationError, match="no labelled videos"):
        load_video_dataset(notes, format="kinetics")
    with pytest.raises(AnnotationError, match="labels.csv"):
        load_video_dataset(notes, class_names=notes / "labels.csv")


def test_streams_and_links(kinetics, videos, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(videos / "train")
    (linked / "again").symlink_to(linked)  # a loop
    stream = load_video_dataset(kinetics / "train.csv", split="train", root=linked, missing="skip", streaming=True)
    assert [Path(row["video"]["path"]).suffix for row in stream] == [".mp4", ".webm"]


def test_the_doctor_takes_official_annotations(notes, motion_folder):
    for split in ("train", "validation"):
        clips = sorted((motion_folder / split).rglob("*.mp4"))
        lines = [f"{clip.parent.name}/{clip.name}" for clip in clips]
        name = {"train": "trainlist01.txt", "validation": "testlist01.txt"}[split]
        (notes / name).write_text("".join(line + "\n" for line in lines))
    report = check_dataset(notes, root=motion_folder, format="ucf101", progress=False)
    assert len(report.files) == 12 and not [file for file in report.files if file.error]
