"""ReLU in place of GELU, saved as an ordinary checkpoint, and the zeros that it leaves."""

import copy

import pytest
import torch
from transformers import AutoModelForVideoClassification

from hf_effvid import ActionFormerForTemporalActionDetection
from hf_effvid.compression.activation_sparsity import activation_sparsity, replace_activation
from hf_effvid.compression.block_drop import drop_blocks

from ..models.test_clip_backbone import make_model, make_video
from ..models.tiny_videomae import tiny_clips, tiny_videomae
from ..pipelines import hosts
from ..training.small_detection import tiny_detector


def batches():
    return [{"pixel_values": tiny_clips(2), "labels": torch.zeros(2), "index": 3}, {"pixel_values": tiny_clips(1)}]


@pytest.mark.parametrize("name", ["videomae", "vivit", "vjepa2", "timesformer"])
def test_every_mlp_changes_and_the_saved_model_is_the_same(name, tmp_path):
    model, _ = getattr(hosts, name)()
    clips = {model.main_input_name: torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(3))}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        with_gelu = model(**clips).logits
        assert activation_sparsity(model, [clips]).overall < 0.05
        assert replace_activation(model, "relu") is model
        logits = model(**clips).logits
    assert model.config.hidden_act == "relu" and (logits - with_gelu).abs().max() > 1e-3
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    found = activation_sparsity(model, [clips])
    assert 0.2 < found.overall < 0.8 and list(found.per_block) == [0, 1]
    model.save_pretrained(tmp_path)
    again = AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**clips).logits, logits, rtol=0, atol=0)
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds == [type(module).__name__ for module in again.modules()] and "GELUActivation" not in kinds


def test_the_trunk_of_a_detector_after_a_drop(tmp_path):
    model = drop_blocks(make_model(), [0])
    replace_activation(model)
    video = {"pixel_values": make_video(8)}
    assert list(activation_sparsity(model, [video]).per_block) == [1]  # the original number
    model.save_pretrained(tmp_path)
    again = ActionFormerForTemporalActionDetection.from_pretrained(tmp_path).eval()
    assert again.config.backbone_config.hidden_act == "relu"
    with torch.no_grad():
        assert torch.equal(again(**video).logits, model.eval()(**video).logits)


def test_shares_are_those_of_the_values_that_enter_the_second_layer():
    model = replace_activation(tiny_videomae(num_hidden_layers=3)).train()
    seen = {}
    for index, layer in enumerate(model.videomae.encoder.layer):
        layer.output.dense.register_forward_pre_hook(
            lambda module, args, index=index: seen.setdefault(index, []).append(args[0].detach().flatten())
        )
    found = activation_sparsity(model, batches())
    values = {index: torch.cat(parts) for index, parts in seen.items()}
    everything = torch.cat(list(values.values()))
    assert found.num_values == everything.numel()
    assert found.overall == pytest.approx((everything == 0).double().mean().item())
    for index, own in values.items():
        assert found.per_block[index] == pytest.approx((own == 0).double().mean().item())
    assert activation_sparsity(model, batches(), threshold=0.1).overall > found.overall
    assert model.training and all(module.training for module in model.modules())


def test_biases_below_everything_leave_zeros_only():
    model = replace_activation(tiny_videomae())
    with torch.no_grad():
        for layer in model.videomae.encoder.layer:
            layer.intermediate.dense.bias.fill_(-1e4)
    assert activation_sparsity(model, batches()).overall == 1.0


def test_what_has_no_choice_of_activation_says_so():
    for model, part in ((tiny_detector(), None), (hosts.video_focalnet()[0], None), (make_model(), "detector")):
        before = copy.deepcopy(model.config.to_dict())
        with pytest.raises(ValueError, match="no hidden_act"):
            replace_activation(model, "relu", part)
        assert model.config.to_dict() == before
    with pytest.raises(ValueError, match="activation must be one of"):
        replace_activation(tiny_videomae(), "rel")
    with pytest.raises(ValueError, match="At least one batch"):
        activation_sparsity(tiny_videomae(), [])
    clips = torch.randn(1, hosts.FRAMES, 3, hosts.SIZE, hosts.SIZE)
    fixed = activation_sparsity(hosts.video_focalnet()[0], [{"pixel_values": clips}])
    assert fixed.overall < 0.05 and len(fixed.per_block) == 2


def test_another_model_of_the_same_configuration_object_keeps_its_activation():
    teacher = tiny_videomae()
    student = type(teacher)(teacher.config)
    assert student.config is teacher.config
    replace_activation(student, "relu")
    assert student.config.hidden_act == "relu" and teacher.config.hidden_act == "gelu"
