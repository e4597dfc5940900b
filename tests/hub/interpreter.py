"""Runs code in a new interpreter that talks to the test Hub, with or without hf_effvid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hf_effvid.hub.fresh_process

from .server import TOKEN


_BLOCK = f"""
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("blocker", {hf_effvid.hub.fresh_process.__file__!r})
blocker = module_from_spec(spec)
spec.loader.exec_module(blocker)
sys.meta_path.insert(0, blocker.PackageBlocker("hf_effvid"))
"""


def run_python(hub, home: Path, code: str, with_package: bool, logged_in: bool = True) -> dict:
    """Runs `code`, which leaves a JSON-able `answer`, with an empty Hugging Face cache in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]) if with_package else "",
        **({"HF_TOKEN": TOKEN} if logged_in else {}),
    }
    program = home / "program.py"
    report = f"\nimport json, pathlib\npathlib.Path({str(home / 'answer.json')!r}).write_text(json.dumps(answer))\n"
    program.write_text(("" if with_package else _BLOCK) + code + report)
    done = subprocess.run(
        [sys.executable, str(program)], cwd=home, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert TOKEN not in done.stdout + done.stderr
    return json.loads((home / "answer.json").read_text())
