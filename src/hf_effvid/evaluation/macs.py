"""Multiply-accumulates of one forward pass, counted where every operator passes: at torch's dispatcher.

Counters that hang hooks on modules miss whatever is written as a function (attention, a convolution with its own
parameters). Here matrix products, convolutions and attention count wherever they are called from; element-wise work
(activations, norms, the products of a modulation) does not count, as in the numbers that papers print.
"""

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


# names of operators that multiply matrices; one of them without a formula is reported, not swallowed
_MULTIPLIES = re.compile(r"mm|linear|conv|attention|rnn|lstm|gru")
_DOES_NOT_MULTIPLY = re.compile(r"upsample|comm")
_OWN_NAMESPACES = ("aten", "prim", "prims")


class MacsError(RuntimeError):
    """The forward pass could not be counted; the message says what it stumbled over."""


@dataclass(frozen=True)
class MacCount:
    """What `count_macs` found.

    Attributes:
        total: multiply-accumulates of the whole input.
        by_operator: the same per operator of torch, for example `{"aten.addmm": ...}`.
        uncounted: operators that multiply, or that torch does not know, and have no formula: with any of them `total` is
            a lower bound.
        on_meta: True when shapes alone were enough, False when the model had to be run.
    """

    total: int
    by_operator: dict[str, int]
    uncounted: tuple[str, ...]
    on_meta: bool

    @property
    def gmacs(self) -> float:
        """The total in units of 1e9 (what papers usually call GFLOPs)."""
        return self.total / 1e9


def count_macs(model, inputs: Mapping[str, torch.Tensor]) -> MacCount:
    """Counts the multiply-accumulates of `model(**inputs)`.

    Shapes are enough for most models: weights are replaced by meta tensors for the one call, without a copy and without
    arithmetic. A model that looks at values is run for real, where its weights are. Attention is counted in full, masked
    positions included.

    Args:
        model: any `torch.nn.Module`; it is left as it was.
        inputs: keyword arguments; tensors of the shape to count, on any device.

    Returns:
        The count, for the whole batch.

    Raises:
        MacsError: the model runs neither on the meta device nor for real.
    """
    model = getattr(model, "_orig_mod", model)
    with _evaluating(model):
        try:
            return _count(model, inputs, on_meta=True)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError) as meta_error:
            try:
                return _count(model, inputs, on_meta=False)
            except Exception as error:
                raise MacsError(
                    f"{type(model).__name__} could not be counted: on the meta device {_first_line(meta_error)}; run for "
                    f"real {_first_line(error)}. Check that the input shape fits the model."
                ) from error


def count_parameters(model) -> int:
    """Number of parameters; one that is shared by several layers counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _count(model, inputs, on_meta: bool) -> MacCount:
    counter = FlopCounterMode(display=False, custom_mapping=_extra_formulas())
    watcher = _Watcher(set(counter.flop_registry))
    # the mathematical form of attention is made of matrix products, which count on every device and in every release
    with torch.no_grad(), sdpa_kernel([SDPBackend.MATH]), _no_fused_encoder_layers(), counter, watcher:
        if on_meta:
            tensors = dict([*model.named_parameters(), *model.named_buffers()])
            shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
            torch.func.functional_call(model, shapes, (), {name: t.to("meta") for name, t in inputs.items()})
        else:
            device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
            model(**{name: torch.zeros_like(tensor, device=device) for name, tensor in inputs.items()})
    by_operator = {str(op): flops // 2 for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    return MacCount(counter.get_total_flops() // 2, by_operator, tuple(sorted(watcher.uncounted)), on_meta)


class _Watcher(TorchDispatchMode):
    """Notes operators that should have been counted."""

    def __init__(self, counted: set):
        super().__init__()
        self.counted, self.uncounted = counted, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = getattr(func, "_overloadpacket", func)
        name = getattr(func, "__name__", str(func)).split(".")[0]
        foreign = getattr(func, "namespace", "") not in _OWN_NAMESPACES
        multiplies = _MULTIPLIES.search(name) and not _DOES_NOT_MULTIPLY.search(name)
        if packet not in self.counted and (foreign or multiplies):
            self.uncounted.add(str(packet))
        return func(*args, **(kwargs or {}))


def _extra_formulas() -> dict:
    """Floating-point operations of oneDNN's own operators, which torch's table leaves out; 2 per multiply-accumulate."""

    def linear(x_shape, weight_shape, *args, out_shape=None, **kwargs):
        return 2 * _product(out_shape) * x_shape[-1]

    def convolution(x_shape, weight_shape, *args, out_shape=None, **kwargs):
        # every output value is a sum over (input channels of its group) x kernel, which is a row of the weight
        return 2 * _product(out_shape) * _product(weight_shape[1:])

    formulas = {}
    for namespace, name, formula in (
        ("aten", "mkldnn_convolution", convolution),
        ("mkldnn", "_convolution_pointwise", convolution),
        ("mkldnn", "_linear_pointwise", linear),
        ("aten", "mkldnn_linear", linear),
    ):
        # private operators: absent in some builds of torch
        operator = getattr(getattr(torch.ops, namespace), name, None)
        if operator is not None:
            formulas[operator] = formula
    return formulas


def _product(shape) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


@contextmanager
def _evaluating(model):
    """Evaluation mode, and every module back in its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _no_fused_encoder_layers():
    """nn.TransformerEncoderLayer and nn.MultiheadAttention otherwise run as one operator that nothing can look into."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"raised {type(error).__name__}: {lines[0][:200]}"
