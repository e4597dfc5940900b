"""Label lists as they are published."""

import pytest

from hf_effvid.label_lists import read_labels


def write(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_header_order_commas_and_quotes(tmp_path):
    text = 'id,name\n1,Pushing something so that it falls, slowly\n0,"Lifting, then dropping"\n\n2,Zählen\n'
    assert read_labels(write(tmp_path, text)) == {
        0: "Lifting, then dropping",
        1: "Pushing something so that it falls, slowly",
        2: "Zählen",
    }


def test_no_header_and_a_byte_order_mark(tmp_path):
    assert read_labels(write(tmp_path, "\ufeff0,abseiling\n1,zumba\n")) == {0: "abseiling", 1: "zumba"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n0,a\n2,b\n", "expected ids 0 to K - 1"),
        ("0,a\n0,b\n", "line 2: id 0 was already 'a'"),
        ("0,a\nb\n", "line 2: expected \"id,name\", got 'b'"),
        ("0,a\nx,b\n", "line 2: expected"),
        ("", "got 0 ids"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_labels(write(tmp_path, text))


def test_json_of_names_to_ids_and_of_names(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"Lifting something, then dropping it": "1", "Approaching something": "0"}')
    assert read_labels(path) == {0: "Approaching something", 1: "Lifting something, then dropping it"}
    path.write_text('["b", "a"]')
    assert read_labels(path) == {0: "b", 1: "a"}


@pytest.mark.parametrize("text", ["{", '{"a": "x"}', '["a", 2]', '"a"', '{"a": 0, "b": 0}', '{"a": 1}', "[]"])
def test_json_that_is_no_label_list(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="labels.json"):
        read_labels(path)
