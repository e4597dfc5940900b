# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""TimeSformer (https://huggingface.co/papers/2102.05095) that reads a share of its tokens, chosen by LITE or another score.

What may be dropped depends on `attention_type`:

- `joint_space_time`: every token attends to all others, so any k of the N tokens can be kept (LITE's paper must have used this: its
  multiply-accumulates are those of joint attention).
- `divided_space_time`, the checkpoints on the Hub: attention over time at one place, then over space in one frame, needs a whole
  grid of places x frames. So *tubes* are kept: floor(P * places) places, the same in all frames, by the mean score over time. Dropping
  single tokens here would mix places without an error.
- `space_only`: transformers' class answers once per frame, not per clip; choosing tokens is refused.

The host numbers its tokens by (y, x, t), time running fastest, behind a class token that is always kept. Hidden states stay in that
order. `kept_indices` and `token_scores` count by (t, y, x), as for every other Lite host.
"""

from functools import partial

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.timesformer.modeling_timesformer import (
    TimesformerEmbeddings,
    TimesformerEncoder,
    TimesformerPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .configuration_lite_timesformer import LiteTimesformerConfig
from .kept_patches import ClipPatches, SelectedTokens, select_and_embed
from .lite_selection import (
    TokenSelectionMixin,
    TokenSelectionModelOutput,
    keep_all,
    realised_ratio,
)
from .selection_scope import check_one_clip
from .token_budget import TokenBudgetMixin, with_clip_budgets
from .token_selection import TokenSelectionError, gather_tokens, top_k_indices


def tube_indices(token_scores, grid, num_places):
    """Tokens (B, T * num_places), ascending in (t, y, x), of the places whose mean score over time is highest.

    Args:
        token_scores: (B, N).
        grid: `TokenGrid` of the N tokens.
        num_places: places to keep, of height * width.
    """
    places = top_k_indices(token_scores.unflatten(1, (grid.frames, -1)).mean(dim=1), num_places)
    starts = torch.arange(grid.frames, device=places.device) * (grid.height * grid.width)
    return (starts[:, None] + places[:, None, :]).flatten(1)


def host_order(kept_indices, grid):
    """Order (B, k) that puts tokens kept in (t, y, x) into the host's (y, x, t)."""
    num_places = grid.height * grid.width
    return (kept_indices % num_places * grid.frames + kept_indices // num_places).argsort(dim=1)


def resized_positions(embeddings, grid):
    """Positions of places (1, height * width, D) and of frames (1, T, D), resized to the nearest as the host does."""
    space, time = embeddings.position_embeddings[:, 1:], embeddings.time_embeddings
    if space.shape[1] != grid.height * grid.width:
        side = int(space.shape[1] ** 0.5)
        table = space.transpose(1, 2).unflatten(2, (side, side))
        space = nn.functional.interpolate(table, size=(grid.height, grid.width), mode="nearest").flatten(2)
        space = space.transpose(1, 2)
    if time.shape[1] != grid.frames:
        time = nn.functional.interpolate(time.transpose(1, 2), size=grid.frames, mode="nearest").transpose(1, 2)
    return space, time


class _PlacesInOneColumn:
    """What a layer reads of its configuration: with places in one column, any number of them is a whole grid.

    The stock layer derives the height of its grid from the number of tokens and the width from the configuration. It never uses
    which place is where: it only folds height x width together.
    """

    image_size = patch_size = 1

    def __init__(self, config):
        self._config = config

    @property
    def num_frames(self):
        return self._config.num_frames


class LiteTimesformerPreTrainedModel(TokenSelectionMixin, TimesformerPreTrainedModel):
    """What both models share: the step from pixels to the kept tokens."""

    config: LiteTimesformerConfig
    auto_classes = {
        "AutoModel": "LiteTimesformerModel",
        "AutoModelForVideoClassification": "LiteTimesformerForVideoClassification",
    }

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if hasattr(module, "time_embeddings"):  # the stock class leaves them as they were allocated
            init.zeros_(module.time_embeddings)

    @property
    def _keeps_tubes(self):
        return self.config.attention_type == "divided_space_time"

    def _select(self, k, scorer, grid, *args, **kwargs):
        kept_indices, token_scores = super()._select(k, scorer, grid, *args, **kwargs)
        if self._keeps_tubes:
            kept_indices = tube_indices(token_scores, grid, k // grid.frames)
        return kept_indices, token_scores

    def _clip_patches(self, pixel_values):
        """A clip as the patch embedding reads it, with its positions in the order (t, y, x).

        Raises:
            TokenSelectionError: what was asked for would mix places and frames.
        """
        embeddings = self._backbone.embeddings
        projection = embeddings.patch_embeddings.projection
        patches = ClipPatches(pixel_values.to(projection.weight.dtype), projection)
        if self.config.attention_type == "space_only":
            raise TokenSelectionError(
                'TimeSformer with attention_type="space_only" answers once per frame, so that no tokens of a clip can be chosen: '
                "pass keep_ratio=1."
            )
        space, time = resized_positions(embeddings, patches.grid)
        return ClipPatches(patches.pixel_values, projection, (space[:, None] + time[:, :, None]).flatten(1, 2))

    def _check_frames(self, num_frames):
        if self._keeps_tubes and num_frames != self.config.num_frames:
            raise TokenSelectionError(
                f"Divided attention takes apart clips of exactly {self.config.num_frames} frames (config.num_frames), got "
                f"{num_frames}: frames and places would be mixed."
            )

    def _select_tokens(self, pixel_values, keep_ratio=None, scorer=None, selection_extras=None):
        """The class token and the kept tokens, with positions, as `SelectedTokens`."""
        embeddings = self._backbone.embeddings
        projection = embeddings.patch_embeddings.projection
        grid = ClipPatches(pixel_values, projection).grid
        self._check_frames(grid.frames)
        if (self.config.keep_ratio if keep_ratio is None else keep_ratio) < 1:
            check_one_clip(self.config, grid.frames)
        # tubes are counted by places, and all of a place's tokens go or stay
        per_place = grid.frames if self._keeps_tubes else 1
        k, scorer = self._selection_plan(grid.num_tokens // per_place, keep_ratio, scorer)
        k = k * per_place
        if k == grid.num_tokens:
            states = embeddings(pixel_values.to(projection.weight.dtype))
            return SelectedTokens(states, keep_all(pixel_values.shape[0], k, states.device), None, k)
        patches = self._clip_patches(pixel_values)
        patches.embedded = (selection_extras or {}).get("patch_embeddings")
        if scorer == "attention" and (selection_extras or {}).get("attention") is None:
            selection_extras = {**(selection_extras or {}), "attention": self._received_attention(patches)}
        select = partial(
            self._select, k, scorer, grid, pixel_values, 1, patches.patch[1:], selection_extras=selection_extras
        )
        tokens, kept_indices, token_scores = select_and_embed(patches, scorer, select)
        tokens = gather_tokens(tokens, host_order(kept_indices, grid))
        class_tokens = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(tokens.shape[0], -1, -1)
        tokens = embeddings.time_drop(embeddings.pos_drop(tokens))
        states = torch.cat((embeddings.pos_drop(class_tokens), tokens), dim=1)
        return SelectedTokens(states, kept_indices, token_scores, grid.num_tokens)

    @torch.no_grad()
    def _received_attention(self, patches):
        """Attention (B, N) that every token receives in the last block of a full pass, also from the class token.

        With divided attention that of space, within the token's frame.
        """
        backbone, grid = self._backbone, patches.grid
        states = backbone.embeddings(patches.pixel_values)
        for layer in backbone.encoder.layer[:-1]:
            states = layer(states)[0]
        maps = backbone.encoder.layer[-1](states, output_attentions=True)[1]
        received = maps.float().mean(dim=(1, 2))[:, 1:]
        if self._keeps_tubes:
            return received.unflatten(0, (-1, grid.frames)).flatten(1)
        return received.unflatten(1, (-1, grid.frames)).transpose(1, 2).flatten(1)


class LiteTimesformerModel(LiteTimesformerPreTrainedModel):
    """TimeSformer without a head, on the kept tokens. Its keys are those of `TimesformerModel`, and `selector.*`."""

    def __init__(self, config, add_selector=True):
        super().__init__(config)
        self.embeddings = TimesformerEmbeddings(config)
        self.encoder = TimesformerEncoder(config)
        for layer in self.encoder.layer:
            layer.config = _PlacesInOneColumn(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if add_selector:
            self._add_selector(config)
        self.post_init()

    @property
    def _backbone(self):
        return self

    def get_input_embeddings(self):
        return self.embeddings.patch_embeddings

    @can_return_tuple
    def forward(
        self,
        pixel_values=None,
        output_attentions=None,
        output_hidden_states=None,
        keep_ratio=None,
        scorer=None,
        selection_extras=None,
        selected=None,
        **kwargs,
    ):
        """Encodes the kept tokens of clips.

        Args:
            pixel_values: (B, T, C, H, W).
            output_attentions: also return attention over space (divided) or space-time (joint) of every block.
            output_hidden_states: also return the tokens before every block and after the last.
            keep_ratio, scorer: for this call; None takes the configuration's.
            selection_extras: what some scorers have to be given, see `ScorerInputs.extras`.
            selected: tokens that were chosen already, instead of `pixel_values`.

        Raises:
            TokenSelectionError: what was asked for would mix places and frames, or a scorer misses what it needs.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if selected is None:
            selected = self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras)
        outputs = self.encoder(
            selected.states,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        return TokenSelectionModelOutput(
            last_hidden_state=self.layernorm(outputs.last_hidden_state),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            token_scores=selected.token_scores,
            kept_indices=selected.kept_indices,
            realised_keep_ratio=realised_ratio(selected.kept_indices, selected.num_tokens),
        )


class LiteTimesformerForVideoClassification(TokenBudgetMixin, LiteTimesformerPreTrainedModel):
    """TimeSformer with a linear classifier on the class token. Its keys are those of the stock class, and `selector.*`."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.timesformer = LiteTimesformerModel(config, add_selector=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self._add_selector(config)
        self._add_budget_probe(config)
        self.post_init()

    @property
    def _backbone(self):
        return self.timesformer

    def get_input_embeddings(self):
        return self.timesformer.get_input_embeddings()

    @can_return_tuple
    @with_clip_budgets
    def forward(
        self,
        pixel_values=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        keep_ratio=None,
        scorer=None,
        selection_extras=None,
        **kwargs,
    ):
        """Classifies clips by their kept tokens.

        Args:
            pixel_values: (B, T, C, H, W).
            labels: (B,) class indices.
            keep_ratio: for this call, for all clips or one per clip, see `with_clip_budgets`.
            output_attentions, output_hidden_states, scorer, selection_extras: see `LiteTimesformerModel.forward`.
        """
        outputs = self.timesformer(
            selected=self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(outputs.last_hidden_state[:, 0])
        return self._classified(outputs, logits, labels)


__all__ = ["LiteTimesformerForVideoClassification", "LiteTimesformerModel", "LiteTimesformerPreTrainedModel"]
