import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import EffVidVideoProcessor
from hf_effvid.data.synthetic import make_motion_dataset


CLASSES = ("moves_left", "moves_right", "grows", "shrinks")


@pytest.fixture(scope="session")
def motion_folder(tmp_path_factory):
    """12 real mp4 files of 4 motion classes."""
    root = tmp_path_factory.mktemp("motion")
    return make_motion_dataset(
        root, clips_per_class={"test": 3}, size=32, num_frames=10, seed=0, classes=CLASSES, progress=False
    )


@pytest.fixture(scope="session")
def processor():
    return EffVidVideoProcessor(
        num_frames=4, size={"shortest_edge": 36}, crop_size=32, num_clips=2, num_crops=3, aggregation="softmax_mean"
    )


def tiny_videomae(labels, problem_type=None, seed=0):
    """A VideoMAE whose answers depend on the video: random weights and a head that is not zero."""
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        tubelet_size=2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=problem_type,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = VideoMAEForVideoClassification(config)
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def model():
    return tiny_videomae(CLASSES)
