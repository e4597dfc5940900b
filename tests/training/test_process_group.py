"""A process of a multi-process run has ended gloo's threads before Python ends."""

import sys
from pathlib import Path

import pytest

from .test_resume import run_script


# what it says goes to one file per process: in one stream the lines of two processes may run into each other
PROGRAM = """
import atexit, os
from pathlib import Path
from torch import distributed

said = Path(__file__).with_name("said-" + os.environ.get("RANK", "0")).open("w")

def report():
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    print("at exit:", distributed.is_initialized(), [name for name in names if "gloo" in name], file=said, flush=True)

# handlers run last in, first out: this one looks after all others have run
atexit.register(report)

from tests.training import small_run

def main():
    small_run.main()
    print("before:", distributed.is_initialized(), file=said, flush=True)

main()
"""

OPTIONS = {"max_steps": 2, "save_strategy": "no", "load_best_model_at_end": False, "validation": {"num_clips": 5}}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="names of threads are read from /proc"),
]


def run(folder: Path, **options) -> list[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    done = run_script(
        folder / "run", {**OPTIONS, "eval_strategy": "steps", "eval_steps": 2}, script=program, **options
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [path.read_text() for path in sorted(folder.glob("said-*"))]


def test_the_threads_of_a_group_end_before_python_does(tmp_path):
    assert run(tmp_path, processes=2) == ["before: True\nat exit: False []\n"] * 2


def test_a_single_process_has_nothing_to_leave(tmp_path):
    assert run(tmp_path) == ["before: False\nat exit: False []\n"]
