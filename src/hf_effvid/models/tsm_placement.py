# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Which convolutions of a 2-D network of timm are shifted: the first one of each residual branch, as in TSM.

- ResNets: `conv1` of every block; of every second one where the third stage has 23 blocks or more.
- MobileNetV2, EfficientNet (Lite): the first convolution of every block with a shortcut, `conv_pw`.
- MobileNetV4: `dw_start` of every block with a shortcut where it has one, else `pw_exp`.
"""

from torch import nn

from .temporal_shift import ShiftConv2d, make_checkpointed


def shifted_convolutions(network):
    """Names of the convolutions that the rule of the family shifts.

    Raises:
        ValueError: The network belongs to no family with a rule.
    """
    if all(hasattr(network, f"layer{stage}") for stage in range(1, 5)):
        names = _of_resnet(network)
    else:
        blocks = [(name, module) for name, module in network.named_modules() if getattr(module, "has_skip", False)]
        names = [f"{name}.{_first_convolution(block)}" for name, block in blocks]
    if not names:
        raise ValueError(
            f"{type(network).__name__} is neither a ResNet nor of the EfficientNet and MobileNet families of timm: there is no "
            "rule where to shift. Name its convolutions in TSMConfig.shift_modules."
        )
    return names


def _of_resnet(network):
    step = 2 if len(network.layer3) >= 23 else 1
    return [
        f"layer{stage}.{index}.conv1"
        for stage in range(1, 5)
        for index in range(0, len(getattr(network, f"layer{stage}")), step)
    ]


def _first_convolution(block):
    """Blocks of timm hold their layers in the order in which they run."""
    return next(name for name, module in block.named_modules() if isinstance(module, nn.Conv2d))


def _find(module, name):
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def insert_shifts(network, names, shift_div, causal, running):
    """Shifts the input of the named convolutions and lets their blocks take part in checkpointing, in place.

    Args:
        network: A 2-D network.
        names: Convolutions, in the order in which they run.
        shift_div: One part in so many is shifted, in one direction.
        causal: Only from the past.
        running: The `RunningPass` that they share.

    Raises:
        ValueError: A name is not that of a plain convolution.
    """
    for index, name in enumerate(names):
        convolution = _find(network, name)
        if type(convolution) is not nn.Conv2d:
            what = "nothing" if convolution is None else f"a {type(convolution).__name__}"
            raise ValueError(f"TSM shifts the input of an nn.Conv2d; {name!r} is {what} in {type(network).__name__}.")
        ShiftConv2d.take_over(convolution, index, convolution.in_channels // shift_div, causal, running)
    for block in _blocks_around(network, names):
        make_checkpointed(block, running)


def _blocks_around(network, names):
    """All elements of the lists whose elements hold a shifted convolution: the blocks of the network."""
    lists = dict.fromkeys(_innermost_list(name) for name in names)
    return [block for name in lists if name is not None for block in network.get_submodule(name)]


def _innermost_list(name):
    parts = name.split(".")
    for length in range(len(parts) - 2, 0, -1):
        if parts[length].isdigit():
            return ".".join(parts[:length])
    return None
