"""How busy the machine is, and what its arithmetic is like."""

import os

import torch


def describe_load(device: torch.device) -> list[str]:
    """How busy the machine is before anything starts: the first thing to look at when two runs disagree."""
    notes = []
    if hasattr(os, "getloadavg"):
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        notes.append(f"load average {load:.1f} on {cores} cores at the start")
        if load > cores / 2:
            notes.append("the machine was busy: trust the ratios, not the milliseconds")
    if device.type == "cuda":
        tf32 = "allowed" if torch.backends.cudnn.allow_tf32 else "not allowed"
        notes.append(f"float32 matmul precision {torch.get_float32_matmul_precision()!r}, TF32 in convolutions {tf32}")
    if device.type == "cpu":
        notes.append(f"instructions {torch.backends.cpu.get_cpu_capability()}")
    return notes
