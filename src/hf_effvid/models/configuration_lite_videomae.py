# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of VideoMAE with token selection."""

from huggingface_hub.dataclasses import strict
from transformers import VideoMAEConfig

from .lite_selection import TokenSelectionConfigMixin


@strict
class LiteVideoMAEConfig(TokenSelectionConfigMixin, VideoMAEConfig):
    """A VideoMAE configuration and the fields of token selection; opens configurations of VideoMAE too.

    See `TokenSelectionConfigMixin` and transformers' `VideoMAEConfig`.

    Example:
        >>> from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
        >>> config = LiteVideoMAEConfig(keep_ratio=0.5, scorer="random", num_labels=10)
        >>> model = LiteVideoMAEForVideoClassification(config)
    """

    model_type = "lite_videomae"


__all__ = ["LiteVideoMAEConfig"]
