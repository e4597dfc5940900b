# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""TSM: any 2-D network of timm with temporal shifts, as a video classifier.

Paper: https://huggingface.co/papers/1811.08383. Written anew; its numbers are checked against those of mit-han-lab/temporal-shift-module
(tests/parity). The 2-D network is built by transformers' timm wrapper, so that timm is needed when a model is made and not before, and
keeps its own names under `timm_model.`: weights of images load untouched.

Shapes: B clips of T frames, C channels, h x w sites of the last feature map, K classes. The network runs on frames (B * T, C, H, W).
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, is_timm_available
from transformers.utils.generic import can_return_tuple

from .clip_checks import check_clips
from .configuration_tsm import TSMConfig
from .observed_calls import is_observed
from .opening_classes import OpeningClassesMixin
from .temporal_shift import FramePass, RunningPass, clip_borders
from .tsm_placement import insert_shifts, shifted_convolutions


@dataclass
class TSMModelOutput(ModelOutput):
    """Output of `TSMModel`.

    Args:
        last_hidden_state: (B, C, T, h, w), the last feature map.
        pooler_output: (B, C'), mean over frames of what a classifier reads.
        frame_features: (B, T, C'), the same per frame.
        past_states: Of a causal model with `use_cache=True`: what the next piece of the video needs, one (B, C // div, h, w) per shift.
        hidden_states: With `output_hidden_states=True`: the feature map of every stage, (B, C, T, h, w).
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    frame_features: torch.FloatTensor | None = None
    past_states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class TSMClassifierOutput(ModelOutput):
    """Output of `TSMForVideoClassification`.

    Args:
        loss: Scalar, when `labels` were given.
        logits: (B, K), mean of the logits of all frames; with `past_states`, of all frames since the video began.
        frame_logits: (B, T, K).
        past_states: See `TSMModelOutput`; after those of the shifts the sum of all frames' logits (B, K) and their number (B, 1).
        hidden_states: See `TSMModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    frame_logits: torch.FloatTensor | None = None
    past_states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


def make_frame_network(config):
    """The 2-D network that a configuration names, without a classifier, with random weights.

    Raises:
        ImportError: timm is not installed, or is too old for this network.
    """
    if not is_timm_available():
        raise ImportError(
            f"TSM builds its 2-D network ({config.architecture}) with timm, which is not installed: pip install timm "
            "(pip install 'hf_effvid[timm]')."
        )
    arguments = dict(config.model_args or {})
    if config.num_channels != 3:
        arguments["in_chans"] = config.num_channels
    wrapper = AutoConfig.for_model("timm_wrapper", architecture=config.architecture, model_args=arguments)
    network = AutoModel.from_config(wrapper).timm_model
    for module in network.modules():  # drawn by the wrapper; TSM draws them in its own way
        module._is_hf_initialized = False
    return network


class TSMPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: TSMConfig
    config_class = TSMConfig
    base_model_prefix = "tsm"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["ShiftedBlock"]
    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    auto_classes = {"AutoModel": "TSMModel", "AutoModelForVideoClassification": "TSMForVideoClassification"}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):  # variance 2 / fan-out, of one group
            fan_out = module.weight[:, 0].numel() / module.groups
            init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.classifier_std)
        elif hasattr(module, "init_non_persistent_buffers"):  # of timm
            module.init_non_persistent_buffers()


class TSMModel(TSMPreTrainedModel):
    """The shifted 2-D network: clips to features per frame and their mean."""

    def __init__(self, config):
        super().__init__(config)
        self.timm_model = make_frame_network(config)
        self.running = RunningPass()
        self.shift_names = list(config.shift_modules or shifted_convolutions(self.timm_model))
        insert_shifts(self.timm_model, self.shift_names, config.shift_div, config.causal, self.running)
        # networks with a layer between pooling and classifier name its width
        config.hidden_size = getattr(self.timm_model, "head_hidden_size", None) or self.timm_model.num_features
        self.post_init()

    def get_input_embeddings(self):
        return next(module for module in self.timm_model.modules() if isinstance(module, nn.Conv2d))

    @can_return_tuple
    def forward(self, pixel_values, past_states=None, use_cache=False, output_hidden_states=None, **kwargs):
        """Encodes clips.

        Args:
            pixel_values: (B, T, channels, height, width), normalised floats. Any number of frames.
            past_states: Causal models: what the call for the frames before these returned.
            use_cache: Causal models: return `past_states` for the frames after these.
            output_hidden_states: Also return the feature map of every stage.

        Raises:
            ValueError: `pixel_values` has another rank, type or number of channels; states for a model that is not causal, or of another
                video.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_clips("TSM", pixel_values, self.config.num_channels)
        batch, frames = pixel_values.shape[:2]
        use_cache = use_cache or past_states is not None
        self._check_states(past_states, use_cache, batch)
        first, last = clip_borders(batch, frames, pixel_values.device)
        clips = FramePass(frames, first, last, past_states, {} if use_cache else None)
        with self.running.of(clips):
            features, pooled, stages = self._run(pixel_values.flatten(0, 1), output_hidden_states)
        pooled = pooled.unflatten(0, (batch, frames))
        return TSMModelOutput(
            last_hidden_state=_over_time(features, batch, frames),
            pooler_output=pooled.mean(dim=1),
            frame_features=pooled,
            past_states=tuple(clips.new_states[index] for index in sorted(clips.new_states)) if use_cache else None,
            hidden_states=tuple(_over_time(stage, batch, frames) for stage in stages)
            if output_hidden_states
            else None,
        )

    def _run(self, pixels, output_hidden_states):
        """Last feature map, pooled features and, when asked for, the maps of all stages, all per frame."""
        # a half-precision model takes the single-precision pixels of any processor
        pixels = pixels.to(self.dtype)
        if pixels.device.type == "cpu" and not torch.is_grad_enabled() and not is_observed(pixels):
            # pooling, norms and depthwise convolutions of a processor are faster on channels that lie last
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        stages = ()
        if output_hidden_states:
            features, stages = self.timm_model.forward_intermediates(pixels)
        else:
            features = self.timm_model.forward_features(pixels)
        return features, self.timm_model.forward_head(features), stages

    def _check_states(self, past_states, use_cache, batch):
        if use_cache and not self.config.causal:
            raise ValueError(
                "past_states and use_cache are for causal models; this TSM also shifts from the future (causal=False). Give it whole clips."
            )
        if past_states is None:
            return
        if len(past_states) != len(self.shift_names) or any(len(state) != batch for state in past_states):
            raise ValueError(
                f"past_states must be the {len(self.shift_names)} tensors that the call for the frames before returned, for the same "
                f"{batch} videos; got {len(past_states)} of {sorted({len(state) for state in past_states})} videos."
            )


def _over_time(frames, batch, num_frames):
    """(B * T, C, h, w) to (B, C, T, h, w)."""
    return frames.unflatten(0, (batch, num_frames)).transpose(1, 2)


class TSMForVideoClassification(TSMPreTrainedModel):
    """TSM with a linear classifier on every frame; a clip gets the mean of their logits (segment consensus)."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.tsm = TSMModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.tsm.get_input_embeddings()

    @can_return_tuple
    def forward(
        self, pixel_values, labels=None, past_states=None, use_cache=False, output_hidden_states=None, **kwargs
    ):
        """Classifies clips, or the next piece of videos.

        Args:
            pixel_values: (B, T, channels, height, width), see `TSMModel.forward`.
            labels: (B,) class indices, or (B, K) floats for `problem_type="multi_label_classification"`.
            past_states, use_cache, output_hidden_states: See `TSMModel.forward`. However a video is cut into pieces, the logits of the last
                one are those of the whole video.
        """
        *shift_states, total, count = past_states if past_states is not None else (None, None)
        outputs = self.tsm(
            pixel_values,
            past_states=tuple(shift_states) if past_states is not None else None,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        frame_logits = self.classifier(self.dropout(outputs.frame_features))
        states = None
        if outputs.past_states is None:
            logits = frame_logits.mean(dim=1)
        else:
            # at least in single precision: a long video adds up many frames
            precise = frame_logits.to(torch.promote_types(frame_logits.dtype, torch.float32))
            total = precise.sum(dim=1) + (0.0 if total is None else total)
            count = total.new_full((total.shape[0], 1), frame_logits.shape[1]) + (0.0 if count is None else count)
            logits = (total / count).to(frame_logits.dtype)
            states = (*outputs.past_states, total, count)
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return TSMClassifierOutput(
            loss=loss,
            logits=logits,
            frame_logits=frame_logits,
            past_states=states,
            hidden_states=outputs.hidden_states,
        )


__all__ = ["TSMForVideoClassification", "TSMModel", "TSMPreTrainedModel"]
