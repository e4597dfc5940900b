"""Deployment: a video classifier as an ONNX file or a torch.export program that was checked against the model.

`export_model` writes the folder, `load_exported` runs it, `measure_accuracy` says what 8 bits cost on a data set;
`search_compression` tries dropped blocks, kept tokens and number types together. ONNX needs the `export` extra.
"""

from ..lazy_names import lazy_names


# resolved on first use: neither torch nor onnxruntime is loaded before it is needed
_PUBLIC_NAMES = {
    "ExportError": "errors",
    "ExportReport": "report",
    "ExportedClassifier": "runtime",
    "MissingExtraError": "errors",
    "ParityError": "errors",
    "export_model": "exporting",
    "load_exported": "runtime",
    "SearchError": "compression_candidates",
    "SearchReport": "compression_report",
    "measure_accuracy": "accuracy",
    "search_compression": "compression_search",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
