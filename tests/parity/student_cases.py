"""Recorded runs of the reference video CNNs: weights and inputs are drawn again from their seeds, outputs are stored."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


FIXTURES = Path(__file__).parent / "fixtures" / "students"
CASES = json.loads((FIXTURES / "index.json").read_text())
# what the reference's float32 leaves, relative to the standard deviation of its output
TOLERANCE = 1e-4


def cases_of(op):
    """Names of the recorded cases of one kind."""
    return [name for name, case in CASES.items() if case["op"] == op]


def recorded(name):
    """Stored tensors of a case."""
    return load_file(FIXTURES / f"{name}.safetensors")


def weights_of(name):
    """The reference's weights under its own names, drawn by the rule that they were recorded with."""
    stream = np.random.RandomState(CASES[name]["weight_seed"])
    weights = {}
    for key, shape in sorted(CASES[name]["state_shapes"].items()):
        if key.endswith("num_batches_tracked"):  # a whole number: not drawn
            continue
        drawn = np.asarray(stream.standard_normal(shape))
        if key.endswith("running_var"):
            drawn = 1 + 0.3 * np.abs(drawn)
        elif key.endswith("alpha"):
            drawn = 0.6 + 0.2 * drawn
        elif drawn.ndim > 1:
            drawn = drawn * np.sqrt(1.6 / np.prod(shape[1:]))
        elif drawn.ndim == 1 and key.endswith("weight"):
            drawn = 1 + 0.1 * drawn
        else:  # biases and running means
            drawn = 0.1 * drawn
        weights[key] = torch.from_numpy(np.asarray(drawn, dtype=np.float32))
    return weights


def input_of(name):
    """The input in the layout of the reference, float64."""
    case = CASES[name]
    draw = getattr(np.random.RandomState(case["input_seed"]), case["input_dist"])
    return torch.from_numpy(draw(tuple(case["input_shape"])).astype(np.float32)).double()


def assert_same(ours, reference):
    """As equal as the reference's single precision allows."""
    assert ours.shape == reference.shape
    error = (ours.double() - reference.double()).abs().max() / reference.double().std()
    assert error < TOLERANCE, f"largest difference {error:.2e} of the standard deviation"
