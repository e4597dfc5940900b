"""Decoding in a worker process, so that a crash inside a native decoder is an error and not the end of the caller.

The worker is started by file path and imports nothing but the reader's own files, numpy, Pillow and PyAV: it works the
same from the installed package and from a folder of the Hub's code cache. Parent and worker speak JSON headers and raw
bytes over pipes; the parent unpickles nothing, because a decoder that was taken over may answer anything.
"""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import asdict

import numpy as np

from .video_container import VideoInfo, native_errors
from .video_decoding import Clip, read_clip
from .video_errors import (
    ERROR_TYPES,
    VideoError,
    VideoLimits,
    VideoNotReadable,
    VideoTimeout,
    VideoTooLarge,
)
from .video_sources import Deadline, open_source


try:
    import resource
except Exception:  # Windows has no resource limits: the time limit still holds there
    resource = None


# The worker gets the caller's search path and a package made of this folder; `-I` keeps the environment out.
_BOOTSTRAP = """
import importlib, json, sys, types
sys.path[:] = json.loads(sys.argv[2])
package = types.ModuleType("effvid_worker")
package.__path__ = [sys.argv[1]]
sys.modules["effvid_worker"] = package
importlib.import_module("effvid_worker." + sys.argv[3]).serve()
"""
_START_SECONDS = 30.0  # what starting Python and loading FFmpeg may take on a busy machine
_MAX_HEADER = 256 * 2**20
_BAD_ARGUMENTS = {"ValueError": ValueError, "TypeError": TypeError, "ImportError": ImportError}


def worker_command():
    """Return the command line that starts a worker of this file."""
    folder = os.path.dirname(os.path.abspath(__file__))
    paths = json.dumps([os.path.abspath(entry) for entry in sys.path])
    return [sys.executable, "-I", "-c", _BOOTSTRAP, folder, paths, __name__.rpartition(".")[2]]


def read_isolated(opened, limits, size=None, sampler=None, **selection):
    """Do what `read_clip` does in a process of its own.

    Args:
        opened: The `SourceFile`; a file on disk is opened by the worker, anything else is sent to it.
        limits: The `VideoLimits`; `timeout` and `max_memory` bound the worker.
        size: As in `read_clip`.
        sampler: Called here, not in the worker.
        selection: num_frames, indices, start, end, target_fps.

    Returns:
        A `Clip`.

    Raises:
        VideoError: as `read_clip`; `VideoNotReadable` if the worker died, `VideoTimeout` if it had to be killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process = subprocess.Popen(
        worker_command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    killed = threading.Event()

    def kill():
        killed.set()
        process.kill()

    timer = threading.Timer(limits.timeout + _START_SECONDS, kill)
    timer.start()
    try:
        return _converse(process, opened, limits, size, sampler, selection)
    except _WorkerGone:
        raise _death(process, opened.name, limits, killed.is_set()) from None
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            # what a dead worker did not read is still in the buffer, and closing would try to send it
            process.stdin.close()
        process.stdout.close()


class _WorkerGone(Exception):
    """The pipe to the worker broke, or what came out of it is no message."""


def _converse(process, opened, limits, size, sampler, selection):
    data = None if opened.path is not None else _all_bytes(opened)
    request = {
        "name": opened.name,
        "path": opened.path,
        "num_bytes": None if data is None else len(data),
        "limits": asdict(limits),
        "size": size,
        "selection": _plain(selection),
        "has_sampler": sampler is not None,
    }
    _send(process.stdin, request, data)
    while True:
        answer = _receive(process.stdout)
        kind = answer.get("type")
        if kind == "info" and sampler is not None:
            info = _believed(opened.name, VideoInfo, answer.get("info"))
            _send(process.stdin, {"indices": [int(index) for index in sampler(info)]})
        elif kind == "error":
            raise _believed(opened.name, _error, answer)
        elif kind == "argument":
            raise _believed(opened.name, _argument_error, answer)
        else:
            return _believed(opened.name, _read_clip, dict(answer=answer, stream=process.stdout, limits=limits))


def _believed(name, build, values):
    """Return `build(**values)`; a worker whose answer does not fit was taken over, or is not ours."""
    try:
        return build(**values)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        found = "the worker process gave no sensible answer"
        raise VideoNotReadable(name, found, "The file may be hostile") from error


def _error(kind, source, found, hint, **_):
    return ERROR_TYPES[kind](source, found, hint)


def _argument_error(kind, message, **_):
    return _BAD_ARGUMENTS[kind](message)


def _all_bytes(opened):
    with native_errors(opened.name):
        opened.file.seek(0)
        return opened.file.read()


def _plain(selection):
    """Turn numpy numbers into those that JSON knows."""
    indices = selection.get("indices")
    plain = {name: value if value is None else float(value) for name, value in selection.items() if name != "indices"}
    if plain.get("num_frames") is not None and plain["num_frames"] == int(plain["num_frames"]):
        plain["num_frames"] = int(plain["num_frames"])
    return {**plain, "indices": None if indices is None else [float(index) for index in indices]}


def _read_clip(answer, stream, limits):
    shape = tuple(int(side) for side in answer["shape"])
    needed = float(np.prod(shape, dtype=np.float64))
    if len(shape) != 4 or min(shape) < 1 or needed > limits.max_output_bytes or shape[0] != len(answer["times"]):
        raise ValueError(f"a clip of shape {shape}")
    pixels = np.empty(shape, dtype=np.uint8)
    view = memoryview(pixels).cast("B")
    while view:
        count = stream.readinto(view)
        if not count:
            raise _WorkerGone
        view = view[count:]
    return Clip(
        pixels=pixels,
        times=np.asarray(answer["times"], dtype=np.float64),
        indices=[int(index) for index in answer["indices"]],
        info=VideoInfo(**answer["info"]),
        notes=[str(note) for note in answer["notes"]],
        num_decoded=int(answer["num_decoded"]),
    )


def _death(process, name, limits, killed):
    if killed:
        hint = "Raise VideoLimits.timeout, or shorten the selection"
        return VideoTimeout(name, f"the worker process did not finish within {limits.timeout:g} s", hint)
    code = process.wait()
    if code < 0:
        try:
            reason = signal.Signals(-code).name
        except ValueError:
            reason = f"signal {-code}"
        if reason == "SIGXCPU":
            return VideoTimeout(name, "the worker process used up its CPU time", "Raise VideoLimits.timeout")
        return VideoNotReadable(name, f"the worker process was killed by {reason}", "The file crashes the decoder")
    return VideoNotReadable(name, f"the worker process ended early (exit code {code})", "Check that PyAV works")


def _send(stream, header, data=None):
    raw = json.dumps(header).encode()
    try:
        stream.write(struct.pack(">Q", len(raw)) + raw)
        if data is not None:
            stream.write(data)
        stream.flush()
    except OSError:
        raise _WorkerGone from None


def _receive(stream):
    (length,) = struct.unpack(">Q", _exactly(stream, 8))
    if length > _MAX_HEADER:
        raise _WorkerGone
    try:
        answer = json.loads(_exactly(stream, length))
    except (ValueError, RecursionError):
        raise _WorkerGone from None
    if not isinstance(answer, dict):
        raise _WorkerGone
    return answer


def _exactly(stream, length):
    try:
        data = stream.read(length)
    except OSError:
        raise _WorkerGone from None
    if len(data) < length:
        raise _WorkerGone
    return data


def serve():
    """Answer one request on standard input. Runs in the worker."""
    # Native libraries may print: keep the pipe to the parent away from them.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = _receive(sys.stdin.buffer)
    data = None if request["num_bytes"] is None else _exactly(sys.stdin.buffer, request["num_bytes"])
    limits = VideoLimits(**request["limits"])
    limit_resources(limits)
    try:
        clip = _serve_clip(request, data, limits, output)
    except VideoError as error:
        kind = type(error).__name__
        _send(output, dict(type="error", kind=kind, source=error.source, found=error.found, hint=error.hint))
    except MemoryError:
        found = f"decoding needs more than {limits.max_memory} bytes"
        hint = "Raise VideoLimits.max_memory"
        _send(output, dict(type="error", kind=VideoTooLarge.__name__, source=request["name"], found=found, hint=hint))
    except (ValueError, TypeError, ImportError) as error:
        kind = next(name for name, base in _BAD_ARGUMENTS.items() if isinstance(error, base))
        _send(output, dict(type="argument", kind=kind, message=str(error)))
    else:
        header = dict(type="clip", shape=clip.pixels.shape, indices=clip.indices, times=clip.times.tolist())
        header |= dict(info=asdict(clip.info), notes=clip.notes, num_decoded=clip.num_decoded)
        _send(output, header, memoryview(np.ascontiguousarray(clip.pixels)).cast("B"))


def _serve_clip(request, data, limits, output):
    def sampler(info):
        _send(output, dict(type="info", info=asdict(info)))
        return _receive(sys.stdin.buffer)["indices"]

    selection = request["selection"]
    size = tuple(request["size"]) if isinstance(request["size"], list) else request["size"]
    opened = open_source(request["path"] if data is None else data, limits)
    opened.name = request["name"]
    deadline = Deadline(limits.timeout, opened.name)
    return read_clip(
        opened, limits, deadline, size=size, sampler=sampler if request["has_sampler"] else None, **selection
    )


def limit_resources(limits):
    """Bound this process: memory above what it uses now, CPU time, and no core dumps."""
    if resource is None:
        return
    seconds = int(limits.timeout) + 2
    wanted = {"RLIMIT_CPU": seconds, "RLIMIT_CORE": 0}
    try:
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        wanted["RLIMIT_AS"] = used + int(limits.max_memory)
    except OSError:  # no /proc: the size of the running interpreter is unknown
        wanted["RLIMIT_DATA"] = int(limits.max_memory)
    for name, value in wanted.items():
        try:
            _, hard = resource.getrlimit(getattr(resource, name))
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(getattr(resource, name), (value, hard))
        except (ValueError, OSError):
            continue
