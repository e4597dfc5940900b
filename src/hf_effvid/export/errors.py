"""What can go wrong while exporting, each with a name; and the one place that asks for the optional packages."""

import importlib


class ExportError(ValueError):
    """The model cannot be exported as asked; the message says why and what to do."""


class ParityError(ExportError):
    """The exported file gives other numbers than the model; the message holds the numbers. Nothing was written."""


class MissingExtraError(ExportError, ImportError):
    """A package of the `export` extra is not installed."""


def extra(name: str):
    """A module of the `export` extra.

    Args:
        name: module to import, such as `"onnxruntime.quantization"`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"ONNX needs {name.split('.')[0]} ({error}): pip install 'hf_effvid[export]', or use format=\"pt2\"."
        ) from error
