"""The small video CNNs from training's first step to the stock pipeline, and exported."""

import pytest
import torch
from transformers import pipeline

from hf_effvid import EffVidVideoProcessor, export_model
from hf_effvid.auto import find_architecture
from hf_effvid.evaluation.benchmark_stages import write_panning_texture
from hf_effvid.training.model_setup import open_classifier, processor_for


# model_type -> fields of a small one
SMALL = {
    "tsm": {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}},
    "x3d": {"stem_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "head_size": 16},
    "movinet": {
        "stem_size": 8,
        "hidden_sizes": [8, 16],
        "expand_sizes": [[16], [24]],
        "kernel_sizes": [["15"], ["53"]],
        "strides": [2, 2],
        "projection_size": 16,
        "head_size": 24,
    },
}
NORMALISATION = {"tsm": (0.485, 0.229), "x3d": (0.45, 0.225), "movinet": (0.0, 1.0)}


def small(model_type):
    pytest.importorskip("timm")
    config = find_architecture(model_type).config(**SMALL[model_type], num_frames=4, image_size=32)
    return open_classifier(config, ["left", "right", "still"]).eval()


@pytest.mark.parametrize("model_type", SMALL)
def test_a_new_model_in_the_stock_pipeline(model_type, tmp_path):
    model = small(model_type)
    processor = processor_for(model.config)
    assert (list(processor.image_mean)[0], list(processor.image_std)[0]) == NORMALISATION[model_type]
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    video = tmp_path / "video.mp4"
    write_panning_texture(video, seconds=1, width=64, height=48, seed=0)
    found = pipeline("video-classification", model=str(tmp_path / "model"), device="cpu")(str(video), top_k=3)
    with torch.no_grad():
        expected = model(processor(str(video))["pixel_values"]).logits.softmax(dim=-1)[0]
    scores = {one["label"]: one["score"] for one in found}
    assert [scores[name] for name in ("left", "right", "still")] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("model_type", SMALL)
def test_every_weight_is_trained(model_type):
    model = small(model_type).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clips = torch.rand(4, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # MoViNet's branches get a gradient once their scale has left zero
        optimizer.zero_grad()
        model(clips, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimizer.step()
    assert not [name for name, value in model.named_parameters() if not value.grad.abs().sum() > 0]


@pytest.mark.slow
@pytest.mark.parametrize("model_type", SMALL)
def test_exported_as_onnx(model_type, tmp_path):
    pytest.importorskip("onnxruntime")
    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32)
    report = export_model(small(model_type), tmp_path / "onnx", processor, rounds=1, progress=False)
    assert "batch" in report.axes and report.files[0].parity.max_relative < 1e-4
