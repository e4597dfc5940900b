# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A Video-FocalNet that starts from an image FocalNet, as published or without losing what the image model computes.

`start="published"` is what the paper's code does: image weights by name, a tubelet embedding inflated by the mean over time, temporal
weights left at their random initialisation, a fresh head (its bias is random as well). At step 0 the query is then multiplied with a
random temporal modulator, and the image function is gone.

`start="preserve"` changes only how time begins, so that the temporal modulator m_t is neutral:

| design | neutral start | exact on |
| --- | --- | --- |
| parallel, product; sequential | h_t has weight 0 and bias 1, so m_t = 1 and o = q * m_s * 1 | every clip |
| parallel, sum | h_t has weight 0 and bias 0, so m_t = 0 and o = q * (m_s + 0) | every clip |
| parallel, learned | W = [identity, 0], b = 0, so W [m_s; m_t] = m_s | every clip |
| joint | each 3-D kernel is zero but for its middle slice, the image kernel | clips of equal frames, and single frames |
| none | nothing to do | every clip |

"Exact on every clip" says: features and logits are the mean over frames of what the image model gives for each. A tubelet embedding sees
the mean frame of each tubelet. The branch learns from there: the gradient of h_t's weight is g S_t^T with S_t the gathered context, which
is not zero, and once that weight has moved, gradients reach the kernels, gates and contexts behind it. Those are drawn from a normal of
variance 1 / fan-in instead of the published one, with which S_t, and so the first gradients, would be almost zero.
"""

import json
from pathlib import Path

import torch
import transformers
from torch import nn

from ..label_lists import read_labels
from ..models.configuration_video_focalnet import PRESETS
from ..models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from ..models.video_focalnet_layers import VideoFocalNetModulation
from ..models.video_processing_effvid import EffVidVideoProcessor
from ..version import __version__
from .checkpoints import CheckpointError, sha256_of
from .conversion import CONVERSION_RECORD, check_weights
from .image_focalnet import read_image_focalnet
from .video_focalnet import RECIPE, build_config, convert_state_dict, infer_arguments, preset_of


STARTS = ("published", "preserve")
HEAD_STD = 0.02


def video_from_image_focalnet(source, start="published", id2label=None, seed=0, arguments=None, **fields):
    """Builds a Video-FocalNet from the weights of an image FocalNet.

    Args:
        source: Hub id (`microsoft/focalnet-tiny`, `timm/focalnet_tiny_srf.ms_in1k`), folder, file, module or weights of an image
            FocalNet, see `read_image_focalnet`.
        start: `"published"`, or `"preserve"` to compute at step 0 what the image model computes.
        id2label: Names of the video classes, `{index: name}` or a list: the head is fresh, as published. None keeps the image head.
        seed: Seed of everything that is drawn; the global generator is left alone.
        arguments: Official constructor arguments that leave no trace in a file of weights, such as `{"use_postln": True}`.
        **fields: Fields of `VideoFocalNetConfig`, such as `num_frames`, `tubelet_size` or `temporal_encoding`.

    Returns:
        A `VideoFocalNetForVideoClassification` in training precision (float32).

    Raises:
        FileNotFoundError: There are no such weights.
        CheckpointError: The weights are unsafe, damaged, or not an image FocalNet's.
        ValueError: An unknown start, no head to keep, or fields that do not fit the weights.
    """
    if start not in STARTS:
        raise ValueError(f"start is one of {', '.join(STARTS)}, got {start!r}.")
    return _build(read_image_focalnet(source), str(source)[:80], start, id2label, seed, arguments, fields)


def convert_image_focalnet(
    source, output_dir, start="published", id2label=None, seed=0, horizontal_flip_safe=True, **more
):
    """Writes such a model as a folder: weights, a processor with the published recipe, and a record of where it came from.

    Args:
        output_dir: Folder to write; made if need be.
        id2label: As in `video_from_image_focalnet`, or a CSV file of "id,name".
        horizontal_flip_safe: False when labels tell left from right.
        source, start, seed, **more: See `video_from_image_focalnet`.

    Returns:
        The folder.
    """
    if start not in STARTS:
        raise ValueError(f"start is one of {', '.join(STARTS)}, got {start!r}.")
    if isinstance(id2label, (str, Path)):
        id2label = read_labels(id2label)
    image, arguments = read_image_focalnet(source), more.pop("arguments", None)
    model = _build(image, str(source)[:80], start, id2label, seed, arguments, more)
    output_dir = Path(output_dir)
    model.save_pretrained(output_dir)
    recipe = {**RECIPE, "num_frames": model.config.num_frames, "horizontal_flip_safe": horizontal_flip_safe}
    EffVidVideoProcessor(**recipe).save_pretrained(output_dir)
    record = {
        "source": {
            "name": str(source) if isinstance(source, (str, Path)) else type(source).__name__,
            "layout": image.layout,
        },
        "model_type": "video_focalnet",
        "preset": preset_of(model.config),
        "start": start,
        "seed": seed,
        "head": "image" if id2label is None else "fresh",
        "versions": {"hf_effvid": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
    }
    if image.file is not None:
        record["source"].update(file=image.file.name, sha256=sha256_of(image.file), bytes=image.file.stat().st_size)
    (output_dir / CONVERSION_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return output_dir


def _build(image, name, start, id2label, seed, arguments, fields):
    if id2label is None:
        if "head.weight" not in image.weights:
            raise ValueError(f"{name} has no head to keep: name the video classes with id2label.")
        names = image.id2label or {index: f"LABEL_{index}" for index in range(len(image.weights["head.weight"]))}
    else:
        names = dict(id2label) if isinstance(id2label, dict) else dict(enumerate(id2label))
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"id2label needs the indices 0 to {len(names) - 1}, got {sorted(names)[:5]} ...")
    config = _config_for(image, arguments or {}, fields, name)
    config.id2label, config.label2id = names, {label: index for index, label in names.items()}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VideoFocalNetForVideoClassification(config)
        if id2label is not None:
            _fresh_head(model.classifier)
    given = convert_state_dict({key: value for key, value in image.weights.items() if not key.startswith("head.")})
    if id2label is None:
        given |= convert_state_dict({key: image.weights[key] for key in ("head.weight", "head.bias")})
    given = _inflate(given, config, start)
    drawn = model.state_dict()
    new = {key: value for key, value in drawn.items() if key not in given and _is_new(key, id2label is not None)}
    check_weights({**new, **given}, drawn, name)
    model.load_state_dict({**new, **{key: value.float() for key, value in given.items()}})
    if start == "preserve":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in model.modules():
                if isinstance(module, VideoFocalNetModulation):
                    _make_time_neutral(module)
    return model.eval()


def _config_for(image, arguments, fields, name):
    """The image model's configuration as a video model's: stochastic depth of the released size, then the fields given."""
    try:
        found = infer_arguments(image.weights)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{name}: not a complete image FocalNet ({error}).") from error
    config = build_config({**found, **image.arguments, **arguments})
    config.layer_norm_eps = image.layer_norm_eps
    config.drop_path_rate = PRESETS.get(preset_of(config), {"drop_path_rate": config.drop_path_rate})["drop_path_rate"]
    for field, value in fields.items():
        if not hasattr(config, field):
            raise ValueError(f"VideoFocalNetConfig has no field {field!r}.")
        setattr(config, field, value)
    config.validate_architecture()
    return config


def _fresh_head(head):
    """As published: not only the weight is drawn from the truncated normal, the bias is too."""
    for parameter in (head.weight, head.bias):
        nn.init.trunc_normal_(parameter, std=HEAD_STD)


def _is_new(key, fresh_head):
    """Whether an image model has no such weight."""
    new = ("temporal", "projection_fusion") + (("classifier.",) if fresh_head else ())
    return any(part in key for part in new)


def _inflate(weights, config, start):
    """Kernels of images as kernels of clips: the embedding of a tubelet, and the 3-D kernels of the joint design."""
    inflated = {}
    for key, value in weights.items():
        if key.endswith("embeddings.projection.weight") and config.tubelet_size > 1:
            value = _repeat_in_time(value, config.tubelet_size)
        if config.temporal_encoding == "joint" and ".modulation.spatial_kernel_" in key:
            key, size = key.replace("spatial_kernel_", "joint_kernel_"), value.shape[-1]
            middle = torch.zeros_like(value)[:, :, None].repeat(1, 1, size, 1, 1)
            middle[:, :, size // 2] = value
            value = middle if start == "preserve" else _repeat_in_time(value, size)
        inflated[key] = value
    return inflated


def _repeat_in_time(kernel, steps):
    """(out, in, h, w) -> (out, in, steps, h, w), which answers a constant clip as the kernel answers its frame."""
    return kernel[:, :, None].repeat(1, 1, steps, 1, 1) / steps


@torch.no_grad()
def _make_time_neutral(modulation):
    """The table at the top, for one block, and a branch behind it whose context is as large as its tokens."""
    if modulation.projection_fusion is not None:
        channels = modulation.projection_fusion.out_features
        modulation.projection_fusion.weight.copy_(torch.eye(channels, 2 * channels))
        modulation.projection_fusion.bias.zero_()
    elif modulation.projection_context_temporal is not None:
        modulation.projection_context_temporal.weight.zero_()
        modulation.projection_context_temporal.bias.fill_(0.0 if modulation.fusion == "sum" else 1.0)
    if modulation.projection_in_temporal is not None:
        for weight in (modulation.projection_in_temporal.weight, *modulation.kernels[1]):
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
