# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of ViViT with token selection."""

from huggingface_hub.dataclasses import strict
from transformers import VivitConfig

from .lite_selection import TokenSelectionConfigMixin


@strict
class LiteVivitConfig(TokenSelectionConfigMixin, VivitConfig):
    """A ViViT configuration and the fields of token selection; opens configurations of ViViT too.

    See `TokenSelectionConfigMixin` and transformers' `VivitConfig`.
    """

    model_type = "lite_vivit"


__all__ = ["LiteVivitConfig"]
