# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the weights out of research checkpoints without running what a pickle may carry.

Research checkpoints are pickles, and a pickle is a program. They are read with `torch.load(weights_only=True)` and nothing
else: there is no fallback. Objects that training scripts leave beside the weights (the configuration of the run, NumPy
scalars) are replaced by inert stand-ins, so that their classes need not be installed and are never called.
"""

import hashlib
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers.utils import cached_file


# what folders and Hub repositories call the file of the weights, in the order in which they are looked for
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# where training scripts keep the weights, in the order in which they are looked for; averaged ones are those that were evaluated
WEIGHT_ENTRIES = ("state_dict_ema", "model", "state_dict", "model_state", "module")


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; the message says what was expected, what came and what to do."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle that wants to call something which is not on the list of harmless objects. Nothing of it was run."""


class _InertMapping:
    """Stands in for `yacs.config.CfgNode`, a dict with attributes: becomes a plain ordered dict."""

    def __new__(cls, *args):
        return OrderedDict()


class _Inert:
    """Stands in for objects whose value nobody needs: takes any arguments and any state, keeps nothing."""

    def __new__(cls, *args):
        return object.__new__(cls)

    def __setstate__(self, state):
        pass


# name in the pickle -> what is made instead
_STAND_INS = [
    (_InertMapping, "yacs.config.CfgNode"),
    (_Inert, "numpy.core.multiarray.scalar"),
    (_Inert, "numpy._core.multiarray.scalar"),
    (_Inert, "numpy.dtype"),
]


def read_weights(source):
    """The weights in a checkpoint file, by name, on the CPU.

    Args:
        source: Path of a `.safetensors` file, or of anything `torch.save` wrote: the weights themselves, or a dict that
            holds them under one of `WEIGHT_ENTRIES`. The prefix that data-parallel training adds is removed.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The pickle asks for an object that is not known to be harmless.
        CheckpointError: The file is damaged, of another kind, or holds no weights.
    """
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Give the checkpoint file itself (.pth, .pt or .safetensors).")
    if path.suffix == ".safetensors":
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error}).") from error
    else:
        weights = _find_weights(_load_pickle(path), path)
    return {name.removeprefix("module."): value for name, value in weights.items()}


def find_weight_file(source, what):
    """The weights' file of a folder or a Hub id, and its `config.json` as a dict (empty where there is none).

    Args:
        source: Folder or Hub id.
        what: It should be of, for the message.

    Raises:
        FileNotFoundError: It holds no weights.
    """
    optional = {"_raise_exceptions_for_missing_entries": False}
    files = (cached_file(source, name, **optional) for name in WEIGHT_FILES)
    file = next((found for found in files if found is not None), None)
    if file is None:
        raise FileNotFoundError(
            f"{source} holds neither of {', '.join(WEIGHT_FILES)}. Give a folder or Hub id of {what}, or the file itself."
        )
    config = cached_file(source, "config.json", **optional)
    return Path(file), json.loads(Path(config).read_text(encoding="utf-8")) if config else {}


def with_batch_counters(state_dict):
    """The same weights with `num_batches_tracked` beside every `running_mean`. Pure."""
    counters = {
        name.replace("running_mean", "num_batches_tracked"): torch.zeros((), dtype=torch.long)
        for name in state_dict
        if name.endswith("running_mean")
    }
    return {**counters, **state_dict}


def sha256_of(source):
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(source, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _load_pickle(path):
    try:
        with torch.serialization.safe_globals(_STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch puts "unsupported" and the name of the object into its message, and also advice to give up safety
        reason = str(error)
        if "GLOBAL" in reason or "global" in reason or "unrecognized function" in reason:
            wanted = reason.split("GLOBAL ")[-1].split(" ")[0].rstrip(".") if "GLOBAL " in reason else "an object"
            raise UnsafeCheckpointError(
                f"{path}: refused, because the pickle asks for {wanted}, which is not a tensor or a plain value. Nothing "
                "in it was run. If you trust its authors, ask them for a file with the weights alone (safetensors)."
            ) from error
        raise CheckpointError(f"{path}: not a checkpoint that torch.save wrote, or a damaged one.") from error
    except Exception as error:  # bytes that are no checkpoint make the parser fail in many ways
        kind = type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that torch.save wrote, or a damaged one ({kind}).") from error


def _find_weights(loaded, path):
    candidates = [loaded]
    if isinstance(loaded, dict):
        candidates = [loaded[entry] for entry in WEIGHT_ENTRIES if entry in loaded] + candidates
    for candidate in candidates:
        if isinstance(candidate, dict) and candidate and all(torch.is_tensor(value) for value in candidate.values()):
            return candidate
    found = sorted(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
    raise CheckpointError(f"{path}: no weights under {', '.join(WEIGHT_ENTRIES)} or at the top; found {found}.")
