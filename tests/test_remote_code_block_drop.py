"""A model without some of its blocks opens where this package is not: by transformers' own class, or by the code in its folder."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    AutoModelForVideoClassification,
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VivitConfig,
    VivitForVideoClassification,
)

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, drop_blocks
from hf_effvid.models.configuration_lite_videomae import LiteVideoMAEConfig
from hf_effvid.models.modeling_lite_videomae import LiteVideoMAEForVideoClassification

from .test_remote_code import CLIPS, SELECTION, VIT, probe
from .test_remote_code_detector import CONFIGS, make_inputs


DEEP = VIT | {"num_hidden_layers": 4}
GONE = [1, 2]
# name -> (how the model is made, class of transformers that opens it)
STOCK = {
    "videomae": (lambda: VideoMAEForVideoClassification(VideoMAEConfig(**DEEP, patch_size=8)), "VideoMAEForVideoClassification"),
    "vivit": (lambda: VivitForVideoClassification(VivitConfig(**DEEP, tubelet_size=[2, 8, 8])), "VivitForVideoClassification"),
    "timesformer": (lambda: TimesformerForVideoClassification(TimesformerConfig(**DEEP, patch_size=8)), "TimesformerForVideoClassification"),
    "auto": (lambda: VideoMAEForVideoClassification(VideoMAEConfig(**DEEP, patch_size=8)), "AutoModelForVideoClassification"),
}  # fmt: skip
# name -> (changes of the detector's configuration, part, blocks)
DETECTORS = {
    "features": ({}, "detector", [1]),  # a block of the pyramid, which leaves its pool
    "videomae": ({}, "backbone", [0, 2]),
}


def shaken(model):
    """Biases and norms too: q_bias and v_bias that are zero would hide that they were not loaded."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def job(folder, name, action, **more):
    return {"action": action, "folder": str(folder / name), "inputs": str(folder / f"{name}.safetensors"), **more}


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """What every model without some of its blocks gives here, and what it gives in an interpreter that lacks the package."""
    root = tmp_path_factory.mktemp("dropped")
    expected, jobs = {}, []
    torch.manual_seed(0)
    with torch.no_grad():
        for name, (build, opener) in STOCK.items():
            model = drop_blocks(shaken(build()), GONE)
            expected[name] = {"logits": model(**CLIPS).logits}
            model.save_pretrained(root / name)
            more = {"save_to": str(root / f"{name}-again")} if name == "videomae" else {}
            jobs.append(job(root, name, "stock_logits_of", **{"class": opener}, **more))

        lite = drop_blocks(shaken(LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**DEEP, **SELECTION, patch_size=8))), GONE)  # fmt: skip
        expected["lite"] = {"logits": lite(**CLIPS).logits}
        expected["lite-whole"] = {"logits": lite(**CLIPS, keep_ratio=1.0).logits}
        for name in ("lite", "lite-whole"):
            lite.save_pretrained(root / name)
        jobs.append(job(root, "lite", "logits_of"))
        jobs.append(job(root, "lite-whole", "stock_logits_of", **{"class": "VideoMAEForVideoClassification"}))

        for name, (changes, part, gone) in DETECTORS.items():
            options = CONFIGS[name] | changes
            if part == "backbone":
                options = options | {"backbone_config": options["backbone_config"] | {"num_hidden_layers": 4}}
            model = shaken(ActionFormerForTemporalActionDetection(ActionFormerConfig(**options)))
            drop_blocks(model, gone, part=part)
            found = model(**make_inputs(name))
            expected[f"detector-{name}"] = {"logits": found.logits, "offsets": found.offsets}
            model.save_pretrained(root / f"detector-{name}")
            jobs.append(job(root, f"detector-{name}", "detections_of"))
    for name in expected:
        kind = name.removeprefix("detector-")
        save_file(make_inputs(kind) if name != kind else CLIPS, root / f"{name}.safetensors")
    return root, expected, dict(zip(expected, probe(root / "stranger", jobs), strict=True))


NAMES = [*STOCK, "lite", "lite-whole", *(f"detector-{name}" for name in DETECTORS)]


@pytest.mark.slow  # a fresh interpreter
@pytest.mark.parametrize("name", NAMES)
def test_it_answers_the_same_without_the_package(journey, name):
    _, expected, found = journey
    for quantity, value in expected[name].items():
        torch.testing.assert_close(found[name][quantity], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", STOCK)
def test_a_stock_model_brings_no_code(journey, name):
    root, _, _ = journey
    assert {path.name for path in (root / name).iterdir()} == {"config.json", "model.safetensors"}
    fields = json.loads((root / name / "config.json").read_text())
    assert "auto_map" not in fields and fields["kept_blocks"] == [0, 3] and fields["num_hidden_layers"] == 2


@pytest.mark.slow
def test_what_a_stranger_saves_still_knows_which_blocks_it_has(journey):
    root, expected, _ = journey
    assert json.loads((root / "videomae-again" / "config.json").read_text())["kept_blocks"] == [0, 3]
    model = AutoModelForVideoClassification.from_pretrained(root / "videomae-again")
    with torch.no_grad():
        torch.testing.assert_close(model(**CLIPS).logits, expected["videomae"]["logits"], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_detector_names_the_blocks_of_its_trunk(journey):
    root, _, _ = journey
    config = AutoModel.from_pretrained(root / "detector-videomae").config
    assert list(config.backbone_config.kept_blocks) == [1, 3] and config.backbone_config.num_hidden_layers == 2


def test_zero_biases_would_prove_nothing():
    """The trap that the tests above must not fall into: VideoMAE's q_bias and v_bias start as zero."""
    fresh = VideoMAEForVideoClassification(VideoMAEConfig(**DEEP, patch_size=8))
    biases = [value for name, value in shaken(fresh).named_parameters() if name.endswith("bias")]
    assert biases and all(value.abs().min() > 0 for value in biases)
