# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""How mobile networks round numbers of channels."""


def round_to_eight(channels):
    """The nearest multiple of 8, at least 8 and never less than 0.9 of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
