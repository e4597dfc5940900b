"""An exported file behind the interface of a video classifier, so that whatever evaluates a model evaluates the file."""

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from .errors import ExportError
from .onnx_format import onnx_session
from .tracing import INPUT_NAME


RECORD_NAME = "export.json"


class ExportedClassifier(nn.Module):
    """Runs an ONNX file in onnxruntime, or a `.pt2` file in torch, on the processor.

    It takes and gives what a classifier of transformers does: `model(pixel_values=...).logits`. There are no weights to see:
    its one parameter is the SHA-256 of the file.

    Args:
        path: the file.
        config: anything with the `id2label` and `problem_type` of the model.
        threads: processor threads; default: those of torch.

    Raises:
        ExportError: the file cannot be run here.
    """

    main_input_name = INPUT_NAME
    dtype = torch.float32

    def __init__(self, path, config, threads: int | None = None):
        super().__init__()
        path = Path(path)
        self.config, self.name_or_path = config, str(path)
        digest = bytearray(hashlib.sha256(path.read_bytes()).digest())
        self.fingerprint = nn.Parameter(torch.frombuffer(digest, dtype=torch.uint8), requires_grad=False)
        if path.suffix == ".pt2":
            program = torch.export.load(path).module()
            self._run = lambda pixels: program(pixels)  # not as a sub-module, whose weights would count as parameters
        else:
            session = onnx_session(path, threads or torch.get_num_threads())
            self._run = lambda pixels: torch.from_numpy(session.run(None, {INPUT_NAME: pixels.numpy()})[0])

    @property
    def device(self) -> torch.device:
        """The processor."""
        return self.fingerprint.device

    def train(self, mode: bool = True):
        """Does nothing: an exported graph has one mode."""
        return self

    @torch.no_grad()
    def forward(self, pixel_values, **kwargs):
        """Returns an output with `logits` (B, K) for `pixel_values` (B, T, C, H, W)."""
        pixels = pixel_values.to(device="cpu", dtype=torch.float32).contiguous()
        return ImageClassifierOutput(logits=self._run(pixels))


def load_exported(folder: str | os.PathLike, variant: str | None = None, threads: int | None = None):
    """Opens what `export_model` wrote.

    Args:
        folder: its folder.
        variant: `"int8 dynamic"`, ...; default: the file in floats.
        threads: processor threads; default: those of torch.

    Returns:
        An `ExportedClassifier`. Its processor loads from the same folder: `AutoVideoProcessor.from_pretrained(folder)`.

    Raises:
        ExportError: the folder holds no export, or none of that variant.
    """
    path = Path(folder) / RECORD_NAME
    if not path.is_file():
        raise ExportError(f"{folder} holds no {RECORD_NAME}: give a folder that `effvid export` wrote.")
    record = json.loads(path.read_text(encoding="utf-8"))
    files = {entry["variant"]: entry["file"] for entry in record["files"]}
    wanted = variant or next(iter(files))
    if wanted not in files:
        raise ExportError(f"{folder} holds the variants {', '.join(files)}, not {wanted!r}.")
    labels = dict(enumerate(record["labels"]))
    config = SimpleNamespace(id2label=labels, problem_type=record["problem_type"], num_labels=len(labels))
    return ExportedClassifier(Path(folder) / files[wanted], config, threads)
