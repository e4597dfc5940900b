import pytest

from hf_effvid.data.loading import load_video_dataset
from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


@pytest.fixture(scope="session")
def motion_folder(tmp_path_factory):
    """16 clips of 8 frames of 32x32 in train / validation / test; not to be written to."""
    return tiny_motion_dataset(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="session")
def train_rows(motion_folder):
    return load_video_dataset(motion_folder, split="train")


@pytest.fixture(scope="session")
def processor():
    return EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 24}, crop_size=24)
