# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of torchvision's video networks as models of transformers."""

import copy

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig


_KINETICS = {"image_mean": [0.43216, 0.394666, 0.37645], "image_std": [0.22803, 0.22145, 0.216989]}
_PYTORCHVIDEO = {"image_mean": [0.45] * 3, "image_std": [0.225] * 3}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

_RESNET = {
    "family": "resnet",
    "depths": [2, 2, 2, 2],
    "num_frames": 16,
    "image_size": 112,
    "resize": {"height": 128, "width": 171},
    "fps": 15,
    "num_clips": 5,
    "pixels": _KINETICS,
}
_S3D = {
    "family": "s3d",
    "num_frames": 128,
    "image_size": 224,
    "resize": {"height": 256, "width": 256},
    "fps": 15,
    "num_clips": 1,
    "pixels": _KINETICS,
}
_MVIT = {
    "family": "mvit",
    "stem_size": 96,
    "depths": [1, 2, 11, 2],
    "num_frames": 16,
    "image_size": 224,
    "resize": {"shortest_edge": 256},
    "fps": 7.5,
    "num_clips": 5,
    "pixels": _PYTORCHVIDEO,
}
_SWIN = {
    "family": "swin",
    "stem_size": 96,
    "depths": [2, 2, 6, 2],
    "num_frames": 32,
    "image_size": 224,
    "resize": {"shortest_edge": 256},
    "fps": 15,
    "num_clips": 12,
    "pixels": _IMAGENET,
}
# torchvision's names, and how the weights on Kinetics-400 that it publishes were tested
NETWORKS = {
    "r3d_18": _RESNET,
    "mc3_18": _RESNET,
    "r2plus1d_18": _RESNET,
    "s3d": _S3D,
    "mvit_v1_b": _MVIT,
    "mvit_v2_s": _MVIT,
    "swin3d_t": _SWIN,
    "swin3d_s": {**_SWIN, "depths": [2, 2, 18, 2]},
    "swin3d_b": {**_SWIN, "depths": [2, 2, 18, 2], "stem_size": 128},
}


def _known(value):
    if value not in NETWORKS:
        raise ValueError(f"expected one of {', '.join(NETWORKS)}, got {value!r}")


def _at_least_one(value):
    if value is not None and value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _stages(value):
    if value is not None and (len(value) == 0 or any(number < 1 for number in value)):
        raise ValueError(f"expected at least one stage and whole numbers of at least 1, got {list(value)}")


def _rate(value):
    if value is not None and not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _image_size(value):
    sides = value if isinstance(value, (list, tuple)) else [value]
    if value is not None and (
        any(side < 1 for side in sides) or (isinstance(value, (list, tuple)) and len(sides) != 2)
    ):
        raise ValueError(f"expected a size in pixels or (height, width), got {value}")


def pixel_recipe(config):
    """Mean and standard deviation that the pixels of a network are normalised with, as fields of a processor.

    Args:
        config: A `TorchvisionVideoConfig`.
    """
    return dict(NETWORKS[config.network]["pixels"])


@strict
class TorchvisionVideoConfig(PreTrainedConfig):
    """Architecture of a video network that torchvision defines.

    R(2+1)D-18, R3D-18, MC3-18, S3D, MViTv2-S and Swin3D take clips of any length and size (S3D from 5 frames of 17 x 17 pixels on);
    for them `num_frames` and `image_size` record what the model was trained with. MViTv2-S also makes its tables of relative positions
    for that size, and interpolates them for others. MViTv1-B takes clips of exactly that size.

    Args:
        network: Name in `torchvision.models.video`: `"r3d_18"`, `"mc3_18"`, `"r2plus1d_18"`, `"s3d"`, `"mvit_v1_b"`, `"mvit_v2_s"`,
            `"swin3d_t"`, `"swin3d_s"` or `"swin3d_b"`.
        num_frames: Frames per clip that the checkpoint was trained with; None: those of torchvision's weights.
        image_size: Height and width in pixels that it was trained with, one number for a square; None: that of torchvision's weights.
        depths: Blocks per stage; None: those of torchvision's network. S3D has no such number.
        stem_size: Channels of the first stage of MViT and Swin3D, doubled from stage to stage; None: those of torchvision's network.
        num_channels: Channels of a frame; torchvision's networks take 3.
        classifier_dropout: Dropout before the classifier; None: torchvision's (.2 of S3D, .5 of MViT, none of the others).
        drop_path_rate: Stochastic depth of MViT and Swin3D; None: torchvision's (.2 and .1). The convolutional networks have none.

    Example:
        >>> from hf_effvid import TorchvisionVideoConfig, TorchvisionVideoForVideoClassification
        >>> model = TorchvisionVideoForVideoClassification(TorchvisionVideoConfig.from_preset("s3d", num_labels=10))
    """

    model_type = "torchvision_video"

    network: str = validated_field(_known, default="r2plus1d_18")
    num_frames: int | None = validated_field(_at_least_one, default=None)
    image_size: int | list[int] | tuple[int, ...] | None = validated_field(_image_size, default=None)
    depths: list[int] | tuple[int, ...] | None = validated_field(_stages, default=None)
    stem_size: int | None = validated_field(_at_least_one, default=None)
    num_channels: int = validated_field(_at_least_one, default=3)
    classifier_dropout: float | int | None = validated_field(_rate, default=None)
    drop_path_rate: float | int | None = validated_field(_rate, default=None)

    def __post_init__(self, **kwargs):
        native = NETWORKS.get(self.network, {})
        for name in ("num_frames", "image_size", "depths", "stem_size"):
            if getattr(self, name) is None and name in native:
                setattr(self, name, copy.copy(native[name]))
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, preset, **overrides):
        """Builds the configuration of a network of torchvision.

        Args:
            preset: Name of the network, such as `"r2plus1d_18"`.
            **overrides: Fields to set on top, such as `num_labels` or `image_size`.

        Raises:
            ValueError: torchvision has no such network.
        """
        if preset not in NETWORKS:
            raise ValueError(
                f"TorchvisionVideoConfig.from_preset expects one of {', '.join(NETWORKS)}, got {preset!r}."
            )
        return cls(**{"network": preset, **overrides})

    @property
    def family(self):
        """`"resnet"`, `"s3d"`, `"mvit"` or `"swin"`."""
        return NETWORKS[self.network]["family"]

    @property
    def hidden_size(self):
        """Channels of the last feature map."""
        if self.stem_size is None:
            return 1024 if self.family == "s3d" else 512
        return self.stem_size * 2 ** (len(self.depths) - 1)

    @property
    def frame_shape(self):
        """(height, width) that the checkpoint was trained with."""
        size = self.image_size
        return tuple(size) if isinstance(size, (list, tuple)) else (size, size)

    def validate_architecture(self):
        """Checks what no field can know alone; the model calls it again, since fields may be set after construction.

        Raises:
            ValueError: The fields contradict each other, or torchvision's network has no such variant.
        """
        if self.num_channels != 3:
            raise ValueError(
                f"torchvision's {self.network} takes frames of 3 channels, got num_channels={self.num_channels}."
            )
        fixed = {"s3d": ("depths", "stem_size"), "resnet": ("stem_size",)}.get(self.family, ())
        for name in fixed:
            if getattr(self, name) is not None:
                raise ValueError(f"torchvision's {self.network} has no {name} to set.")
        if self.family == "resnet" and len(self.depths) != 4:
            raise ValueError(f"{self.network} has four stages, got depths={list(self.depths)}.")
        if self.family in ("resnet", "s3d") and self.drop_path_rate:
            raise ValueError(f"{self.network} has no stochastic depth, got drop_path_rate={self.drop_path_rate}.")
        if self.family in ("mvit", "swin") and sum(self.depths) < 2:
            raise ValueError(
                f"torchvision's {self.network} needs at least two blocks, got depths={list(self.depths)}."
            )
        if self.family == "mvit":
            self._validate_mvit()

    def _validate_mvit(self):
        if self.num_frames < 2 or max(self.frame_shape) < 32:
            raise ValueError(
                f"{self.network} needs num_frames of at least 2 and an image_size of at least 32 pixels along one side, got "
                f"{self.num_frames} frames of {self.frame_shape}."
            )
        if self.network == "mvit_v1_b" and (self.num_frames % 2 or any(side % 4 for side in self.frame_shape)):
            raise ValueError(
                "mvit_v1_b has one position per patch of 2 frames of 4 x 4 pixels: num_frames must be even and image_size a multiple "
                f"of 4, got {self.num_frames} frames of {self.frame_shape}."
            )


__all__ = ["TorchvisionVideoConfig"]
