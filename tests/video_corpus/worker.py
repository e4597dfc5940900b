"""A long-lived process that reads one file after the other. It imports the reader's own files and nothing else of ours.

Started by `run.py` as `python worker.py FOLDER_OF_THE_READER MAX_EXTRA_BYTES`; every line on standard input is a path,
every line on standard output the outcome as JSON.
"""

import importlib
import itertools
import json
import os
import resource
import sys
import time
import types


def load_reader(folder):
    """Import the reader from its folder as a package of its own, as the Hub's code cache does."""
    package = types.ModuleType("corpus_reader")
    package.__path__ = [folder]
    sys.modules["corpus_reader"] = package
    names = ("video_errors", "video_sources", "video_decoding", "video_iteration")
    return [importlib.import_module(f"corpus_reader.{name}") for name in names]


def read(path, modules, limits):
    """Read a file in the three ways there are; returns the outcome of each and the CPU seconds of the slowest."""
    errors, sources, decoding, iteration = modules

    def opened(way):
        file = sources.open_source(path, limits)
        try:
            return way(file, limits, sources.Deadline(limits.timeout, path))
        finally:
            file.close()

    facts = {"seconds": 0.0}
    ways = {
        "outcome": lambda *source: decoding.read_clip(*source, size=(32, 32), num_frames=4),
        "all": lambda *source: decoding.read_clip(*source, size=(32, 32)),
        "iterated": lambda *source: list(itertools.islice(iteration.iterate_frames(*source, None, None, 5, 32), 50)),
    }
    for name, way in ways.items():
        began = time.process_time()
        try:
            result = opened(way)
            facts[name] = "frames"
        except errors.VideoError as error:
            facts[name], facts[f"{name}_error"] = type(error).__name__, str(error)[:300]
            continue
        except Exception as error:
            facts[name] = f"UNTYPED {type(error).__name__}: {error}"[:300]
            continue
        finally:
            facts["seconds"] = max(facts["seconds"], time.process_time() - began)
        if name == "outcome":
            info = result.info
            facts |= dict(num_frames=info.num_frames, size=[info.width, info.height], notes=result.notes)
            if result.pixels.shape != (4, 32, 32, 3) or len(result.times) != 4:
                facts[name] = f"UNTYPED result of shape {result.pixels.shape}"
    return facts


def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def main():
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    modules = load_reader(sys.argv[1])
    limits = modules[0].VideoLimits()
    extra = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + extra,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark of memory starts anew
        facts = read(json.loads(line), modules, limits)
        facts |= dict(peak=memory("VmHWM"), resident=memory("VmRSS"))
        output.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
