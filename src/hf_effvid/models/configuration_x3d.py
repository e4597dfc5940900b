# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of X3D (https://huggingface.co/papers/2004.04730)."""

import copy

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig


# the released sizes: XS, S and M are one network at other clips, L is deeper
PRESETS = {
    "xs": {"num_frames": 4, "image_size": 160, "frame_stride": 12},
    "s": {"num_frames": 13, "image_size": 160, "frame_stride": 6},
    "m": {"num_frames": 16, "image_size": 224, "frame_stride": 5},
    "l": {"num_frames": 16, "image_size": 312, "frame_stride": 5, "depths": [5, 10, 25, 15]},
}


def _at_least_one(value):
    if value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _stages(value):
    if len(value) == 0 or any(number < 1 for number in value):
        raise ValueError(f"expected at least one stage and whole numbers of at least 1, got {list(value)}")


def _rate(value):
    if not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _positive(value):
    if not value > 0:
        raise ValueError(f"expected a number above 0, got {value}")


@strict
class X3DConfig(PreTrainedConfig):
    """Architecture of an X3D.

    The defaults are those of X3D-S. `num_frames` and `image_size` say what clips the head pools over at once: a larger clip or crop is
    classified at every place where such a window fits, and the results are averaged.

    Args:
        num_frames: Frames per clip that the checkpoint was trained with.
        image_size: Height and width in pixels that it was trained with.
        frame_stride: Distance of two frames in the videos that it was trained on.
        num_channels: Channels of a frame.
        stem_size: Channels of the stem.
        hidden_sizes: Channels of every stage.
        depths: Blocks per stage. Every stage begins with a stride of 2 in space; time is never strided.
        bottleneck_factor: Inner channels of a block over its channels.
        se_ratio: Channels of squeeze-and-excitation over the inner ones, in the first block of a stage and every second one after it;
            they are rounded to multiples of 8.
        head_size: Channels of the hidden layer of the head.
        classifier_dropout: Dropout before the classifier.
        batch_norm_eps, batch_norm_momentum: Of every batch norm.
        initializer_range: Standard deviation of the classifier's weights.

    Example:
        >>> from hf_effvid import X3DConfig, X3DForVideoClassification
        >>> model = X3DForVideoClassification(X3DConfig.from_preset("s", num_labels=10))
    """

    model_type = "x3d"

    num_frames: int = validated_field(_at_least_one, default=13)
    image_size: int = validated_field(_at_least_one, default=160)
    frame_stride: int = validated_field(_at_least_one, default=6)
    num_channels: int = validated_field(_at_least_one, default=3)
    stem_size: int = validated_field(_at_least_one, default=24)
    hidden_sizes: list[int] | tuple[int, ...] = validated_field(_stages, default=(24, 48, 96, 192))
    depths: list[int] | tuple[int, ...] = validated_field(_stages, default=(3, 5, 11, 7))
    bottleneck_factor: float | int = validated_field(_positive, default=2.25)
    se_ratio: float | int = validated_field(_positive, default=0.0625)
    head_size: int = validated_field(_at_least_one, default=2048)
    classifier_dropout: float | int = validated_field(_rate, default=0.5)
    batch_norm_eps: float | int = validated_field(_positive, default=1e-5)
    batch_norm_momentum: float | int = validated_field(_positive, default=0.1)
    initializer_range: float | int = validated_field(_positive, default=0.01)

    @classmethod
    def from_preset(cls, preset, **overrides):
        """Builds the configuration of a released size.

        Args:
            preset: `"xs"`, `"s"`, `"m"` or `"l"`.
            **overrides: Fields to set on top, such as `num_labels`.

        Raises:
            ValueError: The preset does not exist.
        """
        if preset not in PRESETS:
            raise ValueError(f"X3DConfig.from_preset expects one of {', '.join(PRESETS)}, got {preset!r}.")
        return cls(**{**copy.deepcopy(PRESETS[preset]), **overrides})

    @property
    def inner_sizes(self):
        """Channels inside the blocks of every stage."""
        return [int(channels * self.bottleneck_factor) for channels in self.hidden_sizes]

    @property
    def hidden_size(self):
        """Channels of the last feature map."""
        return self.hidden_sizes[-1]

    @property
    def num_hidden_layers(self):
        """Blocks over all stages."""
        return sum(self.depths)

    @property
    def reduction(self):
        """Pixels of a frame per site of the last feature map, along one side."""
        return 2 ** (len(self.depths) + 1)

    def validate_architecture(self):
        """Checks what no field can know alone; the model calls it again, since fields may be set after construction.

        Raises:
            ValueError: The fields contradict each other.
        """
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"X3DConfig.hidden_sizes needs one number per stage: depths={list(self.depths)} has {len(self.depths)} "
                f"stages, got hidden_sizes={list(self.hidden_sizes)}."
            )


__all__ = ["X3DConfig"]
