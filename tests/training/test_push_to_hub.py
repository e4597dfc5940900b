"""`push_to_hub` of models and Trainers of an installed user gives repositories that need no installation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub.server import TOKEN, HubServer


pytestmark = pytest.mark.hub

SCRIPT = Path(__file__).with_name("push_run.py")
OPEN = """
import sys
sys.modules["hf_effvid"] = None
import torch
from transformers import AutoModel, AutoModelForVideoClassification, AutoVideoProcessor
name = sys.argv[1]
model = AutoModelForVideoClassification.from_pretrained(name, trust_remote_code=True).eval()
base = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
processor = AutoVideoProcessor.from_pretrained(name, trust_remote_code=True)
inputs = processor(torch.zeros(5, 3, 20, 24, dtype=torch.uint8))
with torch.no_grad():
    print(list(model(**inputs).logits.shape), type(base).__name__)
"""


def run(command, hub, home):
    root = str(SCRIPT.parents[2])
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HOME": str(home), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


@pytest.mark.parametrize("way", ["model", "stock_trainer", "effvid_trainer"])
def test_pushed_repositories_are_self_contained(way, tmp_path):
    with HubServer() as hub:
        run([sys.executable, str(SCRIPT), way, str(tmp_path / "run")], hub, tmp_path / "home")
        files = hub.files(f"org/{way}")
        config = json.loads(files["config.json"])
        processor = json.loads(files["video_preprocessor_config.json"])
        assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(config["auto_map"])
        for reference in [*config["auto_map"].values(), *processor["auto_map"].values()]:
            assert f"{reference.split('.')[0]}.py" in files
        if way == "effvid_trainer":
            assert not any(name.endswith((".bin", ".pt", ".pth")) for name in files), "nothing to unpickle"
        printed = run([sys.executable, "-c", OPEN, f"org/{way}"], hub, tmp_path / "stranger")
        assert printed.split("\n")[-2] == "[1, 3] VideoFocalNetModel"
