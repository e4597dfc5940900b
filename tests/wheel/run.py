"""Builds the wheel, installs it alone into a clean environment and uses it there: no dev dependency, no source tree.

python tests/wheel/run.py [--python python3.12] [--keep]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
SMOKE = Path(__file__).with_name("smoke.py")


def build_wheel(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("hf_effvid/py.typed", "hf_effvid/cli/__init__.py", "hf_effvid/models/video_reader.py"):
        if wanted not in names:
            raise SystemExit(f"{wheel.name} lacks {wanted}")
    strays = [n for n in names if not n.startswith(("hf_effvid/", "hf_effvid-"))]
    if strays:
        raise SystemExit(f"{wheel.name} would install foreign top-level files: {strays[:5]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the clean environment")
    parser.add_argument("--keep", action="store_true", help="leave the environment for a look")
    args = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="effvid-wheel-"))
    try:
        wheel = build_wheel(work)
        check_contents(wheel)
        subprocess.run([args.python, "-m", "venv", work / "venv"], check=True)
        python = work / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
        # run elsewhere, so that nothing of the checkout can be imported by accident
        shutil.copy(SMOKE, work / "smoke.py")
        subprocess.run([python, "-I", work / "smoke.py"], check=True, cwd=work)
        subprocess.run([work / "venv" / "bin" / "effvid", "--help"], check=True, cwd=work, stdout=subprocess.DEVNULL)
        print(f"{wheel.name}: installed and used in a clean environment")
    finally:
        if args.keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
