"""Models that the speed of the small video CNNs is measured on: all of them, their teachers and VideoMAE, with random weights.

Time does not depend on what a model knows. Each is run on clips of the frames and size that it is meant for.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from ..models.configuration_movinet import MoViNetConfig
from ..models.configuration_torchvision_video import TorchvisionVideoConfig
from ..models.configuration_tsm import TSMConfig
from ..models.configuration_video_focalnet import VideoFocalNetConfig
from ..models.configuration_x3d import X3DConfig
from ..models.modeling_movinet import MoViNetForVideoClassification
from ..models.modeling_torchvision_video import TorchvisionVideoForVideoClassification
from ..models.modeling_tsm import TSMForVideoClassification
from ..models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from ..models.modeling_x3d import X3DForVideoClassification
from .benchmark_variants import BenchmarkVariant


FAMILIES = {
    "tsm": (TSMConfig, TSMForVideoClassification),
    "movinet": (MoViNetConfig, MoViNetForVideoClassification),
    "x3d": (X3DConfig, X3DForVideoClassification),
    "torchvision_video": (TorchvisionVideoConfig, TorchvisionVideoForVideoClassification),
    "video_focalnet": (VideoFocalNetConfig, VideoFocalNetForVideoClassification),
}
VIDEOMAE = {
    "small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {},
}


class Subject(NamedTuple):
    """What is measured: a preset of a family on clips of so many frames and pixels a side."""

    family: str
    preset: str
    frames: int
    size: int

    @property
    def name(self) -> str:
        """As in tables: `x3d s, 13x160`."""
        return f"{self.family} {self.preset}, {self.frames}x{self.size}"


BASELINE = Subject("videomae", "base", 16, 224)
STUDENTS = (
    Subject("tsm", "mobilenetv4-small", 8, 224),
    Subject("tsm", "mobilenetv2", 8, 224),
    Subject("tsm", "efficientnet-lite0", 8, 224),
    Subject("tsm", "resnet18", 8, 224),
    Subject("tsm", "resnet50", 8, 224),
    Subject("movinet", "a0", 8, 224),
    Subject("movinet", "a0", 16, 172),
    Subject("movinet", "a0-stream", 16, 172),
    Subject("movinet", "a1", 16, 172),
    Subject("movinet", "a2", 16, 224),
    Subject("x3d", "xs", 4, 160),
    Subject("x3d", "s", 13, 160),
    Subject("x3d", "m", 16, 224),
)
TEACHERS = (
    Subject("videomae", "small", 16, 224),
    Subject("video_focalnet", "tiny", 8, 224),
    Subject("torchvision_video", "mvit_v2_s", 16, 224),
    Subject("torchvision_video", "r2plus1d_18", 16, 112),
    Subject("torchvision_video", "s3d", 16, 224),
)
# those that fold convolutions, and how they are called where they do not
FOLDING = (Subject("movinet", "a0", 16, 172), Subject("movinet", "a0-stream", 16, 172), Subject("x3d", "s", 13, 160))
ONE_BY_ONE = ", modules one by one"
# how many times faster than the baseline they should be on a processor, one clip at a time
GOALS = {
    Subject("tsm", "mobilenetv4-small", 8, 224): 60.0,
    Subject("movinet", "a0", 8, 224): 45.0,
    Subject("movinet", "a0", 16, 172): 45.0,
    Subject("x3d", "s", 13, 160): 25.0,
    Subject("tsm", "resnet18", 8, 224): 14.0,
}


def build(subject: Subject, num_labels: int = 400) -> nn.Module:
    """The model with random weights, the same at every call."""
    torch.manual_seed(0)
    shape = {"num_frames": subject.frames, "image_size": subject.size}
    if subject.family == "videomae":
        config = VideoMAEConfig(**VIDEOMAE[subject.preset], **shape, num_labels=num_labels)
        return VideoMAEForVideoClassification(config).eval()
    config_class, model_class = FAMILIES[subject.family]
    return model_class(config_class.from_preset(subject.preset, **shape, num_labels=num_labels)).eval()


def build_one_by_one(subject: Subject) -> nn.Module:
    """The same with a hook that does nothing on every convolution, so that none is folded with what follows it."""
    model = build(subject)
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(_nothing)
    return model


def _nothing(module, arguments, output):
    return None


def variants(subjects, one_by_one=()) -> list[BenchmarkVariant]:
    """What `benchmark` measures: models as they are, and those whose modules run one by one."""
    return [
        BenchmarkVariant(s.name + suffix, partial(function, s), clip_shape=(s.frames, 3, s.size, s.size))
        for group, suffix, function in ((subjects, "", build), (one_by_one, ONE_BY_ONE, build_one_by_one))
        for s in group
    ]


def check_goals(report) -> tuple[list[str], bool]:
    """One line for every model with a goal, one clip at a time, and whether all goals are met."""
    goals, lines, met = {subject.name: goal for subject, goal in GOALS.items()}, [], True
    for m in report.measurements:
        if m.name not in goals or m.batch_size != 1 or m.speedup is None:
            continue
        reached, (low, high) = m.speedup.median >= goals[m.name], m.speedup.interval
        met &= reached
        lines.append(
            f"{m.name}: {m.speedup.median:.1f} times ({low:.1f} to {high:.1f}) faster than {report.baseline}, goal "
            f"{goals[m.name]:.0f}: {'met' if reached else 'MISSED'}"
        )
    return lines, met
