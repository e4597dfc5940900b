"""The operators around the Triton kernels: gradients, fallback, compiler; the kernels themselves are tested next door."""

import logging
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hf_effvid.models import focal_triton, focal_triton_launch
from hf_effvid.models.focal_composite import (
    composite_focal_modulation,
    gather_spatial_context,
    gather_temporal_context,
)
from hf_effvid.models.focal_implementation import FocalCall
from hf_effvid.models.focal_triton import TRITON, triton_focal_modulation


BRANCHES = {
    "spatial": (focal_triton._gather_spatial, gather_spatial_context),
    "temporal": (focal_triton._gather_temporal, gather_temporal_context),
}


def branch_inputs(branch, levels=2, shape=(2, 3, 4, 5, 6), window=3, dtype=torch.float64):
    """Context and gates as they leave a projection (strided), and kernels."""
    generator = torch.Generator().manual_seed(0)
    channels = shape[-1]
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=dtype)  # noqa: E731
    context, gates = draw(*shape[:-1], channels + levels + 1).split([channels, levels + 1], dim=-1)
    sizes = [window + 2 * level for level in range(levels)]
    if branch == "spatial":
        return context, gates, [draw(channels, 1, size, size) / size for size in sizes]
    return context, gates, [draw(channels, channels, size) / (channels * size) ** 0.5 for size in sizes]


def modulation_arguments(shape=(2, 3, 4, 5, 6), dtype=torch.float32):
    spatial, temporal = (
        branch_inputs("spatial", shape=shape, dtype=dtype),
        branch_inputs("temporal", shape=shape, dtype=dtype),
    )
    torch.manual_seed(1)
    projections = [nn.Linear(shape[-1], shape[-1], dtype=dtype) for _ in range(2)]
    query = torch.randn(shape, dtype=dtype)
    return [query, *spatial[:2], *temporal[:2], spatial[2], temporal[2], *projections]


def leaves(context, gates, kernels):
    return [tensor.detach().clone().requires_grad_() for tensor in (context, gates, *kernels)]


@pytest.fixture
def forgetful():
    """Nothing that a test makes the kernels do is remembered after it."""
    before = set(focal_triton._refused), set(focal_triton._verified)
    focal_triton._refused.clear()
    focal_triton._verified.clear()
    yield
    for kept, now in zip(before, (focal_triton._refused, focal_triton._verified), strict=True):
        now.clear()
        now.update(kept)


# --- operators ---


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(("levels", "window"), [(0, 3), (1, 3), (2, 3), (3, 1), (2, 5)])
def test_gradients_are_those_of_the_composite(branch, levels, window):
    operator, composite = BRANCHES[branch]
    inputs = branch_inputs(branch, levels, window=window)
    ours, reference = leaves(*inputs), leaves(*inputs)
    output, expected = operator(ours[0], ours[1], ours[2:]), composite(reference[0], reference[1], reference[2:])
    assert output.is_contiguous()
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    weights = torch.randn_like(output)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for own, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("frozen", ["kernels", "one kernel", "context", "gates"])
def test_gradients_with_something_frozen(branch, frozen):
    operator, composite = BRANCHES[branch]
    held = {"kernels": [2, 3], "one kernel": [2], "context": [0], "gates": [1]}[frozen]
    ours, reference = leaves(*branch_inputs(branch)), leaves(*branch_inputs(branch))
    for index in held:
        ours[index].requires_grad_(False)
    operator(ours[0], ours[1], ours[2:]).square().sum().backward()
    composite(reference[0], reference[1], reference[2:]).square().sum().backward()
    for index, (own, other) in enumerate(zip(ours, reference, strict=True)):
        assert (own.grad is None) == (index in held)
        if index not in held:
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("branch", BRANCHES)
def test_torch_finds_nothing_wrong_with_the_operators(branch):
    operator, _ = BRANCHES[branch]
    context, gates, *kernels = leaves(*branch_inputs(branch, shape=(1, 2, 3, 2, 4)))
    torch.library.opcheck(operator, (context, gates, kernels))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant):
    arguments = modulation_arguments()
    gradients = []
    for keep in (False, True):
        query, *tensors = (a.detach().clone().requires_grad_() for a in arguments[:5])
        run = lambda q, *t: triton_focal_modulation(q, *t, *arguments[5:]).modulated.square().sum()  # noqa: E731
        loss = checkpoint(run, query, *tensors, use_reentrant=use_reentrant) if keep else run(query, *tensors)
        gradients.append(
            torch.autograd.grad(loss, [query, *tensors]) if not use_reentrant else _backward(loss, query, *tensors)
        )
    torch.testing.assert_close(gradients[0], gradients[1])


def _backward(loss, *tensors):
    loss.backward()
    return tuple(tensor.grad for tensor in tensors)


class Modulated(nn.Module):
    """The fused modulation with everything trainable."""

    def __init__(self):
        super().__init__()
        query, *tensors, spatial, temporal, first, second = modulation_arguments(shape=(1, 3, 4, 5, 6))
        self.spatial, self.temporal = nn.ParameterList(spatial), nn.ParameterList(temporal)
        self.first, self.second = first, second

    def forward(self, query, *tensors):
        kernels = list(self.spatial), list(self.temporal)
        return triton_focal_modulation(query, *tensors, *kernels, self.first, self.second).modulated.square().mean()


def _one_of_two_processes(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(Modulated())
    clips = [tensor[rank : rank + 1] for tensor in modulation_arguments()[:5]]
    model(*clips).backward()
    torch.save({name: parameter.grad for name, parameter in model.module.named_parameters()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path):
    torch.multiprocessing.spawn(_one_of_two_processes, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    alone = Modulated()
    alone(*modulation_arguments()[:5]).backward()
    assert set(first) == {name for name, _ in alone.named_parameters()}
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(first[name], parameter.grad)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_modulation_is_the_composite(normalize):
    arguments = modulation_arguments()
    ours = triton_focal_modulation(*arguments, normalize=normalize)
    torch.testing.assert_close(ours, composite_focal_modulation(*arguments, normalize=normalize))
    without_time = [*arguments[:3], None, None, arguments[5], [], arguments[7], None]
    ours = triton_focal_modulation(*without_time, normalize=normalize)
    torch.testing.assert_close(ours[:2], composite_focal_modulation(*without_time, normalize=normalize)[:2])
    assert ours.temporal_modulator is None


def test_autocast_decides_about_the_type():
    arguments = modulation_arguments()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, reference = triton_focal_modulation(*arguments), composite_focal_modulation(*arguments)
        gathered = focal_triton._fused(focal_triton._gather_temporal, *branch_inputs("temporal", dtype=torch.float32))
    assert gathered.dtype == torch.bfloat16 == ours.temporal_modulator.dtype
    torch.testing.assert_close(ours.modulated, reference.modulated, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_compiler_sees_no_break(dynamic):
    arguments = modulation_arguments()
    torch.compiler.reset()
    compiled = torch.compile(triton_focal_modulation, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for shape in [(2, 3, 4, 5, 6), (1, 4, 3, 5, 6)] if dynamic else [(2, 3, 4, 5, 6)]:
        arguments = modulation_arguments(shape)
        results = []
        for function in (compiled, triton_focal_modulation):
            tensors = [a.detach().clone().requires_grad_() for a in arguments[:5]]
            output = function(*tensors, *arguments[5:]).modulated
            results.append([output, *torch.autograd.grad(output.square().sum(), tensors)])
        torch.testing.assert_close(*results)
    torch.compiler.reset()


# --- fallback ---


def call(**changes):
    usual = {
        "operation": "modulation",
        "device_type": "cuda",
        "dtype": torch.bfloat16,
        "grad": False,
        "shape": (2, 8, 56, 56, 96),
        "spatial_sizes": (3, 5),
        "temporal_sizes": (3, 5),
    }
    return FocalCall(**{**usual, **changes})


@pytest.mark.parametrize(
    ("changes", "supported", "preferred"),
    [
        ({}, True, True),
        ({"dtype": torch.float16, "temporal_sizes": None}, True, True),
        ({"spatial_sizes": (5, 7, 9), "temporal_sizes": (5, 7, 9)}, True, True),
        ({"grad": True}, True, False),
        ({"dtype": torch.float32}, True, False),
        ({"dtype": torch.float64}, False, None),
        ({"operation": "projection"}, True, True),
        ({"spatial_sizes": (), "temporal_sizes": ()}, False, None),
        ({"spatial_sizes": (3, 3)}, False, None),
        ({"temporal_sizes": (3, 7)}, False, None),
        ({"shape": (2, 65, 7, 7, 768)}, False, None),
        ({"device_type": "mps"}, False, None),
    ],
)
def test_which_calls_are_taken(monkeypatch, changes, supported, preferred):
    monkeypatch.setattr(focal_triton, "TRITON_PROBLEM", None)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert TRITON.supports(call(**changes)) is supported
    if supported:
        assert TRITON.prefers(call(**changes)) is preferred


@pytest.mark.parametrize("missing", ["triton", "cuda"])
def test_no_call_is_taken_without(monkeypatch, missing):
    monkeypatch.setattr(focal_triton, "TRITON_PROBLEM", "not installed" if missing == "triton" else None)
    monkeypatch.setattr(torch.version, "cuda", None if missing == "cuda" else "13.2")
    assert not TRITON.supports(call())


def pretend_to_have_a_kernel(monkeypatch, launch):
    monkeypatch.setattr(focal_triton, "_has_kernel", lambda *arguments: True)
    monkeypatch.setattr(focal_triton, "launch_temporal", launch)


@pytest.mark.parametrize("fault", ["raises", "is wrong", "is not a number"])
def test_a_kernel_that_fails_is_not_used_again_and_one_line_says_so(monkeypatch, caplog, forgetful, fault):
    launches = []

    def launch(context, gates, kernels):
        launches.append(context.shape)
        if fault == "raises":
            raise RuntimeError("out of resource: shared memory\nRequired: 300000")
        right = gather_temporal_context(context, gates, kernels)
        return right * 1.2 if fault == "is wrong" else right * float("nan")

    pretend_to_have_a_kernel(monkeypatch, launch)
    monkeypatch.setattr(focal_triton.logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    context, gates, kernels = branch_inputs("temporal", dtype=torch.bfloat16)
    for _ in range(3):
        output = focal_triton._gather_temporal(context, gates, kernels)
        torch.testing.assert_close(output, gather_temporal_context(context, gates, kernels))
    assert len(launches) == 1
    (record,) = [record for record in caplog.records if "Triton" in record.message]
    assert (
        record.message.count("\n") == 0
        and "the temporal Triton kernel failed on cpu in torch.bfloat16" in record.message
    )
    assert ("shared memory" if fault == "raises" else "differs from the composite") in record.message


def test_a_kernel_is_compared_once_for_every_shape_that_it_is_compiled_for(monkeypatch, forgetful):
    compared = []

    def reference(*arguments):
        compared.append(arguments[0].shape)
        return gather_temporal_context(*arguments)

    pretend_to_have_a_kernel(monkeypatch, gather_temporal_context)
    monkeypatch.setattr(focal_triton, "gather_temporal_context", reference)
    for shape in [(2, 3, 4, 5, 6), (1, 3, 2, 2, 6), (2, 4, 4, 5, 6)]:
        for _ in range(2):
            focal_triton._gather_temporal(*branch_inputs("temporal", shape=shape, dtype=torch.float32))
    assert compared == [(1, 3, 4, 5, 6), (1, 4, 4, 5, 6)]


def test_running_out_of_memory_is_no_fault_of_the_kernel(monkeypatch, forgetful):
    def launch(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pretend_to_have_a_kernel(monkeypatch, launch)
    with pytest.raises(torch.OutOfMemoryError):
        focal_triton._gather_temporal(*branch_inputs("temporal", dtype=torch.float32))
    assert not focal_triton._refused


def test_a_fault_of_the_caller_is_no_fault_of_the_kernel(monkeypatch, forgetful):
    pretend_to_have_a_kernel(monkeypatch, gather_temporal_context)
    context, gates, kernels = branch_inputs("temporal", dtype=torch.float32)
    with pytest.raises(RuntimeError, match="weight"):
        focal_triton._gather_temporal(context, gates, [kernels[0][:, :2], kernels[1]])
    assert not focal_triton._refused


@pytest.mark.parametrize(
    ("shape", "dtype", "processors", "tile"),
    [
        ((8, 8, 56, 56, 96), torch.bfloat16, 132, 16),
        ((8, 8, 14, 14, 384), torch.bfloat16, 132, 8),  # 98 programs of 16 sites would leave processors idle
        ((8, 8, 7, 7, 768), torch.bfloat16, 132, None),  # 49 programs of 8 sites, each reading 9 MB of weights
        ((64, 8, 7, 7, 768), torch.bfloat16, 132, 16),
        ((8, 1, 56, 56, 96), torch.bfloat16, 132, 128),
        ((8, 5, 56, 56, 96), torch.bfloat16, 132, 16),
        ((8, 64, 56, 56, 96), torch.bfloat16, 132, 2),
        ((8, 65, 56, 56, 96), torch.bfloat16, 132, None),
        ((8, 8, 56, 56, 96), torch.float32, 132, 8),
        ((1, 64, 540, 960, 96), torch.bfloat16, 132, None),  # beyond indices of 32 bits
    ],
)
def test_tiles_fill_the_machine_or_the_composite_takes_over(monkeypatch, shape, dtype, processors, tile):
    pytest.importorskip("triton")
    monkeypatch.setattr(focal_triton_launch, "_processors", lambda device: processors)
    assert focal_triton_launch.temporal_tile(torch.empty(shape, dtype=dtype, device="meta")) == tile


@pytest.mark.parametrize(
    ("channels", "widest", "block"),
    [
        (96, 128, 32),
        (96, 64, 32),
        (192, 128, 64),
        (384, 128, 128),
        (1024, 128, 128),
        (12, 128, 16),
        (20, 64, 32),
        (100, 128, 128),
        (16, 16, 16),
    ],
)
def test_blocks_of_channels_leave_little_over(channels, widest, block):
    assert focal_triton_launch._block(channels, widest) == block


def test_rows_are_copied_only_where_they_must_be():
    rows = focal_triton_launch._rows
    view = torch.zeros(2, 3, 4, 5, 48)[..., :32]
    assert rows(view, aligned=True)[0] is view and rows(view, aligned=True)[1] == 48
    part = torch.zeros(2, 3, 4, 5, 35)[..., :32]
    assert rows(part)[1] == 35 and rows(part)[0] is part
    copied, stride = rows(part, aligned=True)
    assert stride == 32 and copied.is_contiguous()
    odd = torch.zeros(2, 3, 4, 5, 9)[..., :6]
    assert rows(odd, aligned=True)[0] is odd  # copying would not align it
    turned = torch.zeros(2, 3, 5, 4, 32).transpose(2, 3)
    assert rows(turned)[1] == 32 and rows(turned)[0].is_contiguous()


@pytest.mark.slow
def test_everything_works_without_triton():
    """In a fresh interpreter that does not find it."""
    script = """
        import sys

        class WithoutTriton:
            def __init__(self, finder):
                self.finder = finder

            def __getattr__(self, name):
                return getattr(self.finder, name)

            def find_spec(self, name, *arguments):
                return None if name.split(".")[0] == "triton" else self.finder.find_spec(name, *arguments)

        sys.meta_path[:] = [WithoutTriton(finder) for finder in sys.meta_path]
        import torch
        from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
        from hf_effvid.models import focal_triton
        from hf_effvid.models.focal_implementation import FocalCall

        assert "No module named 'triton'" in focal_triton.TRITON_PROBLEM
        call = FocalCall("modulation", "cuda", torch.bfloat16, False, (1, 8, 56, 56, 96), (3, 5), (3, 5))
        assert not focal_triton.TRITON.supports(call)
        config = VideoFocalNetConfig(embed_dim=8, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3], num_labels=3)
        print(VideoFocalNetForVideoClassification(config)(torch.zeros(1, 2, 3, 32, 32)).logits.shape)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([1, 3])"
