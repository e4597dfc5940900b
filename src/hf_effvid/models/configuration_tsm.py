# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of TSM (https://huggingface.co/papers/1811.08383)."""

from typing import Any

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig


# networks of timm that TSM is built on here, by short name
PRESETS = {
    "resnet18": {"architecture": "resnet18"},
    "resnet50": {"architecture": "resnet50"},
    "mobilenetv2": {"architecture": "mobilenetv2_100"},
    "mobilenetv4-small": {"architecture": "mobilenetv4_conv_small"},
    "efficientnet-lite0": {"architecture": "tf_efficientnet_lite0"},
}


def _at_least_one(value):
    if value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _at_least_two(value):
    if value < 2:
        raise ValueError(f"expected a whole number of at least 2 (a half is shifted each way), got {value}")


def _rate(value):
    if not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _positive(value):
    if not value > 0:
        raise ValueError(f"expected a number above 0, got {value}")


def _image_size(value):
    if any(size < 1 for size in (value if isinstance(value, (list, tuple)) else [value])):
        raise ValueError(f"expected a size in pixels or (height, width), got {value}")


@strict
class TSMConfig(PreTrainedConfig):
    """Architecture of a temporal shift network: a 2-D network of timm, and where its channels are shifted in time.

    `num_frames` and `image_size` only record what the model was trained with (processors and pipelines sample accordingly): the weights
    take any number of frames, and the sizes that the 2-D network takes.

    Args:
        architecture: Name of the 2-D network in timm, such as `"resnet50"`, `"mobilenetv2_100"`, `"mobilenetv4_conv_small"` or
            `"tf_efficientnet_lite0"`.
        model_args: Further arguments of `timm.create_model`.
        num_frames: Frames per clip that the checkpoint was trained with.
        image_size: Height and width in pixels that it was trained with; one number for a square.
        num_channels: Channels of a frame.
        shift_div: One part of the channels in so many comes from the frame after, and as many from the frame before.
        shift_modules: Names of the convolutions of the 2-D network whose input is shifted, in the order in which they run. None: by the
            rule of its family (`tsm_placement.py`); families without a rule need names.
        causal: Shift from the past alone. Such a model takes a video piece by piece (`past_states`); it needs weights of its own.
        classifier_dropout: Dropout before the classifier.
        classifier_std: Standard deviation of a new classifier's weights.
        hidden_size: Channels that the classifier reads; the model fills it in.

    Example:
        >>> from hf_effvid import TSMConfig, TSMForVideoClassification
        >>> model = TSMForVideoClassification(TSMConfig.from_preset("resnet18", num_labels=10))
    """

    model_type = "tsm"

    architecture: str = "mobilenetv4_conv_small"
    model_args: dict[str, Any] | None = None
    num_frames: int = validated_field(_at_least_one, default=8)
    image_size: int | list[int] | tuple[int, ...] = validated_field(_image_size, default=224)
    num_channels: int = validated_field(_at_least_one, default=3)
    shift_div: int = validated_field(_at_least_two, default=8)
    shift_modules: list[str] | tuple[str, ...] | None = None
    causal: bool = False
    classifier_dropout: float | int = validated_field(_rate, default=0.5)
    classifier_std: float | int = validated_field(_positive, default=0.001)
    hidden_size: int | None = None

    @classmethod
    def from_preset(cls, preset, **overrides):
        """Builds the configuration on one of the usual 2-D networks.

        Args:
            preset: A key of `PRESETS`.
            **overrides: Fields to set on top, such as `num_labels` or `num_frames`.

        Raises:
            ValueError: The preset does not exist.
        """
        if preset not in PRESETS:
            raise ValueError(f"TSMConfig.from_preset expects one of {', '.join(PRESETS)}, got {preset!r}.")
        return cls(**{**PRESETS[preset], **overrides})


__all__ = ["TSMConfig"]
