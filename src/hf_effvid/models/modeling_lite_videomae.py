# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""VideoMAE (https://huggingface.co/papers/2203.12602) that reads a share of its tokens, chosen by LITE or another score.

The step sits where LITE (https://huggingface.co/papers/2411.13626) has it: after patch and position embedding, before the first block.
Kept tokens know their place, so nothing else changes, and nothing needs retraining: the blocks attend over what is left, and the head
averages it.
"""

import torch
from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.videomae.modeling_videomae import (
    VideoMAEEmbeddings,
    VideoMAEEncoder,
    VideoMAEPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_lite_videomae import LiteVideoMAEConfig
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


# On disk VideoMAE calls two biases q_bias and v_bias, and transformers finds the renaming by `model_type`: without this line they
# would stay at zero, with no more than a warning.
register_checkpoint_conversion_mapping("lite_videomae", get_checkpoint_conversion_mapping("videomae"), overwrite=True)


class LiteVideoMAEPreTrainedModel(TokenSelectionMixin, VideoMAEPreTrainedModel):
    """What both models share: the step from pixels to the kept tokens."""

    config: LiteVideoMAEConfig
    auto_classes = {
        "AutoModel": "LiteVideoMAEModel",
        "AutoModelForVideoClassification": "LiteVideoMAEForVideoClassification",
    }

    def _clip_patches(self, pixel_values):
        """A clip as the patch embedding reads it.

        Raises:
            TokenSelectionError: the clips are not of the size that the model was made for.
        """
        embeddings = self._backbone.embeddings
        patches = embeddings.patch_embeddings
        expected = (self.config.num_channels, *patches.image_size)
        if pixel_values.ndim != 5 or tuple(pixel_values.shape[2:]) != expected:
            raise TokenSelectionError(
                f"{type(self).__name__} expects pixel_values of shape (batch, frames, {expected[0]}, {expected[1]}, {expected[2]}), "
                f"got {tuple(pixel_values.shape)}."
            )
        weight = patches.projection.weight
        positions = embeddings.position_embeddings.detach().to(weight.device, weight.dtype)
        return ClipPatches(pixel_values.to(weight.dtype), patches.projection, positions)

    def _select_tokens(self, pixel_values, keep_ratio=None, scorer=None, selection_extras=None):
        """The kept tokens with positions, as `SelectedTokens`."""
        if (self.config.keep_ratio if keep_ratio is None else keep_ratio) < 1:
            check_one_clip(self.config, pixel_values.shape[1])
        patches = self._clip_patches(pixel_values)
        patches.embedded = (selection_extras or {}).get("patch_embeddings")
        num_tokens = patches.grid.num_tokens
        k, scorer = self._selection_plan(num_tokens, keep_ratio, scorer)
        if k == num_tokens:
            states = self._backbone.embeddings(patches.pixel_values, None)
            return SelectedTokens(states, keep_all(states.shape[0], num_tokens, states.device), None, num_tokens)
        extras = dict(selection_extras or {})
        if scorer == "attention" and extras.get("attention") is None:
            extras["attention"] = self._received_attention(patches.pixel_values)
        tubelet_size, *patch_size = patches.patch

        def select(bare, placed):
            return self._select(
                k,
                scorer,
                patches.grid,
                pixel_values,
                tubelet_size,
                patch_size,
                bare,
                placed,
                extras,
                # without mean pooling the head reads the first token, so that one has to stay
                always_kept=() if self.config.use_mean_pooling else (0,),
            )

        return SelectedTokens(*select_and_embed(patches, scorer, select), num_tokens)

    @torch.no_grad()
    def _received_attention(self, pixel_values):
        """Attention (B, N) that every token receives in the last block of a full pass, mean over heads and queries."""
        backbone = self._backbone
        states = backbone.embeddings(pixel_values, None)
        for layer in backbone.encoder.layer[:-1]:
            states = layer(states)
        last = backbone.encoder.layer[-1]
        attention, states = last.attention.attention, last.layernorm_before(states)
        heads = (attention.num_attention_heads, attention.attention_head_size)
        queries, keys = attention.query(states).unflatten(-1, heads), attention.key(states).unflatten(-1, heads)
        return received_attention(queries, keys, attention.scaling)


class LiteVideoMAEModel(LiteVideoMAEPreTrainedModel):
    """VideoMAE without a head, on the kept tokens. Its keys are those of `VideoMAEModel`, and `selector.*`."""

    def __init__(self, config, add_selector=True):
        super().__init__(config)
        self.embeddings = VideoMAEEmbeddings(config)
        self.encoder = VideoMAEEncoder(config)
        self.layernorm = (
            None if config.use_mean_pooling else nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        )
        if add_selector:
            self._add_selector(config)
        self.post_init()

    @property
    def _backbone(self):
        return self

    def get_input_embeddings(self):
        return self.embeddings.patch_embeddings

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values=None, keep_ratio=None, scorer=None, selection_extras=None, selected=None, **kwargs):
        """Encodes the kept tokens of clips.

        Args:
            pixel_values: (B, T, C, H, W).
            keep_ratio, scorer: for this call; None takes the configuration's.
            selection_extras: what some scorers have to be given, see `ScorerInputs.extras`; also `seed` and `generator`.
            selected: tokens that were chosen already, instead of `pixel_values`.

        Raises:
            TokenSelectionError: clips of another size than the positions, or a scorer that misses what it needs.
        """
        if selected is None:
            selected = self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras)
        hidden_states = self.encoder(selected.states).last_hidden_state
        if self.layernorm is not None:
            hidden_states = self.layernorm(hidden_states)
        return TokenSelectionModelOutput(
            last_hidden_state=hidden_states,
            token_scores=selected.token_scores,
            kept_indices=selected.kept_indices,
            realised_keep_ratio=realised_ratio(selected.kept_indices, selected.num_tokens),
        )


class LiteVideoMAEForVideoClassification(TokenBudgetMixin, LiteVideoMAEPreTrainedModel):
    """VideoMAE with a linear classifier on the mean of the kept tokens.

    Its keys are those of `VideoMAEForVideoClassification`, and `selector.*`: it opens checkpoints of either, and what it saves opens
    in either. With `use_mean_pooling=False` the classifier reads the first token, as in the stock class; that token is then always
    kept.
    """

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.videomae = LiteVideoMAEModel(config, add_selector=False)
        self.fc_norm = nn.LayerNorm(config.hidden_size) if config.use_mean_pooling else None
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self._add_selector(config)
        self._add_budget_probe(config)
        self.post_init()

    @property
    def _backbone(self):
        return self.videomae

    def get_input_embeddings(self):
        return self.videomae.get_input_embeddings()

    @can_return_tuple
    @with_clip_budgets
    def forward(self, pixel_values=None, labels=None, keep_ratio=None, scorer=None, selection_extras=None, **kwargs):
        """Classifies clips by their kept tokens.

        Args:
            pixel_values: (B, T, C, H, W).
            labels: (B,) class indices.
            keep_ratio: for this call: a number, or one per clip; None takes `config.budget_policy`, or `config.keep_ratio`.
            scorer, selection_extras: see `LiteVideoMAEModel.forward`.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        selected = self._select_tokens(pixel_values, keep_ratio, scorer, selection_extras)
        kwargs["return_dict"] = True
        outputs = self.videomae(selected=selected, **kwargs)
        if self.fc_norm is not None:
            pooled = self.fc_norm(outputs.last_hidden_state.mean(1))
        else:
            pooled = outputs.last_hidden_state[:, 0]
        logits = self.classifier(pooled)
        return self._classified(outputs, logits, labels)


__all__ = ["LiteVideoMAEForVideoClassification", "LiteVideoMAEModel", "LiteVideoMAEPreTrainedModel"]
