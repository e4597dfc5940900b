"""Every implementation of focal modulation on the processor gives what its definition gives, forward and backward."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_effvid.models import focal_block, processor_autograd, processor_libraries
from hf_effvid.models.fast_temporal_convolution import PAIRS
from hf_effvid.models.focal_composite import composite_focal_modulation
from hf_effvid.models.focal_ops import (
    IMPLEMENTATIONS,
    chosen_implementation,
    focal_feed_forward,
    focal_implementation,
    focal_modulation,
    focal_projection,
)
from hf_effvid.models.processor_autograd import OneDnnLinear, OneDnnTemporalConvolution
from hf_effvid.models.processor_libraries import onednn_can


# implementation and number type: oneDNN has no double precision in PyTorch
DOUBLE = ("channels_last", torch.float64)
SETTINGS = [DOUBLE, ("channels_last", torch.float32), ("channels_last", torch.bfloat16)]
SETTINGS += [("onednn", dtype) for dtype in (torch.float32, torch.bfloat16) if onednn_can(dtype)]
# largest difference from the composite in double precision, relative to the largest value where that is above 1
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-5, torch.bfloat16: 0.1}

shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "steps": st.integers(1, 9),
        "height": st.integers(1, 9),
        "width": st.integers(1, 9),
        "channels": st.integers(1, 20),
        "levels": st.integers(0, 3),
        "window": st.sampled_from([1, 3, 5, 7]),
        "normalize": st.booleans(),
        "temporal": st.booleans(),
        "contiguous": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


def make_arguments(spec, dtype):
    """Arguments of `focal_modulation`, and every tensor among them that can have a gradient."""
    generator = torch.Generator().manual_seed(spec["seed"])
    grid, channels, levels = (
        (spec["batch"], spec["steps"], spec["height"], spec["width"]),
        spec["channels"],
        spec["levels"],
    )

    def draw(*size):
        value = torch.randn(*size, generator=generator, dtype=torch.float64)
        if not spec["contiguous"] and len(size) == 5:  # parts of something wider, as a fused projection gives them
            value = torch.cat([value, value], dim=-1)[..., : size[-1]]
        return value.to(dtype).requires_grad_()

    def project():
        linear = nn.Linear(channels, channels).to(dtype)
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / channels**0.5)
        return linear

    sizes = [spec["window"] + 2 * level for level in range(levels)]
    spatial = [draw(channels, 1, k, k).detach().div_(k).requires_grad_() for k in sizes]
    temporal = [draw(channels, channels, k).detach().div_((k * channels) ** 0.5).requires_grad_() for k in sizes]
    query, *contexts = (draw(*grid, channels) for _ in range(3))
    gates = [draw(*grid, levels + 1) for _ in range(2)]
    projections = [project(), project()]
    arguments = [query, contexts[0], gates[0], contexts[1], gates[1], spatial, temporal, *projections]
    leaves = [
        query,
        *contexts,
        *gates,
        *spatial,
        *temporal,
        *(p for linear in projections for p in linear.parameters()),
    ]
    if not spec["temporal"]:
        arguments[3] = arguments[4] = arguments[8] = None
    return arguments, leaves, {"normalize": spec["normalize"]}


def in_double(arguments, leaves):
    """The same in double precision."""
    twins = {id(leaf): leaf.detach().double().requires_grad_() for leaf in leaves}

    def twin(value):
        if isinstance(value, list):
            return [twin(item) for item in value]
        if isinstance(value, nn.Linear):
            copied = nn.Linear(value.in_features, value.out_features).double()
            copied.weight, copied.bias = (nn.Parameter(p.detach().double()) for p in (value.weight, value.bias))
            twins[id(value.weight)], twins[id(value.bias)] = copied.weight, copied.bias
            return copied
        return value if value is None else twins[id(value)]

    return [twin(value) for value in arguments], [twins[id(leaf)] for leaf in leaves]


def assert_as_good(results, references, dtype):
    for result, reference in zip(results, references, strict=True):
        assert (result is None) == (reference is None)
        if reference is not None and reference.numel():
            scale = reference.abs().max().clamp(min=1.0)
            assert ((result.double() - reference).abs().max() / scale).item() <= TOLERANCE[dtype]


def gradients(outputs, leaves):
    """Of a sum with fixed weights, so that no two outputs are treated alike."""
    outputs = [output for output in outputs if output is not None]
    weights = [torch.linspace(-1, 1, output.numel()).to(output).view(output.shape) for output in outputs]
    loss = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    return torch.autograd.grad(loss, leaves, allow_unused=True)


@pytest.mark.parametrize(("name", "dtype"), SETTINGS)
@settings(max_examples=12, deadline=None)
@given(spec=shapes, keep_modulators=st.booleans(), fewer_products=st.booleans())
def test_modulation_is_the_composite(name, dtype, spec, keep_modulators, fewer_products):
    arguments, leaves, options = make_arguments(spec, dtype)
    double, double_leaves = in_double(arguments, leaves)
    reference = composite_focal_modulation(*double, **options)
    with focal_implementation(name):
        with torch.no_grad():
            before = [leaf.clone() for leaf in leaves]
            with mock.patch.object(
                processor_libraries, "is_faster", lambda *call: fewer_products and call[-1] in PAIRS
            ):
                plain = focal_modulation(*arguments, **options, keep_modulators=keep_modulators)
            assert all(torch.equal(leaf, copy) for leaf, copy in zip(leaves, before, strict=True))
        result = focal_modulation(*arguments, **options)
    assert plain.modulated.dtype == result.modulated.dtype == dtype
    assert_as_good(plain[:1], reference[:1], dtype)
    assert not keep_modulators or (plain.temporal_modulator is None) == (not spec["temporal"])
    assert_as_good(result, reference, dtype)
    if dtype != torch.bfloat16:  # its gradients are noise of the same size whoever computes them
        assert_as_good(gradients(result, leaves), gradients(reference, double_leaves), dtype)


@pytest.mark.parametrize(("name", "dtype"), SETTINGS)
@settings(max_examples=10, deadline=None)
@given(rows=st.integers(1, 50), channels=st.integers(1, 30), parts=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_projections_and_mlp_are_the_modules(name, dtype, rows, channels, parts):
    generator = torch.Generator().manual_seed(rows)
    tokens = torch.randn(2, rows, channels, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    fc1, fc2 = nn.Linear(channels, sum(parts), bias=rows % 2 == 0).to(dtype), nn.Linear(sum(parts), channels).to(dtype)
    leaves = [tokens, *fc1.parameters(), *fc2.parameters()]
    (double_tokens, double1, double2), double_leaves = in_double_modules(tokens, fc1, fc2)
    references = [*double1(double_tokens).split(parts, -1), double2(nn.functional.gelu(double1(double_tokens)))]

    def run():
        with focal_implementation(name):
            return [*focal_projection(fc1, tokens, parts), focal_feed_forward(fc1, fc2, tokens)]

    with torch.no_grad():
        assert_as_good(run(), references, dtype)
    results = run()
    assert_as_good(results, references, dtype)
    if dtype != torch.bfloat16:
        assert_as_good(gradients(results, leaves), gradients(references, double_leaves), dtype)


def in_double_modules(tokens, *modules):
    tokens = tokens.detach().double().requires_grad_()
    copies = []
    for module in modules:
        copy = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None).double()
        copy.load_state_dict(module.state_dict())
        copies.append(copy)
    return (tokens, *copies), [tokens, *(p for copy in copies for p in copy.parameters())]


def test_the_mlp_in_pieces_is_the_mlp(monkeypatch):
    monkeypatch.setattr(focal_block, "WEIGHT_MULTIPLE", 0)
    monkeypatch.setattr(focal_block, "MLP_PIECE_BYTES", 7 * 4 * 20)  # seven pieces, the last one is smaller
    torch.manual_seed(0)
    fc1, fc2, tokens = nn.Linear(5, 20), nn.Linear(20, 6), torch.randn(2, 24, 5)
    for name in {name for name, _ in SETTINGS}:
        with focal_implementation(name), torch.no_grad():
            torch.testing.assert_close(focal_feed_forward(fc1, fc2, tokens), fc2(nn.functional.gelu(fc1(tokens))))


# --- derivatives of the oneDNN functions, whose formulas hold in any precision ---


@pytest.fixture
def in_any_precision(monkeypatch):
    monkeypatch.setattr(processor_autograd, "onednn_linear", nn.functional.linear)
    monkeypatch.setattr(processor_autograd, "ROWS", 3)


def draw(*size):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size))).requires_grad_()


@pytest.mark.parametrize("wide", [False, True])
def test_derivatives_of_the_linear_layer(in_any_precision, wide):
    inputs = draw(2, 4, 3), draw(*((5, 3) if wide else (2, 3))), draw(5 if wide else 2)
    assert torch.autograd.gradcheck(OneDnnLinear.apply, inputs)
    assert torch.autograd.gradgradcheck(OneDnnLinear.apply, inputs)


@pytest.mark.parametrize(("steps", "size"), [(1, 3), (2, 5), (4, 3), (3, 1)])
def test_derivatives_of_the_temporal_convolution(in_any_precision, steps, size):
    inputs = draw(2, steps, 2, 2), draw(3, 2, size, 1)
    assert torch.autograd.gradcheck(OneDnnTemporalConvolution.apply, inputs)
    assert torch.autograd.gradgradcheck(OneDnnTemporalConvolution.apply, inputs)


def test_gradients_of_whole_modulation_by_finite_differences():
    spec = {"batch": 1, "steps": 2, "height": 2, "width": 3, "channels": 2, "levels": 2, "window": 3}
    arguments, leaves, options = make_arguments(
        {**spec, "normalize": True, "temporal": True, "contiguous": False, "seed": 0}, torch.float64
    )

    def run(query, context, gates, temporal_context, temporal_gates):
        inputs = [query, context, gates, temporal_context, temporal_gates, *arguments[5:]]
        with focal_implementation("channels_last"):
            return focal_modulation(*inputs, **options).modulated

    assert torch.autograd.gradcheck(run, arguments[:5])


@pytest.mark.skipif(not onednn_can(torch.float32), reason="this PyTorch has no oneDNN")
def test_second_derivatives_in_single_precision():
    spec = {"batch": 2, "steps": 3, "height": 2, "width": 2, "channels": 4, "levels": 2, "window": 3}
    arguments, _, options = make_arguments(
        {**spec, "normalize": False, "temporal": True, "contiguous": True, "seed": 0}, torch.float32
    )
    found = {}
    for name in ("composite", "onednn"):
        with focal_implementation(name):
            modulated = focal_modulation(*arguments, **options).modulated
        (first,) = torch.autograd.grad(modulated.square().sum(), arguments[3], create_graph=True)
        found[name] = torch.autograd.grad(first.square().sum(), [*arguments[6], arguments[8].weight])
    for ours, reference in zip(found["onednn"], found["composite"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4 * reference.abs().max().item())


def test_the_settings_of_these_tests_are_what_runs():
    """Where an implementation did not support its number type, the composite would be compared with itself."""
    from hf_effvid.models.focal_implementation import FocalCall

    for name, dtype in SETTINGS:
        for operation in ("modulation", "projection", "feed_forward", "block"):
            for grad in (False, True):
                with focal_implementation(name):
                    call = FocalCall(operation, "cpu", dtype, grad, (1, 8, 4, 4, 8), (3, 5), (3, 5))
                    assert chosen_implementation(call) is IMPLEMENTATIONS[name]
