"""LITE on ViViT, V-JEPA 2 and TimeSformer as others meet it: staged, verified, and in the stock classes without this package."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_effvid import select_tokens
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from ..models.lite_hosts import HOSTS, make_clips
from .tiny_checkpoint import tiny_processor


# what someone does who has transformers alone: the stock class, and the Lite class by its code in the folder
STRANGER = """
import json, sys
sys.modules["hf_effvid"] = None
import torch, transformers
from safetensors.torch import load_file, save_file
clips = load_file("clips.safetensors")["clips"]
stock, info = getattr(transformers, sys.argv[1]).from_pretrained("lite", output_loading_info=True)
lite = transformers.AutoModelForVideoClassification.from_pretrained("lite", trust_remote_code=True)
lite.save_pretrained("again")
again = transformers.AutoModelForVideoClassification.from_pretrained("again", trust_remote_code=True)
with torch.no_grad():
    logits = {"stock": stock.eval()(clips).logits, "lite": lite.eval()(clips).logits, "again": again.eval()(clips).logits}
save_file(logits, "logits.safetensors")
print(json.dumps({"missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]), "module": type(lite).__module__}))
"""


@pytest.fixture(scope="module", params=["vivit", "vjepa2", "timesformer_divided"])
def published(request, tmp_path_factory):
    """A stock model, what `select_tokens` makes of it, and that as a folder for the Hub."""
    stock = HOSTS[request.param].build()
    lite = select_tokens(stock, keep_ratio=0.5, scorer="embedding_norm")
    folder = tmp_path_factory.mktemp("stage") / "lite"
    return stock, lite, stage_checkpoint(lite, folder, tiny_processor(), repo_id="org/lite")


def test_the_staged_folder(published):
    stock, lite, folder = published
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["keep_ratio"]) == (f"lite_{stock.config.model_type}", 0.5)
    module = type(lite).__module__.rsplit(".", 1)[-1]
    assert config["auto_map"]["AutoModelForVideoClassification"] == f"{module}.{type(lite).__name__}"
    names = {path.name for path in folder.iterdir()}
    assert {f"{module}.py", "kept_patches.py", "token_selection.py", "token_budget.py", "selection_scope.py"} <= names
    others = {"vivit", "vjepa2", "timesformer", "videomae"} - {stock.config.model_type}
    assert not any(other in name for other in others for name in names)
    card = (folder / "README.md").read_text()
    assert f'{type(lite).__name__}.from_pretrained("org/lite"' in card
    assert f' {type(stock).__name__}.from_pretrained("org/lite")' in card


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fresh_interpreter_without_the_package(published, tmp_path):
    stock, lite, folder = published
    report = verify_checkpoint(folder)
    assert report.ok, report.to_text()
    (tmp_path / "lite").symlink_to(folder)
    save_file({"clips": make_clips()}, tmp_path / "clips.safetensors")
    program = [sys.executable, "-c", STRANGER, type(stock).__name__]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["missing"] == [] and told["unexpected"]
    assert all(name.startswith("selector.") for name in told["unexpected"])
    assert told["module"].startswith("transformers_modules.")
    logits = load_file(tmp_path / "logits.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(logits["stock"], stock(make_clips()).logits, rtol=0, atol=0)
        torch.testing.assert_close(logits["lite"], lite(make_clips()).logits, rtol=0, atol=0)
    torch.testing.assert_close(logits["again"], logits["lite"], rtol=0, atol=0)
