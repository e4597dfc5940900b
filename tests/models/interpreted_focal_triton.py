"""Runs the Triton kernels in Triton's interpreter and prints, as JSON, how far they are from the composite in float64.

`TRITON_INTERPRET=1 python -m tests.models.interpreted_focal_triton quick|all|parity`; a process of its own, because Triton reads the
variable when a kernel is defined.
"""

import json
import sys

import torch

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models import focal_triton, focal_triton_launch
from hf_effvid.models.focal_composite import gather_spatial_context, gather_temporal_context
from hf_effvid.models.focal_ops import focal_implementation
from hf_effvid.models.focal_triton_kernels import INTERPRETED
from hf_effvid.models.focal_triton_launch import launch_spatial, launch_temporal


BRANCHES = {
    "spatial": (launch_spatial, gather_spatial_context),
    "temporal": (launch_temporal, gather_temporal_context),
}
# (B, T, H, W, C), levels, window, dtypes
CASES = [
    ((2, 3, 2, 3, 6), 2, 3, ("float32", "bfloat16")),
    ((2, 4, 3, 5, 12), 2, 3, ("float32", "float16", "bfloat16")),
    ((1, 1, 2, 2, 20), 2, 3, ("float32", "bfloat16")),
    ((1, 8, 2, 3, 96), 2, 3, ("float32", "bfloat16")),
    ((1, 16, 1, 2, 16), 2, 3, ("float16",)),
    ((1, 5, 7, 3, 24), 1, 5, ("float32",)),
    ((1, 3, 9, 8, 40), 3, 1, ("float32",)),
    ((3, 2, 4, 4, 33), 1, 3, ("float16",)),
]


def inputs(branch, shape, levels, window, dtype):
    """Context and gates cut out of a larger tensor of NaN, so that a read beside them shows, and kernels."""
    generator = torch.Generator().manual_seed(0)
    channels, sizes = shape[-1], [window + 2 * level for level in range(levels)]
    draw = lambda *size: torch.randn(*size, generator=generator).to(dtype)  # noqa: E731
    cut = []
    for width in (channels, levels + 1):
        wide = torch.full((shape[0] + 2, *shape[1:-1], width + 5), float("nan"), dtype=dtype)
        cut.append(wide[1:-1, ..., 2 : 2 + width].copy_(draw(*shape[:-1], width)))
    if branch == "spatial":
        return *cut, [draw(channels, 1, size, size) / size for size in sizes]
    return *cut, [draw(channels, channels, size) / (channels * size) ** 0.5 for size in sizes]


def relative_error(result, exact):
    return ((result.double() - exact).norm() / exact.norm()).item()


def kernel_errors(cases):
    """Name of the case -> relative error of the kernel and of the composite in the same type."""
    errors = {}
    for branch, (launch, composite) in BRANCHES.items():
        for shape, levels, window, dtypes in cases:
            for dtype in dtypes:
                context, gates, kernels = inputs(branch, shape, levels, window, getattr(torch, dtype))
                exact = composite(context.double(), gates.double(), [kernel.double() for kernel in kernels])
                name = f"{branch} {shape} levels={levels} window={window} {dtype}"
                errors[name] = [
                    relative_error(launch(context, gates, kernels), exact),
                    relative_error(composite(context, gates, kernels), exact),
                ]
    return errors


def operator_errors():
    """The operators with their kernels, in a whole model: errors of logits and gradients against the composite."""
    torch.manual_seed(0)
    config = VideoFocalNetConfig(
        embed_dim=12,
        depths=[1, 1],
        focal_levels=[2, 1],
        focal_windows=[3, 3],
        num_labels=3,
        initialization="fan_in",
    )
    model, clips = VideoFocalNetForVideoClassification(config).eval(), torch.randn(2, 3, 3, 20, 28)
    results = {}
    for name in ("triton", "composite"):
        with focal_implementation(name):
            model.zero_grad()
            logits = model(clips).logits
            logits.square().sum().backward()
        results[name] = logits, torch.cat([p.grad.flatten() for p in model.parameters()])
    assert not focal_triton._refused, focal_triton._refused
    names = sorted({branch for branch, *_ in focal_triton._verified})
    pairs = zip(results["triton"], results["composite"], strict=True)
    logits, gradients = (relative_error(ours, other.double()) for ours, other in pairs)
    return {"logits": logits, "gradients": gradients, "kernels used": names}


def parity_errors():
    """Recorded runs of the authors' implementation, two levels and three, through the kernels."""
    from tests.parity.video_focalnet_reference import TINY_CASES, ReferenceCase

    # one tile for everything: what the interpreter pays for are steps of the program, and tiles are tested elsewhere
    covering = lambda length: 1 << max(4, (length - 1).bit_length())  # noqa: E731
    focal_triton_launch.SITES_PER_BLOCK = 256
    focal_triton_launch._block = lambda channels, widest: covering(channels)
    whole_grid = lambda context: min(64, covering(context.shape[2] * context.shape[3]))  # noqa: E731
    focal_triton_launch.temporal_tile = focal_triton.temporal_tile = whole_grid
    report = {}
    for name in TINY_CASES[:2]:
        with focal_implementation("triton"):
            comparisons = ReferenceCase(name).compare_float32()
        report[name] = [str(comparison) for comparison in comparisons if not comparison.passes]
    return {
        "failed": report,
        "refused": sorted(map(str, focal_triton._refused)),
        "kernels": len(focal_triton._verified),
    }


if __name__ == "__main__":
    assert INTERPRETED, "set TRITON_INTERPRET=1"
    torch.use_deterministic_algorithms(True)  # memory that nothing was written to holds NaN
    what = sys.argv[1]
    if what == "parity":
        print(json.dumps(parity_errors()))
    else:
        print(
            json.dumps(
                {"kernels": kernel_errors(CASES[:1] if what == "quick" else CASES[1:]), "model": operator_errors()}
            )
        )
