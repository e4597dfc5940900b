# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""ViViT (https://huggingface.co/papers/2103.15691) that reads a share of its tokens, chosen by LITE or another score.

The class token is always kept and is not one of the N tokens. Learned positions are added before tokens are dropped, so that every
kept token knows its place; the blocks attend over what is left.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.vivit.modeling_vivit import VivitEmbeddings, VivitLayer, VivitPooler, VivitPreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_lite_vivit import LiteVivitConfig
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
from .token_selection import TokenSelectionError


# Files on the Hub hold the names of an older ViViT; transformers renames them for the classes that it knows by name.
_RENAMED_KEYS = get_checkpoint_conversion_mapping("VivitModel")
if _RENAMED_KEYS is not None:
    register_checkpoint_conversion_mapping("LiteVivitModel", _RENAMED_KEYS, overwrite=True)


@dataclass
class LiteVivitModelOutput(TokenSelectionModelOutput):
    """Output of `LiteVivitModel`: see `TokenSelectionModelOutput`; `pooler_output` (B, D) is made of the class token."""

    pooler_output: torch.FloatTensor | None = None


class LiteVivitPreTrainedModel(TokenSelectionMixin, VivitPreTrainedModel):
    """What both models share: the step from pixels to the kept tokens."""

    config: LiteVivitConfig
    auto_classes = {
        "AutoModel": "LiteVivitModel",
        "AutoModelForVideoClassification": "LiteVivitForVideoClassification",
    }

    def _clip_patches(self, pixel_values, interpolate_pos_encoding=False):
        """A clip as the patch embedding reads it.

        Raises:
            TokenSelectionError: the clips are not of the size that the model has positions for.
        """
        embeddings = self._backbone.embeddings
        size, positions = tuple(pixel_values.shape[-2:]), embeddings.position_embeddings
        if interpolate_pos_encoding:
            positions = embeddings.interpolate_pos_encoding(positions, *size)
        elif size != tuple(embeddings.image_size):
            raise TokenSelectionError(
                f"The model takes frames of {tuple(embeddings.image_size)} pixels, got {size}: resize them, or interpolate its "
                "positions."
            )
        projection = embeddings.patch_embeddings.projection
        return ClipPatches(pixel_values.to(projection.weight.dtype), projection, positions[:, 1:])

    def _select_tokens(
        self, pixel_values, keep_ratio=None, scorer=None, selection_extras=None, interpolate_pos_encoding=False
    ):
        """The class token and the kept tokens, with positions, as `SelectedTokens`."""
        if (self.config.keep_ratio if keep_ratio is None else keep_ratio) < 1:
            check_one_clip(self.config, pixel_values.shape[1])
        embeddings = self._backbone.embeddings
        patches = self._clip_patches(pixel_values, interpolate_pos_encoding)
        patches.embedded = (selection_extras or {}).get("patch_embeddings")
        num_tokens = patches.grid.num_tokens
        k, scorer = self._selection_plan(num_tokens, keep_ratio, scorer)
        if k == num_tokens:
            states = embeddings(patches.pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
            return SelectedTokens(states, keep_all(states.shape[0], num_tokens, states.device), None, num_tokens)
        if scorer == "attention" and (selection_extras or {}).get("attention") is None:
            received = self._received_attention(patches.pixel_values, interpolate_pos_encoding)
            selection_extras = {**(selection_extras or {}), "attention": received}
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
        tokens, kept_indices, token_scores = select_and_embed(patches, scorer, select)
        class_tokens = embeddings.cls_token + embeddings.position_embeddings[:, :1]
        states = torch.cat((class_tokens.expand(tokens.shape[0], -1, -1), tokens), dim=1)
        return SelectedTokens(embeddings.dropout(states), kept_indices, token_scores, num_tokens)

    @torch.no_grad()
    def _received_attention(self, pixel_values, interpolate_pos_encoding):
        """Attention (B, N) that every token receives in the last block of a full pass, also from the class token."""
        backbone = self._backbone
        states = backbone.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        for layer in backbone.layers[:-1]:
            states = layer(states)
        attention, states = backbone.layers[-1].attention, backbone.layers[-1].layernorm_before(states)
        heads = (attention.num_attention_heads, attention.head_dim)
        queries, keys = (project(states).unflatten(-1, heads) for project in (attention.q_proj, attention.k_proj))
        return received_attention(queries, keys, attention.scaling)[:, 1:]


class LiteVivitModel(LiteVivitPreTrainedModel):
    """ViViT without a head, on the kept tokens. Its keys are those of `VivitModel`, and `selector.*`."""

    def __init__(self, config, add_pooling_layer=True, add_selector=True):
        super().__init__(config)
        self.embeddings = VivitEmbeddings(config)
        self.layers = nn.ModuleList([VivitLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = VivitPooler(config) if add_pooling_layer else None
        if add_selector:
            self._add_selector(config)
        self.post_init()

    @property
    def _backbone(self):
        return self

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values=None,
        interpolate_pos_encoding=False,
        attention_mask=None,
        keep_ratio=None,
        scorer=None,
        selection_extras=None,
        selected=None,
        **kwargs,
    ):
        """Encodes the kept tokens of clips.

        Args:
            pixel_values: (B, T, C, H, W).
            interpolate_pos_encoding: as in `VivitModel`.
            attention_mask: (B, 1 + N) over the class token and all tokens, 0 for those that nobody may read.
            keep_ratio, scorer: for this call; None takes the configuration's.
            selection_extras: what some scorers have to be given, see `ScorerInputs.extras`.
            selected: tokens that were chosen already, instead of `pixel_values`.

        Raises:
            TokenSelectionError: clips or a mask of another size than the positions, or a scorer that misses what it needs.
        """
        if selected is None:
            selected = self._select_tokens(
                pixel_values, keep_ratio, scorer, selection_extras, interpolate_pos_encoding
            )
        if attention_mask is not None:
            if attention_mask.shape[1:] != (1 + selected.num_tokens,):
                raise TokenSelectionError(
                    f"attention_mask should be (B, {1 + selected.num_tokens}), over the class token and all tokens, got "
                    f"{tuple(attention_mask.shape)}."
                )
            of_tokens = attention_mask[:, 1:].gather(1, selected.kept_indices)
            attention_mask = torch.cat((attention_mask[:, :1], of_tokens), dim=1)
        hidden_states = selected.states
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, **kwargs)
        hidden_states = self.layernorm(hidden_states)
        return LiteVivitModelOutput(
            last_hidden_state=hidden_states,
            token_scores=selected.token_scores,
            kept_indices=selected.kept_indices,
            realised_keep_ratio=realised_ratio(selected.kept_indices, selected.num_tokens),
            pooler_output=self.pooler(hidden_states) if self.pooler is not None else None,
        )


class LiteVivitForVideoClassification(TokenBudgetMixin, LiteVivitPreTrainedModel):
    """ViViT with a linear classifier on the class token. Its keys are those of `VivitForVideoClassification`, and `selector.*`."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.vivit = LiteVivitModel(config, add_pooling_layer=False, add_selector=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self._add_selector(config)
        self._add_budget_probe(config)
        self.post_init()

    @property
    def _backbone(self):
        return self.vivit

    @can_return_tuple
    @with_clip_budgets
    def forward(
        self,
        pixel_values=None,
        labels=None,
        interpolate_pos_encoding=False,
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
            interpolate_pos_encoding, scorer, selection_extras: see `LiteVivitModel.forward`.
            kwargs: `attention_mask`, `output_hidden_states`, `output_attentions`, and what attention functions take.
        """
        selected = self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras, interpolate_pos_encoding)
        kwargs["return_dict"] = True
        outputs = self.vivit(selected=selected, **kwargs)
        logits = self.classifier(outputs.last_hidden_state[:, 0])
        return self._classified(outputs, logits, labels)


__all__ = ["LiteVivitForVideoClassification", "LiteVivitModel", "LiteVivitPreTrainedModel"]
