"""Which axes stay open is asked of the model; what cannot be traced is named, and a fast implementation leaves no trace."""

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_effvid.export import ExportError
from hf_effvid.export.tracing import LogitsOnly, ShapeProbe, smallest_lengths, trace
from hf_effvid.models.focal_ops import IMPLEMENTATIONS, focal_implementation

from ..evaluation.conftest import tiny_videomae
from .conftest import one_block, tiny_focalnet


class Classifier(nn.Module):
    """The least a video classifier has, with a head that may do something odd."""

    def __init__(self, odd):
        super().__init__()
        self.head, self.odd = nn.Linear(3, 4), odd

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.odd(self.head(pixel_values.mean(dim=(1, 3, 4))), pixel_values))


def test_a_videomae_keeps_its_frames_and_size():
    module = LogitsOnly(tiny_videomae("abcd").eval())
    assert ShapeProbe(module, (4, 3, 32, 32)).free_axes() == ("batch",)
    program = trace(module, (4, 3, 32, 32), ("batch",))
    for batch in (1, 2, 3):
        pixels = torch.randn(batch, 4, 3, 32, 32)
        torch.testing.assert_close(program.module()(pixels), module(pixels))


def test_a_focalnet_leaves_everything_open_but_the_channels():
    module = LogitsOnly(tiny_focalnet())
    assert ShapeProbe(module, (8, 3, 32, 32)).free_axes() == ("batch", "frames", "height", "width")
    program = trace(module, (8, 3, 32, 32), ("batch", "frames", "height", "width"))
    # torch treats a grid of one site as another case: the smallest grid has two
    assert smallest_lengths(program) == {"batch": 1, "frames": 1, "height": 16, "width": 16}
    for shape in ((1, 1, 3, 16, 16), (3, 16, 3, 47, 33), (2, 5, 3, 32, 65)):
        pixels = torch.randn(shape)
        torch.testing.assert_close(program.module()(pixels), module(pixels))


def test_probing_does_not_touch_the_weights():
    model = tiny_focalnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ShapeProbe(LogitsOnly(model), (8, 3, 32, 32)).free_axes()
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu" and torch.equal(value, before[name])


def test_a_model_that_looks_at_values_is_probed_for_real():
    def odd(logits, pixels):
        return logits * (2.0 if bool(pixels.isfinite().all()) else 1.0)

    assert ShapeProbe(LogitsOnly(Classifier(odd)), (4, 3, 8, 8)).free_axes() == ("batch", "frames", "height", "width")


def test_what_cannot_be_traced_says_why():
    module = LogitsOnly(Classifier(lambda logits, pixels: logits if pixels.sum().item() > 0 else -logits))
    with pytest.raises(ExportError, match="torch.export cannot trace Classifier.*"):
        trace(module, (4, 3, 8, 8), ("batch",))


def test_an_axis_that_the_code_fixes_is_named():
    weights = torch.ones(8, 4)
    module = LogitsOnly(Classifier(lambda logits, pixels: logits + pixels.mean(dim=(2, 3, 4)) @ weights))
    with pytest.raises(ExportError, match="frames cannot stay open"):
        trace(module, (4, 3, 8, 8), ("batch", "frames"))  # the sample has 8 frames


def operators(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.fixture(scope="module")
def plain():
    """A model, and its graph as the plain implementation gives it."""
    module = LogitsOnly(one_block())
    with focal_implementation("composite"):
        return module, trace(module, (8, 3, 32, 32), ("batch", "frames"))


@pytest.mark.parametrize("name", sorted({"auto", *IMPLEMENTATIONS} - {"composite"}))
def test_a_fast_implementation_leaves_no_trace_in_the_graph(plain, name):
    module, expected = plain
    pixels = torch.randn(2, 8, 3, 32, 32)
    with focal_implementation(name), torch.no_grad():
        found = module(pixels)  # it is at work, and whatever it caches is cached
        program = trace(module, (8, 3, 32, 32), ("batch", "frames"))
    assert operators(program) == operators(expected)
    assert all(operator.startswith(("aten.", "<built-in", "_operator")) for operator in operators(program))
    torch.testing.assert_close(program.module()(pixels), found, atol=1e-5, rtol=1e-4)


def test_nothing_of_this_machine_is_in_the_graph(plain, tmp_path):
    torch.export.save(plain[1], tmp_path / "model.pt2")
    content = (tmp_path / "model.pt2").read_bytes()
    assert b"hf_effvid" not in content and b"site-packages" not in content
