# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Temporal shift (TSM, https://huggingface.co/papers/1811.08383): a 2-D network sees its neighbours in time at no arithmetic cost.

Frames of B clips of T frames lie one after the other, (B * T, C, H, W). Before a convolution, the first C // div channels of a frame are
replaced by those of the frame after it and the next C // div by those of the frame before it; at the ends of a clip by zeros. A causal
network takes the first C // div from the frame before and nothing from the future.

Everything stays 4-D and in the memory format that it came in, so that phones and compilers see plain slices.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from .checkpointed_block import CheckpointedBlock


@dataclass
class FramePass:
    """What one forward pass knows of its frames (B * T, C, H, W).

    Fields:
        num_frames: T.
        first, last: (B * T, 1, 1, 1), where clips begin and end.
        past_states: causal networks: per convolution, what the frame before the first one left, (B, C // div, H, W).
        new_states: the same of the last frame, written in this pass; None when nobody asks.
    """

    num_frames: int
    first: torch.Tensor
    last: torch.Tensor
    past_states: tuple | None = None
    new_states: dict | None = field(default=None)


@dataclass
class RunningPass:
    """The pass that a network is in; its shifts share this object, because a 2-D network hands no such thing through."""

    current: FramePass | None = None

    @contextmanager
    def of(self, frame_pass):
        """Runs the network on the frames of `frame_pass`."""
        outer, self.current = self.current, frame_pass
        try:
            yield frame_pass
        finally:
            self.current = outer


def clip_borders(num_clips, num_frames, device):
    """Where clips of T frames begin and end among B * T frames: two (B * T, 1, 1, 1) of bool."""
    from_first = torch.arange(num_frames, device=device)
    from_last = torch.arange(num_frames - 1, -1, -1, device=device)
    return tuple(place.expand(num_clips, num_frames).reshape(-1, 1, 1, 1) == 0 for place in (from_first, from_last))


def shift_both_ways(frames, fold, clips):
    """The shift of TSM.

    Args:
        frames: (B * T, C, H, W).
        fold: Channels that come from the frame after, and as many from the frame before.
        clips: The `FramePass`.
    """
    if _writes_in_place():
        shifted = torch.empty_like(frames)
        shifted[:-1, :fold] = frames[1:, :fold]
        shifted[clips.num_frames - 1 :: clips.num_frames, :fold] = 0.0
        shifted[1:, fold : 2 * fold] = frames[:-1, fold : 2 * fold]
        shifted[:: clips.num_frames, fold : 2 * fold] = 0.0
        shifted[:, 2 * fold :] = frames[:, 2 * fold :]
        return shifted
    after, before, rest = frames[:, :fold], frames[:, fold : 2 * fold], frames[:, 2 * fold :]
    after = torch.cat([after[1:], after[:1]]).masked_fill(clips.last, 0.0)
    before = torch.cat([before[-1:], before[:-1]]).masked_fill(clips.first, 0.0)
    return torch.cat([after, before, rest], dim=1)


def shift_from_past(frames, fold, clips, past=None):
    """The shift of a causal TSM.

    Args:
        frames: (B * T, C, H, W).
        fold: Channels that come from the frame before.
        clips: The `FramePass`.
        past: (B, fold, H, W), those of the frame before the first one; None: zeros.
    """
    if _writes_in_place():
        shifted = torch.empty_like(frames)
        shifted[1:, :fold] = frames[:-1, :fold]
        shifted[:: clips.num_frames, :fold] = 0.0 if past is None else past.to(frames.dtype)
        shifted[:, fold:] = frames[:, fold:]
        return shifted
    before = torch.cat([frames[-1:, :fold], frames[:-1, :fold]])
    if past is None:
        before = before.masked_fill(clips.first, 0.0)
    else:
        past = past.to(frames.dtype).repeat_interleave(clips.num_frames, dim=0)
        before = torch.where(clips.first, past, before)
    return torch.cat([before, frames[:, fold:]], dim=1)


def _writes_in_place():
    """A third of the time on a processor, and channels-last stays; graphs and gradients want whole results instead."""
    return not torch.is_grad_enabled() and not torch.compiler.is_compiling()


class ShiftConv2d(nn.Conv2d):
    """A convolution whose input is shifted in time; names and shapes of its weights are those of the convolution."""

    @classmethod
    def take_over(cls, convolution, index, fold, causal, running):
        """Makes a convolution of a 2-D network one of these, in place.

        Args:
            convolution: An `nn.Conv2d`.
            index: Its number among the shifted ones, the place of its state.
            fold: Channels that are shifted, in one direction.
            causal: Only from the past.
            running: The `RunningPass` of the network.
        """
        convolution.__class__ = cls
        convolution.shift_index, convolution.fold = index, fold
        convolution.causal, convolution.running = causal, running

    def forward(self, frames):
        """Convolves (B * T, C, H, W)."""
        clips = self.running.current
        if clips is None:
            raise RuntimeError("the 2-D network of a TSM only runs inside of its model: call the model with clips.")
        if not self.causal:
            return super().forward(shift_both_ways(frames, self.fold, clips))
        past = None if clips.past_states is None else clips.past_states[self.shift_index]
        if clips.new_states is not None:
            clips.new_states[self.shift_index] = frames[clips.num_frames - 1 :: clips.num_frames, : self.fold]
        return super().forward(shift_from_past(frames, self.fold, clips, past))

    def extra_repr(self):
        return f"{super().extra_repr()}, fold={self.fold}, causal={self.causal}"


class ShiftedBlock(CheckpointedBlock):
    """What a block of the 2-D network becomes besides its own class, so that it can be computed again in the right pass."""

    def second_time(self):
        """The pass that the block runs in now."""
        clips = self.running.current
        return self.running.of(clips if clips is None or clips.new_states is None else _without_new_states(clips))


def _without_new_states(clips):
    return FramePass(clips.num_frames, clips.first, clips.last, clips.past_states)


_block_classes = {}


def make_checkpointed(block, running):
    """Lets a block of the 2-D network take part in activation checkpointing, in place; its names stay as they are."""
    block_class = type(block)
    if block_class not in _block_classes:
        # one name for all, that of `_no_split_modules`
        _block_classes[block_class] = type(
            "ShiftedBlock", (ShiftedBlock, block_class), {"forward": block_class.forward}
        )
    block.__class__ = _block_classes[block_class]
    block.running = running
