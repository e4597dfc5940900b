"""What an export starts from: a float32 copy of the model on the processor, and the recipe of its videos."""

import copy
from dataclasses import dataclass

import torch

from ..evaluation.opening import load_classifier, model_name
from ..host_loading import is_adapter
from ..host_processing import holds_recipe


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
    model, processor = load_classifier(model, processor, trust_remote_code)
    name = model_name(model)
    witness = copy.deepcopy(getattr(model, "_orig_mod", model))
    if is_adapter(witness):
        witness = witness.merge_and_unload()
    witness = witness.to(device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    return Subject(name, witness, processor)
