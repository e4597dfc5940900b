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
    "Provenance": "provenance",
    "ResultEntry": "results",
    "ResultsError": "results",
    "ResultsFile": "results",
    "add_results": "results",
    "analyze_detections": "detection_errors",
    "current_provenance": "provenance",
    "choose_operating_points": "operating_points",
    "evaluate_classifier": "classification",
    "evaluate_detections": "detection_run",
    "evaluate_detector": "detection",
    "paired_bootstrap_difference": "intervals",
    "wilson_interval": "intervals",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
