"""Deployment: a video classifier as an ONNX file or a torch.export program that was checked against the model.

`export_model` writes the folder, `load_exported` runs it, `measure_accuracy` says what 8 bits cost on a data set. ONNX needs
the `export` extra.
"""

import importlib


# resolved on first use: neither torch nor onnxruntime is loaded before it is needed
_PUBLIC_NAMES = {
    "ExportError": "errors",
    "ExportReport": "report",
    "ExportedClassifier": "runtime",
    "MissingExtraError": "errors",
    "ParityError": "errors",
    "export_model": "exporting",
    "load_exported": "runtime",
    "measure_accuracy": "accuracy",
}

__all__ = list(_PUBLIC_NAMES)


def __getattr__(name):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
