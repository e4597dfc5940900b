"""One export for all tests that look at one: a Video-FocalNet of two blocks whose answers depend on the clip."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.data.synthetic import make_motion_dataset


LABELS = ("moves_left", "moves_right", "grows", "shrinks")


def tiny_focalnet(seed=0, **changes):
    config = VideoFocalNetConfig(
        **{
            "image_size": 32,
            "num_frames": 8,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [1, 2],
            "focal_windows": [3, 3],
            "initialization": "fan_in",
            "id2label": dict(enumerate(LABELS)),
            "label2id": {label: index for index, label in enumerate(LABELS)},
            **changes,
        }
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = VideoFocalNetForVideoClassification(config).eval()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        model.classifier.weight.mul_(3)
    return model


def one_block(**changes):
    """The quickest to trace."""
    return tiny_focalnet(depths=[1], focal_levels=[1], focal_windows=[3], **changes)


def tiny_processor(**changes):
    return EffVidVideoProcessor(**{"num_frames": 8, "size": {"shortest_edge": 36}, "crop_size": 32, **changes})


@dataclass(frozen=True)
class Exported:
    """A checkpoint folder, the model in it, and what was exported of it."""

    checkpoint: Path
    model: VideoFocalNetForVideoClassification
    report: object
    folder: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    from hf_effvid.export import export_model

    root = tmp_path_factory.mktemp("export")
    model = tiny_focalnet()
    model.save_pretrained(root / "tiny")
    tiny_processor().save_pretrained(root / "tiny")
    report = export_model(
        str(root / "tiny"), root / "exported", int8=("dynamic", "weight-only"), rounds=2, progress=False
    )
    return Exported(root / "tiny", model, report, root / "exported")


@pytest.fixture(scope="session")
def motion(tmp_path_factory):
    """8 real mp4 files of 4 motion classes."""
    return make_motion_dataset(
        tmp_path_factory.mktemp("motion"), {"test": 2}, size=48, num_frames=12, classes=LABELS, progress=False
    )
