"""Reference outputs: what the original model answers to a fixed input, so that a published copy can be compared with it."""

import copy
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch


REFERENCE_SEED = 2026


@dataclass(frozen=True)
class ReferenceLogits:
    """Answer of a model, in float32 on the CPU, to `reference_pixels(shape, seed)`.

    Attributes:
        shape: shape of the input, (B, T, C, H, W) for pixels.
        seed: seed of the input.
        logits: (rows, K) nested list; a detector has one row per point, and its offsets beside the scores.
        input_name: what the model calls the input; None for its `main_input_name`.
        outputs: the outputs that lie side by side in a row.
    """

    shape: tuple[int, ...]
    seed: int
    logits: list[list[float]]
    input_name: str | None = None
    outputs: tuple[str, ...] = ("logits",)

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the reference as JSON."""
        Path(path).write_text(json.dumps(asdict(self)), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ReferenceLogits":
        """The inverse of `save`."""
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        kept = {key: document[key] for key in ("input_name",) if key in document}
        kept |= {key: tuple(document[key]) for key in ("outputs",) if key in document}
        return cls(tuple(document["shape"]), document["seed"], document["logits"], **kept)


def reference_pixels(shape, seed: int = REFERENCE_SEED) -> torch.Tensor:
    """Float32 noise of the given shape; a function of shape and seed alone."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))


def reference_logits(
    model, shape, seed: int = REFERENCE_SEED, input_name: str | None = None, outputs: tuple[str, ...] = ("logits",)
) -> ReferenceLogits:
    """Asks a model for its reference outputs; the model itself is left as it is.

    A copy in float32 on the CPU answers, because the copy that will be compared runs anywhere: 16-bit weights widen to
    float32 without loss, 16-bit arithmetic would differ between machines.

    Args:
        model: the model.
        shape: of the input.
        seed: seed of the input.
        input_name, outputs: see `ReferenceLogits`.
    """
    witness = copy.deepcopy(model).to(device="cpu", dtype=torch.float32).eval()
    with torch.inference_mode():
        answer = witness(**{input_name or witness.main_input_name: reference_pixels(shape, seed)})
    rows = torch.cat([getattr(answer, name) for name in outputs], dim=-1).flatten(0, -2)
    return ReferenceLogits(tuple(shape), seed, rows.tolist(), input_name, tuple(outputs))


def reference_path(folder: str | os.PathLike) -> Path:
    """Where staging leaves the reference: beside the folder, because the folder holds only what is published."""
    folder = Path(folder)
    return folder.with_name(f"{folder.name}.reference.json")
