# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint file of another project to a folder that `from_pretrained` opens."""

import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModel, AutoModelForVideoClassification

from ..auto import find_architecture
from ..label_lists import read_labels
from ..version import __version__
from . import actionformer, movinet, torchvision_video, tsm, video_focalnet, x3d
from .checkpoints import CheckpointError, read_weights, sha256_of


CONVERSION_RECORD = "conversion.json"
# model_type -> module with build_config, convert_state_dict, config_for, preset_of, recipe_for, REFERENCE
FAMILIES = {
    "video_focalnet": video_focalnet,
    "actionformer": actionformer,
    "tsm": tsm,
    "x3d": x3d,
    "movinet": movinet,
    "torchvision_video": torchvision_video,
}


def convert_checkpoint(
    source,
    output_dir,
    model_type="video_focalnet",
    preset=None,
    num_labels=None,
    id2label=None,
    horizontal_flip_safe=True,
    arguments=None,
):
    """Converts a checkpoint file and writes model, processor and a record of where they came from.

    Every name, shape and type is checked against the architecture before anything is written.

    Args:
        source: Checkpoint file of the original project (.pth, .pt, .safetensors); of `torchvision_video` also torchvision's name of it.
        output_dir: Folder to write; made if need be.
        model_type: Architecture that the file is of, a key of `CONVERTERS`.
        preset: Released size, such as `"tiny"`; found out from the weights when None.
        num_labels: Number of classes to expect; taken from the weights when None.
        id2label: Names of the classes: `{index: name}`, a list, or a CSV file of "id,name"; None: those that are known of a published file.
        arguments: Arguments of the upstream constructor that leave no trace in the weights and were not the released ones,
            under their upstream names, such as `{"num_frames": 16}`.
        horizontal_flip_safe: For a classifier: False when labels tell left from right, so that training on does not mirror clips.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is unsafe, damaged, or not of this architecture; the message lists what differs.
        ValueError: Labels and classes do not match, or the preset or model type does not exist.
    """
    if model_type not in FAMILIES:
        raise ValueError(f"No converter for model_type {model_type!r}; there is one for {', '.join(FAMILIES)}.")
    family, architecture = FAMILIES[model_type], find_architecture(model_type)
    if hasattr(family, "find_source"):
        source = family.find_source(source)
    upstream = read_weights(source)
    try:
        config = family.config_for(upstream, preset, arguments)
        state_dict = family.convert_state_dict(upstream)
        if hasattr(family, "fill_state_dict"):  # what the original project does not keep
            state_dict = family.fill_state_dict(state_dict, config)
    except KeyError as error:
        raise CheckpointError(f"{source}: not a {model_type} checkpoint, {error.args[0]}") from error
    digest = sha256_of(source)
    if id2label is None and hasattr(family, "published_names"):
        id2label = family.published_names(digest)
    names = _names_of_classes(id2label, config.num_labels, num_labels, source)
    config.id2label, config.label2id = names, {name: index for index, name in names.items()}

    classes = architecture.models
    with torch.device("meta"):
        model = classes.get(AutoModelForVideoClassification, classes[AutoModel])(config)
    check_weights(state_dict, model.state_dict(), source)
    types = {name: value.dtype for name, value in model.state_dict().items()}  # batch norms count in integers
    model.load_state_dict({name: value.to(types[name]) for name, value in state_dict.items()}, assign=True)

    output_dir = Path(output_dir)
    model.save_pretrained(output_dir)
    if architecture.video_processor is not None:
        recipe = family.recipe_for(config, horizontal_flip_safe)
        architecture.video_processor(**recipe).save_pretrained(output_dir)
    record = {
        "source": {"name": Path(source).name, "sha256": digest, "bytes": Path(source).stat().st_size},
        "reference": family.REFERENCE,
        "model_type": model_type,
        "preset": preset or family.preset_of(config),
        "parameters": model.num_parameters(),
        "versions": {"hf_effvid": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
    }
    (output_dir / CONVERSION_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return output_dir


def _names_of_classes(labels, in_weights, expected, source):
    if expected is not None and expected != in_weights:
        raise ValueError(f"{source} has {in_weights} classes, num_labels={expected} was asked for.")
    if labels is None:
        return {index: f"LABEL_{index}" for index in range(in_weights)}
    if isinstance(labels, (str, Path)):
        labels = read_labels(labels)
    named = {int(index): name for index, name in (labels.items() if isinstance(labels, dict) else enumerate(labels))}
    if sorted(named) != list(range(in_weights)):
        raise ValueError(f"{source} has {in_weights} classes, the labels name {len(named)}.")
    return named


def check_weights(given, expected, source):
    """Compares weights with those of an architecture, name by name.

    Raises:
        CheckpointError: Names, shapes or types differ, or a weight is not finite; the message lists up to ten.
    """
    problems = [f"missing: {name}" for name in expected if name not in given]
    problems += [f"not part of the architecture: {name}" for name in given if name not in expected]
    for name in expected.keys() & given.keys():
        if given[name].shape != expected[name].shape:
            problems.append(f"{name}: expected shape {tuple(expected[name].shape)}, got {tuple(given[name].shape)}")
        elif expected[name].is_floating_point() and not given[name].is_floating_point():
            problems.append(f"{name}: expected floating-point numbers, got {given[name].dtype}")
        elif not given[name].isfinite().all():
            problems.append(f"{name}: holds NaN or infinity")
    if problems:
        shown = "\n  ".join(sorted(problems)[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(f"{source} does not fit the architecture:\n  {shown}{more}")
