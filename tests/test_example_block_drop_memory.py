"""The example that measures the memory of recovery runs, in miniature."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_effvid.evaluation.results import ResultsFile


SCRIPT = Path(__file__).parents[1] / "examples" / "block_drop_memory.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_block_drop_memory(tmp_path):
    flags = ["--sizes", "tiny", "--side", "64", "--dropped", "1", "--batch-size", "8"]
    flags += ["--arms", "full fine-tuning", "LoRA", "--results", "r.json"]
    source = os.pathsep.join(filter(None, [str(SCRIPT.parents[1] / "src"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, *flags], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    full, lora = ResultsFile.load(tmp_path / "r.json").results
    assert (full.variant, lora.variant) == (
        "full fine-tuning",
        "LoRA",
    ) and full.model == "VideoMAE-tiny, 3 of 4 blocks"
    assert full.metric("trained_parameters").value > 1.5 * lora.metric("trained_parameters").value
    peaks = [entry.metric("peak_training_memory_mb").value for entry in (full, lora)]
    # 16 bytes per trained weight: itself, its gradient, two moments; 4 per weight of the teacher
    assert peaks[0] > peaks[1] > 5 and peaks[0] > 16e-6 * full.metric("trained_parameters").value
    assert lora.metric("share_of_full_fine_tuning").value == pytest.approx(peaks[1] / peaks[0])
