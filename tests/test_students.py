"""The small video CNNs, and torchvision's networks, from training's first step to the stock pipeline, and exported."""

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline

import hf_effvid
from hf_effvid import EffVidVideoProcessor, export_model
from hf_effvid.auto import find_architecture
from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.evaluation.benchmark_stages import write_panning_texture
from hf_effvid.training import train_classifier
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
# every family that can be published: name -> model_type, fields of a small one
FAMILIES = {
    **{model_type: (model_type, fields) for model_type, fields in SMALL.items()},
    "movinet-stream": ("movinet", {**SMALL["movinet"], "causal": True}),
    "torchvision_video": ("torchvision_video", {"network": "mc3_18", "depths": [1, 1, 1, 1]}),
}


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


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", FAMILIES)
def test_from_training_to_a_published_folder_and_back(family, tmp_path):
    """Trains, evaluates, stages, is verified without the package, opens by the auto class and runs in the stock pipeline."""
    pytest.importorskip("timm")
    model_type, fields = FAMILIES[family]
    data = tiny_motion_dataset(tmp_path / "clips", clips_per_class={"train": 2, "validation": 1, "test": 1}, size=32)
    outcome = train_classifier(
        find_architecture(model_type).config(**fields, num_frames=4, image_size=32),
        data,
        output_dir=tmp_path / "run",
        args={"max_steps": 2, "per_device_train_batch_size": 4, "report_to": "none"},
        progress=False,
    )
    test = hf_effvid.load_video_dataset(str(data), split="test")
    report = hf_effvid.evaluate_classifier(outcome.model_dir, test, dataset_name="tiny", split="test", progress=False)
    assert report.n == 4
    staged = hf_effvid.stage_checkpoint(outcome.model_dir, tmp_path / family, results=[report.to_result_entry()])
    verified = hf_effvid.verify_checkpoint(staged)
    assert verified.ok, verified.to_text()

    model = AutoModelForVideoClassification.from_pretrained(staged).eval()
    assert type(model) is find_architecture(model_type).models[AutoModelForVideoClassification]
    assert bool(getattr(model.config, "causal", False)) == (family == "movinet-stream")
    video = str(next(data.glob("test/*/*.mp4")))
    inputs = AutoVideoProcessor.from_pretrained(staged)(video, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(-1)[0]
    found = pipeline("video-classification", model=str(staged), device="cpu")(video, top_k=4)
    scores = {one["label"]: one["score"] for one in found}
    assert [scores[model.config.id2label[index]] for index in range(4)] == pytest.approx(expected.tolist(), abs=1e-5)
