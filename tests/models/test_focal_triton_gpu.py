"""The Triton kernels on a GPU against the composite: numbers, races, streams, graphs, the compiler. See docs/gpu.md."""

import contextlib

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models import focal_triton
from hf_effvid.models.focal_composite import gather_spatial_context, gather_temporal_context
from hf_effvid.models.focal_implementation import FocalCall
from hf_effvid.models.focal_ops import chosen_implementation, focal_implementation, set_focal_implementation
from hf_effvid.models.focal_triton_launch import launch_spatial, launch_temporal, temporal_tile


pytestmark = pytest.mark.gpu

DEVICE = "cuda"
BRANCHES = {
    "spatial": (focal_triton._gather_spatial, launch_spatial, gather_spatial_context),
    "temporal": (focal_triton._gather_temporal, launch_temporal, gather_temporal_context),
}
# (B, T, H, W, C), large enough that the temporal kernel is worth launching on 132 multiprocessors
SHAPES = [
    (2, 8, 56, 56, 96),
    (8, 1, 28, 28, 192),
    (4, 4, 28, 28, 100),
    (16, 16, 14, 14, 384),
    (3, 5, 37, 29, 128),
    (32, 8, 7, 7, 768),
    (2, 8, 56, 56, 12),
]
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(autouse=True)
def exact_and_forgetful():
    """No TF32, NaN in memory that nothing has written to, and nothing remembered of kernels that failed."""
    settings = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    focal_triton._refused.clear()
    focal_triton._verified.clear()
    yield
    assert not focal_triton._refused
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = settings


def branch_inputs(branch, shape, dtype, levels=2, window=3, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    channels = shape[-1]
    draw = lambda *size: torch.randn(*size, generator=generator, device=DEVICE).to(dtype)  # noqa: E731
    wide = draw(*shape[:-1], channels + levels + 1)
    context, gates = wide.split([channels, levels + 1], dim=-1)
    sizes = [window + 2 * level for level in range(levels)]
    if branch == "spatial":
        return context, gates, [draw(channels, 1, size, size) / size for size in sizes]
    return context, gates, [draw(channels, channels, size) / (channels * size) ** 0.5 for size in sizes]


def relative_error(result, exact):
    return ((result.double() - exact).norm() / exact.norm()).item()


def exactly(composite, context, gates, kernels):
    return composite(context.double(), gates.double(), [kernel.double() for kernel in kernels])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("branch", BRANCHES)
def test_forward(branch, shape, dtype):
    _, launch, composite = BRANCHES[branch]
    inputs = branch_inputs(branch, shape, dtype)
    if branch == "temporal" and temporal_tile(inputs[0]) is None:
        pytest.skip("not worth a kernel on this machine")
    exact = exactly(composite, *inputs)
    error, usual = relative_error(launch(*inputs), exact), relative_error(composite(*inputs), exact)
    print(f"{branch} {shape} {dtype}: kernel {error:.2e}, composite {usual:.2e}")
    assert error < TOLERANCES[dtype]


@pytest.mark.parametrize(("levels", "window"), [(1, 3), (3, 3), (2, 5), (3, 1)])
@pytest.mark.parametrize("branch", BRANCHES)
def test_other_levels_and_windows(branch, levels, window):
    _, launch, composite = BRANCHES[branch]
    inputs = branch_inputs(branch, SHAPES[0], torch.bfloat16, levels, window)
    assert relative_error(launch(*inputs), exactly(composite, *inputs)) < TOLERANCES[torch.bfloat16]


@pytest.mark.parametrize("branch", BRANCHES)
def test_tf32_where_torch_allows_it(branch):
    torch.backends.cudnn.allow_tf32 = True
    _, launch, composite = BRANCHES[branch]
    inputs = branch_inputs(branch, SHAPES[0], torch.float32)
    assert relative_error(launch(*inputs), exactly(composite, *inputs)) < 1e-3


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("shape", SHAPES[:1] + SHAPES[3:5], ids=str)
def test_every_run_gives_the_same_bits(branch, shape):
    """A result that moves is a race between levels."""
    _, launch, _ = BRANCHES[branch]
    inputs = branch_inputs(branch, shape, torch.bfloat16)
    first = launch(*inputs)
    for _ in range(50):
        assert torch.equal(launch(*inputs), first)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("branch", BRANCHES)
def test_backward(branch, dtype):
    operator, _, composite = BRANCHES[branch]
    gradients = []
    for function, precision in ((operator, dtype), (composite, dtype), (composite, torch.float64)):
        context, gates, kernels = branch_inputs(branch, (2, 8, 28, 28, 96), dtype)
        leaves = [tensor.to(precision).detach().requires_grad_() for tensor in (context, gates, *kernels)]
        output = function(leaves[0], leaves[1], leaves[2:])
        gradients.append(torch.autograd.grad(output.float().square().sum(), leaves))
    for ours, usual, exact in zip(*gradients, strict=True):
        # not further from the truth than the composite's own roundings, twice over
        assert relative_error(ours, exact.double()) < 2 * relative_error(usual, exact.double()) + TOLERANCES[dtype]


def test_offsets_beyond_32_bits():
    shape = (96, 8, 64, 64, 704)
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB")
    for branch in BRANCHES:
        operator, launch, composite = BRANCHES[branch]
        context, gates, kernels = branch_inputs(branch, (1, *shape[1:]), torch.bfloat16)
        many = [x.expand(shape[0], *x.shape[1:]).contiguous() for x in (context, gates)]
        assert many[0].numel() > 2**31
        result = launch(*many, kernels)
        error = relative_error(result[-1:], exactly(composite, context, gates, kernels))
        del result, many
        assert error < TOLERANCES[torch.bfloat16]


# --- in a model ---


def make_model(dtype=torch.bfloat16, **options):
    torch.manual_seed(0)
    config = VideoFocalNetConfig.from_preset("tiny", num_labels=10, initialization="fan_in", drop_path_rate=0.0)
    for name, value in options.items():
        setattr(config, name, value)
    return VideoFocalNetForVideoClassification(config).to(DEVICE, dtype).eval()


def make_clips(batch=2, frames=8, size=224, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, frames, 3, size, size, generator=generator).to(DEVICE, dtype)


@contextlib.contextmanager
def process_setting(name):
    set_focal_implementation(name)
    try:
        yield
    finally:
        set_focal_implementation()


def test_the_choice_on_this_machine():
    call = FocalCall("modulation", "cuda", torch.bfloat16, False, (8, 8, 56, 56, 96), (3, 5), (3, 5))
    assert chosen_implementation(call).name == "triton"
    assert chosen_implementation(call._replace(grad=True)).name == "composite"
    assert chosen_implementation(call._replace(dtype=torch.float64)).name == "composite"


@pytest.mark.parametrize(("frames", "size"), [(8, 224), (1, 224), (4, 160), (16, 200)])
def test_a_model_in_half_precision_is_as_close_to_single_as_with_the_composite(frames, size):
    clips, errors = make_clips(frames=frames, size=size), {}
    with torch.no_grad():
        with focal_implementation("composite"):
            exact = make_model(torch.float32)(clips).logits.double()
        model = make_model()
        for name in ("composite", "triton"):
            with focal_implementation(name):
                errors[name] = relative_error(model(clips).logits, exact)
    print(errors)
    assert errors["triton"] < 1.5 * errors["composite"] + 1e-3
    assert {branch for branch, *_ in focal_triton._verified} == {"spatial", "temporal"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    model, clips = make_model(torch.float32), make_clips()
    with torch.no_grad(), torch.autocast(DEVICE, dtype=dtype):
        with focal_implementation("composite"):
            usual = model(clips).logits
        with focal_implementation("triton"):
            ours = model(clips).logits
    assert relative_error(ours, usual.double()) < 0.1
    assert focal_triton._verified


@pytest.mark.parametrize("keep", [False, True])
def test_training_gives_the_gradients_of_the_composite(keep):
    model, clips = make_model(torch.float32), make_clips()
    if keep:
        model.gradient_checkpointing_enable()
        model.train()
    gradients = []
    for name in ("triton", "composite"):
        model.zero_grad()
        with focal_implementation(name):
            model(clips, labels=torch.tensor([1, 2], device=DEVICE)).loss.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert relative_error(gradients[0], gradients[1].double()) < 1e-3
    assert focal_triton._verified


def test_checkpointing_an_operator():
    context, gates, kernels = branch_inputs("temporal", SHAPES[0], torch.bfloat16)
    leaves = [tensor.detach().requires_grad_() for tensor in (context, gates, *kernels)]
    run = lambda c, g, *k: focal_triton._gather_temporal(c, g, list(k)).float().square().sum()  # noqa: E731
    plain = torch.autograd.grad(run(*leaves), leaves)
    kept = torch.autograd.grad(checkpoint(run, *leaves, use_reentrant=False), leaves)
    torch.testing.assert_close(kept, plain)


def test_streams_do_not_wait_for_each_other_and_give_the_same():
    inputs = [branch_inputs("temporal", SHAPES[0], torch.bfloat16, seed=seed) for seed in range(4)]
    expected = [launch_temporal(*arguments) for arguments in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in inputs]
    results = []
    for stream, arguments in zip(streams, inputs, strict=True):
        with torch.cuda.stream(stream):
            results.append([launch_temporal(*arguments) for _ in range(5)])
    torch.cuda.synchronize()
    for mine, reference in zip(results, expected, strict=True):
        assert all(torch.equal(result, reference) for result in mine)


@pytest.mark.parametrize("name", ["triton", "composite"])
def test_a_replayed_graph_equals_eager(name):
    model, clips = make_model(), make_clips(dtype=torch.bfloat16)
    static, graph = clips.clone(), torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()
    with torch.no_grad(), focal_implementation(name):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(static)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            output = model(static).logits
        for seed in range(3):
            static.copy_(torch.randn_like(static) * (seed + 1))
            graph.replay()
            torch.testing.assert_close(output, model(static).logits, rtol=2e-2, atol=2e-2)


def test_what_was_never_compared_is_not_recorded_in_a_graph():
    context, gates, kernels = branch_inputs("temporal", SHAPES[0], torch.bfloat16)
    gather_temporal_context(context, gates, kernels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = focal_triton._gather_temporal(context, gates, kernels)
    graph.replay()
    torch.testing.assert_close(output, gather_temporal_context(context, gates, kernels), rtol=2e-2, atol=2e-2)
    assert not focal_triton._verified


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("name", ["triton", "auto"])
def test_the_compiler_makes_one_graph(name, mode):
    model, clips = make_model(depths=(1, 1, 1, 1)), make_clips(dtype=torch.bfloat16)
    torch.compiler.reset()
    with torch.no_grad(), process_setting(name):
        run = torch.compile(model, fullgraph=True, mode=mode)
        for seed in range(4):
            torch.manual_seed(seed)
            clips.normal_()
            ours = run(clips).logits.clone()
            assert relative_error(ours, model(clips).logits.double()) < 0.05
    torch.compiler.reset()


def test_the_compiler_trains():
    model, clips = make_model(depths=(1, 1, 1, 1)).train(), make_clips(dtype=torch.bfloat16)
    labels, gradients = torch.tensor([1, 2], device=DEVICE), []
    torch.compiler.reset()
    for compiling in (True, False):
        model.zero_grad()
        with process_setting("triton"):
            run = torch.compile(model, fullgraph=True) if compiling else model
            run(clips, labels=labels).loss.backward()
        gradients.append(torch.cat([parameter.grad.float().flatten() for parameter in model.parameters()]))
    assert relative_error(gradients[0], gradients[1].double()) < 0.05
    torch.compiler.reset()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_device_that_is_not_the_current_one():
    inputs = branch_inputs("temporal", SHAPES[0], torch.bfloat16)
    expected = launch_temporal(*inputs).cpu()
    moved = [x.to("cuda:1") for x in inputs[:2]], [kernel.to("cuda:1") for kernel in inputs[2]]
    torch.testing.assert_close(launch_temporal(*moved[0], moved[1]).cpu(), expected)
