"""The two fine-tuning scripts run offline, and the raw loop resumes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForVideoClassification

from hf_effvid.auto import register


# the folders are opened in this process, as an installed user does
register()
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script, folder, *flags):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(EXAMPLES / script), *flags]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--lora", "4"]], ids=["full", "lora"])
def test_package_loop(tmp_path, flags):
    printed = run("finetune_classifier.py", tmp_path, "--max_steps", "2", *flags)
    assert "32 validation clips: loss" in printed
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "finetuned" / "model")
    assert model.config.num_labels == 8


@pytest.mark.slow
def test_raw_loop_and_its_resume(tmp_path):
    printed = run("finetune_raw_accelerate.py", tmp_path, "--max_steps", "2")
    assert "on 32 clips (chance 0.125)" in printed
    AutoModelForVideoClassification.from_pretrained(tmp_path / "finetuned_raw" / "model")
    (tmp_path / "finetuned_raw" / "partial").mkdir()
    printed = run("finetune_raw_accelerate.py", tmp_path, "--max_steps", "4", "--resume")
    assert "epoch 2:" in printed
    assert [path.name for path in (tmp_path / "finetuned_raw").glob("checkpoint-*")] == ["checkpoint-00002"]


def test_lengths():
    for name, limit in (("finetune_classifier.py", 150), ("finetune_raw_accelerate.py", 200)):
        assert len((EXAMPLES / name).read_text().splitlines()) <= limit
