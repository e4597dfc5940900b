"""Weights in 8 bits: two ways that survived being measured (docs/export.md says what did not).

- `dynamic`: matrix products in integers; activations are quantised on the fly, one scale per tensor. The kernels of
  convolutions are stored in 8 bits and computed in floats, because onnxruntime's integer convolution is many times slower.
- `weight-only`: all weights are stored in 8 bits with one scale per output channel and computed in floats. A quarter of the
  size, plain ONNX operators, close to the float model's numbers; not faster.
"""

import logging
from pathlib import Path

import numpy as np

from .errors import ExportError, extra


SCHEMES = ("dynamic", "weight-only")
# biases and the like: the scales would take more room than the bits that are saved
_SMALLEST_WEIGHT = 1024
_LARGEST = 127


def write_int8(source: Path, target: Path, scheme: str) -> Path:
    """Writes an ONNX file with 8-bit weights.

    Args:
        source: ONNX file in float32.
        target: file to write.
        scheme: one of `SCHEMES`.

    Raises:
        ExportError: no such scheme, or nothing in the graph can be quantised.
        MissingExtraError: the packages are not installed.
    """
    if scheme not in SCHEMES:
        raise ExportError(f"int8 must be one of {', '.join(SCHEMES)}, got {scheme!r}.")
    onnx = extra("onnx")
    model = onnx.load(str(source))
    if scheme == "dynamic":
        model = _integer_matrix_products(source, target)
    if not _store_in_8_bits(onnx, model) and scheme == "weight-only":
        raise ExportError("there is no matrix product or convolution with weights of a size worth 8 bits.")
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return target


def _integer_matrix_products(source: Path, target: Path):
    quantization = extra("onnxruntime.quantization")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a preparation that open axes rule out
    try:
        quantization.quantize_dynamic(source, target, op_types_to_quantize=["MatMul"])
    except Exception as error:  # its own types, assertions and those of shape inference
        raise ExportError(f"onnxruntime cannot quantise this graph: {' '.join(str(error).split())[:300]}") from error
    finally:
        logging.disable(before)
    return extra("onnx").load(str(target))


def _store_in_8_bits(onnx, model) -> int:
    """Replaces float weights of products and convolutions by 8-bit ones and their expansion; returns how many.

    Symmetric, one scale per output channel: w is stored as round(w / s) with s = max|w| / 127.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    expansions = []
    for name, axis in _output_axes(graph.node).items():
        if name not in stored:
            continue
        weight = onnx.numpy_helper.to_array(stored[name])
        if weight.dtype != np.float32 or weight.size < _SMALLEST_WEIGHT:
            continue
        axis %= weight.ndim
        scale = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis)) / _LARGEST
        scale = np.where(scale == 0, 1, scale).astype(weight.dtype)  # a channel of zeros stays one
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        rounded = np.clip(np.round(weight / scale.reshape(shape)), -_LARGEST, _LARGEST).astype(np.int8)
        graph.initializer.remove(stored[name])
        graph.initializer.append(onnx.numpy_helper.from_array(rounded, f"{name}.int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
        parts = [f"{name}.int8", f"{name}.scale"]
        expansions.append(onnx.helper.make_node("DequantizeLinear", parts, [name], name=f"{name}.expand", axis=axis))
    for node in expansions:
        graph.node.insert(0, node)
    return len(expansions)


def _output_axes(nodes) -> dict[str, int]:
    """Name of a weight -> its axis of output channels, which is the one that gets scales of its own."""
    axes = {}
    for node in nodes:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "MatMul":
            axes[node.input[1]] = -1
        elif node.op_type == "Gemm":
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axes[node.input[1]] = 0 if transposed else 1
    return axes
