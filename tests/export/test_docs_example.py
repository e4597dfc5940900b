"""The two programs of docs/export.md run as printed: the first where torch cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoVideoProcessor

from .conftest import LABELS


pytest.importorskip("onnxruntime", reason="the export extra is not installed")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
# the numbers behind the answer, too
SHOW_LOGITS = "\nprint(*logits.tolist())\n"
WITHOUT_TORCH = (
    "import sys\nfor name in ('torch', 'torchvision', 'transformers', 'hf_effvid'):\n    sys.modules[name] = None\n"
)


def programs():
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


@pytest.fixture
def place(exported, motion, tmp_path):
    """A folder as the page assumes it."""
    clip = sorted(motion.glob("test/*/*.mp4"))[0]
    os.symlink(exported.folder, tmp_path / "exported")
    os.symlink(clip, tmp_path / "clip.mp4")
    return tmp_path


def run(program, folder):
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_program_without_torch_answers_as_the_model(exported, place):
    label, logits = run(WITHOUT_TORCH + programs()[0] + SHOW_LOGITS, place)
    processor = AutoVideoProcessor.from_pretrained(exported.checkpoint)
    with torch.no_grad():
        expected = exported.model(processor(str(place / "clip.mp4"))["pixel_values"]).logits[0]
    assert label == LABELS[int(expected.argmax())]
    # FFmpeg's conversion to RGB differs from the reader's in the last bits of the colours
    assert [float(value) for value in logits.split()] == pytest.approx(expected.tolist(), abs=0.05)


@pytest.mark.slow
def test_the_program_with_the_package(place):
    assert run(programs()[1], place)[-1] == "torch.Size([1, 4])"
