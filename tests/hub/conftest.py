import pytest

from hf_effvid.hub.staging import stage_checkpoint

from .tiny_checkpoint import tiny_model, tiny_processor


@pytest.fixture(scope="session")
def staged(tmp_path_factory):
    """A staged tiny checkpoint; tests that change it work on a copy."""
    return stage_checkpoint(tiny_model(), tmp_path_factory.mktemp("stage") / "tiny-focalnet", tiny_processor())
