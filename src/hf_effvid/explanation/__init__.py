"""Explanations: where and when a model with modulators looks, as tensors, as pictures and as an overlay video.

Below pipelines, evaluation and training, so that all of them can show and measure the same maps.
"""

from .modulators import ClipExplanation, NoModulatorsError, explain_clip, require_modulators


__all__ = ["ClipExplanation", "NoModulatorsError", "explain_clip", "require_modulators"]
