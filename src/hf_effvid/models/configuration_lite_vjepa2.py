# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of V-JEPA 2 with token selection."""

from huggingface_hub.dataclasses import strict
from transformers import VJEPA2Config

from .lite_selection import TokenSelectionConfigMixin


@strict
class LiteVJEPA2Config(TokenSelectionConfigMixin, VJEPA2Config):
    """A V-JEPA 2 configuration and the fields of token selection; opens configurations of V-JEPA 2 too.

    See `TokenSelectionConfigMixin` and transformers' `VJEPA2Config`.
    """

    model_type = "lite_vjepa2"
    # transformers' pipeline asks for the number of frames under this name
    attribute_map = {"num_frames": "frames_per_clip"}


__all__ = ["LiteVJEPA2Config"]
