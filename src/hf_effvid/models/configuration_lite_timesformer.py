# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of TimeSformer with token selection."""

from huggingface_hub.dataclasses import strict
from transformers import TimesformerConfig

from .lite_selection import TokenSelectionConfigMixin


@strict
class LiteTimesformerConfig(TokenSelectionConfigMixin, TimesformerConfig):
    """A TimeSformer configuration and the fields of token selection; opens configurations of TimeSformer too.

    See `TokenSelectionConfigMixin` and transformers' `TimesformerConfig`.
    """

    model_type = "lite_timesformer"


__all__ = ["LiteTimesformerConfig"]
