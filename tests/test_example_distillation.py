"""The first read on distillation: plan, training and comparison, on clips of the transformer's classes."""

import re
from pathlib import Path

import pytest

from hf_effvid.data.synthetic import make_motion_dataset

from .test_compressed_model import CLASSES
from .test_examples import EXAMPLES, run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_read_teaches_a_student(tmp_path):
    make_motion_dataset(tmp_path / "clips", {"train": 2, "validation": 1}, classes=CLASSES, progress=False)
    printed = run(EXAMPLES / "04_distill_model.py", tmp_path, "--data", tmp_path / "clips", "--steps", "2")
    vit = Path(EXAMPLES) / "checkpoints" / "videomae-motion-12"
    assert f"vit teacher {vit}: 0.381 M parameters" in printed and "16 clips to train on, 8 to validate on" in printed
    assert "each teacher answers to 32 clips once, before" in printed
    (shares,) = re.findall(r"at the end the transformer counts (\d\.\d\d), the CNN (\d\.\d\d)", printed)
    assert sum(map(float, shares)) == pytest.approx(1, abs=0.011)
    assert printed.count("student less teacher") == 2 and "X3DForVideoClassification, " in printed
    assert not list(tmp_path.glob("student*")), "the folder of the runs is deleted"
