"""Read the corpus in worker processes and count what came out.

    python -m tests.video_corpus.run --sample default|ci|full [--workers 2] [--out results.json] [--document page.md]

A case passes if it gives frames or a typed error, as its catalogue entry says, in under 10 CPU seconds and 1 GB, and if the worker
is alive afterwards. A worker that dies or hangs is replaced, and its death is put down to the case it was reading.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import av

from .cases import ANY, FRAMES, sample


READER = Path(__file__).resolve().parents[2] / "src" / "hf_effvid" / "models"
WORKER = Path(__file__).with_name("worker.py")
BEGIN, END = "<!-- corpus: begin -->", "<!-- corpus: end -->"
MAX_SECONDS, MAX_BYTES = 10.0, 10**9
_GRACE = 110.0  # wall-clock seconds until a silent worker is killed as hanging: the machine may be busy


class Worker:
    """One worker process and the line protocol to it."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER), str(READER), str(MAX_BYTES - 150 * 10**6)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def read(self, path):
        """Return the facts about a file, or what became of the worker."""
        timer = threading.Timer(MAX_SECONDS + _GRACE, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(str(path)) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return json.loads(line)
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return {"outcome": "HANG or killed"}
        return {"outcome": f"DIED {signal.Signals(-code).name if code < 0 else code}"}

    def close(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def verdict(case, facts):
    """Return what is wrong with an outcome, or None."""
    outcome = facts["outcome"]
    ways = [facts.get(name, "") for name in ("outcome", "all", "iterated")]
    for way in ways:
        if way.startswith(("UNTYPED", "DIED", "HANG")):
            return way
    if case.expect == FRAMES and outcome != "frames":
        return f"frames expected, got {facts.get('outcome_error', outcome)}"
    if case.expect not in (ANY, FRAMES, outcome):
        return f"{case.expect} expected, got {facts.get('outcome_error', outcome)}"
    if case.num_frames is not None and facts["num_frames"] != case.num_frames:
        return f"{case.num_frames} frames expected, got {facts['num_frames']}"
    if case.size is not None and facts["size"] != list(case.size):
        return f"size {case.size} expected, got {facts['size']}"
    if facts["seconds"] > MAX_SECONDS:
        return f"took {facts['seconds']:.1f} s"
    if facts["peak"] > MAX_BYTES:
        return f"took {facts['peak'] / 1e6:.0f} MB"
    return None


def run_cases(cases, num_workers=2, progress=None):
    """Read all cases.

    Args:
        cases: The cases.
        num_workers: Worker processes.
        progress: Called with (done, total) now and then.

    Returns:
        A dict: `num_cases`, `table` (kind -> outcome -> count), `failures`, `max_seconds`, `max_peak_mb`,
        `resident_growth_mb` (of the worker that grew most, from its tenth case to its last).
    """
    todo, lock, done = queue.SimpleQueue(), threading.Lock(), []
    for case in cases:
        todo.put(case)
    with tempfile.TemporaryDirectory(prefix="effvid_corpus_") as folder:

        def work():
            worker, resident = Worker(), []
            try:
                while True:
                    case = todo.get_nowait()
                    path = Path(folder, case.name)
                    path.write_bytes(case.make())
                    facts = worker.read(path)
                    path.unlink()
                    if "resident" in facts:
                        resident.append(facts["resident"])
                    else:
                        worker.close()
                        worker, resident = Worker(), []
                    facts["growth"] = resident[-1] - resident[9] if len(resident) > 10 else 0
                    with lock:
                        done.append((case, facts))
                        if progress is not None:
                            progress(len(done), len(cases))
            except queue.Empty:
                return
            finally:
                worker.close()

        with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
            for finished in [pool.submit(work) for _ in range(num_workers)]:
                finished.result()  # a generator that fails is an error, not a case less
    return summarize(done)


def summarize(done):
    """Count (case, facts) pairs."""
    table = collections.defaultdict(collections.Counter)
    failures = []
    for case, facts in sorted(done, key=lambda pair: pair[0].name):
        table[case.kind][facts["outcome"]] += 1
        wrong = verdict(case, facts)
        if wrong is not None:
            failures.append({"case": case.name, "wrong": wrong})
    return {
        "num_cases": len(done),
        "versions": {"av": av.__version__, "python": platform.python_version()},
        "table": {kind: dict(counts) for kind, counts in sorted(table.items())},
        "failures": failures,
        "max_seconds": max((facts.get("seconds", 0.0) for _, facts in done), default=0.0),
        "max_peak_mb": max((facts.get("peak", 0) for _, facts in done), default=0) / 1e6,
        "resident_growth_mb": max((facts.get("growth", 0) for _, facts in done), default=0) / 1e6,
    }


def table_as_markdown(summary):
    """Write the table of outcomes as Markdown, one row per kind."""
    outcomes = sorted(
        {outcome for row in summary["table"].values() for outcome in row}, key=lambda o: (o != FRAMES, o)
    )
    lines = ["| kind of case | cases | " + " | ".join(outcomes) + " |", "|---|" + "---:|" * (len(outcomes) + 1)]
    for kind, row in summary["table"].items():
        cells = [str(row.get(outcome, "")) for outcome in outcomes]
        lines.append(f"| {kind} | {sum(row.values())} | " + " | ".join(cells) + " |")
    totals = [sum(row.get(outcome, 0) for row in summary["table"].values()) for outcome in outcomes]
    lines.append(f"| **all** | **{summary['num_cases']}** | " + " | ".join(f"**{total}**" for total in totals) + " |")
    return "\n".join(lines) + "\n"


def update_document(path, summary):
    """Write the counts of a run between the two marks of a Markdown page."""
    text = path.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    facts = (
        f"{summary['num_cases']} cases, {len(summary['failures'])} failures (a death, a hang, an untyped error, a wrong "
        f"outcome, more than 10 s or 1 GB). Slowest read {summary['max_seconds']:.2f} CPU seconds, largest worker "
        f"{summary['max_peak_mb']:.0f} MB, growth of a worker from its tenth case to its last "
        f"{summary['resident_growth_mb']:.0f} MB. PyAV {summary['versions']['av']}, Python {summary['versions']['python']}."
    )
    path.write_text(f"{before}{BEGIN}\n{facts}\n\n{table_as_markdown(summary)}{END}{after}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.video_corpus.run", description="Read the corpus of videos.")
    parser.add_argument("--sample", choices=("default", "ci", "full"), default="default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the summary as JSON")
    parser.add_argument("--document", type=Path, help="write the counts into a Markdown page, between its marks")
    parser.add_argument("--results", type=Path, help="use the summary that an earlier run wrote with --out")
    options = parser.parse_args(arguments)

    def progress(done, total):
        if done % 100 == 0 or done == total:
            print(f"{done} / {total}", file=sys.stderr)

    if options.results:
        summary = json.loads(options.results.read_text())
    else:
        summary = run_cases(sample(options.sample), options.workers, progress)
    if options.out:
        options.out.write_text(json.dumps(summary, indent=1) + "\n")
    if options.document:
        update_document(options.document, summary)
    print(table_as_markdown(summary))
    facts = {name: value for name, value in summary.items() if name != "table"}
    print(json.dumps(facts, indent=1))
    return 1 if summary["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
