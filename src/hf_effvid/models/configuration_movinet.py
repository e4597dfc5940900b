# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of MoViNet (https://huggingface.co/papers/2103.11511)."""

from huggingface_hub.dataclasses import strict, validated_field
from transformers import PreTrainedConfig


def _at_least_one(value):
    if value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _stages(value):
    if len(value) == 0 or any(number < 1 for number in value):
        raise ValueError(f"expected at least one stage and whole numbers of at least 1, got {list(value)}")


def _blocks(value):
    if len(value) == 0 or any(len(stage) == 0 or min(stage) < 1 for stage in value):
        raise ValueError(f"expected a list of whole numbers per stage, one per block, got {list(value)}")


def _kernels(value):
    names = [name for stage in value for name in stage]
    if not names or any(
        len(name) != 2 or not name.isdigit() or "0" in name or int(name[0]) % 2 == 0 for name in names
    ):
        raise ValueError(f'expected kernels such as "53", an odd number of frames and a side, got {list(value)}')


def _rate(value):
    if not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _positive(value):
    if not value > 0:
        raise ValueError(f"expected a number above 0, got {value}")


@strict
class MoViNetConfig(PreTrainedConfig):
    """Architecture of a MoViNet.

    The defaults are those of the released A0 base model. `num_frames` and `image_size` only record what the model was trained with:
    the weights take any number of frames and any size.

    Args:
        causal: The stream form: nothing is seen before its time, and a video may come piece by piece (`past_states`). Its weights are
            others than those of the base form.
        num_frames: Frames per clip that the checkpoint was trained with.
        image_size: Height and width in pixels that it was trained with.
        num_channels: Channels of a frame.
        stem_size: Channels of the stem.
        hidden_sizes: Channels of every stage.
        expand_sizes: Inner channels of every block, by stage.
        kernel_sizes: Depthwise kernel of every block, by stage: `"53"` sees 5 frames of 3 x 3 sites.
        strides: Stride in space of the first block of every stage. Time is never strided.
        projection_size: Channels of the last feature map.
        head_size: Channels of the hidden layer of the head.
        classifier_dropout: Dropout before the classifier.
        batch_norm_eps, batch_norm_momentum: Of every batch norm.

    Example:
        >>> from hf_effvid import MoViNetConfig, MoViNetForVideoClassification
        >>> model = MoViNetForVideoClassification(MoViNetConfig.from_preset("a0-stream", num_labels=10))
    """

    model_type = "movinet"

    causal: bool = False
    num_frames: int = validated_field(_at_least_one, default=50)
    image_size: int = validated_field(_at_least_one, default=172)
    num_channels: int = validated_field(_at_least_one, default=3)
    stem_size: int = validated_field(_at_least_one, default=8)
    hidden_sizes: list[int] | tuple[int, ...] = validated_field(_stages, default=(8, 32, 56, 56, 104))
    expand_sizes: list[list[int]] | tuple[tuple[int, ...], ...] = validated_field(
        _blocks, default=((24,), (80, 80, 80), (184, 112, 184), (184, 184, 184, 184), (384, 280, 280, 344))
    )
    kernel_sizes: list[list[str]] | tuple[tuple[str, ...], ...] = validated_field(
        _kernels,
        default=(("15",), ("33",) * 3, ("53", "33", "33"), ("53", "33", "33", "33"), ("53", "15", "15", "15")),
    )
    strides: list[int] | tuple[int, ...] = validated_field(_stages, default=(2, 2, 2, 1, 2))
    projection_size: int = validated_field(_at_least_one, default=480)
    head_size: int = validated_field(_at_least_one, default=2048)
    classifier_dropout: float | int = validated_field(_rate, default=0.2)
    batch_norm_eps: float | int = validated_field(_positive, default=1e-3)
    batch_norm_momentum: float | int = validated_field(_positive, default=0.01)

    @classmethod
    def from_preset(cls, preset, **overrides):
        """Builds the configuration of a released size.

        Args:
            preset: `"a0"` to `"a5"`, or `"a0-stream"` to `"a2-stream"`.
            **overrides: Fields to set on top, such as `num_labels` or `num_frames`.

        Raises:
            ValueError: The preset does not exist.
        """
        if preset not in PRESETS:
            raise ValueError(f"MoViNetConfig.from_preset expects one of {', '.join(PRESETS)}, got {preset!r}.")
        return cls(**{**_fields(preset), **overrides})

    @property
    def hidden_size(self):
        """Channels of the last feature map."""
        return self.projection_size

    @property
    def depths(self):
        """Blocks per stage."""
        return [len(stage) for stage in self.expand_sizes]

    @property
    def num_hidden_layers(self):
        """Blocks over all stages."""
        return sum(self.depths)

    def validate_architecture(self):
        """Checks what no field can know alone; the model calls it again, since fields may be set after construction.

        Raises:
            ValueError: The fields contradict each other.
        """
        stages = len(self.hidden_sizes)
        if not stages == len(self.strides) == len(self.expand_sizes) == len(self.kernel_sizes):
            raise ValueError(
                "MoViNetConfig needs one entry per stage in hidden_sizes, strides, expand_sizes and kernel_sizes, got "
                f"{stages}, {len(self.strides)}, {len(self.expand_sizes)} and {len(self.kernel_sizes)}."
            )
        kernels = [len(stage) for stage in self.kernel_sizes]
        if kernels != self.depths:
            raise ValueError(
                f"MoViNetConfig needs one kernel per block: expand_sizes has {self.depths} blocks per stage, kernel_sizes {kernels}."
            )


# size -> frames, pixels, channels of the stem and of the last feature map; per stage: channels, inner channels, kernels
_SIZES = {
    "a0": (50, 172, 8, 480, (
        (8, "24", "15"),
        (32, "80 80 80", "33 33 33"),
        (56, "184 112 184", "53 33 33"),
        (56, "184 184 184 184", "53 33 33 33"),
        (104, "384 280 280 344", "53 15 15 15"),
    )),
    "a1": (50, 172, 16, 600, (
        (16, "40 40", "15 33"),
        (40, "96 120 96 96", "33 33 33 33"),
        (64, "216 128 216 168 216", "53 33 33 33 33"),
        (64, "216 216 216 128 128 216", "53 33 33 33 15 33"),
        (136, "456 360 360 360 456 456 544", "53 15 15 15 15 33 13"),
    )),
    "a2": (50, 224, 16, 640, (
        (16, "40 40 64", "15 33 33"),
        (40, "96 120 96 96 120", "33 33 33 33 33"),
        (72, "240 160 240 192 240", "53 33 33 33 33"),
        (72, "240 240 240 240 144 240", "53 33 33 33 15 33"),
        (144, "480 384 384 480 480 480 576", "53 15 15 15 15 33 13"),
    )),
    "a3": (120, 256, 16, 744, (
        (16, "40 40 64 40", "15 33 33 33"),
        (48, "112 144 112 112 144 144", "33 33 33 15 33 33"),
        (80, "240 152 240 192 240", "53 33 33 33 33"),
        (88, "264 264 264 264 160 264 264 264", "53 33 33 33 15 33 33 33"),
        (168, "560 448 448 560 560 560 448 448 560 672", "53 15 15 15 15 33 15 15 33 13"),
    )),
    "a4": (80, 290, 24, 856, (
        (24, "64 64 96 64 96 64", "15 33 33 33 33 33"),
        (56, "168 168 136 136 168 168 168 136 136", "33 33 33 33 33 33 33 15 33"),
        (96, "320 160 320 192 320 160 320 256 320", "53 33 33 33 33 33 33 33 33"),
        (96, "320 320 320 320 192 320 320 192 320 320", "53 33 33 33 15 33 33 33 33 33"),
        (192, "640 512 512 640 640 640 512 512 640 768 640 640 768", "53 15 15 15 15 33 15 15 15 15 15 33 33"),
    )),
    "a5": (120, 320, 24, 992, (
        (24, "64 64 96 64 96 64", "15 15 33 33 33 33"),
        (64, "192 152 152 152 192 192 192 152 152 192 192", "53 33 33 33 33 33 33 33 33 33 33"),
        (112, "376 224 376 376 296 376 224 376 376 296 376 376 376", "53 33 33 33 33 33 33 33 33 33 33 33 33"),
        (120, "376 376 376 376 224 376 376 224 376 376 376", "53 33 33 33 15 33 33 33 33 33 33"),
        (224, "744 744 600 600 744 744 744 896 600 600 896 744 744 896 600 600 744 744",
         "53 33 15 15 15 15 33 15 15 15 15 15 33 15 15 15 15 33"),
    )),
}  # fmt: skip
# streams larger than A2 were published with positions, which these are without
PRESETS = (*_SIZES, "a0-stream", "a1-stream", "a2-stream")


def _fields(preset):
    size, _, form = preset.partition("-")
    num_frames, image_size, stem_size, projection_size, stages = _SIZES[size]
    return {
        "causal": form == "stream",
        "num_frames": num_frames,
        "image_size": image_size,
        "stem_size": stem_size,
        "projection_size": projection_size,
        "hidden_sizes": [channels for channels, _, _ in stages],
        "expand_sizes": [[int(inner) for inner in inners.split()] for _, inners, _ in stages],
        "kernel_sizes": [kernels.split() for _, _, kernels in stages],
    }


__all__ = ["MoViNetConfig"]
