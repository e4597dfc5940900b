"""Opening checkpoints: plain, adapters, with code of their own; what cannot be opened is one typed line."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForVideoClassification, BertConfig, BertForSequenceClassification

from hf_effvid import VideoFocalNetForVideoClassification, host_loading
from hf_effvid.host_loading import (
    CheckpointNotFound,
    CheckpointNotUsable,
    RemoteCodeNeeded,
    load_video_classifier,
    save_head,
)
from hf_effvid.host_processing import load_processor

from .hub.tiny_checkpoint import tiny_model, tiny_processor


OWN_CODE = """
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

class StrangerConfig(VideoMAEConfig):
    model_type = "strangers_own"

class StrangerForVideoClassification(VideoMAEForVideoClassification):
    config_class = StrangerConfig
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "plain"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def stranger(checkpoint, tmp_path):
    """A checkpoint of an architecture that nobody has installed."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "stranger.py").write_text(OWN_CODE)
    auto_map = {"AutoConfig": "stranger.StrangerConfig"}
    auto_map["AutoModelForVideoClassification"] = "stranger.StrangerForVideoClassification"
    config = {"model_type": "strangers_own", "auto_map": auto_map, "image_size": 16, "patch_size": 8, "num_frames": 2}
    config |= {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForVideoClassification.from_config(model, trust_remote_code=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapter_of(base, folder, num_labels=None):
    """A saved adapter around the checkpoint `base`, with a head of its own when it has other classes."""
    options = {"num_labels": num_labels, "ignore_mismatched_sizes": True} if num_labels else {}
    model = VideoFocalNetForVideoClassification.from_pretrained(base, **options)
    linear = sorted({n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "classifier"})
    lora = LoraConfig(r=2, target_modules=linear, modules_to_save=["classifier"], init_lora_weights=False)
    model = get_peft_model(model, lora).eval()
    model.save_pretrained(folder)
    save_head(model.config, folder)
    return model


def logits(model):
    pixels = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits


@pytest.mark.parametrize("num_labels", [None, 7])
def test_an_adapter_comes_with_its_own_head_and_name(checkpoint, tmp_path, num_labels):
    adapter = adapter_of(checkpoint, tmp_path / "adapter", num_labels)
    loaded = load_video_classifier(tmp_path / "adapter")
    assert loaded.name_or_path == str(tmp_path / "adapter")
    assert loaded.config.id2label == adapter.config.id2label
    torch.testing.assert_close(logits(loaded), logits(adapter))
    assert not torch.allclose(logits(loaded)[:, :4], logits(tiny_model()), atol=1e-3)


def test_an_adapter_without_a_usable_base_names_both(checkpoint, tmp_path):
    adapter_of(checkpoint, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(CheckpointNotFound, match="The base model of the adapter .*adapter': .*gone' is neither"):
        load_video_classifier(tmp_path / "adapter")
    path.write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(CheckpointNotUsable, match="does not name its base model"):
        load_video_classifier(tmp_path / "adapter")
    path.write_text(json.dumps(config))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.rename(weights.with_name("adapter_model.bin"))
    with pytest.raises(CheckpointNotUsable, match="pickles are not opened"):
        load_video_classifier(tmp_path / "adapter")


def test_code_of_a_stranger_runs_only_when_asked(stranger):
    with pytest.raises(RemoteCodeNeeded, match="--trust-remote-code") as caught:
        load_video_classifier(stranger)
    assert "\n" not in str(caught.value)
    assert type(load_video_classifier(stranger, trust_remote_code=True)).__name__ == "StrangerForVideoClassification"


def test_installed_architectures_never_need_it(checkpoint):
    assert "auto_map" in json.loads((checkpoint / "config.json").read_text())
    for trust in (False, True):
        assert type(load_video_classifier(checkpoint, trust)) is VideoFocalNetForVideoClassification


@pytest.mark.parametrize("load", [load_video_classifier, load_processor])
def test_what_is_not_there_is_one_line(checkpoint, tmp_path, load, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "video.mp4").write_bytes(b"x")
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    cases = {
        tmp_path / "empty": "holds no config.json: it is no checkpoint.",
        tmp_path / "video.mp4": "is a file: give the folder of a checkpoint, or a Hub id",
        tmp_path / "run": "run/model'?",
        "no/such/folder": "'no/such/folder' is neither a folder nor a Hub id",
        "tiny model": "'tiny model' is neither a folder nor a Hub id",
    }
    for name, said in cases.items():
        with pytest.raises(CheckpointNotFound) as caught:
            load(name)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(host_loading.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointNotFound, match="'org/name' is neither a folder nor in the local cache, and HF_HUB_OFF"
    ):
        load("org/name")


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch):
    monkeypatch.setattr(host_loading.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(host_loading.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointNotFound, match="'org/name' is neither .* the Hub cannot be reached"):
        load_video_classifier("org/name")


def test_what_is_no_video_classifier_is_one_line(checkpoint, tmp_path):
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=9, **small)).save_pretrained(tmp_path / "bert")
    with pytest.raises(CheckpointNotUsable, match="is no video classifier: it holds a BertConfig") as caught:
        load_video_classifier(tmp_path / "bert")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    config = json.loads((checkpoint / "config.json").read_text())
    for name, text, said in (
        ("odd", json.dumps({"model_type": "no_such_type"}), "names the unknown model_type 'no_such_type'"),
        ("silent", json.dumps({"hidden_size": 8}), "names no model_type"),
        ("broken", "{ not json", "config"),
        ("other", json.dumps(config | {"embed_dim": 16}), "do not fit its config.json"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(text)
        save_file(load_file(checkpoint / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises((OSError, ValueError), match=said) as caught:
            load_video_classifier(folder)
        assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    (tmp_path / "other" / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointNotUsable, match="the weights in .* do not fit"):
        load_video_classifier(tmp_path / "other")


def test_a_checkpoint_without_a_processor_says_so(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((Path(checkpoint) / "config.json").read_text())
    with pytest.raises(OSError, match="holds neither a video processor nor an image processor"):
        load_processor(tmp_path)
