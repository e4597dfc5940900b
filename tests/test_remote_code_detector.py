"""A detector that an installed user saves opens without the package, and again after it was saved there."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerProcessor

from .test_remote_code import probe


pytestmark = pytest.mark.slow  # two fresh interpreters


FROM_FEATURES = {
    "input_size": [4, 2],
    "hidden_size": 8,
    "num_stem_layers": 1,
    "num_branch_layers": 2,
    "attention_window": [5, 5, -1],
    "use_relative_positions": True,
    "use_absolute_positions": True,
    "max_sequence_length": 16,
    "neck_type": "fpn",
    "num_labels": 3,
}
HEAD = {"hidden_size": 8, "num_stem_layers": 1, "num_branch_layers": 1, "attention_window": 3, "num_labels": 3}
VIDEO_FOCALNET = {
    "model_type": "video_focalnet",
    "embed_dim": 4,
    "depths": [1],
    "focal_levels": [1],
    "focal_windows": [3],
}
VIDEOMAE = {"model_type": "videomae", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
VIDEOMAE |= {"intermediate_size": 12, "patch_size": 8, "image_size": 32}
DROPPED = {**FROM_FEATURES, "kept_blocks": [1]}  # of the stem and of the branch one block is gone each
CONFIGS = {
    "features": FROM_FEATURES,
    "features_without_some_blocks": DROPPED,
    "video_focalnet": {**HEAD, "backbone_config": {**VIDEO_FOCALNET, "num_frames": 4, "initialization": "fan_in"}},
    "videomae": {**HEAD, "backbone_config": {**VIDEOMAE, "num_frames": 4}, "temporal_adapters": True},
}


def make_inputs(name):
    lengths = torch.tensor([[20], [13]])
    mask = (torch.arange(20)[None] < lengths).long()
    generator = torch.Generator().manual_seed(0)
    if name.startswith("features"):
        return {"input_features": torch.randn(2, 20, 6, generator=generator), "attention_mask": mask}
    return {"pixel_values": torch.randn(2, 20, 3, 16, 16, generator=generator), "pixel_mask": mask}


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """Every kind of detector saved here, opened and saved again there, opened a third time: what each step gave."""
    root = tmp_path_factory.mktemp("remote_detector")
    expected = {}
    for name, options in CONFIGS.items():
        torch.manual_seed(0)
        model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**options)).eval()
        for parameter in model.parameters():  # biases, norms and scales too: nothing is right by being zero or one
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.loss_normalizer.value.fill_(33.5)
        model.save_pretrained(root / name / "saved")
        save_file(make_inputs(name), root / name / "inputs.safetensors")
        with torch.no_grad():
            expected[name] = (model(**make_inputs(name)), dict(model.named_buffers()))

    processor = ActionFormerProcessor(num_frames=4, size={"shortest_edge": 20}, crop_size=16)
    processor.save_pretrained(root / "videomae" / "saved")
    video = torch.randint(0, 256, (9, 3, 24, 32), dtype=torch.uint8)
    save_file({"video": video}, root / "video.safetensors")
    expected["pixels"] = processor(video)["pixel_values"]

    def job(name, folder, **more):
        place = {"folder": str(root / name / folder), "inputs": str(root / name / "inputs.safetensors")}
        return {"action": "detections_of", **place, **more}

    def pixels(folder, **more):
        place = {"folder": str(root / "videomae" / folder), "video": str(root / "video.safetensors")}
        return {"action": "pixel_values_of", **place, **more}

    jobs = [job(name, "saved", save_to=str(root / name / "resaved")) for name in CONFIGS]
    first = probe(root / "first", [*jobs, pixels("saved", save_to=str(root / "videomae" / "resaved"))])
    second = probe(root / "second", [*(job(name, "resaved") for name in CONFIGS), pixels("resaved")])
    return root, expected, [dict(zip([*CONFIGS, "pixels"], given, strict=True)) for given in (first, second)]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_output_without_the_package(journey, name, step):
    _, expected, steps = journey
    (outputs, buffers), given = expected[name], steps[step][name]
    torch.testing.assert_close(given["logits"], outputs.logits, rtol=0, atol=0)
    torch.testing.assert_close(given["offsets"], outputs.offsets, rtol=0, atol=0)
    table = {"actionformer.embeddings.position_table"} if name.startswith("features") else set()
    assert buffers.keys() == {"loss_normalizer.value"} | table
    for buffer, value in buffers.items():
        torch.testing.assert_close(given[f"buffer.{buffer}"], value, rtol=0, atol=0)


@pytest.mark.parametrize("folder", ["saved", "resaved"])
@pytest.mark.parametrize("name", CONFIGS)
def test_folders_hold_the_code(journey, name, folder):
    path = journey[0] / name / folder
    auto_map = json.loads((path / "config.json").read_text())["auto_map"]
    assert auto_map == {
        "AutoConfig": "configuration_actionformer.ActionFormerConfig",
        "AutoModel": "modeling_actionformer.ActionFormerForTemporalActionDetection",
    }
    for reference in auto_map.values():
        module, class_name = reference.split(".")
        assert f"class {class_name}(" in (path / f"{module}.py").read_text()


@pytest.mark.parametrize("step", [0, 1])
def test_the_processor_opens_too(journey, step):
    _, expected, steps = journey
    torch.testing.assert_close(steps[step]["pixels"]["pixel_values"], expected["pixels"], rtol=0, atol=0)
