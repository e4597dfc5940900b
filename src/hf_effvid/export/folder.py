"""The folder of an export: the files, the recipe, the labels, and a record from which one can run it without torch."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ..evaluation.provenance import code_commit, installed_versions
from ..host_processing import holds_recipe, with_recipe
from ..version import __version__
from .errors import ExportError
from .runtime import RECORD_NAME
from .tracing import INPUT_NAME, OUTPUT_NAME


RECORD_VERSION = 1
_RECIPE_FIELDS = (
    "num_frames",
    "sampling",
    "frame_stride",
    "target_fps",
    "short_clip_policy",
    "do_resize",
    "size",
    "do_center_crop",
    "crop_size",
    "rescale_factor",
    "image_mean",
    "image_std",
    "num_clips",
    "num_crops",
    "aggregation",
)


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A folder to fill; it takes its place when the block ends without an error, and leaves nothing behind otherwise.

    Args:
        folder: its place.
        overwrite: replace an earlier export there. Nothing else is ever replaced.

    Raises:
        ExportError: the place is taken.
    """
    folder = Path(folder)
    check_place(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    retired = work.with_name(f"{work.name}.old")
    try:
        yield work
        work.chmod(0o755)
        for path in work.iterdir():
            path.chmod(0o644)
        if folder.exists():
            os.rename(folder, retired)
        os.rename(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuses a place that holds something else than an earlier export.

    Raises:
        ExportError: it does, or it holds one and `overwrite` is False.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise ExportError(f"{folder} exists and is no folder: choose another name.")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    if RECORD_NAME not in names:
        raise ExportError(f"{folder} holds no export ({', '.join(names[:5])}): not replaced, choose another folder.")
    if not overwrite:
        raise ExportError(f"{folder} holds an export: choose another folder, or replace it with --overwrite.")


def write_recipe(folder: Path, model, processor) -> dict:
    """Saves configuration and processor as transformers does, and returns the recipe as plain values.

    Args:
        folder: where to.
        model: the classifier.
        processor: its processor, ours or one of transformers.
    """
    config = model.config
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    # the code of a checkpoint is no part of an export
    for path in folder.glob("*.py"):
        path.unlink()
    for path in folder.glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("auto_map", None) is not None:
            path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    recipe = processor if holds_recipe(processor) else with_recipe(processor, config)
    return {name: _plain(getattr(recipe, name, None)) for name in _RECIPE_FIELDS}


def write_record(
    folder: Path, config, recipe: dict, shape, axes, smallest: dict, files: list[dict], **details
) -> None:
    """Writes `export.json`.

    Args:
        folder: where to.
        config: the model's configuration.
        recipe: what `write_recipe` gave.
        shape: (T, C, H, W) of the model's own clips.
        axes: the open axes.
        smallest: their least lengths.
        files: one dict per exported file.
        **details: further entries, JSON-ready.
    """
    frames, channels, height, width = shape
    own = {"batch": 1, "frames": frames, "channels": channels, "height": height, "width": width}
    labels = [config.id2label[index] for index in sorted(config.id2label)]
    record = {
        "record_version": RECORD_VERSION,
        "files": files,
        "input": {
            "name": INPUT_NAME,
            "dtype": "float32",
            "axes": {name: {"length": own[name], "dynamic": name in axes} for name in own},
        },
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "axes": ["batch", "classes"]},
        "labels": labels,
        "problem_type": config.problem_type or "single_label_classification",
        "preprocessing": recipe,
        "model_type": config.model_type,
        "versions": {"hf_effvid": __version__, **installed_versions(), **_versions_of_the_extra()},
        "commit": code_commit(),
        **details,
    }
    for name, length in smallest.items():
        if length > 1:
            record["input"]["axes"][name]["smallest"] = length
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions_of_the_extra() -> dict[str, str]:
    versions = {}
    for name in ("onnx", "onnxscript", "onnxruntime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _plain(value):
    """transformers keeps sizes in a dict-like class; JSON wants a dict without the empty fields."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return list(value)
    return {name: number for name, number in dict(value).items() if number is not None}
