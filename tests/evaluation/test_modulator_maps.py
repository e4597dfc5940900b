import numpy as np
import pytest
import torch
from PIL import Image

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.evaluation.modulator_maps import modulator_maps, plot_modulator_strip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = VideoFocalNetConfig(
        embed_dim=8, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3], initialization="fan_in", num_labels=3
    )
    return VideoFocalNetForVideoClassification(config)


def test_maps_have_the_size_of_the_frames_and_a_common_scale(model):
    spatial, temporal = modulator_maps(model, torch.randn(1, 4, 3, 32, 48))
    for maps in (spatial, temporal):
        assert maps.shape == (4, 32, 48)
        assert maps.min() == 0 and maps.max() == 1


def test_the_temporal_map_answers_to_other_frames_and_the_spatial_one_does_not(model):
    clip = torch.randn(1, 4, 3, 32, 32)
    changed = clip.clone()
    changed[:, 3] += 1.0
    first = model(clip, output_modulators=True)
    second = model(changed, output_modulators=True)
    assert torch.equal(first.spatial_modulators[0][:, 0], second.spatial_modulators[0][:, 0])
    assert not torch.allclose(first.temporal_modulators[0][:, 0], second.temporal_modulators[0][:, 0])


def test_a_model_without_modulators_is_refused(model):
    with pytest.raises(ValueError, match="one clip"):
        modulator_maps(model, torch.randn(2, 4, 3, 32, 32))
    model_like = type("Model", (), {"config": type("Config", (), {"model_type": "videomae"})()})()
    with pytest.raises(ValueError, match="videomae"):
        modulator_maps(model_like, torch.randn(1, 4, 3, 32, 32))


def test_the_strip_is_a_picture_with_three_rows(model, tmp_path):
    frames = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    spatial, temporal = modulator_maps(model, torch.randn(1, 4, 3, 32, 32))
    path = plot_modulator_strip(frames, spatial, temporal, tmp_path / "strip.png", title="class $x^2$ <b>")
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[0] > 300 and picture.std() > 10
