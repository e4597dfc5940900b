"""A video classifier as a graph of tensors, with the axes left open that the model itself takes at any length.

Which axes those are is asked of the model, not of its documentation: a VideoMAE, whose positions are fixed, refuses other
sizes than its own, and a graph that accepted them would answer nonsense.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from .errors import ExportError


INPUT_NAME, OUTPUT_NAME = "pixel_values", "logits"
# name -> position in pixel_values (batch, frames, channels, height, width)
AXES = {"batch": 0, "frames": 1, "height": 3, "width": 4}


class LogitsOnly(nn.Module):
    """Pixels to logits, both float32 whatever the model computes in.

    Args:
        model: a video classifier of transformers.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.input_name = getattr(model, "main_input_name", INPUT_NAME)
        self.dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())

    def forward(self, pixel_values):
        """Returns logits (B, K) for `pixel_values` (B, T, C, H, W)."""
        return self.model(**{self.input_name: pixel_values.to(self.dtype)}).logits.float()


class ShapeProbe:
    """Asks a module which shapes of pixels it takes.

    Shapes alone are looked at, without arithmetic or memory, unless the module does not run on the meta device.

    Args:
        module: what `LogitsOnly` gives.
        shape: (T, C, H, W) of its own clips.
    """

    def __init__(self, module: nn.Module, shape: Sequence[int]):
        self.module, self.shape = module, tuple(shape)
        self.weights = {name: tensor.to("meta") for name, tensor in module.state_dict(keep_vars=True).items()}
        self.device = "meta"
        if not self.accepts((1, *self.shape)):
            self.weights, self.device = {}, "cpu"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether the module takes pixels (B, T, C, H, W) of that shape."""
        try:
            with torch.no_grad():
                torch.func.functional_call(self.module, self.weights, (torch.zeros(*shape, device=self.device),))
        except Exception:  # whatever a model raises at a shape that it was not made for
            return False
        return True

    def free_axes(self) -> tuple[str, ...]:
        """Names of the `AXES` that the module takes at other lengths too; height and width together or not at all."""
        frames, channels, height, width = self.shape
        free = ["batch"]
        if self.accepts((1, 2 * frames, channels, height, width)):
            free.append("frames")
        if self.accepts((1, frames, channels, 2 * height, 3 * width)):
            free += ["height", "width"]
        return tuple(free)


def trace(module: nn.Module, shape: Sequence[int], axes: Iterable[str]) -> ExportedProgram:
    """The graph of a module.

    The clip it is traced with has other lengths than the model's own on every open axis, and no two alike: what depends on
    "the size that was trained with", or on a square, would otherwise be written into the graph as a constant.

    Args:
        module: what `LogitsOnly` gives, in evaluation mode.
        shape: (T, C, H, W) of its own clips.
        axes: names of `AXES` to leave open.

    Raises:
        ExportError: torch cannot trace it, or only with one of these axes fixed.
    """
    axes = tuple(axes)
    frames, channels, height, width = shape
    lengths = {"batch": 2, "frames": 2 * frames, "height": 2 * height, "width": 3 * width}
    sample = [1, frames, channels, height, width]
    for name in axes:
        sample[AXES[name]] = lengths[name]
    open_axes = {AXES[name]: Dim.AUTO for name in axes}
    try:
        with torch.no_grad():
            program = torch.export.export(module, (torch.zeros(*sample),), dynamic_shapes=(open_axes or None,))
    except Exception as error:  # dozens of types, by what the model does
        raise ExportError(f"torch.export cannot trace {_name(module)}: {_reason(error)}") from error
    fixed = [name for name in axes if _is_fixed(_input_shape(program)[AXES[name]])]
    if fixed:
        raise ExportError(f"{_name(module)} is written such that {', '.join(fixed)} cannot stay open in a graph.")
    return _without_traces_of_this_machine(program)


def smallest_lengths(program: ExportedProgram) -> dict[str, int]:
    """The least length of each open axis that a graph insists on, by name of axis."""
    smallest = {}
    for name, position in AXES.items():
        length = _input_shape(program)[position]
        if not _is_fixed(length):
            lowest = int(program.range_constraints[length.node.expr].lower)
            smallest[name] = lowest if lowest > 2 else 1  # torch writes 2 for every axis that it did not look at
    return smallest


def _input_shape(program: ExportedProgram):
    (name,) = program.graph_signature.user_inputs
    return next(node for node in program.graph.nodes if node.name == name).meta["val"].shape


def _is_fixed(length) -> bool:
    # a length that turned out to be fixed may still come as a symbol, whose value is a number
    return str(length).isdigit()


def _without_traces_of_this_machine(program: ExportedProgram) -> ExportedProgram:
    """Source lines and the sample clip help nobody who runs the file, and say where and with what it was made."""
    for node in program.graph.nodes:
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    program.example_inputs = None
    return program


def _name(module: nn.Module) -> str:
    return type(getattr(module, "model", module)).__name__


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
