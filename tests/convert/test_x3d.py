"""Checkpoints of pytorchvideo's X3D become folders that the auto classes open."""

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_effvid.convert import CONVERTERS, CheckpointError, convert_checkpoint
from hf_effvid.convert.x3d import config_for, preset_of
from tests.parity.student_cases import CASES, assert_same, input_of, recorded, weights_of


CASE = "x3d_xs_like_T4_64"
build_config, convert_state_dict = CONVERTERS["x3d"]


def test_from_the_checkpoint_file_to_the_recorded_logits(tmp_path):
    torch.save({"model_state": weights_of(CASE)}, tmp_path / "X3D_XS.pyth")
    folder = convert_checkpoint(
        tmp_path / "X3D_XS.pyth", tmp_path / "out", "x3d", "xs", arguments={"input_crop_size": 64}
    )
    model = AutoModelForVideoClassification.from_pretrained(folder).double()
    with torch.no_grad():
        assert_same(model(input_of(CASE).transpose(1, 2)).logits, recorded(CASE)["logits"])
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.frame_stride, processor.crop_size["height"]) == (4, 12, 64)
    assert list(processor.image_mean) == [0.45] * 3 and list(processor.image_std) == [0.225] * 3


def zeros(**changes):
    weights = {name: torch.zeros(shape) for name, shape in CASES[CASE]["state_shapes"].items()}
    return {**weights, **changes}


def test_the_size_is_read_off_the_weights():
    assert preset_of(config_for(zeros())) == "s"
    assert preset_of(config_for(zeros(), "m")) == "m"
    deeper = zeros(**{
        f"blocks.{stage}.res_blocks.{index}.branch2.conv_a.weight": torch.zeros(1)
        for stage, depth in enumerate((5, 10, 25, 15), 1)
        for index in range(depth)
    })  # fmt: skip
    assert preset_of(config_for(deeper)) == "l"
    with pytest.raises(ValueError, match=r"not of preset 's': they have \[5, 10, 25, 15\]"):
        config_for(deeper, "s")
    with pytest.raises(ValueError, match="no argument 'depth_factor' that leaves no trace"):
        config_for(zeros(), arguments={"depth_factor": 3})


def test_arguments_of_the_constructor():
    large = build_config(
        {"input_clip_length": 16, "input_crop_size": 312, "depth_factor": 5.0, "model_num_class": 400}
    )
    assert (large.depths, large.hidden_sizes, large.num_labels) == ([5, 10, 25, 15], [24, 48, 96, 192], 400)
    assert large.inner_sizes == [54, 108, 216, 432] and preset_of(large) == "l"
    with pytest.raises(ValueError, match="no argument 'stem_conv_stride' that we know"):
        build_config({"stem_conv_stride": 4})


def test_what_is_no_x3d_is_refused(tmp_path):
    for changed, message in (
        ({"x3d.stem.norm.weight": torch.zeros(24)}, "already have our names"),
        ({"conv1.weight": torch.zeros(1)}, "it has no blocks.0.conv.conv_t.weight"),
        (
            zeros(**{"blocks.1.res_blocks.0.branch9.weight": torch.zeros(1)}),
            "'blocks.1.res_blocks.0.branch9.weight' is not",
        ),
    ):
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(tmp_path / "changed.pth", tmp_path / "out", "x3d")
