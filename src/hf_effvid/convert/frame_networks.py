# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""2-D networks under the names of timm, from the other places where their ImageNet weights are published.

- torchvision and everybody after it: ResNet, which timm names alike, and MobileNetV2 (`features.N...`);
- `efficientnet_lite_pytorch` and what else follows EfficientNet-PyTorch (`_blocks.N...`): EfficientNet-Lite.

timm counts blocks within stages; a stage begins where the number of channels changes.
"""

import re


_FLAT_BLOCK = re.compile(r"(?:features|_blocks)\.(\d+)\.(.+)\.(\w+)$")

# EfficientNet-PyTorch's layers of a block -> timm's; the first block of a network has no expansion
_LITE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}

# torchvision's numbering of MobileNetV2's layers in a block -> timm's, for both ways in which it has been numbered
_MOBILE_BLOCKS = (
    {
        "conv.0": "conv_pw",
        "conv.1": "bn1",
        "conv.3": "conv_dw",
        "conv.4": "bn2",
        "conv.6": "conv_pwl",
        "conv.7": "bn3",
    },
    {
        "conv.0.0": "conv_pw",
        "conv.0.1": "bn1",
        "conv.1.0": "conv_dw",
        "conv.1.1": "bn2",
        "conv.2": "conv_pwl",
        "conv.3": "bn3",
    },
)
_MOBILE_FIRST_BLOCKS = (
    {"conv.0": "conv_dw", "conv.1": "bn1", "conv.3": "conv_pw", "conv.4": "bn2"},
    {"conv.0.0": "conv_dw", "conv.0.1": "bn1", "conv.1": "conv_pw", "conv.2": "bn2"},
)
_MOBILE_WIDTHS = {16: "050", 32: "100", 48: "140"}

# blocks per stage -> ResNets with plain and with bottleneck blocks
_RESNETS = {
    (2, 2, 2, 2): ("resnet18", None),
    (3, 4, 6, 3): ("resnet34", "resnet50"),
    (3, 4, 23, 3): (None, "resnet101"),
    (3, 8, 36, 3): (None, "resnet152"),
}


def to_timm_names(state_dict):
    """Weights of a 2-D network under the names of timm, its classifier too. Pure; tensors are not copied.

    Raises:
        KeyError: A name belongs to no network that is known here.
    """
    if "_conv_stem.weight" in state_dict:
        return _rename_flat(state_dict, _lite_end, [_LITE_FIRST_BLOCK], [_LITE_BLOCK])
    if "features.0.0.weight" in state_dict:
        return _rename_flat(state_dict, _mobile_end, _MOBILE_FIRST_BLOCKS, _MOBILE_BLOCKS)
    if "conv_stem.weight" in state_dict or "layer1.0.conv1.weight" in state_dict:
        return dict(state_dict)  # timm's own, or a ResNet, which everybody names alike
    raise KeyError(
        f"no network of timm, torchvision or EfficientNet-PyTorch; it begins with {next(iter(state_dict), 'nothing')}."
    )


def architecture_of(state_dict):
    """Name of the network in timm, read off names and shapes under any of the layouts; None when they do not tell.

    EfficientNet-Lite and MobileNetV2 of other widths than the published ones, and whatever has timm's names already, do not.
    """
    stages = tuple(_count(state_dict, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
    if all(stages):
        plain, bottleneck = _RESNETS.get(stages, (None, None))
        return bottleneck if "layer1.0.conv3.weight" in state_dict else plain
    if "_conv_stem.weight" in state_dict:
        published = _count(state_dict, r"_blocks\.(\d+)\.") == 16 and "_blocks.0._se_reduce.weight" not in state_dict
        return "tf_efficientnet_lite0" if published else None
    if "features.0.0.weight" in state_dict:
        width = _MOBILE_WIDTHS.get(len(state_dict["features.0.0.weight"]))
        return f"mobilenetv2_{width}" if width else None
    return None


def _count(state_dict, pattern):
    return len({match[1] for name in state_dict if (match := re.match(pattern, name))})


def _rename_flat(state_dict, end_of, first_layers, layers):
    """Networks whose blocks are numbered through: names of the ends by `end_of`, those of blocks by tables of their layers."""
    blocks = {}
    renamed = {}
    for name, value in state_dict.items():
        end = end_of(name, state_dict)
        match = _FLAT_BLOCK.match(name)
        if end is not None:
            renamed[end] = value
        elif match:
            blocks.setdefault(int(match[1]), {})[match[2], match[3]] = value
        else:
            raise KeyError(f"{name!r} is not a parameter of a network that is known here.")
    stage, position, channels = -1, 0, None
    for index, number in enumerate(sorted(blocks)):
        names = _layers_of_block(blocks[number], first_layers if index == 0 else layers, number)
        ours = {f"{names[layer]}.{leaf}": value for (layer, leaf), value in blocks[number].items()}
        projection = ours["conv_pw.weight" if index == 0 else "conv_pwl.weight"]
        if len(projection) != channels:
            stage, position, channels = stage + 1, 0, len(projection)
        renamed.update({f"blocks.{stage}.{position}.{name}": value for name, value in ours.items()})
        position += 1
    return renamed


def _layers_of_block(block, tables, number):
    layers = {layer for layer, _ in block}
    for table in tables:
        if layers == set(table):
            return table
    raise KeyError(f"block {number} has layers {', '.join(sorted(layers))}, which no network that is known here has.")


def _lite_end(name, state_dict):
    layer, _, leaf = name.partition(".")
    return f"{_LITE_ENDS[layer]}.{leaf}" if layer in _LITE_ENDS else None


def _mobile_end(name, state_dict):
    """`features.0` is the stem; the head is the last of `features` or, in some code, `conv`."""
    last = max(int(match[1]) for key in state_dict if (match := re.match(r"features\.(\d+)\.", key)))
    head = f"features.{last}" if f"features.{last}.0.weight" in state_dict else "conv"
    for theirs, ours in (
        ("features.0.0.", "conv_stem."),
        ("features.0.1.", "bn1."),
        (f"{head}.0.", "conv_head."),
        (f"{head}.1.", "bn2."),
        ("classifier.1.", "classifier."),
        ("classifier.", "classifier."),
    ):
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return None
