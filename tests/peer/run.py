"""Runs transformers' own common tests on our classes: `python tests/peer/run.py [pytest arguments]`.

Every test of theirs that does not apply is skipped with its reason in `peer_*.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

from sources import unpack_common_tests


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(arguments):
    common_tests = unpack_common_tests()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(common_tests), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "HF_HUB_OFFLINE": "1",
    }
    suites = sorted(str(path.relative_to(ROOT)) for path in HERE.glob("peer_*.py"))
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), "-rs", *suites, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
