"""What a checkpoint folder may hold, file by file. Anything else is refused, so that nothing is published by accident."""

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from ..convert.checkpoints import sha256_of
from .code_closure import code_files


class StageError(ValueError):
    """The folder is not a publishable checkpoint; the message lists everything that is wrong with it."""


_KINDS = {
    "config": r"config\.json",
    "weights": r"model\.safetensors|model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json",
    "adapter": r"adapter_config\.json|adapter_model\.safetensors",
    "processor": r"video_preprocessor_config\.json|preprocessor_config\.json|processor_config\.json",
    "card": r"README\.md",
    "chart": r"pareto\.png|block_drop\.png",
    "report": r"token_faithfulness\.json|compression\.json|distillation\.json",
    "code": r"[A-Za-z_][A-Za-z0-9_]*\.py",
}
_REASONS = {
    r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz)": "a pickle, or may hold one; weights are published as safetensors only",
    r"(optimizer|scheduler|rng_state|trainer_state|training_args|task_state).*": "training state, of no use to others",
    r".*\.(mp4|avi|mkv|webm|mov|gif|jpe?g|png)": "media; a data set's licence seldom allows publishing it",
    r"\..*|.*~|.*\.(log|tmp|swp)": "a hidden, temporary or log file",
}
# tokens of the Hub and of common services; a text file of a checkpoint has no business holding one
_SECRET = re.compile(r"\b(hf_[A-Za-z0-9]{30,}|ghp_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{32,}|AKIA[0-9A-Z]{16})\b")
# accuracy against time, drawn by `effvid bench --chart`; beside it a folder may hold the picture of a compression
CHART = "pareto.png"
_CHART_BYTES = 1_000_000
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LOCAL_PATH = re.compile(r"^(/|~/|\./|\.\./|[A-Za-z]:\\)")
_PATH_KEYS = ("_name_or_path", "base_model_name_or_path", "parent_library")


@dataclass(frozen=True)
class StagedFile:
    """One file of a checkpoint folder.

    Attributes:
        path: name within the folder.
        kind: `"config"`, `"weights"`, `"adapter"`, `"processor"`, `"card"`, `"chart"`, `"report"` or `"code"`.
        size: bytes.
        sha256: hexadecimal digest of the content.
    """

    path: str
    kind: str
    size: int
    sha256: str

    def to_dict(self) -> dict:
        """JSON-ready."""
        return asdict(self)


def file_kind(name: str) -> str | None:
    """The kind of a file of that name, None when a checkpoint folder must not hold it."""
    return next((kind for kind, pattern in _KINDS.items() if re.fullmatch(pattern, name)), None)


def list_staged_files(folder: str | os.PathLike) -> list[StagedFile]:
    """Checks a checkpoint folder and lists its files, sorted by name.

    Checked are: nothing but allowed, plain files, readable by everyone (mode 0644); one configuration with weights; the
    code that `auto_map` and `custom_pipelines` need, whole and nothing more; safetensors that open and hold finite numbers; JSON that parses;
    no tokens, no paths of the publisher's machine.

    Args:
        folder: the folder.

    Returns:
        Its files.

    Raises:
        StageError: with every offence, not only the first.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder. Stage a checkpoint first: stage_checkpoint(model, folder).")
    problems = [problem for path in sorted(folder.iterdir()) for problem in _entry_problems(path)]
    # contents are only looked at when the folder holds nothing strange
    if not problems:
        problems = _content_problems(folder)
    if problems:
        raise StageError("\n".join([f"{folder} cannot be published:", *(f"  - {problem}" for problem in problems)]))
    return [
        StagedFile(path.name, file_kind(path.name), path.stat().st_size, sha256_of(path))
        for path in sorted(folder.iterdir())
    ]


def _entry_problems(path: Path) -> list[str]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return [f"{path.name}: a symbolic link; copy the file"]
    if not stat.S_ISREG(mode):
        return [f"{path.name}: a folder or special file; a checkpoint folder is flat"]
    if file_kind(path.name) is None:
        reason = next(
            (r for pattern, r in _REASONS.items() if re.fullmatch(pattern, path.name, re.I)), "not an allowed file"
        )
        return [f"{path.name}: {reason}"]
    if os.name == "posix" and stat.S_IMODE(mode) != 0o644:
        return [f"{path.name}: mode {stat.S_IMODE(mode):04o}, expected 0644"]
    return []


def _content_problems(folder: Path) -> list[str]:
    names = {path.name for path in folder.iterdir()}
    problems = []
    is_adapter = "adapter_config.json" in names
    required = ["adapter_config.json", "adapter_model.safetensors"] if is_adapter else ["config.json"]
    problems += [f"{name}: missing" for name in [*required, "README.md"] if name not in names]
    if is_adapter and any(file_kind(name) == "weights" for name in names):
        problems.append("model and adapter weights in one folder; publish them as two repositories")
    if not is_adapter:
        problems += _shard_problems(folder, names)
    documents = {}
    for name in sorted(name for name in names if name.endswith(".json")):
        try:
            documents[name] = json.loads((folder / name).read_text(encoding="utf-8"))
            problems += _json_problems(name, documents[name])
        except ValueError as error:
            problems.append(f"{name}: not JSON ({error})")
    for name in sorted(name for name in names if name.endswith(".safetensors")):
        problems += _tensor_problems(folder / name)
    for name in sorted(name for name in names if not name.endswith(".safetensors")):
        if _SECRET.search((folder / name).read_text(encoding="utf-8", errors="replace")):
            problems.append(f"{name}: holds something that looks like an access token")
    for name in sorted(name for name in names if file_kind(name) == "chart"):
        problems += _chart_problems(folder, name)
    needed, code_problems = code_files(folder, documents)
    problems += code_problems
    extra = {name for name in names if name.endswith(".py")} - needed
    problems += [f"{name}: code that nothing in auto_map needs" for name in sorted(extra)]
    return problems


def _shard_problems(folder: Path, names: set[str]) -> list[str]:
    index, single = "model.safetensors.index.json", "model.safetensors"
    shards = {name for name in names if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    if single in names:
        # loaders prefer the single file, so that the shards beside it would be dead weight, or stale
        return [f"{single} beside {index} and shards: keep one of the two"] if shards or index in names else []
    if index not in names:
        return [f"{single}: missing"]
    try:
        expected = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        return [f"{index}: no weight map ({error!r})"]
    return [] if shards == expected else [f"{index} names {sorted(expected)}, the folder holds {sorted(shards)}"]


def _chart_problems(folder: Path, name: str) -> list[str]:
    content = (folder / name).read_bytes()
    problems = []
    if not content.startswith(_PNG_SIGNATURE):
        problems.append(f"{name}: not a PNG")
    if len(content) > _CHART_BYTES:
        problems.append(f"{name}: {len(content):,} bytes, expected a chart of at most {_CHART_BYTES:,}")
    card = folder / "README.md"
    if card.is_file() and f"]({name})" not in card.read_text(encoding="utf-8", errors="replace"):
        problems.append(f"{name}: the card does not show it")
    return problems


def _json_problems(name: str, document) -> list[str]:
    if not isinstance(document, dict):
        return [f"{name}: expected an object"]
    problems = []
    for key in _PATH_KEYS:
        value = document.get(key)
        if isinstance(value, str) and _LOCAL_PATH.match(value):
            problems.append(f"{name}: {key} is the local path {value!r}, which means nothing to others")
    return problems


def _tensor_problems(path: Path) -> list[str]:
    import torch
    from safetensors import SafetensorError, safe_open

    problems = []
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                tensor = file.get_tensor(key)
                if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
                    problems.append(f"{path.name}: {key} holds values that are not finite")
    except (SafetensorError, OSError) as error:
        problems.append(f"{path.name}: not a safetensors file ({error})")
    return problems
