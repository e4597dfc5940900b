"""Evaluation: accuracy with intervals, cost, and the one results format that cards and README read."""

import importlib


# resolved on first use: reading a results file needs neither torch nor transformers
_PUBLIC_NAMES = {
    "ClassificationReport": "classification_report",
    "Cost": "results",
    "Metric": "results",
    "Provenance": "provenance",
    "ResultEntry": "results",
    "ResultsError": "results",
    "ResultsFile": "results",
    "add_results": "results",
    "current_provenance": "provenance",
    "evaluate_classifier": "classification",
    "paired_bootstrap_difference": "intervals",
    "wilson_interval": "intervals",
}

__all__ = list(_PUBLIC_NAMES)


def __getattr__(name):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
