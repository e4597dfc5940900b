import subprocess
import sys


PROGRAM = """
import atexit, sys
from torch import distributed
from hf_effvid.training.process_group import leave_process_group_at_exit

# handlers run last in, first out: this one looks after the other has run
atexit.register(lambda: print("still connected:", distributed.is_initialized()))
if sys.argv[1:]:
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    print("connected:", distributed.is_initialized())
leave_process_group_at_exit()
leave_process_group_at_exit()
"""


def run(*arguments) -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_leaves_its_group_before_python_ends(tmp_path):
    assert run(tmp_path / "store") == "connected: True\nstill connected: False\n"


def test_a_single_process_has_nothing_to_leave():
    assert run() == "still connected: False\n"
