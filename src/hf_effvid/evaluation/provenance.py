"""Where a number comes from: command, commit, hardware, versions, date."""

import datetime
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path


_RECORDED_PACKAGES = ("hf_effvid", "torch", "transformers", "torchvision", "av", "numpy")


@dataclass(frozen=True)
class Provenance:
    """Everything needed to measure a number again.

    Attributes:
        command: the command line, or the call, that produced the number.
        commit: git commit of the code, with `-dirty` when there were local changes; None for an installed release.
        seed: random seed of the run, None when nothing was random.
        hardware: processor, or accelerator, in words.
        versions: package name -> version.
        dtype: floating-point type the model ran in.
        decode_included: whether a measured time includes reading the video; None where no time was measured.
        date: ISO date, UTC.
    """

    command: str
    commit: str | None = None
    seed: int | None = None
    hardware: str | None = None
    versions: dict = field(default_factory=dict)
    dtype: str | None = None
    decode_included: bool | None = None
    date: str | None = None


def current_provenance(
    command: str | None = None,
    *,
    seed: int | None = None,
    dtype: str | None = None,
    device=None,
    decode_included: bool | None = None,
) -> Provenance:
    """Provenance of the running process.

    Args:
        command: what to record as the command; default: this process's command line, the program without its folder.
        seed: seed of the run.
        dtype: floating-point type, for example `"float32"`.
        device: torch device the model runs on; decides whether the processor or the accelerator is named.
        decode_included: whether measured times include video decoding.

    Returns:
        The record, with today's date in UTC.
    """
    return Provenance(
        command=command or running_command(),
        commit=code_commit(),
        seed=seed,
        hardware=describe_hardware(device),
        versions=installed_versions(),
        dtype=dtype,
        decode_included=decode_included,
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )


def running_command() -> str:
    """This process's command line, for others to read: where its program and its data lie on this machine is left out."""
    program, *arguments = sys.argv or [""]
    name = Path(program).name if program not in ("", "-c", "-m") else "python"
    return shlex.join([name, *map(_without_place, arguments)])


def _without_place(argument: str) -> str:
    """A path that leads out of the current folder becomes its last part; that of `--option=path` and `name=path` too. Anything else stays."""
    option, equals, value = argument.partition("=")
    if not argument.startswith("-") and ("/" in option or not value.startswith(("/", "~"))):
        option, equals, value = "", "", argument
    path = Path(value)
    leads_out = path.is_absolute() or ".." in path.parts or value.startswith("~")
    return option + equals + (path.name if leads_out and path.name not in ("", "..") else value)


def code_commit() -> str | None:
    """Git commit of this package's source, None when it does not run from a git checkout."""
    here = Path(__file__).resolve()
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments],
                capture_output=True,
                text=True,
                timeout=20,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # a virtual environment may lie inside somebody else's repository: only a *tracked* source file counts
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    if commit and git("status", "--porcelain", "--untracked-files=no", "--", str(here.parent.parent)):
        commit += "-dirty"
    return commit


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    versions = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_hardware(device=None) -> str:
    """The processor (with its number of usable cores) or, on a CUDA device, the accelerator, in words."""
    if device is not None and str(device).startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
