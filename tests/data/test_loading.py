import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import av
import pytest

from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.loading import is_multi_label, label_names, load_video_dataset
from hf_effvid.data.synthetic import MOTION_CLASSES


CLASSES = sorted(MOTION_CLASSES[:4])


@pytest.fixture
def clip(motion_folder):
    return motion_folder / "test/moves_left/moves_left_00000.mp4"


def test_class_folders_with_splits(motion_folder):
    loaded = load_video_dataset(motion_folder)
    assert {name: len(part) for name, part in loaded.items()} == {"train": 8, "validation": 4, "test": 4}
    assert label_names(loaded) == CLASSES and not is_multi_label(loaded)
    row = loaded["train"][0]
    assert row["video"]["bytes"] is None and Path(row["video"]["path"]).is_file()
    for part in loaded.values():
        for row in part:
            assert Path(row["video"]["path"]).parent.name == CLASSES[row["label"]]


def test_class_folders_without_splits(motion_folder):
    loaded = load_video_dataset(motion_folder / "train")
    assert list(loaded) == ["train"] and len(loaded["train"]) == 8
    assert load_video_dataset(motion_folder / "train", split="train").features == loaded["train"].features


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_know_their_name_and_that_of_the_data_set(motion_folder, tmp_path, streaming, monkeypatch):
    names = {"train": "train", "validation": "validation", "test": "test"}
    loaded = load_video_dataset(motion_folder, streaming=streaming)
    assert {name: str(part.split) for name, part in loaded.items()} == names
    assert {part.info.dataset_name for part in loaded.values()} == {motion_folder.name}
    monkeypatch.chdir(motion_folder)
    one = load_video_dataset(".", split="test", streaming=streaming)
    assert (one.info.dataset_name, str(one.split)) == (motion_folder.name, "test")
    load_video_dataset(motion_folder).save_to_disk(tmp_path / "moves")
    again = load_video_dataset(tmp_path / "moves", split="test", streaming=streaming)
    assert (again.info.dataset_name, str(again.split)) == (motion_folder.name, "test")


def test_a_split_whose_name_datasets_does_not_allow_has_none(clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,label,split\na.mp4,run,fold 1\n")
    part = load_video_dataset(tmp_path, split="fold 1")
    assert part.split is None and part.info.dataset_name == tmp_path.name


def test_split_names_in_any_spelling(motion_folder, tmp_path):
    for spelling in ("val", "valid", "dev"):
        folder = tmp_path / spelling
        shutil.copytree(motion_folder / "validation", folder / spelling)
        assert len(load_video_dataset(folder, split="val")) == 4
        assert list(load_video_dataset(folder)) == ["validation"]


def test_class_folders_may_be_nested_and_hidden_files_are_left_out(clip, tmp_path):
    (tmp_path / "run/monday").mkdir(parents=True)
    (tmp_path / "run/.cache").mkdir()
    for name in ("run/monday/a.MP4", "run/b.webm", "run/.hidden.mp4", "run/.cache/c.mp4", "run/notes.txt"):
        shutil.copy(clip, tmp_path / name)
    found = [Path(row["video"]["path"]).name for row in load_video_dataset(tmp_path, split="train")]
    assert sorted(found) == ["a.MP4", "b.webm"]


def test_listing_opens_no_video(motion_folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a video was opened")

    monkeypatch.setattr(av, "open", refuse)
    loaded = load_video_dataset(motion_folder)
    assert [row["label"] for row in loaded["test"]] == [0, 1, 2, 3]
    assert sum(1 for _ in load_video_dataset(motion_folder, split="train", streaming=True)) == 8


def test_a_metadata_table_with_splits_and_a_split_that_is_none(clip, tmp_path):
    for name in ("a", "b", "c", "d"):
        shutil.copy(clip, tmp_path / f"{name}.mp4")
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,group,split\na.mp4,run,g1,train\nb.mp4,jump,g2,val\nc.mp4,run,g3,test\n"
        "d.mp4,nothing,g4,background\n"
    )
    loaded = load_video_dataset(tmp_path)
    assert {name: len(part) for name, part in loaded.items()} == {"train": 1, "validation": 1, "test": 1}
    assert label_names(loaded) == ["jump", "run"]
    assert loaded["validation"][0]["label"] == 0 and loaded["validation"][0]["group"] == "g2"
    background = load_video_dataset(tmp_path, split="background")
    assert label_names(background) == ["nothing"] and len(background) == 1


def test_one_list_per_split_and_a_table_in_each_split_folder(clip, tmp_path):
    lists, tables = tmp_path / "lists", tmp_path / "tables"
    for folder in (lists / "videos", tables / "train", tables / "test"):
        folder.mkdir(parents=True)
        shutil.copy(clip, folder / "a.mp4")
    (lists / "train.csv").write_text("videos/a.mp4 0\n")
    (lists / "val.txt").write_text("videos/a.mp4,2\n")
    (tables / "train/metadata.csv").write_text("file_name,label\na.mp4,run\n")
    (tables / "test/metadata.jsonl").write_text('{"file_name": "a.mp4", "label": "jump"}\n')
    loaded = load_video_dataset(lists)
    assert list(loaded) == ["train", "validation"]
    # Numbers in a list are the classes' numbers, also where one of them does not occur.
    assert label_names(loaded) == ["0", "1", "2"] and loaded["validation"][0]["label"] == 2
    named = load_video_dataset(lists, class_names=["walk", "run", "jump"])
    assert label_names(named) == ["walk", "run", "jump"] and named["validation"][0]["label"] == 2
    assert {name: part[0]["label"] for name, part in load_video_dataset(tables).items()} == {"train": 1, "test": 0}


def test_class_names_fix_the_order_and_unknown_labels_are_refused(motion_folder):
    order = [*reversed(CLASSES), "nobody does this"]
    loaded = load_video_dataset(motion_folder, split="train", class_names=order)
    assert label_names(loaded) == order
    assert all(Path(row["video"]["path"]).parent.name == order[row["label"]] for row in loaded)
    with pytest.raises(AnnotationError, match="moves_left"):
        load_video_dataset(motion_folder, class_names=CLASSES[1:])


def test_several_labels_become_lists(clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run|jump\na.mp4,\na.mp4,sit\n")
    loaded = load_video_dataset(tmp_path, split="train", multi_label=True)
    assert is_multi_label(loaded) and label_names(loaded) == ["jump", "run", "sit"]
    assert [row["label"] for row in loaded] == [[1, 0], [], [2]]


def test_missing_files(clip, tmp_path):
    shutil.copy(clip, tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("a.mp4,x\nb.mp4,y\n")
    with pytest.raises(AnnotationError, match="1 of 2 listed files do not exist, such as .*b.mp4"):
        load_video_dataset(tmp_path)
    assert len(load_video_dataset(tmp_path, split="train", missing="skip")) == 1
    assert len(load_video_dataset(tmp_path, split="train", missing="keep")) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nowhere", "no such file or folder"),
        (lambda root: "./nowhere", "no such file or folder"),
        (lambda root: root, "no videos in class folders"),
        (lambda root: (root / "x.mp4").write_bytes(b"") or root / "x.mp4", "not a list"),
        (lambda root: (root / "c").mkdir() or root, "found 1 sub-folders"),
    ],
)
def test_sources_that_are_none(tmp_path, make, message):
    with pytest.raises(AnnotationError, match=message):
        load_video_dataset(make(tmp_path))


def test_a_split_that_is_not_there(motion_folder, tmp_path):
    shutil.copytree(motion_folder / "train", tmp_path / "train")
    with pytest.raises(AnnotationError, match="no split 'test' among"):
        load_video_dataset(tmp_path, split="test")


def test_class_folder_names_with_markup_stay_text_and_control_characters_are_refused(clip, tmp_path):
    for name in ("<b>run", "jump & $x^{"):
        (tmp_path / name).mkdir()
        shutil.copy(clip, tmp_path / name / "a.mp4")
    assert label_names(load_video_dataset(tmp_path)) == ["<b>run", "jump & $x^{"]
    (tmp_path / "bad\x1b[2J").mkdir()
    shutil.copy(clip, tmp_path / "bad\x1b[2J" / "a.mp4")
    with pytest.raises(AnnotationError, match="control characters"):
        load_video_dataset(tmp_path)


def test_neither_torchcodec_nor_the_network_is_needed(motion_folder, tmp_path):
    """In a process of its own, because both are decided when `datasets` is imported."""
    program = f"""
        import sys
        sys.modules["torchcodec"] = None
        from hf_effvid.data import AnnotationError, ClipDataset, load_video_dataset
        from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
        processor = EffVidVideoProcessor(num_frames=4, size={{"shortest_edge": 24}}, crop_size=24)
        rows = load_video_dataset({str(motion_folder)!r}, split="test")
        print(tuple(ClipDataset(rows, processor)[0]["pixel_values"].shape))
        try:
            load_video_dataset("nobody/nothing")
        except AnnotationError as error:
            print("refused" if "HF_HUB_OFFLINE" in str(error) else error)
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.splitlines() == ["(4, 3, 24, 24)", "refused"], done.stderr


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sizes", "classes"),
    [
        ("tennis7", {"train": 224, "validation": 56, "test": 91}, 7),
        ("egogestar10", {"train": 130, "validation": 30, "test": 57}, 10),
    ],
)
def test_real_metadata_tables(name, sizes, classes):
    folder = Path(os.environ.get("EFFVID_REAL_DATA", "")) / name
    if not folder.is_dir():
        pytest.skip(f"EFFVID_REAL_DATA names no folder with {name}")
    loaded = load_video_dataset(folder)
    assert {split: len(part) for split, part in loaded.items()} == sizes
    assert len(label_names(loaded)) == classes


def test_names_that_are_no_text_and_empty_paths_are_named(clip, tmp_path):
    (tmp_path / "a").mkdir()
    shutil.copy(clip, tmp_path / "a" / os.fsdecode(b"bad\xff.mp4"))
    with pytest.raises(AnnotationError, match=r"bad.udcff.mp4' is not UTF-8. Rename the file"):
        load_video_dataset(tmp_path)
    with pytest.raises(AnnotationError, match="an empty path"):
        load_video_dataset("")
