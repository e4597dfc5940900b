"""What `export_model` refuses, what it falls back to, and that it leaves a whole folder or nothing."""

import json
import sys

import pytest
import torch
from transformers import AutoVideoProcessor, VideoMAEImageProcessor

from hf_effvid import VideoFocalNetForVideoClassification
from hf_effvid.export import ExportError, MissingExtraError, ParityError, export_model, load_exported

from ..evaluation.conftest import tiny_videomae
from ..pipelines.hosts import HOSTS
from .conftest import one_block, tiny_focalnet, tiny_processor


pytest.importorskip("onnxruntime", reason="the export extra is not installed")

QUICK = {"progress": False, "rounds": 1}


def stock_processor():
    return VideoMAEImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})


@pytest.fixture(scope="module")
def videomae():
    return tiny_videomae("abcd").eval()


def test_a_videomae_with_a_stock_processor(videomae, tmp_path):
    report = export_model(videomae, tmp_path / "out", stock_processor(), int8=("dynamic",), **QUICK)
    assert report.axes == ("batch",) and report.notes == ("fixed: frames, height, width",)
    assert report.files[0].parity.max_difference <= 1e-4
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["input"]["axes"]["frames"] == {"length": 4, "dynamic": False}
    # what a stock processor does, in the words of ours
    assert (
        record["preprocessing"]["crop_size"] == {"height": 32, "width": 32}
        and record["preprocessing"]["num_frames"] == 4
    )
    assert record["preprocessing"]["image_mean"] == [0.5, 0.5, 0.5]
    pixels = torch.randn(3, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_exported(tmp_path / "out")(pixels).logits, videomae(pixels).logits)
    assert next(videomae.parameters()).requires_grad and not list(tmp_path.glob(".*"))


def test_numbers_that_differ_are_refused_and_an_earlier_export_stays(videomae, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("export.json", "model.onnx"):
        (tmp_path / "out" / name).write_text("from before")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ParityError, match=r"by \d.*e-\d+ in a logit.*allowed 1e-12.*12 of 12 clips") as caught:
        export_model(videomae, tmp_path / "out", stock_processor(), tolerance=1e-12, overwrite=True, **QUICK)
    assert "Nothing was written" in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class CountsItsFrames(VideoFocalNetForVideoClassification):
    """Answers otherwise when a clip has exactly 8 frames: a graph for any number of frames cannot."""

    def forward(self, pixel_values, **kwargs):
        output = super().forward(pixel_values)
        output.logits = output.logits * (2.0 if pixel_values.shape[1] == 8 else 1.0)
        return output


def counts_its_frames():
    model = CountsItsFrames(one_block().config).eval()
    model.load_state_dict(one_block().state_dict())
    return model


@pytest.mark.slow
def test_a_graph_that_is_wrong_somewhere_is_written_with_that_axis_fixed(tmp_path):
    report = export_model(counts_its_frames(), tmp_path / "out", tiny_processor(), format="pt2", **QUICK)
    assert report.axes == ("batch", "height", "width")
    assert report.notes[0] == "fixed: frames" and "frames could not stay open" in report.notes[1]
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["input"]["axes"]["height"] == {"length": 32, "dynamic": True, "smallest": 8}
    assert record["files"][0]["parity"]["max_logit_difference"] == 0


@pytest.mark.slow
def test_the_same_in_onnx_where_only_the_numbers_tell(tmp_path):
    report = export_model(counts_its_frames(), tmp_path / "out", tiny_processor(), **QUICK)
    assert report.axes == ("batch", "height", "width")
    assert "differs from the model" in report.notes[1]


@pytest.mark.slow
def test_a_program_in_bfloat16_takes_and_gives_float32(videomae, tmp_path):
    report = export_model(videomae, tmp_path / "out", stock_processor(), format="pt2", dtype="bfloat16", **QUICK)
    assert [row.variant for row in report.files] == ["torch.export bfloat16"]
    pixels = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        found, expected = load_exported(tmp_path / "out")(pixels).logits, videomae(pixels).logits
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.15 * max(1, expected.abs().max())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "onnx, pt2"),
        ({"dtype": "int4"}, "float32, float16, bfloat16"),
        ({"int8": ("static",)}, "dynamic, weight-only"),
        ({"int8": ("dynamic",), "format": "pt2"}, "float32"),
        ({"int8": ("dynamic",), "dtype": "float16"}, "float32"),
        ({"dtype": "bfloat16"}, "no bfloat16"),
        ({"tolerance": 0.0}, "above 0"),
        ({"opset": 7}, "between 18 and"),
    ],
)
def test_options_that_make_no_sense_are_refused(videomae, tmp_path, options, message):
    with pytest.raises(ExportError, match=message):
        export_model(videomae, tmp_path / "out", stock_processor(), **options, **QUICK)
    assert not list(tmp_path.iterdir())


def test_other_peoples_folders_are_never_replaced(videomae, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"no export \(thesis\.tex\)"):
        export_model(videomae, tmp_path, stock_processor(), overwrite=True, **QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="no folder"):
        export_model(videomae, tmp_path / "file", stock_processor(), overwrite=True, **QUICK)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "export.json").write_text("{}")
    with pytest.raises(ExportError, match="--overwrite"):
        export_model(videomae, tmp_path / "export", stock_processor(), **QUICK)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(videomae, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"{missing}.*hf_effvid\[export\]"):
        export_model(videomae, tmp_path / "out", stock_processor(), **QUICK)
    assert not list(tmp_path.iterdir())


def test_the_processor_loads_from_the_folder(exported):
    processor = AutoVideoProcessor.from_pretrained(exported.folder)
    assert processor.num_frames == 8 and processor.crop_size["height"] == 32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("timesformer", ("batch", "frames", "height", "width")),
        ("vivit", ("batch",)),
        ("vjepa2", ("batch", "frames", "height", "width")),
        ("videoprism", ("batch",)),
    ],
)
def test_other_hosts(name, axes, tmp_path):
    report = export_model(HOSTS[name]()[0], tmp_path / "out", HOSTS[name]()[1], **QUICK)
    assert report.axes == axes
    assert report.files[0].parity.max_difference <= 1e-4 and report.files[0].parity.agreement == 1


@pytest.mark.slow
def test_float16_in_onnx(tmp_path):
    model = tiny_focalnet()
    report = export_model(model, tmp_path / "out", tiny_processor(), dtype="float16", opset=21, **QUICK)
    assert report.axes == ("batch", "frames", "height", "width")
    assert 0 < report.files[0].parity.max_relative <= 2e-2
    assert report.files[0].bytes < 0.8 * report.rows[0].bytes


@pytest.mark.slow
def test_adapters_are_merged(tmp_path):
    peft = pytest.importorskip("peft", reason="the train extra is not installed")
    adapted = peft.get_peft_model(one_block(), peft.LoraConfig(r=2, target_modules=["fc1", "fc2"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape))
    adapted.eval()
    export_model(adapted, tmp_path / "out", tiny_processor(), format="pt2", **QUICK)
    pixels = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        expected = adapted(pixel_values=pixels).logits
        assert (one_block()(pixels).logits - expected).abs().max() > 0.01
        torch.testing.assert_close(load_exported(tmp_path / "out")(pixels).logits, expected, atol=1e-4, rtol=1e-4)
