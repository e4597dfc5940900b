# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""What a video network says to pixels that it cannot take."""


def check_clips(name, pixel_values, num_channels):
    """Checks pixels (B, T, C, H, W).

    Args:
        name: Of the architecture, for the message.
        pixel_values: What the model was given.
        num_channels: C that it takes.

    Raises:
        ValueError: Another rank, integers, or another number of channels.
    """
    if pixel_values.ndim != 5:
        raise ValueError(
            f"{name} expects pixel_values of shape (batch, frames, channels, height, width), got "
            f"{tuple(pixel_values.shape)}. Add the batch dimension, or use the checkpoint's processor."
        )
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"{name} expects normalised floating-point pixel_values, got {pixel_values.dtype}. Use the checkpoint's "
            "processor, which rescales and normalises."
        )
    frames, channels = pixel_values.shape[1:3]
    if channels != num_channels:
        hint = " The order is (batch, frames, channels, height, width)." if frames == num_channels else ""
        raise ValueError(f"{name} expects {num_channels} channels, got {channels}.{hint}")
