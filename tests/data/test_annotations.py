import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.data.annotations import (
    AnnotationError,
    canonical_split,
    check_label,
    read_annotations,
    resolve_inside,
)


def written(folder, name, text, **kwargs):
    path = folder / name
    path.write_text(text, encoding=kwargs.get("encoding", "utf-8"))
    return path


def pairs(rows, root):
    return [(Path(row.path).relative_to(root).as_posix(), row.labels) for row in rows]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "a/1.mp4 jump\nb/2.avi run\n"),
        ("list.txt", "# a comment\n\na/1.mp4,jump\nb/2.avi,run\n"),
        ("list.txt", "a/1.mp4\tjump\nb/2.avi\trun"),
        ("list.csv", "a/1.mp4,jump\nb/2.avi,run\n"),
        ("list.csv", "a/1.mp4 jump\nb/2.avi run\n"),  # as VideoMAE writes them
        ("list.csv", "a/1.mp4;jump\r\nb/2.avi;run\r\n"),
        ("list.csv", "path,label\na/1.mp4,jump\nb/2.avi,run\n"),
        ("list.csv", "label,file_name\njump,a/1.mp4\nrun,b/2.avi\n"),
        ("list.txt", "file_name,label\na/1.mp4,jump\nb/2.avi,run\n"),
        ("list.csv", '"path","label"\n"a/1.mp4","jump"\n"b/2.avi","run"\n'),
        ("list.tsv", "Video\tClass\na/1.mp4\tjump\nb/2.avi\trun\n"),
        ("list.jsonl", '{"file_name": "a/1.mp4", "label": "jump"}\n{"file_name": "b/2.avi", "label": "run"}\n'),
        ("list.csv", "a\\1.mp4,jump\nb\\2.avi,run\n"),
    ],
)
def test_the_forms_people_have(tmp_path, name, text):
    rows = read_annotations(written(tmp_path, name, text))
    assert pairs(rows, tmp_path) == [("a/1.mp4", ["jump"]), ("b/2.avi", ["run"])]


def test_paths_and_labels_may_hold_blanks(tmp_path):
    rows = read_annotations(written(tmp_path, "list.txt", "my clips/first one.mp4 high jump\n"))
    assert pairs(rows, tmp_path) == [("my clips/first one.mp4", ["high jump"])]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    rows = read_annotations(written(tmp_path, "list.csv", "path,label\na.mp4,x\n", encoding="utf-8-sig"))
    assert pairs(rows, tmp_path) == [("a.mp4", ["x"])]


def test_split_times_and_other_columns(tmp_path):
    text = "file_name,label,subset,start,end,subject\na.mp4,x,val,1.5,3,p1\nb.mp4,y,training,,,p2\n"
    first, second = read_annotations(written(tmp_path, "metadata.csv", text))
    assert (first.split, first.start, first.end, first.extra) == ("validation", 1.5, 3.0, {"subject": "p1"})
    assert (second.split, second.start, second.end) == ("train", None, None)


def test_several_labels(tmp_path):
    table = written(tmp_path, "list.csv", "path,label\na.mp4,run|jump\nb.mp4,\n")
    assert [row.labels for row in read_annotations(table, label_separator="|")] == [["run", "jump"], []]
    lines = written(tmp_path, "list.jsonl", json.dumps({"path": "a.mp4", "labels": ["run", "jump"]}))
    assert read_annotations(lines)[0].labels == ["run", "jump"]


def test_unusual_column_names(tmp_path):
    table = written(tmp_path, "list.csv", "wo,was\na.mp4,x\n")
    rows = read_annotations(table, path_column="wo", label_column="was")
    assert pairs(rows, tmp_path) == [("a.mp4", ["x"])]


@pytest.mark.parametrize(
    "path",
    ["../secret.mp4", "a/../../secret.mp4", "/etc/passwd", "..\\secret.mp4", "a/b/../../../x.mp4", "..", ".", ""],
)
@pytest.mark.parametrize("form", ["{},x\n", "path,label\n{},x\n"])
def test_paths_that_leave_the_folder_are_refused(tmp_path, path, form):
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"")
    with pytest.raises(AnnotationError, match="line"):
        read_annotations(written(root, "list.csv", form.format(path)))


@pytest.mark.parametrize("path", ["http://host/a.mp4", "file:///etc/passwd", "hf://datasets/x/y.mp4", "a\0.mp4"])
def test_urls_and_null_bytes_are_refused(tmp_path, path):
    with pytest.raises(AnnotationError, match="not a local path"):
        resolve_inside(path, tmp_path, "list.csv, line 1")


def test_outside_paths_are_taken_when_the_caller_says_so(tmp_path):
    table = written(tmp_path, "list.csv", "/data/a.mp4,x\n")
    assert read_annotations(table, allow_outside_root=True)[0].path == "/data/a.mp4"
    assert read_annotations(table, root="/data")[0].path == "/data/a.mp4"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "b c", "", "....", "..a"]), min_size=1, max_size=8))
def test_what_is_accepted_lies_inside(parts):
    root = Path("/some/root")
    try:
        found = Path(resolve_inside("/".join(parts), root, "list"))
    except AnnotationError:
        return
    assert root in found.parents and ".." not in found.parts


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "", "no rows"),
        ("list.csv", "path,label\n", "no rows"),
        ("list.csv", "path,label\na.mp4\n", "line 2: 1 of 2 columns"),
        ("list.csv", "youtube_id,label\nabc,x\n", "no column for the path"),
        ("list.csv", "path,colour\na.mp4,x\n", "no column for the label"),
        ("list.csv", "path,label,label\na.mp4,x,y\n", "repeated columns"),
        ("list.csv", "path,label\na.mp4,  \n", "empty label"),
        ("list.csv", "path,label,start\na.mp4,x,soon\n", "time 'soon'"),
        ("list.csv", "path,label,start\na.mp4,x,-1\n", "time '-1'"),
        ("list.csv", "path,label,start\na.mp4,x,inf\n", "time 'inf'"),
        ("list.txt", "a.mp4\n", "Expected 'path label'"),
        ("list.jsonl", "{not json\n", "not a JSON object"),
        ("list.jsonl", "[1]\n", "not a JSON object"),
        ("list.jsonl", '{"path": 5, "label": "x"}\n', "the path 5"),
        ("list.jsonl", "[" * 100_000, "not a JSON object"),
        ("list.csv", "path,label\na.mp4,\x1b[2Jx\n", "control characters"),
        ("list.csv", "path,label\na.mp4," + "x" * 301 + "\n", "301 characters"),
        ("list.csv", "path,label\na.mp4," + "x" * 200_000 + "\n", "not a readable table"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(tmp_path, name, text, message):
    path = written(tmp_path, name, text)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"path,label\na.mp4,\xff\xfe\n")
    with pytest.raises(AnnotationError, match="UTF-8"):
        read_annotations(path)


@pytest.mark.parametrize(
    "label", ["<b>bold</b>", "**x**", "a|b", "=1+1", "Stra\u00dfe", "\u65e5\u672c", "x' OR 1=1", "$x^{"]
)
def test_markup_in_a_label_is_kept_as_the_text_it_is(label):
    assert check_label(f" {label} ", "list") == label


@pytest.mark.parametrize("label", ["a\x1b[31m", "a\nb", "a\rb", "a\u202eb", "a\0", "\u2028x\u2028y", "a\tb"])
def test_labels_that_move_the_cursor_or_reorder_text_are_refused(label):
    with pytest.raises(AnnotationError, match="control characters"):
        check_label(label, "list")


def test_errors_survive_a_process_border():
    error = pickle.loads(pickle.dumps(AnnotationError("a", "b", "c")))
    assert (error.source, error.found, error.hint) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("val", "validation"), ("Valid", "validation"), ("dev", "validation"), ("TRAIN", "train"), ("testing", "test")],
)
def test_split_names(name, expected):
    assert canonical_split(name) == expected
    assert canonical_split("background") == "background"
