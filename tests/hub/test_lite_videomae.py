"""A LITE checkpoint as others meet it: staged, verified, in the stock pipeline, and in the stock class without this package."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from hf_effvid import LiteVideoMAEForVideoClassification, VideoClassificationPipeline
from hf_effvid.hub.probe_clips import write_probe_clips
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from ..models.tiny_videomae import tiny_clips, tiny_videomae
from .tiny_checkpoint import tiny_processor


LABELS = ["moves", "rests", "turns"]
# what someone does who has transformers alone: the stock class, and the Lite class by its code in the folder
STRANGER = """
import json, sys
sys.modules["hf_effvid"] = None
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForVideoClassification, VideoMAEForVideoClassification
clips = load_file("clips.safetensors")["clips"]
stock, info = VideoMAEForVideoClassification.from_pretrained("lite", output_loading_info=True)
lite = AutoModelForVideoClassification.from_pretrained("lite", trust_remote_code=True)
lite.save_pretrained("again")
again = AutoModelForVideoClassification.from_pretrained("again", trust_remote_code=True)
with torch.no_grad():
    logits = {"stock": stock.eval()(clips).logits, "lite": lite.eval()(clips).logits, "again": again.eval()(clips).logits}
save_file(logits, "logits.safetensors")
print(json.dumps({"missing": sorted(info["missing_keys"]), "unexpected": sorted(info["unexpected_keys"]), "class": type(lite).__module__}))
"""


@pytest.fixture(scope="module")
def stock():
    return tiny_videomae(
        num_labels=3, id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)}
    )


@pytest.fixture(scope="module")
def lite(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    stock.save_pretrained(folder)
    return LiteVideoMAEForVideoClassification.from_pretrained(folder, keep_ratio=0.5, scorer="grid").eval()


@pytest.fixture(scope="module")
def staged(lite, tmp_path_factory):
    return stage_checkpoint(lite, tmp_path_factory.mktemp("stage") / "lite", tiny_processor(), repo_id="org/lite")


def test_the_staged_folder_holds_the_selection_and_the_card_both_ways_of_opening(staged):
    config = json.loads((staged / "config.json").read_text())
    assert (config["keep_ratio"], config["scorer"]) == (0.5, "grid")
    assert config["auto_map"]["AutoModel"] == "modeling_lite_videomae.LiteVideoMAEModel"
    assert {"token_selection.py", "token_selector.py", "lite_selection.py"} <= {path.name for path in staged.iterdir()}
    card = (staged / "README.md").read_text()
    assert 'LiteVideoMAEForVideoClassification.from_pretrained("org/lite"' in card
    assert ' VideoMAEForVideoClassification.from_pretrained("org/lite")' in card


def test_both_pipelines_select(staged, lite, tmp_path):
    clips = [str(path) for path in write_probe_clips(tmp_path)]
    theirs = pipeline("video-classification", model=str(staged))
    ours = VideoClassificationPipeline(str(staged))
    for made in (theirs, ours):
        assert type(made.model) is LiteVideoMAEForVideoClassification
        assert made.model.config.keep_ratio == 0.5
    for first, second in zip(theirs(clips, batch_size=2, top_k=3), ours(clips, top_k=3), strict=True):
        assert [a["label"] for a in first] == [a["label"] for a in second] and {a["label"] for a in first} == set(
            LABELS
        )
        torch.testing.assert_close([a["score"] for a in first], [a["score"] for a in second])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fresh_interpreter_without_the_package(staged, stock, lite, tmp_path):
    assert verify_checkpoint(staged).ok
    (tmp_path / "lite").symlink_to(staged)
    clips = tiny_clips()
    save_file({"clips": clips}, tmp_path / "clips.safetensors")
    done = subprocess.run([sys.executable, "-c", STRANGER], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["missing"] == [] and all(name.startswith("selector.") for name in told["unexpected"])
    assert told["class"].startswith("transformers_modules.")
    logits = load_file(tmp_path / "logits.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(logits["stock"], stock(clips).logits, rtol=0, atol=0)
        torch.testing.assert_close(logits["lite"], lite(clips).logits, rtol=0, atol=0)
    torch.testing.assert_close(logits["again"], logits["lite"], rtol=0, atol=0)
