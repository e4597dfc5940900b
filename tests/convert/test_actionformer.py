"""ActionFormer checkpoints of the original project and of OpenTAD become folders that AutoModel opens."""

import json

import pytest
import torch
from transformers import AutoModel

from hf_effvid import ActionFormerConfig
from hf_effvid.convert import CheckpointError, convert_checkpoint
from hf_effvid.convert.actionformer import (
    PRESETS,
    build_config,
    config_for,
    convert_state_dict,
    layout_of,
    restore_state_dict,
)
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from tests.parity.actionformer_reference import CASES, ReferenceCase


# what the weights do not show
TRACELESS = ("n_mha_win_size", "use_abs_pe", "max_seq_len", "regression_range", "train_cfg")


@pytest.fixture(params=CASES)
def case(request):
    return ReferenceCase(request.param)


def traceless(case):
    arguments = case.record["model_kwargs"]
    return {name: arguments[name] for name in TRACELESS if name in arguments}


def write_training_checkpoint(path, averaged, last):
    """A file as the official training script leaves it, with the keys of data-parallel training."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 1.0])
    torch.save(
        {
            "epoch": 35,
            "state_dict": {f"module.{name}": value for name, value in last.items()},
            "state_dict_ema": {f"module.{name}": value for name, value in averaged.items()},
            "scheduler": schedule.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        path,
    )


def test_from_the_averaged_weights_of_a_training_checkpoint_to_the_recorded_logits(case, tmp_path):
    last = {name: torch.zeros_like(value) for name, value in case.official_weights.items()}
    write_training_checkpoint(tmp_path / "epoch_035.pth.tar", case.official_weights, last)
    folder = convert_checkpoint(
        tmp_path / "epoch_035.pth.tar", tmp_path / "out", "actionformer", arguments=traceless(case)
    )
    model = AutoModel.from_pretrained(folder)
    assert type(model) is ActionFormerForTemporalActionDetection
    with torch.no_grad():
        logits = model(*case.evaluation_inputs(1)).logits
    torch.testing.assert_close(logits, case.levels("eval1.cls_logits"), rtol=1e-5, atol=1e-5)
    assert model.config.mask_after_norm == "nowhere"
    assert model.loss_normalizer.value == case.config.loss_normalizer_init
    record = json.loads((folder / "conversion.json").read_text())
    assert record["parameters"] == case.record["n_params"] and "61ea7eb" in record["reference"]


def test_opentad_weights_bring_their_own_masking_epsilon_and_count(case, tmp_path):
    weights = {**case.model.state_dict(), "loss_normalizer.value": torch.tensor(64.5)}
    theirs = restore_state_dict(weights, "opentad")
    assert layout_of(theirs) == "opentad"
    assert all(value.ndim == 1 for name, value in theirs.items() if name.endswith(("ln1.weight", "norm.weight")))
    torch.save({"state_dict_ema": theirs, "epoch": 59}, tmp_path / "opentad.pth")
    folder = convert_checkpoint(tmp_path / "opentad.pth", tmp_path / "out", "actionformer", arguments=traceless(case))
    model = AutoModel.from_pretrained(folder)
    assert (model.config.mask_after_norm, model.config.convolution_norm_eps) == ("convolutions", 1e-6)
    assert model.loss_normalizer.value == 64.5
    # without padding the two layouts are one model, up to the epsilon
    features, mask = case.evaluation_inputs(0)
    features = features[:, : int(mask.sum()) - int(mask.sum()) % 8]
    with torch.no_grad():
        torch.testing.assert_close(model(features).logits, case.model(features).logits, rtol=1e-3, atol=1e-3)


def test_arguments_are_read_off_the_weights(case):
    found = config_for(case.official_weights, arguments=traceless(case))
    assert found.to_dict() == case.config.to_dict()


OPTIONS = {
    "fpn": {"fpn_type": "fpn", "fpn_dim": 12, "head_dim": 10, "head_num_layers": 2, "head_kernel_size": 1},
    "two kinds of features": {"input_dim": [4, 6], "embd_dim": [5, 11]},
    "relative positions, no stochastic depth": {"use_rel_pe": True, "train_cfg": {"droppath": 0.0}},
}


@pytest.mark.parametrize("layout", ["official", "opentad"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_that_the_recorded_models_do_not_have(options, layout):
    """There and back for every parameter of these models, and the configuration again from names and shapes."""
    arguments = {
        "input_dim": 6,
        "embd_dim": 16,
        "fpn_dim": 16,
        "head_dim": 16,
        "backbone_arch": [2, 1, 2],
        "n_mha_win_size": 5,
        "num_classes": 4,
        **options,
    }
    config = build_config(arguments)
    model = ActionFormerForTemporalActionDetection(config)
    theirs = restore_state_dict(model.state_dict(), layout)
    again = convert_state_dict(theirs)
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items() if name in again)
    assert set(model.state_dict()) - set(again) <= {"loss_normalizer.value"}
    found = config_for(theirs, arguments={"n_mha_win_size": 5})
    same = (
        "input_size",
        "projection_sizes",
        "hidden_size",
        "num_stem_layers",
        "num_branch_layers",
        "neck_type",
        "neck_size",
        "head_size",
        "num_head_layers",
        "head_kernel_size",
        "use_relative_positions",
        "use_layer_scale",
    )
    assert {name: getattr(found, name) for name in same} == {name: getattr(config, name) for name in same}


def make_end_to_end():
    torch.manual_seed(0)
    trunk = {"model_type": "videomae", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    trunk |= {"intermediate_size": 12, "patch_size": 8, "image_size": 32, "num_frames": 4, "layer_norm_eps": 1e-6}
    head = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_branch_layers": 1,
        "attention_window": -1,
        "num_labels": 3,
    }
    config = ActionFormerConfig(
        **head, backbone_config=trunk, mask_after_norm="convolutions", convolution_norm_eps=1e-6, frames_per_step=2
    )
    model = ActionFormerForTemporalActionDetection(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def test_an_end_to_end_detector_of_opentad(tmp_path):
    model = make_end_to_end()
    theirs = restore_state_dict(model.state_dict(), "opentad")
    assert theirs["backbone.model.backbone.blocks.1.attn.qkv.weight"].shape == (24, 8)
    assert not any("query" in name and name.startswith("backbone") for name in theirs)
    theirs["backbone.model.backbone.pos_embed"] = torch.zeros(1, 32, 8)  # made anew here
    torch.save({"state_dict_ema": theirs}, tmp_path / "end_to_end.pth")
    arguments = {"n_mha_win_size": -1, "frames_per_step": 2, "n_head": 2}
    arguments["backbone"] = {"num_attention_heads": 2, "image_size": 32, "num_frames": 4}
    folder = convert_checkpoint(tmp_path / "end_to_end.pth", tmp_path / "out", "actionformer", arguments=arguments)
    again = AutoModel.from_pretrained(folder)
    video = torch.randn(1, 10, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            again(pixel_values=video).logits, model(pixel_values=video).logits, rtol=1e-6, atol=1e-6
        )
    with pytest.raises(KeyError, match="adapter"):
        convert_state_dict({**theirs, "backbone.model.backbone.blocks.0.adapter.gamma": torch.ones(1)})
    with pytest.raises(KeyError, match="not a parameter of an ActionFormer"):
        restore_state_dict(model.state_dict(), "official")


def test_released_models_are_known_by_width_and_classes():
    arguments = {"input_dim": 2048, "embd_dim": 512, "fpn_dim": 512, "head_dim": 512, "num_classes": 20}
    with torch.device("meta"):
        model = ActionFormerForTemporalActionDetection(build_config(arguments))
    config = config_for(restore_state_dict(model.state_dict()))
    assert config.attention_window == 19 and config.max_sequence_length == 2304
    assert config.regression_ranges == [[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, 10000]]
    assert config_for(restore_state_dict(model.state_dict()), "epic_kitchens").regression_ranges[1] == [2, 8]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_architectures(preset):
    config = build_config({**PRESETS[preset], "backbone_arch": [2, 2, 5]})
    config.validate_architecture()


def test_what_cannot_be_converted_is_named(case):
    with pytest.raises(ValueError, match="of no released model"):
        config_for(case.official_weights)
    with pytest.raises(ValueError, match="no preset 'thumos'"):
        config_for(case.official_weights, "thumos")
    with pytest.raises(KeyError, match="from_pretrained"):
        config_for(case.model.state_dict())
    with pytest.raises(KeyError, match="neither"):
        config_for({"patch_embed.proj.weight": torch.zeros(1)})
    with pytest.raises(KeyError, match="cls_head.unknown"):
        convert_state_dict({**case.official_weights, "cls_head.unknown": torch.zeros(1)})
    with pytest.raises(ValueError, match="no layout"):
        restore_state_dict({}, "mmaction")
    for arguments in ({"scale_factor": 4}, {"backbone_type": "conv"}, {"no_such": 1}, {"train_cfg": {"no_such": 1}}):
        with pytest.raises(ValueError, match="only|Only|no argument"):
            build_config(arguments)


def test_a_damaged_checkpoint_is_refused(case, tmp_path):
    weights = dict(case.official_weights)
    del weights["neck.fpn_norms.1.bias"]
    torch.save(weights, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match="missing: actionformer.neck.norms.1.bias"):
        convert_checkpoint(tmp_path / "broken.pth", tmp_path / "out", "actionformer", arguments=traceless(case))
