"""Checkpoints that are either complete or ignored, and the part of their state that a Hub folder cannot hold.

A checkpoint folder is a Hub folder of the model, the Trainer's own files (optimizer, scheduler, random states, trainer
state), `task_state.safetensors`, and, written last, a marker with the size of every file. A folder without its marker, or
with a file missing or cut, is the leftover of a killed run: resuming from it would silently train something else.

`task_state.safetensors` has three name spaces:

- `model.*`: tensors of the saved model that its Hub folder does not hold under the module's own names (conversions on
  save, adapters);
- `auxiliary.*`: tensors of the task outside the model;
- `training.*`: the live weights, when the Hub folder holds their moving average instead.
"""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


MARKER_NAME = "checkpoint_complete.json"
TASK_STATE_NAME = "task_state.safetensors"
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


class IncompleteCheckpointError(ValueError):
    """A checkpoint folder whose save never finished, or that lost files since."""


def write_marker(folder, step):
    """Declares a checkpoint complete: the last write of a save.

    Args:
        folder: the checkpoint folder.
        step: number of optimiser steps taken.
    """
    folder = Path(folder)
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER_NAME
    }
    partial = folder / (MARKER_NAME + ".partial")
    with open(partial, "w", encoding="utf-8") as handle:
        json.dump({"step": step, "files": files}, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, folder / MARKER_NAME)


def missing_from_checkpoint(folder):
    """What keeps a checkpoint folder from being complete, in words, or None when it is complete."""
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such folder"
    try:
        files = json.loads((folder / MARKER_NAME).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"no {MARKER_NAME}: its save never finished"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"an unreadable {MARKER_NAME} ({error})"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def checkpoint_folders(output_dir):
    """All `checkpoint-<step>` folders of a run, complete or not, oldest first."""
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return []
    folders = [(int(match[1]), path) for path in output_dir.iterdir() if (match := _CHECKPOINT.match(path.name))]
    return [path for _, path in sorted(folders) if path.is_dir()]


def last_complete_checkpoint(output_dir):
    """The newest complete checkpoint folder of a run, or None."""
    complete = [path for path in checkpoint_folders(output_dir) if missing_from_checkpoint(path) is None]
    return complete[-1] if complete else None


def require_complete(folder):
    """Raises `IncompleteCheckpointError` unless the folder is a complete checkpoint."""
    reason = missing_from_checkpoint(folder)
    if reason is None:
        return
    last = last_complete_checkpoint(Path(folder).parent)
    advice = f"Resume from {last}." if last else "There is no complete checkpoint beside it: start the run afresh."
    raise IncompleteCheckpointError(f"{folder} is not a complete checkpoint: {reason}. {advice}")


def prepare_checkpoint_folder(folder):
    """Empties a folder that a killed run may have left half written, so that none of its files survive."""
    if Path(folder).exists():
        shutil.rmtree(folder)


def rotate_checkpoints(output_dir, limit, newest, best=None):
    """Deletes incomplete checkpoints and the longest written complete ones beyond `limit`, never the newest nor the best.

    Call it only after the marker of the newest checkpoint is written: a run killed earlier still has its predecessor.

    Args:
        output_dir: folder of the run.
        limit: complete checkpoints to keep; None keeps all.
        newest: the checkpoint just written. The highest step may be that of an earlier run.
        best: the checkpoint of the best evaluation.
    """
    protected = {Path(folder).resolve() for folder in (newest, best) if folder}
    kept = []
    for folder in checkpoint_folders(output_dir):
        if missing_from_checkpoint(folder) is not None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            kept.append(folder)
    kept.sort(key=lambda folder: (folder / MARKER_NAME).stat().st_mtime_ns)
    removable = [folder for folder in kept if folder.resolve() not in protected]
    surplus = len(kept) - limit if limit is not None and limit > 0 else 0
    for folder in removable[: max(surplus, 0)]:
        # without its marker a folder that is only half deleted cannot be taken for a checkpoint
        (folder / MARKER_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def read_weights(folder):
    """All tensors of the safetensors files of a Hub folder (single file, shards), by name, on the CPU."""
    tensors = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(path, framework="pt") as handle:
            tensors.update({name: handle.get_tensor(name) for name in handle.keys()})
    return tensors


def split_state(state, trainable, is_adapter):
    """Parts of a task's state dict: what a saved model must restore, and the auxiliaries.

    Args:
        state: state dict of the whole task.
        trainable: names of its trainable parameters and its buffers.
        is_adapter: a PEFT model restores only what it trains; the rest comes from its base model.

    Returns:
        (model tensors by their name in `task.model`, auxiliary tensors by their name in the task).
    """
    model = {
        name.removeprefix("model."): tensor
        for name, tensor in state.items()
        if name.startswith("model.") and (not is_adapter or name in trainable)
    }
    auxiliary = {name: tensor for name, tensor in state.items() if not name.startswith("model.")}
    return model, auxiliary


def write_task_state(folder, model, auxiliary, training=None, num_averages=0):
    """Writes what the Hub folder beside it does not hold; see the module's docstring.

    Args:
        folder: a checkpoint folder whose Hub files are already written.
        model: tensors of the saved model, by name.
        auxiliary: tensors of the task outside the model.
        training: live weights when `model` is their moving average.
        num_averages: updates of the moving average so far.
    """
    on_disk = read_weights(folder)
    tensors = {
        f"model.{name}": tensor
        for name, tensor in model.items()
        if name not in on_disk or not torch.equal(on_disk[name], tensor.detach().cpu())
    }
    tensors.update({f"auxiliary.{name}": tensor for name, tensor in auxiliary.items()})
    tensors.update({f"training.{name}": tensor for name, tensor in (training or {}).items()})
    # copies, because safetensors refuses tied tensors
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(
        tensors, str(Path(folder) / TASK_STATE_NAME), metadata={"format": "pt", "num_averages": str(num_averages)}
    )


def read_task_state(folder):
    """Reads a checkpoint back.

    Returns:
        (tensors of the saved model by name, auxiliaries by name, live weights or {}, updates of the moving average).
    """
    model, auxiliary, training, num_averages = read_weights(folder), {}, {}, 0
    path = Path(folder) / TASK_STATE_NAME
    if path.is_file():
        spaces = {"model": model, "auxiliary": auxiliary, "training": training}
        with safe_open(path, framework="pt") as handle:
            num_averages = int((handle.metadata() or {}).get("num_averages", 0))
            for name in handle.keys():
                space, _, inner = name.partition(".")
                spaces[space][inner] = handle.get_tensor(name)
    return model, auxiliary, training, num_averages


def load_exactly(module, tensors, required, folder):
    """Copies tensors into a module by name.

    Args:
        module: the module.
        tensors: tensors by name; names the module does not have are ignored (converted names of the Hub folder).
        required: names that must be there.
        folder: named in the error.

    Raises:
        IncompleteCheckpointError: a required tensor is missing or has another shape.
    """
    own = module.state_dict(keep_vars=True)
    missing = sorted(name for name in required if name not in tensors)
    if missing:
        raise IncompleteCheckpointError(
            f"{folder} lacks {len(missing)} of the tensors that this run trains, the first is {missing[0]!r}. "
            "Was it written with other options (freeze, lora_r, ema_decay) or for another model?"
        )
    with torch.no_grad():
        for name in required:
            if own[name].shape != tensors[name].shape:
                raise IncompleteCheckpointError(
                    f"{folder} has {name!r} of shape {tuple(tensors[name].shape)}, the model needs {tuple(own[name].shape)}."
                )
            own[name].copy_(tensors[name])
