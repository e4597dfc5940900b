"""Data sets that come through `datasets`: in memory, saved to disk, parquet with embedded videos, streams."""

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Value, Video

from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.loading import is_multi_label, label_names, load_video_dataset


@pytest.fixture(scope="module")
def files(motion_folder):
    return sorted(str(path) for path in (motion_folder / "train").rglob("*.mp4"))[:4]


def text_rows(files, labels, column="label"):
    return Dataset.from_dict({"clip": files, column: labels}).cast_column("clip", Video(decode=False))


def test_text_labels_get_numbers_shared_by_all_splits(files):
    parts = {"train": text_rows(files[:2], ["run", "walk"]), "test": text_rows(files[2:], ["jump", "walk"])}
    loaded = load_video_dataset(DatasetDict(parts))
    assert label_names(loaded) == ["jump", "run", "walk"]
    assert loaded["train"]["label"][:] == [1, 2] and loaded["test"]["label"][:] == [0, 2]
    assert loaded["train"][0]["video"]["path"] == files[0]
    assert load_video_dataset(DatasetDict(parts), split="test").num_rows == 2


def test_number_labels_and_paths_as_plain_text(files):
    rows = Dataset.from_dict({"path": files, "target": [3, 0, 1, 1]})
    loaded = load_video_dataset(rows)
    assert label_names(loaded) == ["0", "1", "2", "3"] and loaded[0]["label"] == 3
    assert loaded[1]["video"] == {"path": files[1], "bytes": None}


def test_several_labels_as_lists_or_as_text(files):
    lists = load_video_dataset(text_rows(files[:2], [["run", "jump"], []], column="labels"))
    assert is_multi_label(lists) and label_names(lists) == ["jump", "run"] and lists[0]["label"] == [1, 0]
    text = load_video_dataset(text_rows(files[:2], ["run|jump", "run"]), multi_label=True)
    assert [row["label"] for row in text] == [[1, 0], [1]]


def test_named_classes_are_kept(files):
    features = Features({"video": Video(decode=False), "label": ClassLabel(names=["z", "a"])})
    rows = Dataset.from_dict({"video": files[:2], "label": [1, 0]}, features=features)
    assert label_names(load_video_dataset(rows)) == ["z", "a"]
    several = Features({"video": Video(decode=False), "label": List(ClassLabel(names=["z", "a"]))})
    rows = Dataset.from_dict({"video": files[:1], "label": [[1, 0]]}, features=several)
    assert is_multi_label(load_video_dataset(rows))


def test_saved_to_disk(files, tmp_path):
    DatasetDict({"train": text_rows(files, ["a", "b", "a", "b"])}).save_to_disk(str(tmp_path / "saved"))
    assert label_names(load_video_dataset(tmp_path / "saved", split="train")) == ["a", "b"]
    stream = load_video_dataset(tmp_path / "saved", split="train", streaming=True, class_names=["a", "b"])
    assert [row["label"] for row in stream] == [0, 1, 0, 1]


def test_parquet_with_embedded_videos_map_style_and_streaming(files, tmp_path):
    contents = [open(path, "rb").read() for path in files]
    features = Features(
        {"video": Video(decode=False), "label": ClassLabel(names=["a", "b"]), "subject": Value("string")}
    )
    rows = {
        "video": [{"bytes": data, "path": None} for data in contents],
        "label": [0, 1, 0, 1],
        "subject": list("pqrs"),
    }
    folder = tmp_path / "data"
    folder.mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(str(folder / "train.parquet"))
    options = {"cache_dir": str(tmp_path / "cache")}
    loaded = load_video_dataset(folder, split="train", **options)
    assert loaded[2]["video"]["bytes"] == contents[2] and label_names(loaded) == ["a", "b"]
    stream = load_video_dataset(folder, split="train", streaming=True, **options)
    assert [row["video"]["bytes"] for row in stream] == contents


def test_a_stream_with_text_labels_needs_the_names(files):
    stream = text_rows(files, ["a", "b", "a", "b"]).to_iterable_dataset()
    with pytest.raises(AnnotationError, match="class_names"):
        load_video_dataset(stream)
    named = load_video_dataset(stream, class_names=["b", "a"])
    assert [row["label"] for row in named] == [1, 0, 1, 0]
    wrong = load_video_dataset(stream, class_names=["b"])
    with pytest.raises(AnnotationError, match="'a' is not in `class_names`"):
        list(wrong)


def test_a_stream_that_does_not_say_its_columns(files):
    def rows():
        for path in files:
            yield {"mp4": {"bytes": open(path, "rb").read(), "path": None}, "cls": 1}

    stream = load_video_dataset(IterableDataset.from_generator(rows), class_names=["a", "b"])
    assert label_names(stream) == ["a", "b"]
    assert [(len(row["video"]["bytes"]) > 1000, row["label"]) for row in stream] == [(True, 1)] * 4


@pytest.mark.parametrize(("columns", "role"), [({"text": ["x"], "label": [0]}, "video"), ({"video": ["x"]}, "label")])
def test_missing_columns_are_named(columns, role):
    with pytest.raises(AnnotationError, match=f"no {role} column among"):
        load_video_dataset(Dataset.from_dict(columns))


def test_labels_from_a_stranger_are_checked(files):
    with pytest.raises(AnnotationError, match="control characters"):
        load_video_dataset(text_rows(files[:1], ["a\x1b[2J"]))


def test_a_mistyped_folder_is_said_to_be_nothing_at_all(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        AnnotationError, match="no_such_set: neither a folder, nor a list file, nor .* HF_HUB_OFFLINE is"
    ):
        load_video_dataset("no_such_set")
    with pytest.raises(AnnotationError, match="no_such_list.csv: no such file or folder"):
        load_video_dataset("no_such_list.csv")
