"""transformers' own common tests: fetched from its source distribution, unpacked beside stand-ins for what that omits.

The distribution holds `tests/test_*_common.py` but not the folders some of them import from. Those are replaced by the
smallest thing that lets the import succeed; nothing of transformers is kept in this repository.
"""

import io
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path


CACHE = Path(__file__).resolve().parents[2] / ".peer"
PACKAGE = "transformers_tests"

STAND_INS = {
    "__init__.py": "",
    "exporters/__init__.py": "",
    # ExportTesterMixin adds exporter tests; ours is tests/models/test_modeling_video_focalnet.py
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/__init__.py": "",
    # only looked at to see whether generative models inherit from it
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    # one value other than the default for every argument that all configurations share
    "utils/test_configuration_utils.py": """config_common_kwargs = {
    "architectures": ["SomeModel"],
    "chunk_size_feed_forward": 5,
    "dtype": "float16",
    "id2label": {0: "still", 1: "moving", 2: "gone"},
    "label2id": {"still": 0, "moving": 1, "gone": 2},
    "is_encoder_decoder": True,
    "output_attentions": True,
    "output_hidden_states": True,
    "problem_type": "regression",
    "return_dict": False,
    "name_or_path": "somewhere/something",
}
""",
}


def download_source_distribution():
    """Path of the installed version's source distribution, downloaded once into `.peer/`."""
    installed = version("transformers")
    archive = CACHE / f"transformers-{installed}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--quiet"]
        subprocess.run([*command, "--dest", str(CACHE), f"transformers=={installed}"], check=True)
    if not archive.exists():
        raise FileNotFoundError(
            f"pip did not leave {archive.name} in {CACHE}. The tests need the source distribution of the installed "
            f"transformers {installed}; a development version has none."
        )
    return archive


def unpack_common_tests():
    """Folder to put on the path so that `transformers_tests.test_modeling_common` and its like can be imported."""
    archive = download_source_distribution()
    folder = CACHE / archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[1] == "tests" and parts[2].endswith(".py"):
                _write(folder / PACKAGE / parts[2], io.TextIOWrapper(tar.extractfile(member), "utf-8").read())
    for name, text in STAND_INS.items():
        _write(folder / PACKAGE / name, text)
    return folder


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
