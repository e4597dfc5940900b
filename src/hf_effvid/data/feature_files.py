"""Features as public sets of them come: a folder with one `.npy`, `.npz`, `.safetensors` or `.pt` file per video.

None of them is unpickled: `.npy` and `.npz` without objects, `.pt` with `weights_only=True`.
"""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .stored_features import FeatureStoreError


FEATURE_SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")


def list_feature_files(folder: Path) -> dict[str, Path]:
    """Video name (path below the folder, without suffix) -> file, sorted; hidden files and folders are left out.

    Raises:
        FeatureStoreError: there are none, or two for one video.
    """
    found: dict[str, Path] = {}
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() not in FEATURE_SUFFIXES or file.startswith("."):
                continue
            path = Path(base, file)
            name = path.relative_to(folder).with_name(stem).as_posix()
            if name in found:
                raise FeatureStoreError(f"{found[name]} and {path} are both features of {name!r}: keep one.")
            found[name] = path
    if not found:
        raise FeatureStoreError(
            f"{folder} holds neither an index.json of `effvid cache --features` nor files ending in {', '.join(FEATURE_SUFFIXES)}."
        )
    return dict(sorted(found.items()))


def read_feature_file(path: Path, key: str | None = None, channels_first: bool = False) -> torch.Tensor:
    """Features (T, C), float32, of one video.

    Args:
        path: the file.
        key: which of several arrays in it.
        channels_first: the file holds (C, T).

    Raises:
        FeatureStoreError: the file is damaged, or does not hold one such array.
    """
    try:
        content = _read(path)
    except Exception as error:  # NumPy, zipfile, safetensors and torch.load raise a dozen types between them
        reason = str(error).splitlines()[0] if str(error) else ""
        raise FeatureStoreError(
            f"{path} cannot be read as features ({type(error).__name__}: {reason[:200]})."
        ) from error
    if isinstance(content, dict):
        content = _pick(content, key, path)
    if not isinstance(content, torch.Tensor):
        raise FeatureStoreError(f"{path} holds {type(content).__name__}, expected an array of (steps, channels).")
    shape = tuple(content.shape)
    while content.ndim > 2 and 1 in (content.shape[0], content.shape[-1]):  # a batch of one, or a picture of one pixel
        content = content.squeeze(0) if content.shape[0] == 1 else content.squeeze(-1)
    if content.ndim != 2 or 0 in content.shape:
        raise FeatureStoreError(f"{path} holds an array of shape {shape}, expected (steps, channels).")
    return (content.T if channels_first else content).float().contiguous()


def feature_file_shape(path: Path, key: str | None = None, channels_first: bool = False) -> tuple[int, int]:
    """(T, C) of a file; of `.npy` files only the header is read."""
    if path.suffix.lower() == ".npy":
        try:
            shape = np.load(path, mmap_mode="r").shape
        except Exception:  # what is wrong with it is said by whoever reads it
            shape = ()
        if len(shape) == 2:
            return tuple(reversed(shape)) if channels_first else shape
    return tuple(read_feature_file(path, key, channels_first).shape)


def _read(path: Path):
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return load_file(path)
    if suffix in (".pt", ".pth"):
        return torch.load(path, map_location="cpu", weights_only=True)
    content = np.load(path)
    if suffix == ".npy":
        return torch.from_numpy(content)
    with content:
        return {name: torch.from_numpy(content[name]) for name in content.files if content[name].dtype.kind in "fiu"}


def _pick(content: dict, key: str | None, path: Path):
    if key is not None:
        if key not in content:
            raise FeatureStoreError(f"{path} has no {key!r}, only {sorted(map(str, content))}.")
        return content[key]
    arrays = {name: value for name, value in content.items() if isinstance(value, torch.Tensor) and value.ndim >= 2}
    if len(arrays) != 1:
        raise FeatureStoreError(f"{path} holds {sorted(map(str, content))}: pass `key`, the one with the features.")
    return next(iter(arrays.values()))
