# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""V-JEPA 2 (https://huggingface.co/papers/2506.09985) that reads a share of its tokens, chosen by LITE or another score.

Its embeddings hold no positions: every attention rotates queries and keys by the place of their token. So the places of the kept
tokens go to every layer (`position_mask`); without them the k tokens would be taken for the first k of the clip. The attentive
pooler reads any number of tokens.
"""

from functools import partial

import torch
from torch import nn
from transformers.models.vjepa2.modeling_vjepa2 import (
    VJEPA2AttentivePooler,
    VJEPA2Encoder,
    VJEPA2Predictor,
    VJEPA2PreTrainedModel,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_lite_vjepa2 import LiteVJEPA2Config
from .kept_patches import ClipPatches, SelectedTokens, select_and_embed
from .lite_selection import (
    TokenSelectionMixin,
    TokenSelectionModelOutput,
    keep_all,
    realised_ratio,
)
from .received_attention import received_attention
from .selection_scope import check_one_clip
from .token_budget import TokenBudgetMixin, with_clip_budgets


class LiteVJEPA2PreTrainedModel(TokenSelectionMixin, VJEPA2PreTrainedModel):
    """What both models share: the step from pixels to the kept tokens."""

    config: LiteVJEPA2Config
    auto_classes = {
        "AutoModel": "LiteVJEPA2Model",
        "AutoModelForVideoClassification": "LiteVJEPA2ForVideoClassification",
    }

    def _clip_patches(self, pixel_values):
        """A clip as the patch embedding reads it."""
        projection = self._backbone.encoder.embeddings.patch_embeddings.proj
        return ClipPatches(self._repeated(pixel_values).to(projection.weight.dtype), projection)

    def _repeated(self, pixel_values):
        # what the stock embedding does with a picture
        tubelet_size = self.config.tubelet_size
        return pixel_values.repeat(1, tubelet_size, 1, 1, 1) if pixel_values.shape[1] < tubelet_size else pixel_values

    def _select_tokens(self, pixel_values, keep_ratio=None, scorer=None, selection_extras=None):
        """The kept tokens, as `SelectedTokens`."""
        if (self.config.keep_ratio if keep_ratio is None else keep_ratio) < 1:
            check_one_clip(self.config, pixel_values.shape[1])
        patches = self._clip_patches(pixel_values)
        patches.embedded = (selection_extras or {}).get("patch_embeddings")
        num_tokens = patches.grid.num_tokens
        k, scorer = self._selection_plan(num_tokens, keep_ratio, scorer)
        if k == num_tokens:
            states = self._backbone.encoder.embeddings(pixel_values)
            return SelectedTokens(states, keep_all(states.shape[0], num_tokens, states.device), None, num_tokens)
        if scorer == "attention" and (selection_extras or {}).get("attention") is None:
            selection_extras = {**(selection_extras or {}), "attention": self._received_attention(pixel_values)}
        pixel_values = self._repeated(pixel_values)
        tubelet_size, *patch_size = patches.patch
        select = partial(
            self._select,
            k,
            scorer,
            patches.grid,
            pixel_values,
            tubelet_size,
            patch_size,
            selection_extras=selection_extras,
        )
        return SelectedTokens(*select_and_embed(patches, scorer, select), num_tokens)

    @torch.no_grad()
    def _received_attention(self, pixel_values):
        """Attention (B, N) that every token receives in the last block of a full pass."""
        encoder = self._backbone.encoder
        states = encoder.embeddings(pixel_values)
        for layer in encoder.layer[:-1]:
            states = layer(states)[0]
        attention, states = encoder.layer[-1].attention, encoder.layer[-1].norm1(states)
        heads = (attention.num_attention_heads, attention.attention_head_size)
        places = attention.get_position_ids(states)
        queries, keys = (
            attention.apply_rotary_embeddings(project(states).unflatten(-1, heads).transpose(1, 2), places)
            for project in (attention.query, attention.key)
        )
        return received_attention(queries.transpose(1, 2), keys.transpose(1, 2), attention.scaling)


class LiteVJEPA2Model(LiteVJEPA2PreTrainedModel):
    """The encoder of V-JEPA 2 on the kept tokens. Its keys are those of `VJEPA2Model`, and `selector.*`.

    The predictor is part of the checkpoint but is not run: its task, to predict what was left out, has no place in a model that
    leaves out tokens to be fast. Open the checkpoint as `VJEPA2Model` for that.
    """

    def __init__(self, config, add_selector=True):
        super().__init__(config)
        self.encoder = VJEPA2Encoder(config)
        self.predictor = VJEPA2Predictor(config).requires_grad_(False)  # no loss reaches it
        if add_selector:
            self._add_selector(config)
        self.post_init()

    @property
    def _backbone(self):
        return self

    def get_input_embeddings(self):
        return self.encoder.embeddings.patch_embeddings

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos=None,
        keep_ratio=None,
        scorer=None,
        selection_extras=None,
        selected=None,
        **kwargs,
    ):
        """Encodes the kept tokens of clips.

        Args:
            pixel_values_videos: (B, T, C, H, W).
            keep_ratio, scorer: for this call; None takes the configuration's.
            selection_extras: what some scorers have to be given, see `ScorerInputs.extras`.
            selected: tokens that were chosen already, instead of `pixel_values_videos`.

        Raises:
            TokenSelectionError: a scorer misses what it needs.
        """
        if selected is None:
            selected = self._select_tokens(pixel_values_videos, keep_ratio, scorer, selection_extras)
        # None is what the stock encoder passes for all tokens in their order
        places = selected.kept_indices if selected.token_scores is not None else None
        hidden_states = selected.states
        for layer in self.encoder.layer:
            hidden_states = layer(hidden_states, places, **kwargs)[0]
        return TokenSelectionModelOutput(
            last_hidden_state=self.encoder.layernorm(hidden_states),
            token_scores=selected.token_scores,
            kept_indices=selected.kept_indices,
            realised_keep_ratio=realised_ratio(selected.kept_indices, selected.num_tokens),
        )


class LiteVJEPA2ForVideoClassification(TokenBudgetMixin, LiteVJEPA2PreTrainedModel):
    """V-JEPA 2 with its attentive pooler and a linear classifier. Its keys are those of the stock class, and `selector.*`."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vjepa2 = LiteVJEPA2Model(config, add_selector=False)
        self.pooler = VJEPA2AttentivePooler(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels, bias=True)
        self._add_selector(config)
        self._add_budget_probe(config)
        self.post_init()

    @property
    def _backbone(self):
        return self.vjepa2

    def get_input_embeddings(self):
        return self.vjepa2.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos=None,
        labels=None,
        keep_ratio=None,
        scorer=None,
        selection_extras=None,
        pixel_values=None,
        **kwargs,
    ):
        """Classifies clips by their kept tokens.

        Args:
            pixel_values_videos: (B, T, C, H, W), the name that V-JEPA 2's processor gives.
            labels: (B,) class indices.
            keep_ratio: for this call, for all clips or one per clip, see `with_clip_budgets`.
            scorer, selection_extras: see `LiteVJEPA2Model.forward`.
            pixel_values: the same clips under the name that all other processors give.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        pixel_values = pixel_values if pixel_values_videos is None else pixel_values_videos
        named = {"labels": labels, "keep_ratio": keep_ratio, "scorer": scorer, "selection_extras": selection_extras}
        return self._classify(pixel_values, **named, **kwargs)

    @with_clip_budgets
    def _classify(self, pixel_values, labels=None, keep_ratio=None, scorer=None, selection_extras=None, **kwargs):
        selected = self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras)
        kwargs["return_dict"] = True
        outputs = self.vjepa2(selected=selected, **kwargs)
        logits = self.classifier(self.pooler(outputs.last_hidden_state))
        return self._classified(outputs, logits, labels)


__all__ = ["LiteVJEPA2ForVideoClassification", "LiteVJEPA2Model", "LiteVJEPA2PreTrainedModel"]
