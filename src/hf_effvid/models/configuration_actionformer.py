# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of ActionFormer (https://huggingface.co/papers/2202.07925)."""

from typing import Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers import AutoConfig, PreTrainedConfig

from .configuration_video_focalnet import VideoFocalNetConfig


def _at_least_one(value):
    if value < 1:
        raise ValueError(f"expected a whole number of at least 1, got {value}")


def _at_least_zero(value):
    if value < 0:
        raise ValueError(f"expected 0 or more, got {value}")


def _sizes(value):
    sizes = value if isinstance(value, (list, tuple)) else [value]
    if len(sizes) == 0 or any(size < 1 for size in sizes):
        raise ValueError(f"expected a number of channels, or one per kind of feature, got {value}")


def _odd(value):
    if value < 1 or value % 2 == 0:
        raise ValueError(f"expected an odd kernel size (an even one would change the length), got {value}")


def _windows(value):
    for window in value if isinstance(value, (list, tuple)) else [value]:
        if window > 1 and window % 2 == 0:
            raise ValueError(f"expected odd windows, or 1 or less for attention to everything, got {value}")


def _rate(value):
    if not 0.0 <= value < 1.0:
        raise ValueError(f"expected a probability in [0, 1), got {value}")


def _probability(value):
    if not 0.0 < value < 1.0:
        raise ValueError(f"expected a probability above 0 and below 1, got {value}")


def _positive(value):
    if not value > 0:
        raise ValueError(f"expected a number above 0, got {value}")


def _block_numbers(value):
    if value is not None and (list(value) != sorted(set(value)) or any(number < 0 for number in value)):
        raise ValueError(f"expected different numbers of blocks from 0 on, ascending, got {list(value)}")


def _ranges(value):
    for bounds in value or ():
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1]:
            raise ValueError(f"expected one (low, high) per level with 0 <= low < high, got {value}")


def _thresholds(value):
    for label, score in (value or {}).items():
        if not isinstance(label, str) or isinstance(score, bool) or not isinstance(score, (int, float)):
            raise ValueError(f"expected {{label: score}}, got {label!r}: {score!r}")
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"expected scores from 0 to 1, got {label!r}: {score!r}")


@strict
class ActionFormerConfig(PreTrainedConfig):
    """Architecture of an ActionFormer, and how it is trained.

    The defaults are those of the released THUMOS14 model. Times are steps of the feature grid: level l of the pyramid has a point
    at every multiple of 2^l steps.

    Args:
        input_size: Channels of `input_features`; a list when several kinds of features lie side by side, each of which gets a
            projection of its own.
        projection_sizes: Channels of these projections; their sum is `hidden_size`. None shares it out evenly.
        hidden_size: Channels of the network.
        num_embedding_layers: Convolutions that embed the features.
        embedding_kernel_size: Their kernel, odd.
        num_stem_layers: Blocks before the pyramid.
        num_branch_layers: Blocks of the pyramid; each one halves the grid and is a level.
        block_type: `"transformer"`, or `"convolution"` for residual blocks of two convolutions.
        kept_blocks: Numbers of the blocks that have weights, counted from 0 over stem and branch; written when blocks are dropped. Of
            the others a max pool remains in the branch, nothing in the stem; they keep their place, so that no weight is renamed.
            None: all of them.
        num_attention_heads: Heads of the attention.
        attention_window: Steps that a step attends to, itself in the middle (odd); 1 or less for all of them. One number, or
            one per level, the stem first.
        use_relative_positions: A learned bias per head and place in the window.
        use_absolute_positions: Adds a fixed table of sines to the embedding.
        max_sequence_length: Length of that table, and what inputs are padded to in training. Longer inputs stretch the table.
        mlp_ratio: Width of the MLP over `hidden_size`.
        neck_type: `"identity"` (a LayerNorm per level) or `"fpn"` (coarse levels are added to finer ones).
        neck_size: Channels after the neck, None for `hidden_size`; another size needs `"fpn"`.
        head_size: Channels inside the two heads, None for `hidden_size`.
        num_head_layers: Convolutions of a head, the last of which gives the output.
        head_kernel_size: Their kernel, odd.
        mask_after_norm: Where padding is set to zero after a LayerNorm. `"nowhere"` is the released code, `"convolutions"` is
            OpenTAD (embedding and heads): in both, valid steps next to padding see the biases of norms there, and checkpoints
            were trained so. `"everywhere"` never shows padding to a valid step, so that results do not depend on the batch.
        use_layer_scale: A learned scale per channel on each residual branch of a transformer block.
        layer_scale_init_value: What it starts from.
        input_dropout_prob: Dropout of whole input features.
        hidden_dropout_prob: Dropout in attention output and MLP.
        attention_probs_dropout_prob: Dropout of attention weights.
        drop_path_rate: Stochastic depth of every residual branch, drawn per video.
        layer_norm_eps: Epsilon of the norms in blocks and neck.
        convolution_norm_eps: Epsilon of the norms after the convolutions of embedding and heads. OpenTAD's is 1e-6.
        backbone_config: Configuration (or its dictionary) of a video classifier whose trunk turns `pixel_values` into features; see
            `clip_trunks.py` for the types. None: the model takes `input_features`. With it `input_size` is the trunk's.
        clip_frames: Frames of the clips that the trunk reads; None for the number it was trained with.
        frames_per_step: Frames per step of the feature grid.
        clips_per_pass: Clips that go through the trunk at a time; 0 for all.
        freeze_backbone: Leaves the trunk as it is.
        temporal_adapters: AdaTAD's adapters after every block of a VideoMAE trunk; they stay trainable when it is frozen.
        adapter_reduction: How many times narrower than the trunk they are.
        regression_ranges: (low, high) per level: the distances in steps to the farther end of a segment that the level is
            responsible for, both included. They may overlap. None for (0, 4), (4, 8), (8, 16), ... up to 10,000.
        center_sampling: `"radius"`: only points close to the centre of a segment are positive; `"none"`: all inside it.
        center_sampling_radius: How close, in strides of the level.
        class_prior: Probability that a class starts with, as the bias of the classifier.
        empty_classes: Classes without examples; they start with 1e-6.
        label_smoothing: e in y (1 - e) + e / (K + 1).
        regression_loss: `"diou"` or `"giou"`.
        regression_loss_weight: Weight of the regression loss; 0 or less balances both by their values.
        loss_normalizer_init: What the running number of positive points starts from.
        loss_normalizer_momentum: Weight of its past.
        operating_points: Lowest score per label, by name, at which the pipeline says that an action took place; labels that are not
            named have none. None: all detections are said.

    Example:
        >>> from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection
        >>> config = ActionFormerConfig(input_size=384, hidden_size=256, num_labels=20)
        >>> model = ActionFormerForTemporalActionDetection(config)
    """

    model_type = "actionformer"
    sub_configs = {"backbone_config": AutoConfig}

    input_size: int | list[int] | tuple[int, ...] = validated_field(_sizes, default=2048)
    projection_sizes: list[int] | tuple[int, ...] | None = None
    hidden_size: int = validated_field(_at_least_one, default=512)
    num_embedding_layers: int = validated_field(_at_least_one, default=2)
    embedding_kernel_size: int = validated_field(_odd, default=3)
    num_stem_layers: int = validated_field(_at_least_zero, default=2)
    num_branch_layers: int = validated_field(_at_least_zero, default=5)
    block_type: Literal["transformer", "convolution"] = "transformer"
    kept_blocks: list[int] | tuple[int, ...] | None = validated_field(_block_numbers, default=None)
    num_attention_heads: int = validated_field(_at_least_one, default=4)
    attention_window: int | list[int] | tuple[int, ...] = validated_field(_windows, default=19)
    use_relative_positions: bool = False
    use_absolute_positions: bool = False
    max_sequence_length: int = validated_field(_at_least_one, default=2304)
    mlp_ratio: float | int = validated_field(_positive, default=4.0)
    neck_type: Literal["identity", "fpn"] = "identity"
    neck_size: int | None = None
    head_size: int | None = None
    num_head_layers: int = validated_field(_at_least_one, default=3)
    head_kernel_size: int = validated_field(_odd, default=3)
    mask_after_norm: Literal["nowhere", "convolutions", "everywhere"] = "everywhere"
    use_layer_scale: bool = True
    layer_scale_init_value: float | int = 1e-4
    input_dropout_prob: float | int = validated_field(_rate, default=0.0)
    hidden_dropout_prob: float | int = validated_field(_rate, default=0.0)
    attention_probs_dropout_prob: float | int = validated_field(_rate, default=0.0)
    drop_path_rate: float | int = validated_field(_rate, default=0.1)
    layer_norm_eps: float | int = validated_field(_positive, default=1e-5)
    convolution_norm_eps: float | int = validated_field(_positive, default=1e-5)
    backbone_config: dict | PreTrainedConfig | None = None
    clip_frames: int | None = None
    frames_per_step: int = validated_field(_at_least_one, default=1)
    clips_per_pass: int = validated_field(_at_least_zero, default=0)
    freeze_backbone: bool = False
    temporal_adapters: bool = False
    adapter_reduction: int = validated_field(_at_least_one, default=4)
    regression_ranges: list | tuple | None = validated_field(_ranges, default=None)
    center_sampling: Literal["radius", "none"] = "radius"
    center_sampling_radius: float | int = validated_field(_positive, default=1.5)
    class_prior: float | int = validated_field(_probability, default=0.01)
    empty_classes: list[int] | tuple[int, ...] = ()
    label_smoothing: float | int = validated_field(_rate, default=0.0)
    regression_loss: Literal["diou", "giou"] = "diou"
    regression_loss_weight: float | int = 1.0
    loss_normalizer_init: float | int = validated_field(_positive, default=100.0)
    loss_normalizer_momentum: float | int = validated_field(_rate, default=0.9)
    operating_points: dict | None = validated_field(_thresholds, default=None)

    # the installed package brings the pipeline itself: a folder's own copy, and the trust that it asks for, are not needed
    package_has_pipeline = False

    # transformers' Trainer would gather them as if they were predictions
    keys_to_ignore_at_inference = (
        "classification_loss",
        "regression_loss",
        "points",
        "hidden_states",
        "attentions",
    )

    def __post_init__(self, **kwargs):
        if self.backbone_config is not None:
            self.backbone_config = make_backbone_config(self.backbone_config)
            self.input_size = self.backbone_config.hidden_size
            if self.clip_frames is None:
                self.clip_frames = frames_of(self.backbone_config)
        if self.regression_ranges is None:
            self.regression_ranges = default_regression_ranges(self.num_levels)
        if self.package_has_pipeline:
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    @property
    def num_levels(self):
        """Levels of the pyramid: the stem, and one per branch block."""
        return self.num_branch_layers + 1

    @property
    def num_hidden_layers(self):
        """Blocks of stem and branch, with the places of dropped ones."""
        return self.num_stem_layers + self.num_branch_layers

    @property
    def feature_sizes(self):
        """Channels of every kind of input feature."""
        return list(self.input_size) if isinstance(self.input_size, (list, tuple)) else [self.input_size]

    @property
    def attention_windows(self):
        """Window of every level; None where attention sees everything."""
        given = self.attention_window
        windows = list(given) if isinstance(given, (list, tuple)) else [given] * self.num_levels
        return [window if window > 1 else None for window in windows]

    def validate_architecture(self):
        """Checks what no field can know alone; the model calls it again, since fields may be set after construction.

        Raises:
            ValueError: The fields contradict each other.
        """
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"ActionFormerConfig.hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        for name, given in (
            ("attention_window", self.attention_windows),
            ("regression_ranges", self.regression_ranges),
        ):
            if len(given) != self.num_levels:
                raise ValueError(
                    f"ActionFormerConfig.{name} needs one entry per level: num_branch_layers={self.num_branch_layers} makes "
                    f"{self.num_levels} levels, got {len(given)} entries."
                )
        self._validate_kept_blocks()
        if self.neck_type == "identity" and self.neck_size not in (None, self.hidden_size):
            raise ValueError(
                f'ActionFormerConfig.neck_size={self.neck_size} differs from hidden_size={self.hidden_size}: only neck_type="fpn" '
                "changes the number of channels."
            )
        if self.projection_sizes is not None and (
            len(self.projection_sizes) != len(self.feature_sizes) or sum(self.projection_sizes) != self.hidden_size
        ):
            raise ValueError(
                f"ActionFormerConfig.projection_sizes={list(self.projection_sizes)} needs one size for each of "
                f"input_size={self.feature_sizes}, with the sum hidden_size={self.hidden_size}."
            )
        if self.projection_sizes is None and self.hidden_size % len(self.feature_sizes) != 0:
            raise ValueError(
                f"ActionFormerConfig.hidden_size={self.hidden_size} cannot be shared out evenly over {len(self.feature_sizes)} kinds "
                "of features. Give projection_sizes."
            )
        if self.temporal_adapters and (self.backbone_config is None or self.backbone_config.model_type != "videomae"):
            raise ValueError(
                "ActionFormerConfig.temporal_adapters sit between the blocks of a VideoMAE: give its configuration as backbone_config."
            )
        unknown = [index for index in self.empty_classes if not 0 <= index < self.num_labels]
        if unknown:
            raise ValueError(
                f"ActionFormerConfig.empty_classes={unknown} do not exist among num_labels={self.num_labels}."
            )
        unknown = sorted((self.operating_points or {}).keys() - set(self.id2label.values()))
        if unknown:
            raise ValueError(
                f"ActionFormerConfig.operating_points names {unknown}, which id2label does not: where the labels change, give "
                "operating_points=None, or those of the new labels."
            )

    def _validate_kept_blocks(self):
        kept, count = self.kept_blocks, self.num_hidden_layers
        if kept is None:
            return
        if any(number >= count for number in kept):
            raise ValueError(
                f"ActionFormerConfig.kept_blocks={list(kept)} names blocks beyond the {count} of num_stem_layers={self.num_stem_layers} "
                f"and num_branch_layers={self.num_branch_layers}."
            )
        if self.block_type == "convolution" and not set(range(self.num_stem_layers, count)) <= set(kept):
            raise ValueError(
                f"ActionFormerConfig.kept_blocks={list(kept)} leaves out blocks of a branch of convolutions, whose skip connections have "
                "weights: all of them have to stay."
            )


def default_regression_ranges(num_levels):
    """(0, 4), (4, 8), (8, 16), ...: every level takes segments twice as long as the level before; the last one all that remain."""
    edges = [0.0] + [4.0 * 2**level for level in range(num_levels - 1)] + [10000.0]
    return [list(bounds) for bounds in zip(edges[:-1], edges[1:], strict=True)]


def make_backbone_config(given):
    """The configuration of a trunk; a dictionary says in `model_type` of which.

    Raises:
        ValueError: The dictionary has no `model_type`.
    """
    if not isinstance(given, dict):
        return given
    if "model_type" not in given:
        raise ValueError(f"backbone_config needs a model_type, got the keys {', '.join(sorted(given))}.")
    fields = {name: value for name, value in given.items() if name != "model_type"}
    if given["model_type"] == "video_focalnet":  # also where the package that registers it is not installed
        return VideoFocalNetConfig(**fields)
    return AutoConfig.for_model(given["model_type"], **fields)


def frames_of(config):
    """Frames of the clips that a video classifier was trained with; V-JEPA 2 calls them otherwise."""
    return config.frames_per_clip if hasattr(config, "frames_per_clip") else config.num_frames


__all__ = ["ActionFormerConfig"]
