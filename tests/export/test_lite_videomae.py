"""A LITE model as an ONNX file: the same tokens, for any batch."""

import pytest
import torch

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.export import export_model, load_exported

from ..models.tiny_videomae import TINY_VIDEOMAE, fill_biases, tiny_clips
from .conftest import tiny_processor


pytest.importorskip("onnxruntime", reason="the export extra is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["lite", "random", "run_length"])
def test_the_file_answers_as_the_model(scorer, tmp_path):
    config = LiteVideoMAEConfig(**TINY_VIDEOMAE, keep_ratio=0.4, scorer=scorer, selector_trained=True)
    model = fill_biases(LiteVideoMAEForVideoClassification(config)).eval()
    report = export_model(model, tmp_path / "out", tiny_processor(num_frames=4), progress=False, rounds=1)
    assert report.axes == ("batch",) and report.files[0].parity.max_difference <= 1e-4
    clips = tiny_clips(batch=5)
    with torch.no_grad():
        expected = model(clips)
        whole = model(clips, keep_ratio=1)
    torch.testing.assert_close(load_exported(tmp_path / "out")(clips).logits, expected.logits, rtol=1e-4, atol=1e-4)
    assert (expected.logits - whole.logits).abs().max() > 1e-2
