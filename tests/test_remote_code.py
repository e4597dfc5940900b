"""What an installed user saves opens without the package: every architecture, in a process that cannot import it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoBackbone, AutoModel, AutoModelForVideoClassification

from hf_effvid.auto import ARCHITECTURES


PROBE = Path(__file__).with_name("remote_code_probe.py")

CLIPS = {"pixel_values": torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "num_frames": 4,
    "num_labels": 3,
}
VJEPA2 = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 4,
    "num_pooler_layers": 1,
    "pred_hidden_size": 12,
    "pred_num_attention_heads": 1,
    "pred_num_hidden_layers": 1,
    "num_labels": 3,
}
SELECTION = {"keep_ratio": 0.5, "scorer": "lite", "selector_hidden_sizes": [8], "selector_trained": True}

# a small model of each architecture and its inputs
SMALL = {
    "video_focalnet": (
        {
            "embed_dim": 4,
            "depths": [1, 1],
            "focal_levels": [2, 1],
            "focal_windows": [3, 3],
            "num_labels": 3,
            "num_frames": 4,
            "image_size": 32,
            "initialization": "fan_in",
            "out_features": ["stage1", "stage2"],
        },
        {"pixel_values": torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))},
        ["projection_in", "projection_out", "fc1"],
    ),
    "tsm": (
        {
            "architecture": "resnet18",
            "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
            "num_labels": 3,
            "num_frames": 4,
            "image_size": 32,
            "classifier_std": 0.5,
        },
        CLIPS,
        ["layer1.0.conv2", "layer3.0.conv2"],
    ),
    "torchvision_video": (
        {
            "network": "mvit_v2_s",
            "stem_size": 8,
            "depths": [1, 1],
            "num_labels": 3,
            "num_frames": 4,
            "image_size": 32,
        },
        CLIPS,
        ["attn.qkv", "mlp.0"],
    ),
    "x3d": (
        {
            "stem_size": 8,
            "hidden_sizes": [8, 16],
            "depths": [1, 2],
            "head_size": 16,
            "num_labels": 3,
            "num_frames": 4,
            "image_size": 32,
            "initializer_range": 0.5,
        },
        CLIPS,
        ["classifier"],
    ),
    "movinet": (
        {
            "causal": True,
            "stem_size": 8,
            "hidden_sizes": [8, 16],
            "expand_sizes": [[16], [24, 24]],
            "kernel_sizes": [["15"], ["53", "33"]],
            "strides": [2, 2],
            "projection_size": 16,
            "head_size": 24,
            "num_labels": 3,
            "num_frames": 4,
            "image_size": 32,
        },
        CLIPS,
        ["classifier"],
    ),
    "lite_videomae": ({**VIT, **SELECTION, "patch_size": 8}, CLIPS, ["query", "intermediate.dense"]),
    "lite_vivit": ({**VIT, **SELECTION, "tubelet_size": [2, 8, 8]}, CLIPS, ["q_proj", "fc1"]),
    "lite_timesformer": ({**VIT, **SELECTION, "patch_size": 8}, CLIPS, ["qkv", "intermediate.dense"]),
    "lite_vjepa2": ({**VJEPA2, **SELECTION}, {"pixel_values_videos": CLIPS["pixel_values"]}, ["query", "mlp.fc1"]),
}


# the only one that needs timm, for its 2-D network
NEED_TIMM = ("tsm",)


# 3-D convolutions round by where their weights lie in memory
ROUNDING = {"x3d": 1e-5, "movinet": 1e-5}


def probe(folder, jobs, with_timm=False):
    """Runs the jobs in one process without the package; returns what each gave."""
    folder.mkdir()
    (folder / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(PROBE), str(folder / "jobs.json")]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert finished.returncode == 0, finished.stderr[-4000:]
    modules = json.loads((folder / "results.json").read_text())["modules"]
    assert "hf_effvid" not in modules and ("timm" in modules) == with_timm
    results = [{} for _ in jobs]
    for name, value in load_file(folder / "results.safetensors").items():
        number, quantity = name.split(".", 1)
        results[int(number)][quantity] = value
    return results


# one architecture of its own and one on a host of transformers by default, the others with the slow tests: 20 seconds each
BY_DEFAULT = ("video_focalnet", "lite_videomae")
CLASSIFIERS = [
    pytest.param(row, id=row.model_type, marks=() if row.model_type in BY_DEFAULT else pytest.mark.slow)
    for row in ARCHITECTURES
    if AutoModelForVideoClassification in row.models
]


@pytest.fixture(scope="module", params=CLASSIFIERS)
def journey(request, tmp_path_factory):
    """Saved here, opened and saved again there, opened a third time: what every step gave."""
    architecture, root = request.param, tmp_path_factory.mktemp("remote")
    if architecture.model_type in NEED_TIMM:
        pytest.importorskip("timm")
    options, inputs, lora_targets = SMALL[architecture.model_type]
    torch.manual_seed(0)
    model = AutoModelForVideoClassification.from_config(architecture.config(**options)).eval()
    for parameter in model.parameters():  # biases and norms too, so that nothing is right by being zero or one
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    video = torch.randint(0, 256, (9, 3, 40, 48), dtype=torch.uint8)
    save_file(inputs, root / "inputs.safetensors")
    save_file({"video": video}, root / "video.safetensors")

    model.save_pretrained(root / "classifier")
    processor = architecture.video_processor(num_frames=4, size={"shortest_edge": 32}, crop_size=32)
    processor.save_pretrained(root / "classifier")
    AutoModel.from_pretrained(root / "classifier").save_pretrained(root / "base")
    expected = {"buffers": dict(model.named_buffers())}
    with torch.no_grad():
        expected["logits"] = model(**inputs).logits
        expected["last_hidden_state"] = AutoModel.from_pretrained(root / "classifier")(**inputs).last_hidden_state
        if AutoBackbone in architecture.models:
            backbone = architecture.models[AutoBackbone].from_pretrained(root / "classifier")
            expected["feature_maps"] = backbone(**inputs).feature_maps
        expected["pixel_values"] = processor(video)["pixel_values"]
        expected["merged"] = _save_adapter_and_merged(model, lora_targets, inputs, root)

    def job(action, folder, **more):
        return {"action": action, "folder": str(root / folder), "inputs": str(root / "inputs.safetensors"), **more}

    def processing(folder, **more):
        return {
            "action": "pixel_values_of",
            "folder": str(root / folder),
            "video": str(root / "video.safetensors"),
            **more,
        }

    first = {
        "logits": job("logits_of", "classifier", save_to=str(root / "resaved")),
        "hidden states": job("hidden_states_of", "classifier", save_to=str(root / "resaved_base")),
        "hidden states of a saved base model": job("hidden_states_of", "base"),
        "merged adapter": job("logits_of", "merged"),
        "adapter": job("logits_of", "classifier", adapter=str(root / "adapter")),
        "pixels": processing("classifier", save_to=str(root / "resaved")),
    }
    second = {
        "logits, saved again": job("logits_of", "resaved"),
        "hidden states of a classifier, saved again": job("hidden_states_of", "resaved"),
        "hidden states, saved again": job("hidden_states_of", "resaved_base"),
        "pixels, saved again": processing("resaved"),
    }
    if AutoBackbone in architecture.models:
        first["feature maps"] = job("feature_maps_of", "classifier")
        second["feature maps, saved again"] = job("feature_maps_of", "resaved_base")
    with_timm = architecture.model_type in NEED_TIMM
    given = dict(zip(first, probe(root / "first", list(first.values()), with_timm), strict=True))
    given.update(zip(second, probe(root / "second", list(second.values()), with_timm), strict=True))
    return architecture, root, expected, given


def _save_adapter_and_merged(model, lora_targets, inputs, root):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=lora_targets, init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    adapted.save_pretrained(root / "adapter")
    adapted.merge_and_unload().save_pretrained(root / "merged")
    with torch.no_grad():
        return AutoModelForVideoClassification.from_pretrained(root / "merged")(**inputs).logits


@pytest.mark.parametrize("step", ["logits", "logits, saved again"])
def test_the_classifier_gives_the_same_logits(journey, step):
    architecture, _, expected, given = journey
    rounding = ROUNDING.get(architecture.model_type, 0)
    torch.testing.assert_close(given[step]["logits"], expected["logits"], rtol=0, atol=rounding)


HIDDEN_STATES = [
    "hidden states",
    "hidden states of a saved base model",
    "hidden states, saved again",
    "hidden states of a classifier, saved again",
]


@pytest.mark.parametrize("step", HIDDEN_STATES)
def test_auto_model_opens_whatever_was_saved(journey, step):
    architecture, _, expected, given = journey
    rounding = ROUNDING.get(architecture.model_type, 0)
    torch.testing.assert_close(
        given[step]["last_hidden_state"], expected["last_hidden_state"], rtol=rounding, atol=rounding
    )


@pytest.mark.parametrize("step", ["feature maps", "feature maps, saved again"])
def test_the_backbone_opens_too(journey, step):
    architecture, _, expected, given = journey
    if AutoBackbone not in architecture.models:
        pytest.skip(f"{architecture.model_type} is no backbone")
    assert len(given[step]) == len(expected["feature_maps"])
    for index, feature_map in enumerate(expected["feature_maps"]):
        torch.testing.assert_close(given[step][f"feature_map.{index}"], feature_map.contiguous(), rtol=0, atol=0)


@pytest.mark.parametrize("step", ["pixels", "pixels, saved again"])
def test_the_processor_opens_too(journey, step):
    _, _, expected, given = journey
    torch.testing.assert_close(given[step]["pixel_values"], expected["pixel_values"], rtol=0, atol=0)


@pytest.mark.parametrize("step", ["merged adapter", "adapter"])
def test_adapters(journey, step):
    _, _, expected, given = journey
    torch.testing.assert_close(given[step]["logits"], expected["merged"], rtol=1e-4, atol=1e-4)
    assert (expected["merged"] - expected["logits"]).abs().max() > 1e-2


def test_buffers_survive_loading(journey):
    """Those that are not saved too: models are built without memory, and such a buffer comes back as garbage unless refilled."""
    _, _, expected, given = journey
    found = {
        name.removeprefix("buffer."): value for name, value in given["logits"].items() if name.startswith("buffer.")
    }
    assert found.keys() == expected["buffers"].keys()
    for name, value in expected["buffers"].items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("folder", ["classifier", "base", "merged", "resaved", "resaved_base"])
def test_folders_name_every_class_and_hold_its_code(journey, folder):
    architecture, root, _, _ = journey
    auto_map = json.loads((root / folder / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", *(auto.__name__ for auto in architecture.models)}
    for reference in auto_map.values():
        module, class_name = reference.split(".")
        assert f"class {class_name}(" in (root / folder / f"{module}.py").read_text()


def test_saving_again_changes_no_code(journey):
    _, root, _, _ = journey
    for path in (root / "classifier").glob("*.py"):
        assert (root / "resaved" / path.name).read_bytes() == path.read_bytes()
