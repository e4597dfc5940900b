"""A detector that an installed user saves opens without the package, and again after it was saved there."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection

from .test_remote_code import probe


pytestmark = pytest.mark.slow  # two fresh interpreters


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    root = tmp_path_factory.mktemp("remote_detector")
    torch.manual_seed(0)
    config = ActionFormerConfig(
        input_size=[4, 2],
        hidden_size=8,
        num_stem_layers=1,
        num_branch_layers=2,
        attention_window=[5, 5, -1],
        use_relative_positions=True,
        use_absolute_positions=True,
        max_sequence_length=16,
        neck_type="fpn",
        num_labels=3,
    )
    model = ActionFormerForTemporalActionDetection(config).eval()
    for parameter in model.parameters():  # biases, norms and scales too, so that nothing is right by being zero or one
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.loss_normalizer.value.fill_(33.5)
    inputs = {"input_features": torch.randn(2, 20, 6), "attention_mask": torch.ones(2, 20, dtype=torch.long)}
    inputs["attention_mask"][1, 13:] = 0
    save_file(inputs, root / "inputs.safetensors")
    model.save_pretrained(root / "saved")
    with torch.no_grad():
        outputs = model(**inputs)

    def job(folder, **more):
        place = {"folder": str(root / folder), "inputs": str(root / "inputs.safetensors")}
        return {"action": "detections_of", **place, **more}

    first = probe(root / "first", [job("saved", save_to=str(root / "resaved"))])
    second = probe(root / "second", [job("resaved")])
    return root, model, outputs, [first[0], second[0]]


@pytest.mark.parametrize("step", [0, 1])
def test_the_same_output_without_the_package(journey, step):
    _, model, outputs, given = journey
    torch.testing.assert_close(given[step]["logits"], outputs.logits, rtol=0, atol=0)
    torch.testing.assert_close(given[step]["offsets"], outputs.offsets, rtol=0, atol=0)
    buffers = dict(model.named_buffers())
    assert buffers.keys() == {"actionformer.embeddings.position_table", "loss_normalizer.value"}
    for name, value in buffers.items():
        torch.testing.assert_close(given[step][f"buffer.{name}"], value, rtol=0, atol=0)


@pytest.mark.parametrize("folder", ["saved", "resaved"])
def test_folders_hold_the_code(journey, folder):
    path = journey[0] / folder
    auto_map = json.loads((path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_actionformer.ActionFormerConfig",
        "AutoModel": "modeling_actionformer.ActionFormerForTemporalActionDetection",
    }
    for reference in auto_map.values():
        module, class_name = reference.split(".")
        assert f"class {class_name}(" in (path / f"{module}.py").read_text()
