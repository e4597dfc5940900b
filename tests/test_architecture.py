"""The two rules that keep the house in order: who may import whom, and what a file that ships with a checkpoint may say."""

import ast
import re
import sys
from pathlib import Path

import pytest


PACKAGE = Path(__file__).resolve().parents[1] / "src" / "hf_effvid"
HUB_FOLDER = PACKAGE / "models"

# A layer may import itself and every layer below it; packages that share a layer do not import each other.
LAYERS = {
    "version": 0,
    "lazy_names": 0,
    "weights_fingerprint": 0,
    "chart_text": 0,
    "host_loading": 1,
    "models": 1,
    "auto": 2,
    "host_processing": 2,
    "explanation": 2,
    "label_lists": 2,
    "video_files": 2,
    "data": 3,
    "compression": 3,
    "evaluation": 3,
    "convert": 3,
    "pipelines": 3,
    "training": 4,
    # times, intervals and accuracies of what it writes are those of evaluation
    "export": 4,
    "hub": 5,
    "cli": 6,
}
FORBIDDEN_FILE_NAMES = {"utils.py", "common.py", "helpers.py", "misc.py"}

HUB_THIRD_PARTY = {"torch", "transformers", "huggingface_hub", "numpy"}
HUB_OPTIONAL = {"av", "torchcodec", "triton", "PIL"}
MAX_FILE_LINES, MEDIAN_FILE_LINES, MAX_FUNCTION_LINES = 800, 200, 80

SOURCES = sorted(PACKAGE.rglob("*.py"))
HUB_SOURCES = sorted(path for path in HUB_FOLDER.glob("*.py") if path.name != "__init__.py")


def relative_name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported_parts(path: Path) -> set[str]:
    """Top-level parts of hf_effvid (`models`, `data`, ...) that a source file imports, absolutely or relatively."""
    depth = len(path.relative_to(PACKAGE).parts)
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            parts |= {name.split(".")[1] for name in names if name.startswith("hf_effvid.")}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and module.split(".")[0] == "hf_effvid":
                rest = module.split(".")[1:]
                parts |= {rest[0]} if rest else {alias.name for alias in node.names}
            elif node.level == depth:
                parts |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
    return parts & LAYERS.keys()


@pytest.mark.parametrize("path", SOURCES, ids=relative_name)
def test_imports_point_downwards(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        pytest.skip("the package root names every public object; its imports are lazy")
    assert own in LAYERS, f"{own} has no layer: add it to LAYERS on purpose"
    for part in imported_parts(path) - {own}:
        assert LAYERS[part] < LAYERS[own], f"{relative_name(path)} ({own}) may not import {part}"


def test_the_import_guard_sees_an_upward_import(tmp_path):
    offender = PACKAGE / "models" / "_probe_for_the_guard.py"
    try:
        offender.write_text("from ..training import trainer\nimport hf_effvid.hub.push\n")
        assert imported_parts(offender) == {"training", "hub"}
    finally:
        offender.unlink()


@pytest.mark.parametrize("path", SOURCES, ids=relative_name)
def test_file_and_function_sizes(path):
    assert path.name not in FORBIDDEN_FILE_NAMES, f"{path.name}: an idea without a name; name it"
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            # documentation is not what makes a function too long
            length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
            assert length <= MAX_FUNCTION_LINES, f"{relative_name(path)}:{node.lineno} {node.name} has {length} lines"


def test_median_file_is_short():
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES if path.name != "__init__.py")
    assert lengths[len(lengths) // 2] < MEDIAN_FILE_LINES


def top_level_try_imports(tree: ast.Module) -> set[int]:
    """Lines of imports inside a top-level `try` that catches Exception (torchcodec raises more than ImportError)."""
    lines = set()
    for node in tree.body:
        if isinstance(node, ast.Try):
            catches_all = any(isinstance(h.type, ast.Name) and h.type.id == "Exception" for h in node.handlers)
            if catches_all:
                lines |= {n.lineno for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom))}
    return lines


def hub_file_offences(path: Path, siblings: set[str]) -> list[str]:
    """What would make a file fail when transformers copies it, alone with its siblings, into a checkpoint folder."""
    text = path.read_text()
    tree = ast.parse(text)
    optional_lines = top_level_try_imports(tree)
    allowed = HUB_THIRD_PARTY | set(sys.stdlib_module_names)
    optional = HUB_OPTIONAL
    if path.name.startswith("video_processing_"):
        allowed = allowed | {"torchvision"}
    elif path.name == "torchvision_networks.py":  # its job
        optional = optional | {"torchvision"}
    offences = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Import, ast.ImportFrom)):
                    offences.append(f"line {inner.lineno}: an import inside a function is a hard requirement")
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level != 1 or not node.module or "." in node.module:
                offences.append(f"line {node.lineno}: only `from .sibling import name` survives the copy")
            elif node.module not in siblings:
                offences.append(f"line {node.lineno}: no sibling {node.module}.py")
        roots = []
        if isinstance(node, ast.Import):
            roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots = [node.module.split(".")[0]]
        for root in roots:
            if root in optional and node.lineno not in optional_lines:
                offences.append(f"line {node.lineno}: {root} is optional: top-level try / except Exception")
            elif root not in allowed | optional:
                offences.append(f"line {node.lineno}: {root} would become a requirement of every checkpoint")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.search(r"^\s*(from\s+\.\S+\s+import|import\s+\.\S+\s*$)", node.value, flags=re.MULTILINE):
                offences.append(f"line {node.lineno}: text that looks like a relative import is taken for one")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            if "config" in ast.unparse(node.args[0]).split(".")[-1:] and ast.unparse(node.args[1]).endswith("Config"):
                offences.append(f"line {node.lineno}: a local folder loads two config identities; compare model_type")
    return offences


@pytest.mark.parametrize("path", HUB_SOURCES, ids=lambda path: path.name)
def test_hub_files_survive_alone(path):
    siblings = {source.stem for source in HUB_SOURCES}
    assert not hub_file_offences(path, siblings)


def test_the_hub_folder_is_flat():
    assert not [path for path in HUB_FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize(
    "source",
    [
        "from . import layers",
        "from ..data import loading",
        "from .sub.layers import A",
        "from .ghost import A",
        "import einops",
        "import av",
        "try:\n    import av\nexcept ImportError:\n    av = None",
        "def f():\n    import json",
        '"""\nfrom .ghost import A\n"""',
        "def f(config):\n    return isinstance(config, XConfig)",
    ],
)
def test_the_hub_guard_catches(tmp_path, source):
    offender = tmp_path / "modeling_x.py"
    offender.write_text(source)
    assert hub_file_offences(offender, {"layers"})


def test_the_hub_guard_accepts_the_permitted_forms(tmp_path):
    harmless = tmp_path / "modeling_x.py"
    harmless.write_text(
        "import json\nimport torch\nfrom .layers import A\ntry:\n    import av\nexcept Exception:\n    av = None\n"
    )
    assert not hub_file_offences(harmless, {"layers"})
