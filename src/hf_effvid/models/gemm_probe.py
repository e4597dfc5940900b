# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Which of two libraries multiplies matrices faster on this processor: measured once, when it is first asked for.

The name of the processor does not tell: it depends on the versions of both libraries and on what the machine lets them use.
"""

import os
import threading
import time
from typing import NamedTuple

import torch

from .processor_libraries import OneDnn, Plain, onednn_can


# rows for each thread and channels: a millisecond of work, so that some repeat is not interrupted on a busy machine
ROWS, CHANNELS = 392, 384
REPEATS = 8
# where threads have to wait for a processor, a product can take a hundred times as long as it should
MAX_SECONDS = 0.06
# a difference that no clock shows by accident, since the choice decides how results are rounded
CLEARLY_FASTER, ABOUT_AS_FAST = 1.2, 0.85

_lock = threading.Lock()
_results = {}


class GemmProbe(NamedTuple):
    """Speeds of one linear layer in float32 or bfloat16, in units of 1e9 multiplications and additions per second.

    Args:
        dtype: Number type.
        threads: Threads of the measurement.
        plain: Speed of `F.linear`.
        onednn: Speed of the same in oneDNN; 0 where that cannot be done.
    """

    dtype: torch.dtype
    threads: int
    plain: float
    onednn: float

    @property
    def onednn_is_faster(self):
        """Whether it is, and clearly so."""
        return self.onednn > CLEARLY_FASTER * self.plain

    @property
    def onednn_keeps_up(self):
        """Whether it is not clearly slower. In bfloat16 `F.linear` is oneDNN's own, and only what it can do along differs."""
        return self.onednn > ABOUT_AS_FAST * self.plain

    def __str__(self):
        name, threads = str(self.dtype).removeprefix("torch."), f"{self.threads} thread{'s'[: self.threads > 1]}"
        return f"GEMM probe, {name}, {threads}: F.linear {self.plain:.0f} GFLOP/s, oneDNN {self.onednn:.0f} GFLOP/s"


def _forget_the_lock():
    """A process that is forked while another thread measures would wait for that thread, which it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_lock)


def probe_gemm(dtype):
    """The measurement for a number type and the present number of threads: some 20 ms at first, then remembered."""
    key = dtype, torch.get_num_threads()
    with _lock:
        if key not in _results:
            _results[key] = _measure(*key)
        return _results[key]


def _measure(dtype, threads):
    if not onednn_can(dtype):
        return GemmProbe(dtype, threads, plain=0.0, onednn=0.0)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(ROWS * threads, CHANNELS, generator=generator).to(dtype)
        weight = torch.randn(CHANNELS, CHANNELS, generator=generator).to(dtype)
        best, began = {}, time.perf_counter()
        for repeat in range(1 + REPEATS):  # the first one starts threads and chooses kernels
            for library in (Plain, OneDnn):
                start = time.perf_counter()
                library.linear(tokens, weight, None, grad=False)
                seconds = time.perf_counter() - start
                best[library] = min(seconds, best.get(library, seconds))
            if repeat > 0 and time.perf_counter() - began > MAX_SECONDS:
                break
    operations = 2 * ROWS * threads * CHANNELS**2 / 1e9
    return GemmProbe(dtype, threads, plain=operations / best[Plain], onednn=operations / best[OneDnn])
