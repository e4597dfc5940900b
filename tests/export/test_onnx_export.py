"""An exported Video-FocalNet: one file that answers as the model does, whatever the batch, the clip length and the size."""

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console


onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
onnxruntime = pytest.importorskip("onnxruntime")

from hf_effvid.export import ExportError, load_exported  # noqa: E402

from .conftest import LABELS  # noqa: E402


SHAPES = [
    (1, 8, 3, 32, 32),
    (2, 8, 3, 32, 32),
    (3, 16, 3, 32, 32),
    (1, 5, 3, 32, 32),
    (2, 1, 3, 32, 32),
    (1, 8, 3, 47, 33),
    (3, 5, 3, 41, 66),
    (1, 8, 3, 8, 8),  # one token per frame in the last stage
]


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(exported.folder / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_the_file_answers_as_the_model_at_any_shape(exported, session, shape):
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    with torch.no_grad():
        expected = exported.model(pixels).logits
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    assert found.shape == (shape[0], len(LABELS))
    assert np.abs(found - expected.numpy()).max() <= 1e-4
    assert expected.abs().max() > 0.1  # an answer that says something


def test_axes_have_names_and_the_opset_is_the_one_asked_for(exported):
    model = onnx.load(exported.folder / "model.onnx")
    (pixels,), (logits,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim] == [
        "batch", "frames", 3, "height", "width",
    ]  # fmt: skip
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 4]
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20


def test_nothing_of_this_machine_is_in_the_folder(exported):
    names = {path.name for path in exported.folder.iterdir()}
    assert names == {
        "config.json", "export.json", "model.onnx", "model_int8_dynamic.onnx", "model_int8_weight_only.onnx",
        "preprocessor_config.json", "video_preprocessor_config.json",
    }  # fmt: skip
    for path in exported.folder.iterdir():
        content = path.read_bytes()
        for secret in (
            b"site-packages",
            b"/home/",
            str(exported.checkpoint.parent).encode(),
            b"modeling_video_focalnet",
        ):
            assert secret not in content, f"{path.name} holds {secret}"
        assert path.stat().st_mode & 0o777 == 0o644
    assert "auto_map" not in json.loads((exported.folder / "config.json").read_text())


def test_the_record_says_what_is_needed_to_run_it(exported):
    record = json.loads((exported.folder / "export.json").read_text())
    assert record["labels"] == list(LABELS) and record["input"]["name"] == "pixel_values"
    assert record["input"]["axes"]["frames"] == {"length": 8, "dynamic": True}
    assert record["input"]["axes"]["channels"] == {"length": 3, "dynamic": False}
    assert record["opset"] == 20 and record["problem_type"] == "single_label_classification"
    recipe = record["preprocessing"]
    assert recipe["size"] == {"shortest_edge": 36} and recipe["crop_size"] == {"height": 32, "width": 32}
    assert recipe["num_frames"] == 8 and recipe["sampling"] == "uniform" and len(recipe["image_mean"]) == 3
    assert {"hf_effvid", "torch", "onnx", "onnxruntime"} <= record["versions"].keys()
    (native, dynamic, weight_only) = record["files"]
    assert native["parity"]["max_logit_difference"] <= 1e-4
    assert native["parity"]["same_top1"] == native["parity"]["num_clips"] >= 20
    shapes = native["parity"]["shapes"]
    assert "1x16x3x32x32" in shapes and "2x5x3x32x32" in shapes and "1x8x3x49x32" in shapes
    for entry in (dynamic, weight_only):
        assert entry["bytes"] == (exported.folder / entry["file"]).stat().st_size < native["bytes"]
        assert entry["latency_ms"] > 0


def test_the_table_names_hardware_and_threads(exported):
    console = Console(width=200, file=io.StringIO())
    console.print(exported.report.to_table())
    text = console.file.getvalue()
    for word in (
        "PyTorch float32",
        "ONNX int8 dynamic",
        "speed-up",
        "thread",
        exported.report.hardware,
        "height, width",
    ):
        assert word in text


def test_8_bit_files_answer_much_alike(exported):
    pixels = torch.randn(4, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = exported.model(pixels).logits
    spread = (expected - expected.mean(0)).abs().max()
    for variant in ("ONNX int8 dynamic", "ONNX int8 weight-only"):
        found = load_exported(exported.folder, variant)(pixels).logits
        assert 0 < (found - expected).abs().max() < 0.2 * spread


def test_all_large_weights_are_stored_in_8_bits(exported):
    for name in ("model_int8_dynamic.onnx", "model_int8_weight_only.onnx"):
        model = onnx.load(exported.folder / name)
        floats = {t.name: t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        multiplied = {node.input[1] for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")}
        large = [name for name in multiplied & floats.keys() if np.prod(floats[name].dims) >= 1024]
        assert not large


def test_a_folder_without_an_export_and_an_unknown_variant_are_named(exported, tmp_path):
    with pytest.raises(ExportError, match=r"export\.json"):
        load_exported(tmp_path)
    with pytest.raises(ExportError, match="int8 dynamic"):
        load_exported(exported.folder, "ONNX int4")


def test_the_exported_classifier_has_no_weights_to_count(exported):
    classifier = load_exported(exported.folder)
    assert sum(p.numel() for p in classifier.parameters()) == 32
    assert classifier.config.id2label[2] == "grows" and classifier.device.type == "cpu"
    assert classifier.eval() is classifier
