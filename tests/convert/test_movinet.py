"""Checkpoints of the PyTorch MoViNet become folders that the auto classes open."""

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_effvid.convert import CONVERTERS, CheckpointError, convert_checkpoint
from tests.parity.student_cases import CASES, assert_same, input_of, recorded, weights_of


STREAM = "movinet_a0_stream_48"
build_config, _ = CONVERTERS["movinet"]


def test_from_the_checkpoint_file_to_the_recorded_logits(tmp_path):
    torch.save(weights_of(STREAM), tmp_path / "modelA0_stream_statedict_v3")
    folder = convert_checkpoint(tmp_path / "modelA0_stream_statedict_v3", tmp_path / "out", "movinet", "a0-stream")
    model = AutoModelForVideoClassification.from_pretrained(folder).double()
    with torch.no_grad():
        assert_same(model(input_of(STREAM).transpose(1, 2)).logits, recorded(STREAM)["logits"])
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.target_fps, processor.crop_size["height"]) == (50, 5, 172)
    video = torch.randint(0, 256, (60, 3, 180, 200), dtype=torch.uint8)
    pixels = processor(video)["pixel_values"]
    assert 0 <= pixels.min() < 0.05 and 0.95 < pixels.max() <= 1  # plain pixels


def test_what_is_no_movinet_is_refused(tmp_path):
    weights = {name: torch.zeros(shape) for name, shape in CASES[STREAM]["state_shapes"].items()}
    for changed, message in (
        ({"movinet.stem.norm.weight": torch.zeros(8)}, "already have our names"),
        ({"conv1.weight": torch.zeros(1)}, "it has no conv1.conv_1.conv3d.weight"),
        ({**weights, "blocks.b9_l9.alpha": torch.zeros(())}, "has 16 blocks"),
        (
            {**weights, "blocks.b0_l0.deep.conv_3.conv2d.weight": torch.zeros(1)},
            "'blocks.b0_l0.deep.conv_3.conv2d.weight' is not",
        ),
    ):
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(tmp_path / "changed.pth", tmp_path / "out", "movinet")


def test_arguments_of_the_constructor():
    config = build_config({"cfg": "MoViNetA2", "causal": False, "num_classes": 7})
    assert (config.stem_size, config.num_labels, config.causal, config.image_size) == (16, 7, False, 224)
    with pytest.raises(ValueError, match="conv_type='3d' has no counterpart"):
        build_config({"causal": True})
    with pytest.raises(ValueError, match="tf_like=False has no counterpart"):
        build_config({"causal": False, "tf_like": False})
