"""What an explanation says is what the model computed, and it says it about models with modulators only."""

import json

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_effvid.explanation import NoModulatorsError, explain_clip, require_modulators


def tiny(model_class=VideoFocalNetForVideoClassification, **overrides):
    torch.manual_seed(0)
    fields = {
        "embed_dim": 8, "depths": [1, 2], "focal_levels": [2, 1], "focal_windows": [3, 3], "num_labels": 3,
        "initialization": "fan_in", "hidden_dropout_prob": 0.3,
    }  # fmt: skip
    return model_class(VideoFocalNetConfig(**{**fields, **overrides}))


def test_maps_are_the_norms_of_the_modulators_of_the_block():
    model, clip = tiny(), torch.randn(1, 4, 3, 32, 48)
    model.train()
    explanation = explain_clip(model, clip, block=1)
    assert model.training, "the model is left in the mode it was in"
    with torch.no_grad():
        output = model.eval()(clip, output_modulators=True)
    assert (explanation.block, explanation.spatial.shape) == (1, (4, 4, 6))
    assert torch.equal(explanation.spatial, output.spatial_modulators[1][0].norm(dim=-1))
    assert torch.equal(explanation.temporal, output.temporal_modulators[1][0].norm(dim=-1))
    assert torch.equal(explanation.logits, output.logits[0])
    assert explain_clip(model, clip[0]).block == 2


def test_gates_are_given_for_every_block_and_level():
    model, clip = tiny(), torch.randn(1, 4, 3, 32, 32)
    told = explain_clip(model, clip).to_dict()
    assert json.loads(json.dumps(told)) == told
    assert [(one["block"], one["stage"], len(one["spatial"]["mean"])) for one in told["gates"]] == [
        (0, 0, 3), (1, 1, 2), (2, 1, 2),
    ]  # fmt: skip
    with torch.no_grad():
        output = model.eval()(clip, output_modulators=True)
    for one, spatial, temporal in zip(told["gates"], output.spatial_gates, output.temporal_gates, strict=True):
        assert one["spatial"]["mean"] == pytest.approx(spatial.mean((0, 1, 2, 3)).tolist(), abs=1e-5)
        assert one["temporal"]["mean_abs"] == pytest.approx(temporal.abs().mean((0, 1, 2, 3)).tolist(), abs=1e-5)


def test_weights_of_the_steps_are_shares():
    explanation = explain_clip(tiny(), torch.randn(1, 6, 3, 32, 32))
    assert sum(explanation.temporal_weight) == pytest.approx(1)
    means = explanation.temporal.mean((1, 2))
    assert explanation.temporal_weight == pytest.approx((means / means.sum()).tolist())
    for one in explanation.relative_maps().values():
        assert one.mean().item() == pytest.approx(1, abs=1e-5)


def test_the_temporal_map_answers_to_other_frames_and_the_spatial_one_does_not():
    model, clip = tiny(), torch.randn(1, 4, 3, 32, 32)
    changed = clip.clone()
    changed[:, 3] += 1.0
    first, second = (explain_clip(model, one, block=0) for one in (clip, changed))
    assert torch.equal(first.spatial[0], second.spatial[0])
    assert not torch.allclose(first.temporal[0], second.temporal[0])


def test_a_model_without_temporal_branch_has_no_temporal_map():
    explanation = explain_clip(tiny(temporal_encoding="none"), torch.randn(1, 4, 3, 32, 32))
    assert explanation.temporal is None and explanation.temporal_weight is None
    assert list(explanation.relative_maps()) == ["spatial modulator"]
    assert all(one["temporal"] is None for one in explanation.to_dict()["gates"])


def test_a_model_without_head_and_tubelets():
    explanation = explain_clip(tiny(VideoFocalNetModel, tubelet_size=2), torch.randn(1, 5, 3, 32, 32))
    assert explanation.logits is None and explanation.spatial.shape == (2, 4, 4)


def test_what_cannot_be_explained_is_refused():
    with pytest.raises(NoModulatorsError, match="'videomae'.*video_focalnet"):
        require_modulators(VideoMAEConfig())
    with pytest.raises(ValueError, match="one clip"):
        explain_clip(tiny(), torch.randn(2, 4, 3, 32, 32))
    with pytest.raises(ValueError, match="from -3 to 2"):
        explain_clip(tiny(), torch.randn(1, 4, 3, 32, 32), block=3)
