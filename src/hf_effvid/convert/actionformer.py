# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""ActionFormer: from happyharrycn/actionformer_release, or from OpenTAD's ActionFormer, to ours and back.

Both layouts hold the same parameters under other names. Linear layers are 1x1 convolutions there (out, in, 1), LayerNorms have
shape (1, C, 1) in the first and (C,) in OpenTAD, and every level's scale is a parameter of its own. OpenTAD also keeps the
running number of positive points, and its end-to-end detectors carry a VideoMAE. The two differ in what padding does to valid steps,
see `ActionFormerConfig.mask_after_norm`.
"""

import re

import torch

from ..models.configuration_actionformer import ActionFormerConfig
from .videomae_mmaction import convert_videomae, infer_videomae, restore_videomae


REFERENCE = "https://github.com/happyharrycn/actionformer_release at commit 61ea7eb"
LAYOUTS = ("official", "opentad")

# (kind, ours, official, OpenTAD): names of modules or parameters; a kind says how shapes differ, {n} stands for a number
_BLOCKS = [
    ("norm", "norm1", "ln1"),
    ("norm", "norm2", "ln2"),
    *(
        row
        for name in ("query", "key", "value")
        for row in (
            ("convolution", f"attention.{name}_convolution", f"attn.{name}_conv.conv"),
            ("norm", f"attention.{name}_norm", f"attn.{name}_norm"),
            ("linear", f"attention.{name}", f"attn.{name}"),
        )
    ),
    ("linear", "attention.output", "attn.proj"),
    ("bias table", "attention.relative_bias", "attn.rel_pe"),
    ("linear", "mlp.fc1", "mlp.0"),
    ("linear", "mlp.fc2", "mlp.3"),
    ("scale", "layer_scale1", "drop_path_attn.scale"),
    ("scale", "layer_scale2", "drop_path_mlp.scale"),
]
_MODULES = [
    ("linear", "actionformer.embeddings.projections.{n}", "backbone.proj.{n}.conv", "projection.proj.{n}.conv"),
    (
        "convolution",
        "actionformer.embeddings.layers.{n}.convolution",
        "backbone.embd.{n}.conv",
        "projection.embed.{n}.conv",
    ),
    ("norm", "actionformer.embeddings.layers.{n}.norm", "backbone.embd_norm.{n}", "projection.embed.{n}.norm"),
    *(
        (
            kind,
            f"actionformer.encoder.{part}.{{n}}.{ours}",
            f"backbone.{part}.{{n}}.{name}",
            f"projection.{part}.{{n}}.{name}",
        )
        for part in ("stem", "branch")
        for kind, ours, name in _BLOCKS
    ),
    ("norm", "actionformer.neck.norms.{n}", "neck.fpn_norms.{n}", "neck.fpn_norms.{n}"),
    ("linear", "actionformer.neck.laterals.{n}", "neck.lateral_convs.{n}.conv", "neck.lateral_convs.{n}.conv"),
    ("convolution", "actionformer.neck.convolutions.{n}", "neck.fpn_convs.{n}.conv", "neck.fpn_convs.{n}.conv"),
    *(
        row
        for head, short, output in (
            ("classification_head", "cls", "cls_head"),
            ("regression_head", "reg", "offset_head"),
        )
        for row in (
            (
                "convolution",
                f"{head}.layers.{{n}}.convolution",
                f"{short}_head.head.{{n}}.conv",
                f"rpn_head.{short}_convs.{{n}}.conv",
            ),
            ("norm", f"{head}.layers.{{n}}.norm", f"{short}_head.norm.{{n}}", f"rpn_head.{short}_convs.{{n}}.norm"),
            ("convolution", f"{head}.output", f"{short}_head.{output}.conv", f"rpn_head.{short}_head"),
        )
    ),
]
_SCALES = "level_scales"
_LEVEL_SCALES = {"official": "reg_head.scale.{n}.scale", "opentad": "rpn_head.scale.{n}.scale"}
_TRUNK, _TRUNK_OF_OPENTAD = "actionformer.backbone.trunk.", "backbone.model.backbone."
_COUNT, _COUNT_OF_OPENTAD = "loss_normalizer.value", "rpn_head.loss_normalizer"

# upstream constructor argument -> field of our configuration
_ARGUMENTS = {
    "input_dim": "input_size",
    "embd_dim": "hidden_size",
    "embd_kernel_size": "embedding_kernel_size",
    "n_head": "num_attention_heads",
    "n_mha_win_size": "attention_window",
    "use_abs_pe": "use_absolute_positions",
    "use_rel_pe": "use_relative_positions",
    "max_seq_len": "max_sequence_length",
    "fpn_type": "neck_type",
    "head_kernel_size": "head_kernel_size",
    "head_num_layers": "num_head_layers",
    "regression_range": "regression_ranges",
    "num_classes": "num_labels",
}
_TRAINING_ARGUMENTS = {
    "center_sample": "center_sampling",
    "center_sample_radius": "center_sampling_radius",
    "loss_weight": "regression_loss_weight",
    "cls_prior_prob": "class_prior",
    "init_loss_norm": "loss_normalizer_init",
    "head_empty_cls": "empty_classes",
    "dropout": "hidden_dropout_prob",
    "droppath": "drop_path_rate",
    "label_smoothing": "label_smoothing",
}
# what ours has no choice in, and what it has to be there
_FIXED = {"scale_factor": 2, "embd_with_ln": True, "fpn_with_ln": True, "head_with_ln": True, "fpn_start_level": 0}
# arguments without a place in the architecture
_OTHER = {"test_cfg", "max_buffer_len_factor", "backbone_type", "backbone_arch", "fpn_dim", "head_dim", "train_cfg"}

# What leaves no trace in the weights of the released models, as upstream arguments.
_WIDE_RANGES = [[0, 4], [2, 8], [4, 16], [8, 32], [16, 64], [32, 10000]]
PRESETS = {
    "thumos14": {"n_mha_win_size": 19, "max_seq_len": 2304, "train_cfg": {"init_loss_norm": 100}},
    "activitynet": {
        "n_mha_win_size": [7, 7, 7, 7, 7, -1],
        "use_abs_pe": True,
        "max_seq_len": 192,
        "train_cfg": {"init_loss_norm": 200, "loss_weight": 2.0, "label_smoothing": 0.1},
    },
    # end to end, VideoMAE on frames of 160 x 160
    "adatad_thumos14": {"n_mha_win_size": -1, "max_seq_len": 768, "train_cfg": {"init_loss_norm": 100}},
    "epic_kitchens": {
        "n_mha_win_size": 9,
        "max_seq_len": 2304,
        "regression_range": _WIDE_RANGES,
        "train_cfg": {"init_loss_norm": 250},
    },
}
# (channels, classes) of the released models -> preset
_RELEASED = {(512, 20): "thumos14", (256, 1): "activitynet", (512, 97): "epic_kitchens", (512, 300): "epic_kitchens"}

# What their features are (frames) and how candidates were suppressed: I3D at 30 per second, TSP at 15, SlowFast at 30.
RECIPES = {
    "thumos14": {"feature_stride": 4, "feature_num_frames": 16, "nms_sigma": 0.5, "max_segments": 200},
    "activitynet": {
        "feature_stride": 16,
        "feature_num_frames": 16,
        "feature_fps": 15.0,
        "resize_length": 192,
        "min_steps": 0.001,
        "nms_sigma": 0.75,
        "max_segments": 100,
        "class_agnostic": True,
        "voting_threshold": 0.9,
    },
    "epic_kitchens": {
        "feature_stride": 16,
        "feature_num_frames": 32,
        "feature_fps": 30.0,
        "candidate_top_k": 5000,
        "nms_sigma": 0.4,
        "max_segments": 2000,
    },
}


def build_config(upstream, **fields_of_ours):
    """Makes our configuration from the arguments of the official constructor, under their upstream names.

    Args:
        upstream: The arguments.
        **fields_of_ours: What the official constructor has no argument for.

    Raises:
        ValueError: An argument is not one of the constructor, or has a value that ours cannot have.
    """
    training = dict(upstream.get("train_cfg", {}))
    training.pop("clip_grad_l2norm", None)
    unknown = (set(upstream) - set(_ARGUMENTS) - set(_FIXED) - _OTHER) | (set(training) - set(_TRAINING_ARGUMENTS))
    if unknown:
        raise ValueError(
            f"ActionFormer's constructor has no argument {', '.join(map(repr, sorted(unknown)))}; it has "
            f"{', '.join([*_ARGUMENTS, *_TRAINING_ARGUMENTS])}."
        )
    for name, only in _FIXED.items():
        if upstream.get(name, only) != only:
            raise ValueError(
                f"ActionFormer with {name}={upstream[name]!r} has no equivalent here, only {name}={only!r}."
            )
    if upstream.get("backbone_type", "convTransformer") != "convTransformer":
        raise ValueError(f"Only backbone_type='convTransformer' is converted, got {upstream['backbone_type']!r}.")
    fields = {ours: upstream[name] for name, ours in _ARGUMENTS.items() if name in upstream}
    fields.update({ours: training[name] for name, ours in _TRAINING_ARGUMENTS.items() if name in training})
    if isinstance(fields.get("hidden_size"), (list, tuple)):
        fields["projection_sizes"] = list(fields["hidden_size"])
        fields["hidden_size"] = sum(fields["hidden_size"])
    arch = upstream.get("backbone_arch", (2, 2, 5))
    fields.update(num_embedding_layers=arch[0], num_stem_layers=arch[1], num_branch_layers=arch[2])
    for name, field in (("fpn_dim", "neck_size"), ("head_dim", "head_size")):
        if upstream.get(name) not in (None, fields.get("hidden_size")):
            fields[field] = upstream[name]
    fields.setdefault("center_sampling", "radius")
    return ActionFormerConfig(
        # a scale per channel comes with stochastic depth there
        use_layer_scale=fields.get("drop_path_rate", 0.1) > 0,
        mask_after_norm="nowhere",
        **fields,
        **fields_of_ours,
    )


def layout_of(state_dict):
    """`"official"` or `"opentad"`, or None for weights of neither."""
    if any(key.startswith("rpn_head.") for key in state_dict):
        return "opentad"
    return "official" if any(key.startswith("cls_head.") for key in state_dict) else None


def config_for(state_dict, preset=None, arguments=None):
    """The configuration that upstream weights need, read off their names and shapes.

    Windows, positions, length and losses leave no trace there. They come from the preset, which is found out from width and
    classes where None, and from `arguments`.

    Args:
        state_dict: Weights in the official layout or OpenTAD's.
        preset: `"thumos14"`, `"activitynet"`, `"epic_kitchens"` or `"adatad_thumos14"`, or None.
        arguments: Arguments of the official constructor that differ from the preset's. With a VideoMAE also `backbone`, fields of its
            configuration that the weights do not show, and `frames_per_step`.

    Raises:
        KeyError: These are no weights of an ActionFormer.
        ValueError: The preset does not exist, or none is given and none can be guessed.
    """
    if any(key.startswith("actionformer.") for key in state_dict):
        raise KeyError("its weights already have our names: open it with from_pretrained.")
    layout = layout_of(state_dict)
    if layout is None:
        raise KeyError("it has neither cls_head.* nor rpn_head.*.")
    shapes = {name: value.shape for name, value in convert_state_dict(state_dict).items()}
    found = infer_arguments(shapes)
    trunk = {name.removeprefix(_TRUNK): size for name, size in shapes.items() if name.startswith(_TRUNK)}
    preset = preset or _guess_preset(found["fpn_dim"], found["num_classes"], bool(trunk))
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r} of ActionFormer, only {', '.join(PRESETS)}.")
    if preset is None and "n_mha_win_size" not in (arguments or {}):
        raise ValueError(
            f"These weights ({found['fpn_dim']} channels, {found['num_classes']} classes) are of no released model: give a preset "
            f"({', '.join(PRESETS)}) or the constructor arguments that leave no trace, at least n_mha_win_size."
        )
    given = {**(PRESETS[preset] if preset else {}), **(arguments or {})}
    training = {
        **found.pop("train_cfg"),
        **(PRESETS[preset]["train_cfg"] if preset else {}),
        **given.pop("train_cfg", {}),
    }
    end_to_end = {}
    if trunk:
        backbone = {**infer_videomae(trunk), **given.pop("backbone", {})}
        end_to_end = {
            "backbone_config": {"model_type": "videomae", **backbone},
            "frames_per_step": given.pop("frames_per_step", 1),
        }
    config = build_config({**found, **given, "train_cfg": training}, **end_to_end)
    if layout == "opentad":
        config.mask_after_norm, config.convolution_norm_eps = "convolutions", 1e-6
    return config


def fill_state_dict(state_dict, config):
    """Adds the running number of positive points where the layout has none: training starts it anew."""
    return {_COUNT: torch.tensor(float(config.loss_normalizer_init)), **state_dict}


def preset_of(config):
    """Name of the released model of this width and number of classes, or None."""
    return _guess_preset(config.hidden_size, config.num_labels, config.backbone_config is not None)


def _guess_preset(channels, classes, end_to_end):
    name = _RELEASED.get((channels, classes))
    if end_to_end:
        name = f"adatad_{name}"
    return name if name in PRESETS else None


def recipe_for(config, horizontal_flip_safe):
    """Recipe of the processor: what the features of a released model are, and how its outputs were turned into detections.

    A model of another size gets the defaults. Models that see the presence of padding are shown as much of it as they were trained with.
    """
    recipe = RECIPES.get(preset_of(config), {"class_agnostic": config.num_labels == 1})
    pad_length = None if config.mask_after_norm == "everywhere" else config.max_sequence_length
    return {**recipe, "pad_length": pad_length, "horizontal_flip_safe": horizontal_flip_safe}


def infer_arguments(shapes):
    """Arguments of the official constructor that show in our names and shapes."""

    def count(pattern):
        return len({match[1] for key in shapes if (match := re.match(pattern, key))})

    projections = count(r"actionformer\.embeddings\.projections\.(\d+)\.")
    projected = [shapes[f"actionformer.embeddings.projections.{index}.weight"] for index in range(projections)]
    first, kernel = shapes["actionformer.embeddings.layers.0.convolution.weight"][1:]
    parts = ("embeddings.layers", "encoder.stem", "encoder.branch")
    scaled = any("layer_scale" in key for key in shapes)
    classifier = shapes["classification_head.output.weight"]
    return {
        "input_dim": [int(size[1]) for size in projected] or first,
        "embd_dim": [int(size[0]) for size in projected] or shapes["actionformer.embeddings.layers.0.norm.weight"][0],
        "embd_kernel_size": kernel,
        "backbone_arch": [count(rf"actionformer\.{part}\.(\d+)\.") for part in parts],
        "use_rel_pe": any("relative_bias" in key for key in shapes),
        "fpn_type": "fpn" if any("neck.laterals" in key for key in shapes) else "identity",
        "fpn_dim": shapes["actionformer.neck.norms.0.weight"][0],
        "head_dim": classifier[1],
        "head_kernel_size": classifier[2],
        "head_num_layers": 1 + count(r"classification_head\.layers\.(\d+)\."),
        "num_classes": classifier[0],
        "train_cfg": {"droppath": 0.1 if scaled else 0.0},
    }


def convert_state_dict(state_dict):
    """Weights of either layout under our names and shapes; weights that are ours already come back as they are.

    Pure: tensors are not copied (but for the scales of the levels) and nothing is modified.

    Raises:
        KeyError: A name belongs to neither layout.
    """
    if any(key.startswith("actionformer.") for key in state_dict):
        return dict(state_dict)
    layout = layout_of(state_dict) or "official"
    trunk = {name: value for name, value in state_dict.items() if name.startswith(_TRUNK_OF_OPENTAD)}
    named = convert_videomae({name.removeprefix(_TRUNK_OF_OPENTAD): value for name, value in trunk.items()})
    converted, scales = {_TRUNK + name: value for name, value in named.items()}, {}
    for key, value in state_dict.items():
        if key in trunk:
            continue
        scale = re.fullmatch(_LEVEL_SCALES[layout].replace(".", r"\.").replace("{n}", r"(\d+)"), key)
        if scale:
            scales[int(scale[1])] = value.reshape(())
        elif key == _COUNT_OF_OPENTAD:
            converted[_COUNT] = value.reshape(()).float()
        else:
            kind, ours = _rename(key, 2 + LAYOUTS.index(layout), 1)
            converted[ours] = _to_our_shape(kind, value)
    if scales:
        converted[_SCALES] = torch.stack([scales[level] for level in sorted(scales)])
    return converted


def restore_state_dict(state_dict, layout="official"):
    """The way back: our weights under the names and shapes of `layout`.

    The official layout has no place for the running number of positive points; it is left out there.

    Raises:
        KeyError: A name is not one of ours.
        ValueError: The layout does not exist.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"There is no layout {layout!r}, only {', '.join(LAYOUTS)}.")
    restored = {}
    if layout == "opentad":
        trunk = {name: value for name, value in state_dict.items() if name.startswith(_TRUNK)}
        named = restore_videomae({name.removeprefix(_TRUNK): value for name, value in trunk.items()})
        restored = {_TRUNK_OF_OPENTAD + name: value for name, value in named.items()}
        state_dict = {name: value for name, value in state_dict.items() if name not in trunk}
    for key, value in state_dict.items():
        if key == _SCALES:
            restored.update({_LEVEL_SCALES[layout].format(n=level): scale for level, scale in enumerate(value)})
        elif key == _COUNT:
            restored.update({_COUNT_OF_OPENTAD: value} if layout == "opentad" else {})
        else:
            kind, theirs = _rename(key, 1, 2 + LAYOUTS.index(layout))
            restored[theirs] = _to_their_shape(kind, value, layout)
    return restored


def _rename(key, source, target):
    """Kind of a parameter and its name in the column `target` of the table, found by its name in the column `source`."""
    for row in _MODULES:
        pattern = re.escape(row[source]).replace(r"\{n\}", r"(\d+)")
        match = re.fullmatch(rf"{pattern}(?:\.(?P<leaf>weight|bias))?", key)
        if match and (match["leaf"] is None) == (row[0] in ("scale", "bias table")):
            renamed = row[target].replace("{n}", match[1] if "{n}" in row[source] else "")
            return row[0], renamed if match["leaf"] is None else f"{renamed}.{match['leaf']}"
    raise KeyError(f"{key!r} is not a parameter of an ActionFormer.")


def _to_our_shape(kind, value):
    if kind in ("norm", "scale"):
        return value.reshape(-1)
    if kind == "bias table":
        return value.reshape(value.shape[-2:])
    return value.reshape(value.shape[:2]) if kind == "linear" and value.ndim == 3 else value


def _to_their_shape(kind, value, layout):
    if kind == "scale" or (kind == "norm" and layout == "official"):
        return value.reshape(1, -1, 1)
    if kind == "bias table":
        return value[None, None]
    return value[..., None] if kind == "linear" and value.ndim == 2 else value
