"""Evaluation: accuracy with intervals, cost, and the one results format that cards and README read."""

from ..lazy_names import lazy_names


# resolved on first use: reading a results file needs neither torch nor transformers
_PUBLIC_NAMES = {
    "ClassificationReport": "classification_report",
    "Cost": "results",
    "DetectionError": "detection_protocol",
    "DetectionProtocol": "detection_protocol",
    "DetectionReport": "detection",
    "DetectionRun": "detection_run",
    "Metric": "results",
    "NearestMeanDetector": "detection_sliding_windows",
    "Provenance": "provenance",
    "ResultEntry": "results",
    "ResultsError": "results",
    "ResultsFile": "results",
    "TimedFeatures": "detection_sliding_windows",
    "add_results": "results",
    "analyze_detections": "detection_errors",
    "average_runs": "detection_runs",
    "choose_operating_points": "operating_points",
    "compare_runs": "detection_runs",
    "current_provenance": "provenance",
    "evaluate_classifier": "classification",
    "evaluate_detections": "detection_run",
    "evaluate_detector": "detection",
    "evaluate_without_pixels": "detection_baselines",
    "paired_bootstrap_difference": "intervals",
    "wilson_interval": "intervals",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
