"""A traced graph as an ONNX file: named open axes, nothing of this machine in it, checked by ONNX itself."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch.export import ExportedProgram

from .errors import ExportError, extra
from .tracing import AXES, INPUT_NAME, OUTPUT_NAME


# 20 is the first with exact GELU as an operator
DEFAULT_OPSET = 20
OLDEST_OPSET = 18
# one protobuf message; what is larger would need files beside it
_MOST_BYTES = 1_900_000_000


def check_onnx(opset: int) -> None:
    """Before any work: are the packages there, and do they know that opset?

    Raises:
        ExportError: they do not.
        MissingExtraError: they are not installed.
    """
    for name in ("onnxscript", "onnxruntime"):
        extra(name)
    newest = extra("onnx").defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"opset must lie between {OLDEST_OPSET} and {newest} (of the installed onnx), got {opset}.")


def write_onnx(program: ExportedProgram, path: Path, axes: Iterable[str], opset: int = DEFAULT_OPSET) -> Path:
    """Writes the graph.

    Args:
        program: what `tracing.trace` gave.
        path: file to write.
        axes: names of its open axes.
        opset: version of the ONNX operators.

    Raises:
        ExportError: ONNX has no counterpart of an operator, or the weights do not fit one file.
        MissingExtraError: the packages are not installed.
    """
    onnx = extra("onnx")
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > _MOST_BYTES:
        raise ExportError(
            f"the weights take {size / 1e9:.1f} GB, one ONNX file holds 2: use dtype float16 or format pt2."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about its own insides
            torch.onnx.export(
                program,
                (),
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({AXES[name]: name for name in axes} or None,),
                external_data=False,
                verbose=False,
            )
        model = onnx.load(str(path))
        _strip(model)
        _fold_unsqueezed_weights(onnx, model.graph)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # one type per stage of the exporter, and those of the checker
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"no ONNX for this graph: {type(error).__name__}: {reason}") from error
    onnx.save(model, str(path))
    return path


def onnx_session(path: Path, threads: int):
    """An onnxruntime session on the processor.

    Args:
        path: ONNX file.
        threads: processor threads of one operator.

    Raises:
        ExportError: onnxruntime cannot run the file, for example for want of an operator in that number type.
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised as well
    # weights that are stored in 8 bits become floats once, when the file is opened, and not in every pass
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types are not public
        raise ExportError(f"onnxruntime cannot run {path.name}: {' '.join(str(error).split())[:300]}") from error


def _fold_unsqueezed_weights(onnx, graph) -> None:
    """Large weights with an axis put in are left to the runtime by torch; as weights they can also be stored in 8 bits."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Unsqueeze"]:
        source, axes = (stored.get(name) for name in node.input)
        if source is None or axes is None:
            continue
        weight = onnx.numpy_helper.to_array(source)
        axes = sorted(int(axis) for axis in onnx.numpy_helper.to_array(axes))
        folded = np.expand_dims(weight, tuple(axes))
        graph.initializer.append(onnx.numpy_helper.from_array(folded, node.output[0]))
        graph.node.remove(node)
        if not any(source.name in other.input for other in graph.node):
            graph.initializer.remove(source)


def _strip(model) -> None:
    """Source lines and paths of this machine; and shapes in between, which whoever changes the graph would have to mend."""
    graph = model.graph
    del graph.value_info[:]
    parts = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *model.functions]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
