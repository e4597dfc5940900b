# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""VideoMAE with fewer and fewer tokens: ToMe, STA and vid-TLDR on a checkpoint that nobody retrained.

    merge_tokens(model, method="tome", r=65)     # 65 tokens fewer after every block
    merge_tokens(model, method="sta", r=48)      # 48 tokens fewer per group of frames, after three of the blocks
    merge_tokens(model, method="vid_tldr", r=(600, 200, 100))
    restore_tokens(model)

The model is edited in place: its parameters, their names and its configuration stay what they were, so that it is saved as the
plain VideoMAE that it is. With `r=0` it gives the same numbers as before.

ToMe and vid-TLDR merge between attention and MLP of a block. At the end every patch gets the token that it has become part of:
the output has its usual shape, and the classifier's mean over it is the mean weighted by sizes. STA drops tokens after a block,
and what is left comes out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.videomae.modeling_videomae import (
    VideoMAEEncoder,
    VideoMAELayer,
    VideoMAESelfAttention,
    eager_attention_forward,
)

from .token_accumulation import accumulate_and_drop
from .token_merging import (
    attention_sharpness,
    match_tokens,
    merge_weighted,
    merged_positions,
    num_merged,
    take_tokens,
)


MERGING_METHODS = ("tome", "sta", "vid_tldr")
# attention that takes a bias per key; the others would leave proportional attention out
_TAKES_BIAS = ("eager", "sdpa")


@dataclass(frozen=True)
class BlockReduction:
    """What happens to the tokens in one block.

    Attributes:
        merge: tokens merged away between attention and MLP.
        drop: tokens dropped per group after the block.
        num_groups: groups of `drop`.
        backwards: whether the groups are gone through from the last to the first.
        proportional: attention counts a token as often as it has patches.
        sharpness: merge by the sharpness of attention (vid-TLDR) in place of the size.
    """

    merge: int = 0
    drop: int = 0
    num_groups: int = 1
    backwards: bool = False
    proportional: bool = False
    sharpness: bool = False


def block_reductions(config, method: str, r: int | Sequence[int], proportional: bool = True) -> list[BlockReduction]:
    """What each block of a VideoMAE does under a method.

    Args:
        config: of the model.
        method: one of `MERGING_METHODS`.
        r: `"tome"`: tokens merged per block, one number or one for each; `"sta"`: tokens dropped per group in each of its three
            stages; `"vid_tldr"`: numbers of the first blocks, or one, which stands for (r, r / 3, r / 6) as in the paper.
        proportional: whether attention counts merged tokens by their size (STA has none).

    Raises:
        ValueError: unknown method, or numbers that do not fit the model.
    """
    blocks = config.num_hidden_layers
    if method not in MERGING_METHODS:
        raise ValueError(f"method must be one of {MERGING_METHODS}, got {method!r}.")
    numbers = [r] if isinstance(r, int) else list(r)
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise ValueError(f"r must be a number of tokens >= 0, or one for each block, got {r!r}.")
    if method == "sta":
        if not isinstance(r, int):
            raise ValueError(f"r of 'sta' is one number, the tokens dropped per group and stage, got {r!r}.")
        return _sta_reductions(config, r)
    if isinstance(r, int):
        numbers = [r] * blocks if method == "tome" else [r, r // 3, r // 6][:blocks]
    if len(numbers) > blocks or (method == "tome" and len(numbers) != blocks):
        raise ValueError(f"r has {len(numbers)} numbers, the model has {blocks} blocks.")
    numbers += [0] * (blocks - len(numbers))
    return [BlockReduction(merge=n, proportional=proportional, sharpness=method == "vid_tldr") for n in numbers]


def _sta_reductions(config, r: int) -> list[BlockReduction]:
    """Three stages, after blocks 0, L / 3 and 2 L / 3, with T, T / 2 and T / 4 groups; the second goes backwards."""
    blocks, (frames, height, width) = config.num_hidden_layers, patch_grid(config)
    reductions = [BlockReduction()] * blocks
    if r == 0:
        return reductions
    if blocks < 3 or frames % 4:
        raise ValueError(
            f"STA needs at least 3 blocks and a multiple of 4 token frames (num_frames / tubelet_size), got {blocks} and {frames}."
        )
    for stage in range(3):
        groups = frames >> stage
        reductions[stage * blocks // 3] = BlockReduction(drop=r, num_groups=groups, backwards=stage == 1)
    largest = (
        4 * height * width - 1
    ) // 7  # of 4 h w tokens in a group of the third stage, 4 + 2 + 1 times r are gone
    if r > largest:
        raise ValueError(f"r={r} leaves no token after the third stage: at most {largest} tokens per group can go.")
    return reductions


def patch_grid(config) -> tuple[int, int, int]:
    """Token frames, rows and columns of a VideoMAE."""
    sides = [
        size if isinstance(size, (list, tuple)) else (size, size) for size in (config.image_size, config.patch_size)
    ]
    return config.num_frames // config.tubelet_size, sides[0][0] // sides[1][0], sides[0][1] // sides[1][1]


def token_counts(num_tokens: int, reductions: Sequence[BlockReduction]) -> list[tuple[int, int, int]]:
    """Tokens in the attention of each block, in its MLP, and after it."""
    counts = []
    for one in reductions:
        in_mlp = num_tokens - num_merged(num_tokens, one.merge)
        after = in_mlp - one.drop * one.num_groups
        counts.append((num_tokens, in_mlp, after))
        num_tokens = after
    return counts


class MergingSelfAttention(VideoMAESelfAttention):
    """VideoMAE's attention with a bias per key; it also gives its keys.

    The bias of proportional attention is log s_j, the logarithm of the size: as if token j stood there s_j times.
    """

    def forward(self, hidden_states, sizes=None, with_probabilities=False):
        shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        keys, values, queries = (
            project(hidden_states).view(shape).transpose(1, 2) for project in (self.key, self.value, self.query)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        context, probabilities = (eager_attention_forward if with_probabilities else attend)(
            self,
            queries,
            keys,
            values,
            None if sizes is None else sizes.log().to(queries.dtype)[:, None, None, :],
            is_causal=self.is_causal,
            scaling=self.scaling,
            dropout=0.0 if not self.training else self.dropout_prob,
        )
        return context.reshape(*context.shape[:-2], self.all_head_size), probabilities, keys


class MergingVideoMAELayer(VideoMAELayer):
    """A block that hands on fewer tokens than it got; `reduction` says how many."""

    reduction = BlockReduction()

    def forward(self, hidden_states, sizes=None, positions=None):
        """Runs the block.

        Args:
            hidden_states: (B, n, d).
            sizes: (B, n) float32 patches per token, None when there is one in each.
            positions: (B, N) which token each patch is part of, None for its own.

        Returns:
            The three, after the block.
        """
        todo = self.reduction
        attended, probabilities, keys = self.attention.attention(
            self.layernorm_before(hidden_states),
            sizes=sizes if todo.proportional else None,
            with_probabilities=todo.sharpness and todo.merge > 0,
        )
        hidden_states = self.attention.output(attended, hidden_states) + hidden_states
        if num_merged(hidden_states.shape[1], todo.merge):
            hidden_states, sizes, positions = self._merge(hidden_states, sizes, positions, keys, probabilities)
        hidden_states = self.output(self.intermediate(self.layernorm_after(hidden_states)), hidden_states)
        if todo.drop:
            kept = accumulate_and_drop(hidden_states, todo.num_groups, todo.drop, backwards=todo.backwards)
            hidden_states = take_tokens(hidden_states, kept)
        return hidden_states, sizes, positions

    def _merge(self, tokens, sizes, positions, keys, probabilities):
        if sizes is None:
            sizes = torch.ones(tokens.shape[:2], dtype=torch.float32, device=tokens.device)
        # ToMe's likeness is that of keys, vid-TLDR's that of the tokens themselves
        plan = match_tokens(tokens if self.reduction.sharpness else keys.mean(1), self.reduction.merge)
        weights = attention_sharpness(probabilities) * sizes if self.reduction.sharpness else None
        moved = merged_positions(plan, tokens.shape[1])
        positions = moved if positions is None else moved.gather(1, positions)
        tokens, sizes = merge_weighted(tokens, sizes, plan, weights)
        return tokens, sizes, positions


class MergingVideoMAEEncoder(VideoMAEEncoder):
    """Blocks that merge or drop; patches that were merged get their token back at the end."""

    def forward(self, hidden_states, **kwargs):
        sizes = positions = None
        self._check(hidden_states.shape[1])
        for layer in self.layer:
            hidden_states, sizes, positions = layer(hidden_states, sizes, positions)
        if positions is not None:
            hidden_states = take_tokens(hidden_states, positions)
        return BaseModelOutput(last_hidden_state=hidden_states)

    def _check(self, num_tokens):
        name = self.config._attn_implementation
        if name not in _TAKES_BIAS and any(
            layer.reduction.proportional and layer.reduction.merge for layer in self.layer
        ):
            raise ValueError(
                f"proportional attention needs attn_implementation in {_TAKES_BIAS}, this model has {name!r}: choose one of them, or "
                "merge_tokens(..., proportional_attention=False)."
            )
        whole = math.prod(patch_grid(self.config))
        if num_tokens != whole and any(layer.reduction.drop for layer in self.layer):
            raise ValueError(
                f"STA goes from frame to frame and needs all {whole} tokens of a clip, got {num_tokens}: select tokens or drop them with STA, "
                "not both. ToMe takes any tokens."
            )


_PLAIN = {
    MergingVideoMAEEncoder: VideoMAEEncoder,
    MergingVideoMAELayer: VideoMAELayer,
    MergingSelfAttention: VideoMAESelfAttention,
}
_MERGING = {plain: merging for merging, plain in _PLAIN.items()}


def merge_tokens(
    model: torch.nn.Module, method: str = "tome", r: int | Sequence[int] = 65, proportional_attention: bool = True
) -> torch.nn.Module:
    """Makes a VideoMAE merge or drop tokens on its way.

    Args:
        model: `VideoMAEModel`, or a model that has one as `videomae`. It is edited in place; calling again replaces the method.
        method: `"tome"`, `"sta"` or `"vid_tldr"`.
        r: how many tokens go, see `block_reductions`; `r_for_macs` finds the number for a budget.
        proportional_attention: whether attention counts merged tokens by their size.

    Returns:
        The model.

    Raises:
        ValueError: the model is no VideoMAE, or method and r do not fit it.
    """
    encoder = _encoder_of(model)
    reductions = block_reductions(encoder.config, method, r, proportional_attention)
    restore_tokens(model)
    for module in (encoder, *encoder.layer, *(layer.attention.attention for layer in encoder.layer)):
        module.__class__ = _MERGING[type(module)]
    for layer, reduction in zip(encoder.layer, reductions, strict=True):
        layer.reduction = reduction
    return model


def restore_tokens(model: torch.nn.Module) -> torch.nn.Module:
    """Takes `merge_tokens` back: the model keeps all of its tokens again."""
    encoder = _encoder_of(model)
    for module in (encoder, *encoder.layer, *(layer.attention.attention for layer in encoder.layer)):
        module.__class__ = _PLAIN.get(type(module), type(module))
        module.__dict__.pop("reduction", None)
    return model


def _encoder_of(model) -> VideoMAEEncoder:
    encoder = getattr(getattr(model, "videomae", model), "encoder", None)
    modules = [encoder, *getattr(encoder, "layer", ())]
    if not all(type(module) in _PLAIN or type(module) in _MERGING for module in modules):
        raise ValueError(
            f"expected a VideoMAE (VideoMAEModel, or a model with one as .videomae), got {type(model).__name__}: merging is written for "
            "VideoMAE's blocks."
        )
    return encoder
