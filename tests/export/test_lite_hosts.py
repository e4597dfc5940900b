"""LITE on ViViT, V-JEPA 2 and TimeSformer as ONNX files: one file for batches of any size, with the tokens of the model."""

import pytest
import torch

from hf_effvid.export import export_model, load_exported

from ..models.lite_hosts import FRAMES, HOSTS, lite_of, make_clips
from .conftest import tiny_processor


@pytest.mark.slow
@pytest.mark.parametrize("keep_ratio", [0.5, 1.0])
@pytest.mark.parametrize("name", HOSTS)
def test_the_file_takes_any_batch(name, keep_ratio, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    lite = lite_of(HOSTS[name], HOSTS[name].build(), keep_ratio=keep_ratio, scorer="lite", selector_trained=True)
    report = export_model(lite, tmp_path / "out", tiny_processor(num_frames=FRAMES), progress=False, rounds=1)
    assert report.axes[0] == "batch" and report.files[0].parity.max_difference <= 1e-4
    session = load_exported(tmp_path / "out")
    for batch in (1, 3, 5):
        clips = make_clips(batch)
        with torch.no_grad():
            expected = lite(clips).logits
        torch.testing.assert_close(session(clips).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "keep_ratio"),
    [("vivit", 1.0), *(pytest.param(name, ratio, marks=pytest.mark.slow) for name in HOSTS for ratio in (0.5, 1.0))],
)
def test_the_batch_stays_open_when_traced(name, keep_ratio):
    """What needs no runtime: a graph whose first axis has no fixed length."""
    lite = lite_of(HOSTS[name], HOSTS[name].build(), keep_ratio=keep_ratio, scorer="embedding_norm")
    program = torch.export.export(lite, (make_clips(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(make_clips(5)).logits, lite(make_clips(5)).logits)
