"""Pipelines: any video in, labels out."""

from .explain_video import explain
from .feature_extraction import FeatureExtractor, extract_features
from .position_interpolation import PositionInterpolationError, interpolate_positions
from .predict import predict_paths, predictions_table
from .video_classification import VideoClassificationPipeline


__all__ = [
    "FeatureExtractor",
    "PositionInterpolationError",
    "VideoClassificationPipeline",
    "explain",
    "extract_features",
    "interpolate_positions",
    "predict_paths",
    "predictions_table",
]
