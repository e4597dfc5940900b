"""Teacher, student, adapters and losses of the published block-drop code, number by number.

The recorded numbers were made by that code (nanxiaolu/Progressive_Block_Drop-TAD at 74bce47) on seeded random weights.
"""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import VideoMAEConfig, VideoMAEModel

from hf_effvid.compression.alignment import (
    boundary_alignment_loss,
    classification_alignment_loss,
    feature_alignment_loss,
)
from hf_effvid.compression.block_drop import drop_blocks
from hf_effvid.compression.block_outputs import record_block_outputs
from hf_effvid.compression.block_table import model_blocks
from hf_effvid.compression.fused_lora import load_fused_lora
from hf_effvid.compression.recovery import merge_recovery_lora, recovery_lora
from hf_effvid.convert.videomae_mmaction import convert_videomae
from hf_effvid.models.clip_trunks import run_trunk


FIXTURES = Path(__file__).parent / "fixtures" / "block_drop"
RECORD = json.loads((FIXTURES / "pbd_vit_s.json").read_text())
DROPPED, DEPTH = RECORD["drop_idx"], RECORD["kwargs"]["depth"]


@pytest.fixture(scope="module")
def recorded():
    return load_file(FIXTURES / "pbd_vit_s.safetensors")


def of(recorded, prefix):
    return {name.removeprefix(prefix): value for name, value in recorded.items() if name.startswith(prefix)}


@pytest.fixture
def teacher(recorded):
    arguments = RECORD["kwargs"]
    config = VideoMAEConfig(
        image_size=arguments["img_size"],
        patch_size=arguments["patch_size"],
        num_frames=arguments["num_frames"],
        hidden_size=arguments["embed_dims"],
        num_hidden_layers=DEPTH,
        num_attention_heads=arguments["num_heads"],
        intermediate_size=arguments["mlp_ratio"] * arguments["embed_dims"],
        layer_norm_eps=arguments["norm_cfg"]["eps"],
    )
    model = VideoMAEModel(config).eval()
    named = {name: value for name, value in of(recorded, "teacher.").items() if not name.startswith("block_out.")}
    del named["feature_map"]
    model.load_state_dict(convert_videomae(named))
    assert min(layer.attention.attention.query.bias.abs().max() for layer in model.encoder.layer) > 0.01
    torch.testing.assert_close(model.embeddings.position_embeddings, named["pos_embed"])
    return model


def run(model, recorded):
    """Outputs of all blocks and the feature map (B, C, T, H, W) of the recorded clips (B, C, T, H, W)."""
    with record_block_outputs(model) as outputs, torch.no_grad():
        tokens = run_trunk(getattr(model, "get_base_model", lambda: model)(), recorded["input"].transpose(1, 2)).tokens
    features = {index: torch.cat(passes) for index, passes in outputs.items()}
    shape = recorded["teacher.feature_map"].shape
    return features, tokens.transpose(1, 2).reshape(shape)


def after_attention(model, recorded):
    """Original index -> hidden states between attention and MLP."""
    states, hooks = {}, []
    for block in model_blocks(model):
        norm = block.module.layernorm_after
        hooks.append(
            norm.register_forward_pre_hook(
                lambda module, args, index=block.original_index: states.__setitem__(index, args[0])
            )
        )
    run(model, recorded)
    for hook in hooks:
        hook.remove()
    return states


def adapted(teacher, recorded):
    """The published student: three blocks, with its adapters."""
    student = recovery_lora(drop_blocks(copy.deepcopy(teacher), DROPPED), rank=RECORD["lora_rank"]).eval()
    load_fused_lora(student, of(recorded, "student."), scale=RECORD["lora_scale"])
    return student


def test_every_block_of_the_teacher(teacher, recorded):
    features, feature_map = run(teacher, recorded)
    assert sorted(features) == list(range(DEPTH))
    for index, output in features.items():
        torch.testing.assert_close(output, recorded[f"teacher.block_out.{index}"], rtol=0, atol=5e-6)
    torch.testing.assert_close(feature_map, recorded["teacher.feature_map"], rtol=0, atol=5e-6)


def test_a_student_without_adapters(teacher, recorded):
    _, feature_map = run(drop_blocks(copy.deepcopy(teacher), DROPPED), recorded)
    torch.testing.assert_close(feature_map, recorded["teacher_dropped_no_lora.feature_map"], rtol=0, atol=5e-6)


def test_fused_adapters_become_separate_ones_and_merge(teacher, recorded):
    student = adapted(teacher, recorded)
    features, feature_map = run(student, recorded)
    torch.testing.assert_close(feature_map, recorded["student.feature_map"], rtol=0, atol=1e-5)
    assert (feature_map - recorded["teacher_dropped_no_lora.feature_map"]).abs().max() > 0.1
    merged = merge_recovery_lora(student)
    after, merged_map = run(merged, recorded)
    assert (merged_map - feature_map).abs().max() < 1e-5
    assert all((after[index] - features[index]).abs().max() < 1e-5 for index in features)
    assert set(merged.state_dict()) == set(drop_blocks(copy.deepcopy(teacher), DROPPED).state_dict())


def test_feature_alignment_on_retained_original_indices(teacher, recorded):
    wanted, _ = run(teacher, recorded)
    features, _ = run(adapted(teacher, recorded), recorded)
    assert sorted(features) == [index for index in range(DEPTH) if index not in DROPPED]
    assert feature_alignment_loss(features, wanted).item() == pytest.approx(RECORD["loss_out"], rel=1e-5)
    # the same on what enters the second norm of every block: attention and its residual
    middle = [after_attention(model, recorded) for model in (adapted(teacher, recorded), teacher)]
    assert feature_alignment_loss(*middle).item() == pytest.approx(RECORD["loss_mid"], rel=1e-5)
    by_position = dict(enumerate(features.values()))
    assert feature_alignment_loss(by_position, wanted).item() != pytest.approx(RECORD["loss_out"], rel=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 3.5])
def test_classification_alignment(recorded, temperature):
    values = classification_alignment_loss(recorded["kd.student_logits"], recorded["kd.teacher_logits"], temperature)
    assert values.mean().item() == pytest.approx(RECORD["kd"]["kl_batchmean_T2"][str(temperature)], rel=1e-5)


def test_classification_alignment_of_one_class_is_zero_as_published(recorded):
    logits = (recorded["kd.student_logits"][:, :1], recorded["kd.teacher_logits"][:, :1])
    as_published = classification_alignment_loss(*logits, exclusive=True)
    assert as_published.mean().item() == RECORD["kd"]["kl_single_class"] == 0.0
    assert classification_alignment_loss(*logits).mean() > 1e-2


@pytest.mark.parametrize("boundary", ["giou", "diou"])
def test_boundary_alignment(recorded, boundary):
    student, teacher = recorded["kd.student_segments"], recorded["kd.teacher_segments"]
    # any point that both segments contain stands for the one that they were seen from
    points = torch.maximum(student[:, 0], teacher[:, 0])
    assert bool((points < torch.minimum(student[:, 1], teacher[:, 1])).all())
    offsets = [torch.stack([points - found[:, 0], found[:, 1] - points], 1) for found in (student, teacher)]
    assert boundary_alignment_loss(*offsets, boundary).mean().item() == pytest.approx(
        RECORD["kd"][f"{boundary}_mean"], rel=1e-5
    )
