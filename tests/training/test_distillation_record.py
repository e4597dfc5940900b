"""The record of a distillation survives its file, and names teachers without keeping them."""

from types import SimpleNamespace

import pytest
import torch

from hf_effvid import X3DConfig
from hf_effvid.training.distillation_record import RECORD_NAME, DistillationRecord, TeacherRecord


def opened(role, name):
    model = torch.nn.Linear(3, 2)
    model.config = X3DConfig()
    return SimpleNamespace(role=role, name=name, license="apache-2.0", model=model)


def test_it_is_read_as_it_was_written(tmp_path):
    record = DistillationRecord.of(
        [opened("cnn", "b"), opened("vit", "org/a")], {"weighting": "uniform"}, {"name": "d", "views": None}, seed=3
    )
    assert record.teachers[0] == TeacherRecord("vit", "org/a", "apache-2.0", "x3d", 8)
    assert record.teacher("cnn").name == "b" and record.teacher("other") is None
    record.save(tmp_path)
    assert DistillationRecord.load(tmp_path) == record and record.provenance["seed"] == 3


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"version": 99, "teachers": []}', "no json", '{"version": 1, "teachers": [{"x": 1}]}']
)
def test_what_is_no_record_is_refused(tmp_path, text):
    (tmp_path / RECORD_NAME).write_text(text)
    with pytest.raises(ValueError, match=RECORD_NAME):
        DistillationRecord.load(tmp_path)
