"""Label lists as they are published."""

import pytest

from hf_effvid.convert.labels import read_labels


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
