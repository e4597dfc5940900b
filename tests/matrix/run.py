"""Runs the default tests on every Python at hand with the oldest and the newest supported transformers.

    python tests/matrix/run.py                         # every interpreter found, both ends of the transformers range
    python tests/matrix/run.py --python python3.10 --transformers 5.20.0 --tests tests/models
    python tests/matrix/run.py --list

Each cell gets its own virtual environment under .matrix/ and is deleted afterwards (a torch with CUDA libraries takes 5 GB).
The table is printed at the end; the exit code is 1 if a cell failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13")
# The ends of `transformers>=5.20,<6` in pyproject.toml; "newest" is what pip resolves today.
TRANSFORMERS = ("5.20.0", "newest")


def find_interpreters() -> list[str]:
    """Interpreters on PATH or among pyenv's versions, one for each supported minor version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for name in PYTHONS:
        inside_pyenv = sorted(pyenv.glob(f"{name.removeprefix('python')}.*/bin/python")) if pyenv.is_dir() else []
        candidates = [str(path) for path in inside_pyenv] + ([shutil.which(name)] if shutil.which(name) else [])
        for candidate in candidates:
            version = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
            )
            if version.returncode == 0 and version.stdout.strip() == name.removeprefix("python"):
                found.append(candidate)
                break
    return found


def run_cell(python: str, transformers: str, tests: list[str], folder: Path) -> tuple[bool, str]:
    log = folder / "log.txt"
    with log.open("w") as out:

        def step(*command) -> bool:
            env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            return (
                subprocess.run(
                    [str(c) for c in command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=env
                ).returncode
                == 0
            )

        venv_python = folder / "venv" / "bin" / "python"
        pin = [] if transformers == "newest" else [f"transformers=={transformers}"]
        ok = (
            step(python, "-m", "venv", folder / "venv")
            and step(venv_python, "-m", "pip", "install", "--quiet", "-e", f"{ROOT}[dev]", *pin)
            and step(venv_python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *tests)
        )
    return ok, log.read_text().strip().splitlines()[-1] if log.stat().st_size else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="interpreter (repeatable); default: all that are found")
    parser.add_argument("--transformers", action="append", help="version or 'newest' (repeatable)")
    parser.add_argument("--tests", nargs="*", default=[], help="what pytest runs; default: the default tests")
    parser.add_argument("--list", action="store_true", help="only print the cells")
    args = parser.parse_args()

    cells = [(p, t) for p in (args.python or find_interpreters()) for t in (args.transformers or TRANSFORMERS)]
    if args.list:
        print("\n".join(f"{p}  transformers {t}" for p, t in cells))
        return
    rows, failed = [], False
    for python, transformers in cells:
        folder = ROOT / ".matrix" / f"{Path(python).parents[1].name}-{Path(python).name}-{transformers}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start = time.monotonic()
        ok, last_line = run_cell(python, transformers, args.tests, folder)
        shutil.rmtree(folder / "venv", ignore_errors=True)
        failed |= not ok
        rows.append(
            f"{'ok  ' if ok else 'FAIL'}  {python}  transformers {transformers}  {time.monotonic() - start:.0f} s  {last_line}"
        )
        print(rows[-1], flush=True)
    print(f"\n{len(rows)} cells, {'some failed' if failed else 'all passed'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
