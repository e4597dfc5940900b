# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""MoViNet: mobile video networks, for whole clips (base) and for videos that come piece by piece (stream).

Paper: https://huggingface.co/papers/2103.11511. Written anew from the paper and a description of the released networks; its numbers are
checked against those of Atze00/MoViNet-pytorch (tests/parity). What the stream form remembers is handed in and out (`past_states`), like
the cache of a language model: nothing is kept in the model.

| | base | stream (`causal=True`) |
| --- | --- | --- |
| depthwise convolution | one, over time and space | in space, then in time over the frames before |
| activation; gate of squeeze-and-excitation | swish; sigmoid | hard swish; clip(0.2 x + 0.5, 0, 1) |
| squeeze-and-excitation reads | the mean of the clip | the mean of all frames so far, and of this frame |
| the head reads | the mean of the clip | the mean of all frames so far |

Shapes: B clips, T frames (never strided), h x w sites, C channels, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .channel_counts import round_to_eight
from .checkpointed_block import CheckpointedBlock
from .clip_checks import check_clips
from .configuration_movinet import MoViNetConfig
from .folded_convolution import normed_convolution
from .opening_classes import OpeningClassesMixin


@dataclass
class MoViNetModelOutput(ModelOutput):
    """Output of `MoViNetModel`.

    Args:
        last_hidden_state: (B, C, T, h, w), the last feature map.
        pooler_output: (B, C), its mean; of a stream, the mean of all frames so far.
        past_states: Of a stream with `use_cache=True`: what the next piece of the video needs.
        hidden_states: With `output_hidden_states=True`: the feature map of the stem and of every stage.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    past_states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class MoViNetClassifierOutput(ModelOutput):
    """Output of `MoViNetForVideoClassification`.

    Args:
        loss: Scalar, when `labels` were given.
        logits: (B, K); of a stream, those of all frames so far.
        past_states, hidden_states: See `MoViNetModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    past_states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class StreamPass:
    """What one call of a stream remembers of the frames before, and leaves for those after.

    Args:
        past_states: Of the call before: the number of frames (B,), then one tensor per layer with a memory. None: the video begins.
        like: (B, ...), for the device of a new count.
    """

    def __init__(self, past_states, like):
        self.past = past_states
        # a whole number in single precision: exact up to 16 million frames
        self.count = torch.zeros(like.shape[0], device=like.device) if past_states is None else past_states[0]
        self.new = {}

    def remembered(self, index):
        """State of a layer, None at the beginning."""
        return None if self.past is None else self.past[1 + index]

    def running_mean(self, index, means):
        """Mean over all frames so far, at every frame: means of frames (B, C, T) to (B, C, T)."""
        precise = means.to(torch.promote_types(means.dtype, torch.float32))
        totals = precise.cumsum(dim=2)
        past = self.remembered(index)
        if past is not None:
            totals = totals + past.unsqueeze(2)
        self.new[index] = totals[:, :, -1]
        frames = torch.arange(1, means.shape[2] + 1, device=means.device)
        counts = (self.count.to(precise.dtype)[:, None] + frames).unsqueeze(1)  # (B, 1, T)
        return (totals / counts).to(means.dtype)

    def states(self, num_frames):
        """What to hand to the next call."""
        return (self.count + num_frames, *(self.new[index] for index in sorted(self.new)))


class SameConv3d(nn.Conv3d):
    """A convolution without bias whose output covers its input as TensorFlow's "SAME" does: the smaller half of the padding comes first.

    In time it is not padded when `causal`: the caller puts the frames before in front.
    """

    def __init__(self, in_channels, out_channels, kernel=(1, 1, 1), stride=1, groups=1, causal=False):
        super().__init__(in_channels, out_channels, kernel, (1, stride, stride), groups=groups, bias=False)
        self.causal = causal

    def forward(self, hidden_states):
        hidden_states, padding = self.padded(hidden_states)
        return F.conv3d(hidden_states, self.weight, None, self.stride, padding, groups=self.groups)

    def padded(self, hidden_states):
        """The values with what cannot be said as so many zeros at both ends, and how many zeros those are, (time, height, width)."""
        padding = [
            same_padding(*axis) for axis in zip(hidden_states.shape[2:], self.kernel_size, self.stride, strict=True)
        ]
        if self.causal:
            padding[0] = (0, 0)
        if all(before == after for before, after in padding):
            return hidden_states, [before for before, _ in padding]
        (front, back), (top, bottom), (left, right) = padding
        return F.pad(hidden_states, (left, right, top, bottom, front, back)), [0, 0, 0]


def same_padding(size, kernel, stride):
    """Padding (before, after) with which ceil(size / stride) outputs cover an axis."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def pool_shortcut(hidden_states):
    """Mean over 3 x 3 sites at a stride of 2, as "SAME": what lies outside is not averaged."""
    batch, _, frames, height, width = hidden_states.shape
    # an odd axis has one site outside at both ends, an even one at the last
    hidden_states = hidden_states.transpose(1, 2).flatten(0, 1)
    pooled = F.avg_pool2d(hidden_states, 3, 2, (height % 2, width % 2), ceil_mode=True, count_include_pad=False)
    return pooled.unflatten(0, (batch, frames)).transpose(1, 2)


class MoViNetConv(nn.Module):
    """Convolution, batch norm and, unless it is linear, the activation of the form."""

    def __init__(self, config, in_channels, out_channels, linear=False, **convolution):
        super().__init__()
        self.conv = SameConv3d(in_channels, out_channels, **convolution)
        self.norm = nn.BatchNorm3d(out_channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)
        self.activation = None if linear else "hardswish" if config.causal else "silu"

    def forward(self, hidden_states, scale=None, add=None):
        return normed_convolution(self.conv, self.norm, hidden_states, self.activation, scale=scale, add=add)


class MoViNetTemporalConv(MoViNetConv):
    """Over the frames before, for every channel alone; remembers the last ones."""

    def __init__(self, config, channels, frames, state_index):
        super().__init__(config, channels, channels, kernel=(frames, 1, 1), groups=channels, causal=True)
        self.frames, self.state_index = frames, state_index

    def forward(self, hidden_states, stream):
        past = stream.remembered(self.state_index)
        if past is None:
            hidden_states = F.pad(hidden_states, (0, 0, 0, 0, self.frames - 1, 0))
        else:
            hidden_states = torch.cat([past.to(hidden_states.dtype), hidden_states], dim=2)
        stream.new[self.state_index] = hidden_states[:, :, 1 - self.frames :]
        return super().forward(hidden_states)


class MoViNetSqueezeExcitation(nn.Module):
    """Weighs channels by what the clip (base) or the video so far and this frame (stream) hold on average."""

    def __init__(self, config, channels, state_index):
        super().__init__()
        self.causal, self.state_index = config.causal, state_index
        reads = 2 * channels if config.causal else channels
        inner = round_to_eight(2 * (channels // 4) if config.causal else channels / 4)
        self.reduce = nn.Linear(reads, inner)
        self.expand = nn.Linear(inner, channels)

    def forward(self, hidden_states, stream):
        if not self.causal:
            gate = self.expand(F.silu(self.reduce(hidden_states.mean(dim=(2, 3, 4))))).sigmoid()
            return hidden_states * gate[:, :, None, None, None]
        means = hidden_states.mean(dim=(3, 4))  # (B, C, T)
        seen = torch.cat([stream.running_mean(self.state_index, means), means], dim=1).transpose(1, 2)
        # Keras' hard sigmoid, not torch's
        gate = (0.2 * self.expand(F.hardswish(self.reduce(seen))) + 0.5).clamp(0.0, 1.0)
        return hidden_states * gate.transpose(1, 2)[..., None, None]


class MoViNetShortcut(MoViNetConv):
    """What a block adds to where its stride or its channels differ from those before."""

    def __init__(self, config, in_channels, out_channels, stride):
        super().__init__(config, in_channels, out_channels, linear=True)
        self.stride = stride

    def forward(self, hidden_states):
        return super().forward(pool_shortcut(hidden_states) if self.stride == 2 else hidden_states)


class MoViNetBlock(CheckpointedBlock):
    """shortcut(x) + alpha * project(se(depthwise(expand(x)))), alpha a learned number that starts at zero (ReZero)."""

    def __init__(self, config, in_channels, channels, inner, kernel, stride, state_index):
        super().__init__()
        frames, side = map(int, kernel)
        self.expand = MoViNetConv(config, in_channels, inner)
        self.temporal = None
        if config.causal:
            kernel = (1, side, side)
            if frames > 1:
                self.temporal = MoViNetTemporalConv(config, inner, frames, state_index)
                state_index += 1
        else:
            kernel = (frames, side, side)
        self.depthwise = MoViNetConv(config, inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.squeeze_excitation = MoViNetSqueezeExcitation(config, inner, state_index)
        self.project = MoViNetConv(config, inner, channels, linear=True)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = MoViNetShortcut(config, in_channels, channels, stride)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.num_states = state_index + 1

    def forward(self, hidden_states, stream):
        branch = self.depthwise(self.expand(hidden_states))
        if self.temporal is not None:
            branch = self.temporal(branch, stream)
        branch = self.squeeze_excitation(branch, stream)
        return self.project(branch, scale=self.alpha, add=self.shortcut(hidden_states))


class MoViNetPreTrainedModel(OpeningClassesMixin, PreTrainedModel):
    """Weight initialisation and what transformers needs to know about the architecture."""

    config: MoViNetConfig
    config_class = MoViNetConfig
    base_model_prefix = "movinet"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["MoViNetBlock"]
    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False
    auto_classes = {"AutoModel": "MoViNetModel", "AutoModelForVideoClassification": "MoViNetForVideoClassification"}

    def __init__(self, config, *args, **kwargs):
        # again: keyword arguments of from_pretrained reach the configuration after its own check
        config.validate_architecture()
        super().__init__(config, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):  # variance 2 / fan-in
            init.normal_(module.weight, std=math.sqrt(2.0 / module.weight[0].numel()))
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=math.sqrt(1.0 / module.in_features))
        elif isinstance(module, MoViNetBlock):
            init.zeros_(module.alpha)


class MoViNetModel(MoViNetPreTrainedModel):
    """The network without a classifier: clips to a feature map and its mean."""

    def __init__(self, config):
        super().__init__(config)
        self.stem = MoViNetConv(config, config.num_channels, config.stem_size, kernel=(1, 3, 3), stride=2)
        self.stages = nn.ModuleList()
        channels, states = config.stem_size, 0
        for size, inners, kernels, stride in zip(
            config.hidden_sizes, config.expand_sizes, config.kernel_sizes, config.strides, strict=True
        ):
            blocks = nn.ModuleList()
            for index, (inner, kernel) in enumerate(zip(inners, kernels, strict=True)):
                block = MoViNetBlock(config, channels, size, inner, kernel, stride if index == 0 else 1, states)
                states, channels = block.num_states, size
                blocks.append(block)
            self.stages.append(blocks)
        self.projection = MoViNetConv(config, channels, config.projection_size)
        self.num_states = states
        self.post_init()

    def get_input_embeddings(self):
        return self.stem.conv

    @can_return_tuple
    def forward(self, pixel_values, past_states=None, use_cache=False, output_hidden_states=None, **kwargs):
        """Encodes clips, or the next piece of videos.

        Args:
            pixel_values: (B, T, channels, height, width), floats in [0, 1]. Any number of frames and any size.
            past_states: Streams: what the call for the frames before these returned.
            use_cache: Streams: return `past_states` for the frames after these.
            output_hidden_states: Also return the feature map of the stem and of every stage.

        Raises:
            ValueError: `pixel_values` has another rank, type or number of channels; states for a model that is no stream, or of others.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        check_clips("MoViNet", pixel_values, self.config.num_channels)
        self._check_states(past_states, use_cache, pixel_values.shape[0])
        stream = StreamPass(past_states, pixel_values) if self.config.causal else None
        # a half-precision model takes the single-precision pixels of any processor
        features = self.stem(pixel_values.transpose(1, 2).to(self.dtype))
        maps = [features]
        for blocks in self.stages:
            for block in blocks:
                features = block(features, stream)
            maps.append(features)
        features = self.projection(features)
        pooled = features.mean(dim=(3, 4))
        pooled = pooled.mean(dim=2) if stream is None else stream.running_mean(self.num_states, pooled)[:, :, -1]
        return MoViNetModelOutput(
            last_hidden_state=features,
            pooler_output=pooled,
            past_states=stream.states(pixel_values.shape[1]) if use_cache or past_states is not None else None,
            hidden_states=tuple(maps) if output_hidden_states else None,
        )

    def _check_states(self, past_states, use_cache, batch):
        if (use_cache or past_states is not None) and not self.config.causal:
            raise ValueError(
                "past_states and use_cache are for streams (causal=True); this MoViNet is of the base form. Give it whole clips."
            )
        if past_states is None:
            return
        expected = self.num_states + 2
        if len(past_states) != expected or any(len(state) != batch for state in past_states):
            raise ValueError(
                f"past_states must be the {expected} tensors that the call for the frames before returned, for the same {batch} "
                f"videos; got {len(past_states)} of {sorted({len(state) for state in past_states})} videos."
            )


class MoViNetForVideoClassification(MoViNetPreTrainedModel):
    """MoViNet with the head of the paper: a hidden layer and a classifier on the mean."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.movinet = MoViNetModel(config)
        self.hidden = nn.Linear(config.projection_size, config.head_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.head_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    def get_input_embeddings(self):
        return self.movinet.get_input_embeddings()

    @can_return_tuple
    def forward(
        self, pixel_values, labels=None, past_states=None, use_cache=False, output_hidden_states=None, **kwargs
    ):
        """Classifies clips, or the next piece of videos.

        Args:
            pixel_values: (B, T, channels, height, width), see `MoViNetModel.forward`.
            labels: (B,) class indices, or (B, K) floats for `problem_type="multi_label_classification"`.
            past_states, use_cache, output_hidden_states: See `MoViNetModel.forward`. However a video is cut into pieces, the logits of the
                last one are those of the whole video.
        """
        outputs = self.movinet(
            pixel_values,
            past_states=past_states,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(F.silu(self.hidden(outputs.pooler_output))))
        loss = self.loss_function(labels, logits, self.config) if labels is not None else None
        return MoViNetClassifierOutput(
            loss=loss, logits=logits, past_states=outputs.past_states, hidden_states=outputs.hidden_states
        )


__all__ = ["MoViNetForVideoClassification", "MoViNetModel", "MoViNetPreTrainedModel"]
