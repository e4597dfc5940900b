# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""A TSM that starts from the ImageNet weights of its 2-D network, whoever published them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..models.configuration_tsm import TSMConfig
from ..models.modeling_tsm import TSMForVideoClassification
from ..models.video_processing_effvid import EffVidVideoProcessor
from .checkpoints import CheckpointError, find_weight_file, read_weights, with_batch_counters
from .conversion import check_weights
from .frame_networks import architecture_of, to_timm_names


# the classifier of images, under the names of timm
_IMAGE_HEADS = ("fc.", "classifier.", "head.", "head.fc.")
# of EfficientNet-Lite: pixels from 0 to 255, less 127, over 128
_LITE_PIXELS = ((127 / 255,) * 3, (128 / 255,) * 3)


class ImageStart(NamedTuple):
    """A TSM with the weights of images and a new classifier, and the processor that gives it such pixels.

    Fields:
        model: `TSMForVideoClassification`.
        processor: `EffVidVideoProcessor`, normalising as for the images.
    """

    model: TSMForVideoClassification
    processor: EffVidVideoProcessor


def tsm_from_image_network(source, architecture=None, id2label=None, seed=0, **fields):
    """Builds a TSM from the ImageNet weights of a 2-D network. The shift has no weights: nothing but the classifier is new.

    Args:
        source: Hub id or folder of a timm network (`timm/mobilenetv4_conv_small.e2400_r224_in1k`), a checkpoint file of timm,
            torchvision (ResNet, MobileNetV2) or EfficientNet-PyTorch (EfficientNet-Lite), a module, or a dictionary of tensors.
        architecture: Name of the network in timm, where neither configuration nor weights tell.
        id2label: Names of the video classes, `{index: name}` or a list.
        seed: Seed of the new classifier; the global generator is left alone.
        **fields: Fields of `TSMConfig`, such as `num_frames`, `causal` or `num_labels`.

    Raises:
        FileNotFoundError: There are no such weights.
        CheckpointError: The weights are unsafe, damaged, of no known 2-D network, or not of this one.
        ImportError: timm is not installed.
        ValueError: Nothing tells the architecture.
    """
    weights, document = _read(source)
    name = source if isinstance(source, (str, Path)) else type(source).__name__
    try:
        network = to_timm_names(weights)
    except KeyError as error:
        if architecture is None and "architecture" not in document:
            raise CheckpointError(f"{name}: {error.args[0]}") from error
        network = dict(weights)  # of another family of timm
    architecture = architecture or document.get("architecture") or architecture_of(weights)
    if architecture is None:
        raise ValueError(f"{name} does not tell which network it is of: pass architecture, its name in timm.")
    if id2label is not None:
        names = id2label if isinstance(id2label, Mapping) else dict(enumerate(id2label))
        fields |= {"id2label": dict(names), "label2id": {label: index for index, label in names.items()}}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TSMForVideoClassification(TSMConfig(architecture=architecture, **fields))
    trunk = {key: value for key, value in network.items() if not key.startswith(_IMAGE_HEADS)}
    trunk = with_batch_counters(trunk)
    check_weights(trunk, model.tsm.timm_model.state_dict(), name)
    model.tsm.timm_model.load_state_dict(trunk)
    return ImageStart(model, _processor_of(model.config, document, weights))


def _read(source):
    """Weights, and what a configuration beside them says."""
    if isinstance(source, nn.Module):
        return source.state_dict(), getattr(source, "pretrained_cfg", None) or {}
    if isinstance(source, Mapping):
        return dict(source), {}
    file, document = Path(source), {}
    if not file.is_file():
        file, document = find_weight_file(str(source), "a 2-D network of timm")
    return read_weights(file), {**document.get("pretrained_cfg", {}), **document}


def _processor_of(config, document, weights):
    size = config.image_size if isinstance(config.image_size, int) else min(config.image_size)
    mean, std = document.get("mean", IMAGENET_DEFAULT_MEAN), document.get("std", IMAGENET_DEFAULT_STD)
    if "_conv_stem.weight" in weights:
        mean, std = _LITE_PIXELS
    return EffVidVideoProcessor(
        sampling="segment",
        num_frames=config.num_frames,
        size={"shortest_edge": size * 8 // 7},
        crop_size={"height": size, "width": size},
        image_mean=list(mean),
        image_std=list(std),
    )
