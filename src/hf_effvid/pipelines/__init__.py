"""Pipelines: any video in, labels out."""

from .explain_video import explain
from .position_interpolation import PositionInterpolationError, interpolate_positions
from .predict import predict_paths, predictions_table
from .video_classification import VideoClassificationPipeline


__all__ = [
    "PositionInterpolationError",
    "VideoClassificationPipeline",
    "explain",
    "interpolate_positions",
    "predict_paths",
    "predictions_table",
]
