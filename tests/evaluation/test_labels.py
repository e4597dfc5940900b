import numpy as np
import pytest

from hf_effvid.evaluation.labels import LabelMap, LabelMismatchError


ID2LABEL = {0: "walk", 1: "run", 2: "jump"}


def test_names_win_over_numbers():
    to_class = LabelMap(ID2LABEL, ["jump", "walk"])
    assert [to_class(0), to_class(1), to_class("run")] == [2, 0, 1]


def test_numbers_of_a_json_file_are_numbers():
    to_class = LabelMap({"1": "run", "0": "walk"}, ["run", "walk"])
    assert to_class.names == ["walk", "run"] and to_class(0) == 1
    for odd in ({"a": "walk"}, {"1": "walk"}, {0: "walk", "0": "run"}):
        with pytest.raises(LabelMismatchError, match="0 to K - 1"):
            LabelMap(odd)


def test_numbers_where_the_model_has_no_names():
    to_class = LabelMap({0: "LABEL_0", 1: "LABEL_1"}, ["jump", "walk"])
    assert [to_class(0), to_class(np.int64(1))] == [0, 1]
    with pytest.raises(LabelMismatchError, match="3 classes, the model 2"):
        LabelMap({0: "LABEL_0", 1: "LABEL_1"}, ["a", "b", "c"])


def test_unknown_classes_are_named():
    with pytest.raises(LabelMismatchError, match=r"\['swim'\] are unknown"):
        LabelMap(ID2LABEL, ["walk", "swim"])


@pytest.mark.parametrize("label", [3, -1, "swim"])
def test_a_label_outside_is_refused(label):
    with pytest.raises(LabelMismatchError):
        LabelMap(ID2LABEL)(label)


def test_multi_label_forms():
    to_class = LabelMap(ID2LABEL, multi_label=True)
    assert to_class(["jump", "walk"]) == [0, 2]
    assert to_class([2, 0]) == [0, 2]
    assert to_class([0.0, 1.0, 1.0]) == [1, 2]
    assert to_class(np.array([True, False, True])) == [0, 2]
    assert to_class([]) == []
    assert LabelMap(ID2LABEL, ["jump", "run", "walk"], multi_label=True)([1.0, 0.0, 0.0]) == [2]


def test_one_label_and_several_are_not_confused():
    with pytest.raises(LabelMismatchError, match="multi_label_classification"):
        LabelMap(ID2LABEL)([0, 1])
    with pytest.raises(LabelMismatchError, match="list of labels"):
        LabelMap(ID2LABEL, multi_label=True)(1)


def test_integer_flags():
    assert LabelMap(ID2LABEL, multi_label=True)([0, 1, 1]) == [1, 2]
    pair = {0: "in", 1: "out"}
    with pytest.raises(LabelMismatchError, match="class numbers or flags"):
        LabelMap(pair, multi_label=True)([0, 1])
    assert LabelMap(pair, ["in", "out"], multi_label=True)([0, 1]) == [0, 1]
    assert LabelMap(pair, multi_label=True)([0, 0]) == []
