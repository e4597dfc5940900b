"""Peak memory: a fresh process sees what a pass allocates, and nothing of the libraries around it."""

import pytest
import torch
from torch import nn

from hf_effvid.evaluation.benchmark_memory import MemoryNotMeasured, measure_peak_memory
from hf_effvid.evaluation.benchmark_variants import BenchmarkVariant


class Hungry(nn.Module):
    """Allocates 200 MB in every pass, beside weights of `weight_megabytes`."""

    main_input_name = "x"

    def __init__(self, weight_megabytes=0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(weight_megabytes * 250_000 + 1))

    def forward(self, x):
        return torch.ones(50_000_000).sum() + x.sum() * self.weight[0]


def hungry():
    return Hungry(100)


class Broken(Hungry):
    def forward(self, x):
        raise RuntimeError("this model is broken")


def measure(model):
    return measure_peak_memory(BenchmarkVariant("m", model, dtype="float32"), (1, 3, 8, 8), 1, threads=1)


@pytest.mark.parametrize(("model", "expected"), [pytest.param(Hungry, 200, marks=pytest.mark.slow), (hungry, 300)])
def test_a_known_allocation_is_seen(model, expected):
    assert measure(model) == pytest.approx(expected, abs=15)


@pytest.mark.slow
def test_a_model_that_was_handed_over_counts_once_even_where_it_is_cast():
    variant = BenchmarkVariant("m", Hungry(200), dtype="bfloat16")
    # 200 MB of weights in float32 are 100 in bfloat16
    assert measure_peak_memory(variant, (1, 3, 8, 8), 1, threads=1) == pytest.approx(300, abs=15)


def test_what_cannot_be_sent_says_so():
    with pytest.raises(MemoryNotMeasured, match="cannot be sent to a fresh process.*Pass a folder"):
        measure(lambda: Hungry())


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    with pytest.raises(MemoryNotMeasured, match="m: the process failed with RuntimeError: this model is broken"):
        measure(Broken)
