"""What an export starts from: a float32 copy of the model on the processor, and the recipe of its videos."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForVideoClassification

from ..evaluation.opening import load_classifier
from ..host_processing import holds_recipe, load_processor


@dataclass(frozen=True)
class Subject:
    """A classifier that is to be exported.

    Attributes:
        name: what it is called in tables.
        model: a copy in float32 on the processor, in evaluation mode; adapters are merged into its weights.
        processor: its processor behind the interface of ours.
    """

    name: str
    model: torch.nn.Module
    processor: object

    @property
    def own_processor(self):
        """The processor as it was published, which an export saves."""
        return self.processor if holds_recipe(self.processor) else self.processor.processor


def open_subject(model, processor=None, trust_remote_code: bool = False) -> Subject:
    """Opens a classifier; what is given is left as it is.

    Args:
        model: a video classifier of transformers, also one with PEFT adapters, or a folder or Hub id.
        processor: its processor, or a folder or Hub id of one; default: the one saved with it.
        trust_remote_code: run model code that comes with the checkpoint.

    Raises:
        ValueError: there is no processor, or nothing says how many frames a clip has.
        OSError: there is no such checkpoint.
    """
    if isinstance(model, (str, os.PathLike)):
        source = os.fspath(model)
        processor = load_processor(source, trust_remote_code=trust_remote_code) if processor is None else processor
        model = AutoModelForVideoClassification.from_pretrained(source, trust_remote_code=trust_remote_code)
    model, processor = load_classifier(model, processor)
    name = Path(getattr(model, "name_or_path", "")).name or type(model).__name__
    witness = copy.deepcopy(getattr(model, "_orig_mod", model))
    if hasattr(witness, "merge_and_unload"):
        witness = witness.merge_and_unload()
    witness = witness.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    return Subject(name, witness, processor)
