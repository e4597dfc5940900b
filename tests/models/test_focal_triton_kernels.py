"""The Triton kernels without a GPU: their numbers in Triton's interpreter, and that its compiler takes them for real machines."""

import json
import os
import subprocess
import sys

import pytest

from hf_effvid.models import focal_triton_kernels
from hf_effvid.models.focal_triton_kernels import spatial_kernel, temporal_kernel

from .interpreted_focal_triton import BRANCHES, CASES


pytest.importorskip("triton")
# what roundings leave; the interpreter cuts bfloat16 off where a GPU rounds to the nearest
TOLERANCES = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1.2e-2}


def interpreted(what):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.models.interpreted_focal_triton", what]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_within_rounding(errors):
    for name, (error, _) in errors.items():
        assert error <= TOLERANCES[name.split()[-1]], (name, error)


def test_kernels_and_a_model_that_uses_them():
    report = interpreted("quick")
    assert len(report["kernels"]) == 2 * len(BRANCHES)
    assert_within_rounding(report["kernels"])
    assert report["model"]["kernels used"] == ["spatial", "temporal"]
    assert report["model"]["logits"] < 1e-5 and report["model"]["gradients"] < 1e-5


@pytest.mark.slow
def test_kernels_over_steps_sizes_channels_levels_and_types():
    report = interpreted("all")
    assert len(report["kernels"]) == len(BRANCHES) * sum(len(dtypes) for *_, dtypes in CASES[1:])
    assert_within_rounding(report["kernels"])
    # sums in float32 leave a kernel closer to the exact result than the composite, which rounds in between
    half = {name: pair for name, pair in report["kernels"].items() if name.endswith(" float16")}
    assert half and all(kernel < composite for kernel, composite in half.values()), half


@pytest.mark.slow
def test_parity_with_the_authors_through_the_kernels():
    report = interpreted("parity")
    assert set(report["failed"]) and not any(report["failed"].values()), report["failed"]
    assert report["refused"] == [] and report["kernels"] > 0


MACHINES = {"A100": (80, 163 * 1024), "H100 and H200": (90, 227 * 1024)}


def compiled(kernel, capability, dtype, constants, num_warps):
    """The kernel for a machine that need not be there, with the alignment that its callers see to."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    names = kernel.arg_names
    pointers = ("context", "gates", "weights", "scratch", "output")
    signature = {
        name: "constexpr" if name in constants else f"*{dtype}" if name in pointers else "i32" for name in names
    }
    aligned = [name for name in (*pointers, "channels", "context_stride") if name in names]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {"num_warps": num_warps, "num_stages": 3}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_the_compiler_takes_the_kernels(machine, dtype):
    if focal_triton_kernels.INTERPRETED:
        pytest.skip("TRITON_INTERPRET is set")
    capability, shared_memory = MACHINES[machine]
    half = dtype == "bf16"
    levels = {"LEVELS": 2, "WINDOW": 3}
    temporal = compiled(
        temporal_kernel,
        capability,
        dtype,
        {
            **levels,
            "STEPS": 8,
            "STEP_ROWS": 8,
            "TILE": 16 if half else 8,
            "BLOCK_N": 128 if half else 64,
            "BLOCK_K": 64 if half else 32,
            "PRECISION": "tf32x3",
            "INTERPRETER": False,
        },
        num_warps=8 if half else 4,
    )
    assert 0 < temporal.metadata.shared <= shared_memory
    if half:
        # matrix units do the products, copies run ahead of them
        assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in temporal.asm["ptx"]
        assert "cp.async" in temporal.asm["ptx"]
    spatial = compiled(spatial_kernel, capability, dtype, {**levels, "BLOCK_S": 32, "BLOCK_C": 16}, num_warps=4)
    assert spatial.metadata.shared <= shared_memory
    assert "ld.global.v4" in spatial.asm["ptx"] or "ld.global.v2" in spatial.asm["ptx"]
    for kernel in (temporal, spatial):  # levels become visible before they are read
        assert kernel.asm["ptx"].count("bar.sync") >= 1
