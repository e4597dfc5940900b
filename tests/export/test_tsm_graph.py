"""A TSM as ONNX is a 2-D network to the end: what runs on phones takes no tensors of five dimensions."""

import pytest
import torch

from ..test_students import small
from .conftest import tiny_processor


onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
pytest.importorskip("onnxruntime", reason="the export extra is not installed")
pytest.importorskip("timm")

from hf_effvid.export import export_model  # noqa: E402


def ranks(graph):
    """Name -> number of dimensions, of everything that the graph computes."""
    known = [*graph.value_info, *graph.output]
    return {value.name: len(value.type.tensor_type.shape.dim) for value in known}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tsm") / "onnx"
    export_model(small("tsm"), folder, tiny_processor(num_frames=4), rounds=1, progress=False)
    return onnx.shape_inference.infer_shapes(onnx.load(folder / "model.onnx"), strict_mode=True).graph


@pytest.mark.slow
def test_only_the_clips_themselves_have_five_dimensions(graph):
    (pixels,) = graph.input
    assert len(pixels.type.tensor_type.shape.dim) == 5
    found = ranks(graph)
    computed = [name for node in graph.node for name in node.output if name]
    assert not set(computed) - found.keys(), "the shapes of some tensors are unknown"
    assert max(found[name] for name in computed) == 4
    readers = [node for node in graph.node if pixels.name in node.input]
    assert {node.op_type for node in readers} <= {"Reshape", "Shape"}


@pytest.mark.slow
def test_the_shift_is_slices_and_joins_of_frames(graph):
    operators = {node.op_type for node in graph.node}
    assert "Conv" in operators and "Concat" in operators and "Slice" in operators
    # of data that decide what is computed, and what few runtimes of phones have
    assert not operators & {"Loop", "If", "Scan", "GatherND", "ScatterND", "ScatterElements", "NonZero"}
    kernels = {tensor.name: tensor.dims for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert {len(kernels[node.input[1]]) for node in convolutions} == {4}


@torch.no_grad()
def test_traced_operations_are_of_four_dimensions_or_less():
    """What needs no ONNX: the same of the program that it is made from."""
    program = torch.export.export(small("tsm"), (torch.rand(1, 4, 3, 32, 32),)).run_decompositions()
    computed = [node for node in program.graph.nodes if node.op == "call_function" and "val" in node.meta]
    values = {node.name: node.meta["val"] for node in computed}
    deep = {name for name, value in values.items() if isinstance(value, torch.Tensor) and value.dim() > 4}
    assert len(values) > 20 and not deep
