# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""ActionFormer: temporal action detection with a pyramid of transformer blocks, one stage, no anchors.

Paper: https://huggingface.co/papers/2202.07925. Written anew from the paper and a description of the released network; its numbers
are checked against happyharrycn/actionformer_release at commit 61ea7eb (tests/parity).

Differs from the released code:
- any length: attention is a softmax under a band mask, nothing has to be a multiple of windows and strides;
- batches at inference: with `mask_after_norm="everywhere"` a video does not see what it is padded with;
- a table of absolute positions is stretched to the length of each video, not to that of the padded batch;
- the running number of positive points is a buffer, and rests outside of training.

Shapes: B videos, T steps of features, T_l = ceil(T / 2^l) steps at level l, P = sum of T_l points, K classes.
"""

import copy
import math
import os
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .actionformer_layers import (
    LAYERS,
    ActionFormerAttention,
    ActionFormerConvolutionLayer,
    ActionFormerLayer,
    ConvolutionNorm,
    DroppedActionFormerLayer,
    MaskedConvolution,
    zero_padding,
)
from .clip_backbone import ClipBackbone, TemporalAdapter
from .configuration_actionformer import ActionFormerConfig
from .opening_classes import OpeningClassesMixin
from .pipeline_temporal_action_detection import CUSTOM_PIPELINES
from .temporal_losses import SEGMENT_LOSSES, RunningCount, sigmoid_focal_loss, smooth_labels
from .temporal_points import PointTargets, assign_targets, make_points
from .temporal_resize import resized_places, sample_between


@dataclass
class ActionFormerModelOutput(ModelOutput):
    """Output of `ActionFormerModel`.

    Args:
        last_hidden_state: (B, T_L, D), the coarsest level.
        feature_maps: One (B, T_l, D) per level, finest first, after the neck.
        feature_masks: One (B, T_l) per level, false at padding.
        hidden_states: With `output_hidden_states=True`: what entered every block, and what left the last one.
        attentions: With `output_attentions=True` and `attn_implementation="eager"`: (B, heads, T_l, T_l) per block.
    """

    last_hidden_state: torch.FloatTensor | None = None
    feature_maps: tuple[torch.FloatTensor, ...] | None = None
    feature_masks: tuple[torch.BoolTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class ActionFormerDetectionOutput(ModelOutput):
    """Output of `ActionFormerForTemporalActionDetection`.

    Args:
        loss: Scalar, when `labels` were given: classification + weight * regression.
        logits: (B, P, K), before the sigmoid; 0 at padding.
        offsets: (B, P, 2), distances to start and end in strides of the point's level, 0 or more.
        point_mask: (B, P), false at padding.
        points: (P, 4), place in steps, distances that the level answers for, stride; see `temporal_points.py`.
        classification_loss, regression_loss: Its parts, already divided by the running number of positive points.
        hidden_states, attentions: See `ActionFormerModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    offsets: torch.FloatTensor | None = None
    point_mask: torch.BoolTensor | None = None
    points: torch.FloatTensor | None = None
    classification_loss: torch.FloatTensor | None = None
    regression_loss: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


def sinusoid_table(length, size):
    """Fixed positions (length, size): sin and cos of t / 10000^(2 (j // 2) / size) at even and odd j, divided by sqrt(size)."""
    places = torch.arange(length, dtype=torch.float64)[:, None]
    channels = torch.arange(size, dtype=torch.float64)
    angles = places / 10000.0 ** (2 * torch.div(channels, 2, rounding_mode="floor") / size)
    table = torch.where(channels % 2 == 0, angles.sin(), angles.cos())
    return (table / math.sqrt(size)).float()


class ActionFormerEmbeddings(nn.Module):
    """Features to hidden states: a projection per kind of feature, convolutions, positions."""

    def __init__(self, config):
        super().__init__()
        self.feature_sizes = config.feature_sizes
        self.dropout = nn.Dropout1d(config.input_dropout_prob)
        self.projections = None
        in_channels = config.feature_sizes[0]
        if isinstance(config.input_size, (list, tuple)):
            even = [config.hidden_size // len(config.feature_sizes)] * len(config.feature_sizes)
            sizes = zip(config.feature_sizes, config.projection_sizes or even, strict=True)
            self.projections = nn.ModuleList(nn.Linear(*size) for size in sizes)
            in_channels = config.hidden_size
        widths = [in_channels] + [config.hidden_size] * config.num_embedding_layers
        self.layers = nn.ModuleList(
            ConvolutionNorm(config, *width, config.embedding_kernel_size)
            for width in zip(widths[:-1], widths[1:], strict=True)
        )
        table = None
        if config.use_absolute_positions:
            table = sinusoid_table(config.max_sequence_length, config.hidden_size)
        self.register_buffer("position_table", table, persistent=False)

    def forward(self, input_features, mask):
        # padding may hold anything, and convolutions would see it
        features = zero_padding(input_features.to(self.layers[0].norm.weight.dtype), mask)
        features = self.dropout(features.transpose(1, 2)).transpose(1, 2)
        if self.projections is not None:
            kinds = zip(self.projections, features.split(self.feature_sizes, dim=-1), strict=True)
            features = torch.cat([zero_padding(project(kind), mask) for project, kind in kinds], dim=-1)
        for layer in self.layers:
            features = layer(features, mask)
        if self.position_table is not None:
            features = features + zero_padding(self._positions(mask), mask).to(features.dtype)
        return features

    def _positions(self, mask):
        """Positions (B, T, D): the first rows of the table; videos that are longer get it stretched (linearly)."""
        rows = len(self.position_table)
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=rows)
        places = resized_places(mask.shape[1], rows / lengths, torch.full_like(lengths, rows))
        return sample_between(self.position_table[None], places)


class ActionFormerEncoder(nn.Module):
    """Blocks of the stem, then the pyramid. Returns hidden states and masks of every level."""

    def __init__(self, config):
        super().__init__()
        windows, stem = config.attention_windows, config.num_stem_layers
        self.stem = nn.ModuleList(_block(config, place, 1, windows[0]) for place in range(stem))
        self.branch = nn.ModuleList(
            _block(config, place, 2, window) for place, window in enumerate(windows[1:], start=stem)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states, mask, padded):
        for layer in self.stem:
            hidden_states = layer(hidden_states, mask, mask, padded)
        all_states, all_masks = [hidden_states], [mask]
        for layer in self.branch:
            strided_mask = mask[:, ::2]
            hidden_states = layer(hidden_states, mask, strided_mask, padded)
            mask = strided_mask
            all_states.append(hidden_states)
            all_masks.append(mask)
        return all_states, all_masks


def _block(config, place, stride, window):
    """The block at a place of stem and branch, or what a dropped one leaves."""
    if config.kept_blocks is not None and place not in config.kept_blocks:
        return DroppedActionFormerLayer(config, stride)
    return LAYERS[config.block_type](config, stride, window)


class ActionFormerNeck(nn.Module):
    """A LayerNorm per level; with `neck_type="fpn"` coarse levels are first added to finer ones."""

    def __init__(self, config):
        super().__init__()
        size = config.neck_size or config.hidden_size
        self.hides_padding = config.mask_after_norm == "everywhere"
        self.laterals = self.convolutions = None
        if config.neck_type == "fpn":
            levels = range(config.num_levels)
            self.laterals = nn.ModuleList(nn.Linear(config.hidden_size, size, bias=False) for _ in levels)
            self.convolutions = nn.ModuleList(MaskedConvolution(size, size, 3, groups=size) for _ in levels)
        self.norms = nn.ModuleList(nn.LayerNorm(size, eps=config.layer_norm_eps) for _ in range(config.num_levels))

    def forward(self, all_states, all_masks):
        if self.laterals is not None:
            all_states = self._top_down(all_states, all_masks)
        normed = [norm(states) for norm, states in zip(self.norms, all_states, strict=True)]
        if self.hides_padding:
            normed = [zero_padding(states, mask) for states, mask in zip(normed, all_masks, strict=True)]
        return normed

    def _top_down(self, all_states, all_masks):
        inputs = zip(self.laterals, all_states, all_masks, strict=True)
        summed = [zero_padding(lateral(states), mask) for lateral, states, mask in inputs]
        for level in range(len(summed) - 1, 0, -1):
            coarse = summed[level].repeat_interleave(2, dim=1)[:, : summed[level - 1].shape[1]]
            summed[level - 1] = summed[level - 1] + coarse
            if self.hides_padding:  # the last coarse step may reach one step beyond the video
                summed[level - 1] = zero_padding(summed[level - 1], all_masks[level - 1])
        return [
            convolution(states, mask)
            for convolution, states, mask in zip(self.convolutions, summed, all_masks, strict=True)
        ]


class ActionFormerClassifier(MaskedConvolution):
    """The convolution that gives the logits; it starts from the prior probability of every class."""


class ActionFormerHead(nn.Module):
    """Convolutions that all levels share, then one of the class `output` that gives (B, T_l, out_size)."""

    def __init__(self, config, out_size, output=MaskedConvolution):
        super().__init__()
        size = config.head_size or config.hidden_size
        widths = [config.neck_size or config.hidden_size] + [size] * (config.num_head_layers - 1)
        self.layers = nn.ModuleList(
            ConvolutionNorm(config, *width, config.head_kernel_size)
            for width in zip(widths[:-1], widths[1:], strict=True)
        )
        self.output = output(widths[-1], out_size, config.head_kernel_size, bias=True)

    def forward(self, hidden_states, mask):
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask)
        return self.output(hidden_states, mask)


class ActionFormerPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: ActionFormerConfig
    config_class = ActionFormerConfig
    base_model_prefix = "actionformer"
    main_input_name = "input_features"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ActionFormerLayer", "ActionFormerConvolutionLayer"]
    _supports_sdpa = True
    _supports_attention_backend = False
    _can_record_outputs = {
        "hidden_states": [ActionFormerLayer, ActionFormerConvolutionLayer, DroppedActionFormerLayer],
        "attentions": ActionFormerAttention,
    }
    # the loss is already divided; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    # what opens a checkpoint: transformers has no auto class for the task
    auto_classes = {"AutoModel": "ActionFormerForTemporalActionDetection"}

    def __init__(self, config, *args, **kwargs):
        # again: keyword arguments of from_pretrained reach the configuration after its own check
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Opens as transformers does; a frozen trunk is frozen again, since loading makes new parameters."""
        loaded = super().from_pretrained(*args, **kwargs)
        for module in (loaded[0] if isinstance(loaded, tuple) else loaded).modules():
            if isinstance(module, ClipBackbone):
                module.freeze()
        return loaded

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Saves as transformers does, and names the class that can open the folder, whichever one saved it, and its pipeline."""
        if self._auto_class is not None:
            # anew, since `pipeline()` puts classes in the place of their names
            self.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv1d)):  # weights as torch.nn gives them, no biases
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if isinstance(module, ActionFormerClassifier):
                init.copy_(module.bias, _prior_biases(self.config))
            elif module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ActionFormerLayer) and module.layer_scale1 is not None:
            init.constant_(module.layer_scale1, self.config.layer_scale_init_value)
            init.constant_(module.layer_scale2, self.config.layer_scale_init_value)
        elif isinstance(module, ActionFormerAttention) and module.relative_bias is not None:
            init.trunc_normal_(module.relative_bias, std=math.sqrt(2.0 / self.config.hidden_size))
        elif isinstance(module, ActionFormerEmbeddings) and module.position_table is not None:
            init.copy_(module.position_table, sinusoid_table(*module.position_table.shape))
        elif isinstance(module, RunningCount):
            init.constant_(module.value, module.initial)
        elif isinstance(module, TemporalAdapter):  # a new one changes nothing
            init.zeros_(module.up.weight)
            init.ones_(module.gamma)
        elif isinstance(module, ActionFormerForTemporalActionDetection):
            init.ones_(module.level_scales)


def _prior_biases(config):
    biases = torch.full((config.num_labels,), -math.log((1 - config.class_prior) / config.class_prior))
    biases[list(config.empty_classes)] = -math.log((1 - 1e-6) / 1e-6)
    return biases


class ActionFormerModel(ActionFormerPreTrainedModel):
    """The network without heads: features, or the pixels that a trunk makes features of, to a pyramid of features."""

    def __init__(self, config):
        super().__init__(config)
        self.backbone = None if config.backbone_config is None else ClipBackbone(config)
        self.embeddings = ActionFormerEmbeddings(config)
        self.encoder = ActionFormerEncoder(config)
        self.neck = ActionFormerNeck(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.layers[0].convolution

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, input_features=None, attention_mask=None, pixel_values=None, pixel_mask=None, **kwargs):
        """Encodes features of videos, or videos.

        Args:
            input_features: (B, T, C), of any length; kinds of features side by side.
            attention_mask: (B, T), 1 at steps of the video, 0 at padding after them. None: no padding.
            pixel_values: (B, frames, channels, height, width) instead, for models with a trunk. T is then
                ceil(frames / `config.frames_per_step`).
            pixel_mask: (B, frames), 1 at frames of the video, 0 at padding after them. None: no padding.

        Raises:
            ValueError: The inputs have another rank, number of channels or length, or are not those that the model takes.
        """
        if pixel_values is not None:
            self._check_pixels(input_features, pixel_values, pixel_mask)
            input_features, attention_mask = self.backbone(pixel_values, pixel_mask)
        self._check(input_features, attention_mask)
        padded = attention_mask is not None
        if padded:
            mask = attention_mask.to(device=input_features.device, dtype=torch.bool)
        else:
            mask = torch.ones(input_features.shape[:2], dtype=torch.bool, device=input_features.device)
        hidden_states = self.embeddings(input_features, mask)
        all_states, all_masks = self.encoder(hidden_states, mask, padded)
        feature_maps = self.neck(all_states, all_masks)
        return ActionFormerModelOutput(
            last_hidden_state=feature_maps[-1], feature_maps=tuple(feature_maps), feature_masks=tuple(all_masks)
        )

    def _check_pixels(self, input_features, pixel_values, pixel_mask):
        if self.backbone is None:
            raise ValueError(
                "This ActionFormer has no trunk for pixel_values: give input_features, or make it with a backbone_config."
            )
        if input_features is not None:
            raise ValueError("ActionFormer expects input_features or pixel_values, got both.")
        if pixel_values.ndim != 5 or not pixel_values.is_floating_point() or pixel_values.shape[1] < 1:
            raise ValueError(
                "ActionFormer expects normalised floating-point pixel_values of shape (batch, frames, channels, height, width), got "
                f"{pixel_values.dtype} {tuple(pixel_values.shape)}."
            )
        if pixel_mask is not None and pixel_mask.shape != pixel_values.shape[:2]:
            raise ValueError(
                f"ActionFormer expects pixel_mask of shape {tuple(pixel_values.shape[:2])}, as pixel_values, got "
                f"{tuple(pixel_mask.shape)}."
            )

    def _check(self, input_features, attention_mask):
        if input_features is None:
            raise ValueError("ActionFormer expects input_features or pixel_values, got neither.")
        channels = sum(self.config.feature_sizes)
        if input_features.ndim != 3 or input_features.shape[-1] != channels:
            raise ValueError(
                f"ActionFormer expects input_features of shape (batch, steps, {channels}), got {tuple(input_features.shape)}."
            )
        if not input_features.is_floating_point():
            raise ValueError(f"ActionFormer expects floating-point input_features, got {input_features.dtype}.")
        if input_features.shape[1] < 1:
            raise ValueError("ActionFormer expects at least one step of features, got none.")
        if attention_mask is not None and attention_mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"ActionFormer expects attention_mask of shape {tuple(input_features.shape[:2])}, as input_features, got "
                f"{tuple(attention_mask.shape)}."
            )


class ActionFormerForTemporalActionDetection(ActionFormerPreTrainedModel):
    """ActionFormer with its heads: every point of the pyramid says what happens there and how far start and end are."""

    # the running count of positives would lose its steps in half precision
    _keep_in_fp32_modules_strict = ["loss_normalizer"]

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.actionformer = ActionFormerModel(config)
        self.classification_head = ActionFormerHead(config, config.num_labels, ActionFormerClassifier)
        self.regression_head = ActionFormerHead(config, 2)
        self.level_scales = nn.Parameter(torch.empty(config.num_levels))
        self.loss_normalizer = RunningCount(config.loss_normalizer_init, config.loss_normalizer_momentum)
        self.post_init()

    def get_input_embeddings(self):
        return self.actionformer.get_input_embeddings()

    @classmethod
    def from_backbone(cls, backbone, **fields):
        """A new detector on the trunk of a trained video classifier.

        Args:
            backbone: A model of one of the types in `clip_trunks.py`, with or without its classifier, or what
                `AutoModel.from_pretrained` opens.
            **fields: Of the `ActionFormerConfig`.

        Example:
            >>> detector = ActionFormerForTemporalActionDetection.from_backbone(classifier, num_labels=20)
        """
        trunk = (
            AutoModel.from_pretrained(backbone) if isinstance(backbone, (str, os.PathLike)) else backbone.base_model
        )
        detector = cls(ActionFormerConfig(backbone_config=trunk.config, **fields))
        ours = detector.actionformer.backbone.trunk
        wanted = ours.state_dict().keys()  # without what only other tasks read: poolers, predictors
        ours.load_state_dict({name: value for name, value in trunk.state_dict().items() if name in wanted})
        return detector

    @can_return_tuple
    def forward(
        self,
        input_features=None,
        attention_mask=None,
        pixel_values=None,
        pixel_mask=None,
        labels=None,
        loss_normalizer=None,
        **kwargs,
    ):
        """Detects actions.

        Args:
            input_features: (B, T, C), see `ActionFormerModel.forward`.
            attention_mask: (B, T), see there.
            pixel_values: (B, frames, channels, height, width), see there.
            pixel_mask: (B, frames), see there.
            labels: One dict per video: `grid_segments` (M, 2), starts and ends in steps of the feature grid, and `class_labels`
                (M,). M may be 0.
            loss_normalizer: Scalar tensor that the losses are divided by, for a batch that is a share of a larger one; default: the
                running number of positive points, which then takes in those of this batch.

        Raises:
            ValueError: The inputs have another shape, or labels do not fit the batch.
        """
        outputs = self.actionformer(input_features, attention_mask, pixel_values, pixel_mask, **kwargs)
        levels = zip(outputs.feature_maps, outputs.feature_masks, self.level_scales, strict=True)
        logits, offsets = [], []
        for states, mask, scale in levels:
            logits.append(self.classification_head(states, mask))
            offsets.append(nn.functional.relu(scale * self.regression_head(states, mask)))
        logits, offsets = torch.cat(logits, dim=1), torch.cat(offsets, dim=1)
        point_mask = torch.cat(outputs.feature_masks, dim=1)
        points = make_points(outputs.feature_maps[0].shape[1], self.config.regression_ranges, device=logits.device)
        losses = (None, None, None)
        if labels is not None:
            losses = self.losses(logits.float(), offsets.float(), point_mask, points, labels, loss_normalizer)
        return ActionFormerDetectionOutput(
            loss=losses[0],
            logits=logits,
            offsets=offsets,
            point_mask=point_mask,
            points=points,
            classification_loss=losses[1],
            regression_loss=losses[2],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def assign_targets(self, labels, points):
        """`PointTargets` of a batch: classes (B, P, K), offsets (B, P, 2), positive (B, P).

        Args:
            labels: See `forward`.
            points: (P, 4).
        """
        rules = (self.config.num_labels, self.config.center_sampling, self.config.center_sampling_radius)
        per_video = [
            assign_targets(
                points, label["grid_segments"].to(points.device), label["class_labels"].to(points.device), *rules
            )
            for label in labels
        ]
        return PointTargets(*(torch.stack(parts) for parts in zip(*per_video, strict=True)))

    def losses(self, logits, offsets, point_mask, points, labels, loss_normalizer=None):
        """Loss, classification part, regression part; see `forward` for what they are made of."""
        if len(labels) != len(logits):
            raise ValueError(f"ActionFormer expects labels for each of {len(logits)} videos, got {len(labels)}.")
        with torch.no_grad():
            targets = self.assign_targets(labels, points)
            positive = targets.positive & point_mask
            normalizer = self.loss_normalizer(positive.sum()) if loss_normalizer is None else loss_normalizer
            classes = smooth_labels(targets.classes, self.config.label_smoothing)
        classification = (sigmoid_focal_loss(logits, classes) * point_mask[..., None]).sum() / normalizer
        segment_loss = SEGMENT_LOSSES[self.config.regression_loss]
        # without positive points this is the sum of nothing, which keeps every parameter in the graph
        regression = segment_loss(offsets[positive], targets.offsets[positive]).sum() / normalizer
        weight = self.config.regression_loss_weight
        if weight <= 0:
            weight = classification.detach() / regression.detach().clamp(min=0.01)
        return classification + weight * regression, classification, regression


__all__ = ["ActionFormerForTemporalActionDetection", "ActionFormerModel", "ActionFormerPreTrainedModel"]
