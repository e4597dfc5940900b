"""examples/int8_trials.py: every way gives a line or a reason, and the numbers go to a results file."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_effvid.evaluation.results import ResultsFile


pytest.importorskip("onnxruntime", reason="the export extra is not installed")

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "int8_trials.py"


@pytest.mark.slow
def test_the_trials_run_on_a_small_model(exported, motion, tmp_path):
    command = [sys.executable, SCRIPT, exported.checkpoint, motion, "--name", "motions", "--results", "int8.json"]
    done = subprocess.run(map(str, command), cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = {line[:44].strip(): line for line in done.stdout.splitlines()}
    for way in ("ONNX int8 dynamic", "ONNX int8 weight-only", "onnxruntime dynamic, convolutions too"):
        assert "of 8)" in lines[way] and "x as fast as PyTorch float32" in lines[way]
    assert "cannot trace" in done.stdout  # torch's own packed weights
    entries = ResultsFile.load(tmp_path / "int8.json").results
    (floats,) = [entry for entry in entries if entry.variant == "ONNX float32"]
    assert floats.metric("top1 difference, A minus B").value == 0 and floats.metric("same_answer").n == 8
