"""EPIC-Kitchens-100 as classification: the published columns, cut and whole videos, classes of verbs, nouns and actions."""

import logging
from pathlib import Path

import pytest

from hf_effvid import EffVidVideoProcessor
from hf_effvid.data.annotation_formats import detect_format
from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.clips import ClipDataset
from hf_effvid.data.loading import label_names, load_video_dataset
from tests.video_corpus.encode import encode


HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,narration,verb,"
    "verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
TRAIN = HEADER + (
    "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,3,door,3,['door'],[3]\n"
    'P01_01_1,P01,P01_01,00:00:02.629,00:01:04.37,01:00:06.17,262,370,"turn on light, slowly",turn-on,6,light,114,"[\'light\', \'tap\']","[114, 0]"\n'
    "P02_101_0,P02,P02_101,00:00:05.349,00:00:06.98,00:00:09.49,418,569,take plate,take,0,plate,2,['plate'],[2]\n"
)
VALIDATION = HEADER + (
    "P03_02_7,P03,P03_02,00:00:05.349,00:00:06.98,00:00:09.49,418,569,take door,take,0,door,3,['door'],[3]\n"
)
TEST = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame\n"
    "P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193\n"
)
VERBS = ["take", "put", "wash", "open", "close", "insert", "turn-on"]
NOUNS = ["tap", "spoon", "plate", "cupboard"] + [f"noun:{number}" for number in range(4, 114)] + ["light"]


@pytest.fixture
def epic(tmp_path):
    notes, videos = tmp_path / "annotations", tmp_path / "EPIC-KITCHENS"
    notes.mkdir()
    (notes / "EPIC_100_train.csv").write_text(TRAIN)
    (notes / "EPIC_100_validation.csv").write_text(VALIDATION)
    (notes / "EPIC_100_test_timestamps.csv").write_text(TEST)
    (notes / "EPIC_100_train_missing_timestamp_narrations.csv").write_text(",narration_id\n0,P01_09_660\n")
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        lines = [f'{number},"{name}","[\'{name}\', \'its, other\']","any"\n' for number, name in enumerate(names)]
        (notes / f"EPIC_100_{kind}_classes.csv").write_text('"id","key","instances","category"\n' + "".join(lines))
    for name in ("P01/videos/P01_01.MP4", "P02/videos/P02_101.MP4", "P03/videos/P03_02.MP4"):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).touch()
    return notes, videos


def load(epic, task, **options):
    return load_video_dataset(epic[0], root=epic[1], format=f"epic100-{task}", **options)


def labels_of(rows):
    return [label_names(rows)[label] for label in rows["label"]]


def test_segments_of_whole_videos_with_the_published_classes(epic):
    verbs, nouns = load(epic, "verb"), load(epic, "noun")
    assert {name: len(rows) for name, rows in verbs.items()} == {"train": 3, "validation": 1}
    assert label_names(verbs) == VERBS and label_names(nouns) == NOUNS
    assert labels_of(verbs["train"]) == ["open", "turn-on", "take"]
    assert labels_of(nouns["train"]) == ["cupboard", "light", "plate"]  # the class of "door"
    first, second = verbs["train"][0], verbs["train"][1]
    assert Path(first["video"]["path"]) == epic[1] / "P01" / "videos" / "P01_01.MP4"
    assert (first["start"], first["end"]) == pytest.approx((0.14, 3.37))
    assert (second["start"], second["end"]) == pytest.approx((64.37, 3606.17))
    assert (second["narration_id"], second["narration"]) == ("P01_01_1", "turn on light, slowly")
    assert (second["participant_id"], second["verb_class"], second["noun_class"]) == ("P01", "6", "114")


def test_actions_are_the_pairs_of_all_splits_in_the_order_of_their_numbers(epic):
    loaded = load(epic, "action")
    names = ["take plate", "take cupboard", "open cupboard", "turn-on light"]
    assert label_names(loaded) == names and labels_of(loaded["train"]) == [
        "open cupboard",
        "turn-on light",
        "take plate",
    ]
    # one file, or one split, has the classes of all
    for source, split in ((epic[0] / "EPIC_100_train.csv", "train"), (epic[0], "validation")):
        rows = load_video_dataset(source, split=split, root=epic[1], format="epic100-action")
        assert label_names(rows) == names


def test_without_the_lists_of_classes_numbers_are_names(epic):
    for kind in ("verb", "noun"):
        (epic[0] / f"EPIC_100_{kind}_classes.csv").unlink()
    assert label_names(load(epic, "verb")) == [str(number) for number in range(7)]
    assert label_names(load(epic, "verb", class_names=VERBS)) == VERBS
    assert label_names(load(epic, "action")) == ["0,2", "0,3", "3,3", "6,114"]


def test_the_second_list_of_nouns_wins(epic):
    text = (epic[0] / "EPIC_100_noun_classes.csv").read_text()
    (epic[0] / "EPIC_100_noun_classes_v2.csv").write_text(text.replace('"plate"', '"dish"'))
    assert label_names(load(epic, "noun"))[2] == "dish"


def test_a_video_of_the_segment_alone_is_read_whole(epic):
    (epic[1] / "P01_01_1.mp4").touch()
    rows = load(epic, "verb", split="train")
    assert Path(rows[1]["video"]["path"]).name == "P01_01_1.mp4" and rows[1]["start"] is None
    assert rows[0]["start"] == pytest.approx(0.14)


def test_missing_videos(epic, caplog):
    (epic[1] / "P02" / "videos" / "P02_101.MP4").unlink()
    with pytest.raises(AnnotationError, match=r"1 of 4 listed files do not exist.*P02_101\.MP4"):
        load(epic, "verb")
    assert len(load(epic, "verb", split="train", missing="skip")) == 2


def test_one_has_to_say_which_label(epic):
    assert detect_format(epic[0]) == detect_format(epic[0] / "EPIC_100_train.csv") == "epic100"
    assert detect_format(epic[0] / "EPIC_100_test_timestamps.csv") is None
    for options in ({}, {"format": "epic100"}):
        with pytest.raises(AnnotationError, match="epic100-verb, epic100-noun, epic100-action"):
            load_video_dataset(epic[0], root=epic[1], **options)
    with pytest.raises(ValueError, match="epic100-action"):
        load_video_dataset(epic[0], root=epic[1], format="epic100-participant")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("00:00:00.14", "soon"), "line 2.*HH:MM:SS"),
        ((",open,3,", ",open,three,"), "line 2.*the verb class 'three'"),
        ((",open,3,", ",open,7,"), "line 2.*the verb class 7.*has 7"),
        (("P01_01,00:00:01", "../P01_01,00:00:01"), "line 2.*not the name of a video"),
        (("P01_01_0", "/etc/passwd"), "line 2.*not the name of a video"),
        (("verb_class", "verb_number"), "no columns verb_class"),
    ],
)
def test_lines_that_are_refused_are_named(epic, change, said):
    file = epic[0] / "EPIC_100_train.csv"
    file.write_text(TRAIN.replace(*change, 1))
    with pytest.raises(AnnotationError, match=said):
        load_video_dataset(file, root=epic[1], format="epic100-verb")


def test_segments_of_no_length_two_files_for_a_split_and_broken_lists(epic, caplog):
    (epic[0] / "EPIC_100_train.csv").write_text(TRAIN.replace("00:00:03.37", "00:00:00.14"))
    with caplog.at_level(logging.WARNING):
        assert len(load(epic, "action", split="train")) == 2
    assert "1 segments of no length" in caplog.text
    (epic[0] / "EPIC_100_train_small.csv").write_text(TRAIN)
    with pytest.raises(AnnotationError, match="several files for one split.*EPIC_100_train_small"):
        load(epic, "verb")
    (epic[0] / "EPIC_100_train_small.csv").unlink()
    (epic[0] / "EPIC_100_verb_classes.csv").write_text("id,key\n0,take\n0,put\n")
    with pytest.raises(AnnotationError, match="verb_classes.csv, line 3.*each once"):
        load(epic, "verb")
    (epic[0] / "EPIC_100_verb_classes.csv").write_text("id,key\n1,take\n")
    with pytest.raises(AnnotationError, match="Expected 0 to K - 1"):
        load(epic, "verb")


def test_clips_come_from_their_segment(tmp_path):
    """Two segments of one video: the frames are those between start and end."""
    (tmp_path / "P01_01.mp4").write_bytes(encode(size=(32, 24), num_frames=40, rate=10))
    lines = [
        f"P01_01_{i},P01,P01_01,00:00:0{a}.0,00:00:0{a}.00,00:00:0{b}.00,1,2,n,v,{i},n,0,[],[]\n"
        for i, (a, b) in enumerate([(0, 2), (2, 4)])
    ]
    (tmp_path / "EPIC_100_train.csv").write_text(HEADER + "".join(lines))
    rows = load_video_dataset(tmp_path, split="train", format="epic100-verb")
    processor = EffVidVideoProcessor(
        num_frames=4, size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, sampling="uniform"
    )
    first, second = ClipDataset(rows, processor, train=False)
    whole = processor(tmp_path / "P01_01.mp4", num_frames=8)["pixel_values"]
    assert not (first["pixel_values"] == second["pixel_values"]).all()
    for clip, part in ((first, whole[:, :4]), (second, whole[:, 4:])):
        assert abs(clip["pixel_values"] - part).max() < 0.5
