# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""What every Lite host shares: the fields of its configuration, its outputs, and the step that chooses tokens.

A host is a stock video transformer of transformers with one more module, `selector`, and a `forward` that drops tokens between the
embedding and the first block. Its other keys are those of the stock class, so that a checkpoint opens both ways.
"""

from dataclasses import dataclass

import torch
from huggingface_hub.dataclasses import strict, validated_field
from transformers import initialization as init
from transformers.utils import ModelOutput, logging

from .opening_classes import OpeningClassesMixin
from .token_budget import BudgetPolicy
from .token_selection import (
    SCORERS,
    ScorerInputs,
    TokenGrid,
    TokenSelectionError,
    needs_embeddings,
    num_kept_tokens,
    run_length_kept,
    score_tokens,
    top_k_indices,
)
from .token_selector import SELECTOR_KINDS, TokenSelector


logger = logging.get_logger(__name__)


# --- configuration ---


def _share(value):
    if not 0.0 < value <= 1.0:
        raise ValueError(f"expected a share of the tokens above 0 and at most 1, got {value}")


def _scorer(value):
    if value not in SCORERS:
        raise ValueError(f"expected one of {', '.join(sorted(SCORERS))}, got {value!r}")


def _kind(value):
    if value not in SELECTOR_KINDS:
        raise ValueError(f"expected one of {', '.join(SELECTOR_KINDS)}, got {value!r}")


def _policy(value):
    if value is not None:
        BudgetPolicy(**value)


def _widths(value):
    if len(value) == 0 or any(width < 1 for width in value):
        raise ValueError(f"expected one width above 0 or more, got {list(value)}")


@strict
@dataclass(kw_only=True, repr=False)
class TokenSelectionConfigMixin:
    """Fields of a Lite host's configuration. Comes before the stock configuration among the bases.

    Args:
        keep_ratio: P, the share of tokens that reaches the blocks: floor(P N) of them. At 1 nothing is chosen, and the model is the
            stock model bit for bit.
        scorer: name of the score that decides, see `token_selection.py`.
        selector_hidden_sizes: widths of the learned selector's hidden layers.
        selector_kind: `"mlp"`, `"deep"`, `"transformer"` or `"global"`, see `TokenSelector`.
        selector_trained: set by whoever trains the selector; without, `scorer="lite"` warns that it chooses by untrained weights.
        position_prior: a score per place (N,) for `scorer="position_prior"`.
        selection_seed: of the scorers that draw. Together with the pixels of a clip it decides which tokens `"random"` keeps.
        budget_policy: fields of a `BudgetPolicy` (LITE++), which gives every clip a budget of its own.
    """

    keep_ratio: float | int = validated_field(_share, default=1.0)
    scorer: str = validated_field(_scorer, default="lite")
    selector_hidden_sizes: list[int] | tuple[int, ...] = validated_field(_widths, default=(256, 128))
    selector_kind: str = validated_field(_kind, default="mlp")
    selector_trained: bool = False
    position_prior: list[float] | tuple[float, ...] | None = None
    selection_seed: int = 0
    budget_policy: dict | None = validated_field(_policy, default=None)

    # transformers' Trainer would gather them as if they were predictions
    keys_to_ignore_at_inference = (
        "token_scores",
        "kept_indices",
        "realised_keep_ratio",
        "hidden_states",
        "attentions",
    )

    @classmethod
    def stock_model_type(cls):
        """`model_type` of the host without selection."""
        names = [vars(base).get("model_type") for base in cls.__mro__]
        return next(name for name in names if name and name != cls.model_type)

    @classmethod
    def get_config_dict(cls, *args, **kwargs):
        config_dict, kwargs = super().get_config_dict(*args, **kwargs)
        return drop_stock_model_type(config_dict, cls.stock_model_type(), cls.model_type), kwargs

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        config_dict = drop_stock_model_type(config_dict, cls.stock_model_type(), cls.model_type)
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        super().__post_init__(**drop_stock_model_type(kwargs, self.stock_model_type(), type(self).model_type))


def drop_stock_model_type(config_dict, stock_type, lite_type):
    """The dictionary of a stock or a Lite configuration, without its `model_type`.

    transformers converts keys by the `model_type` that a configuration carries: one that came in with a stock folder would stay
    on the Lite configuration, and name conversions that are not its own.

    Raises:
        TokenSelectionError: it is of another architecture.
    """
    given = config_dict.get("model_type", lite_type)
    if given not in (stock_type, lite_type):
        raise TokenSelectionError(
            f"{lite_type} opens checkpoints of {stock_type} and {lite_type}, got one of {given!r}."
        )
    return {name: value for name, value in config_dict.items() if name != "model_type"}


# --- outputs ---


@dataclass
class TokenSelectionModelOutput(ModelOutput):
    """Output of a Lite base model.

    Args:
        last_hidden_state: (B, k, D), of the kept tokens (and of a class token before them where the host has one).
        hidden_states: with `output_hidden_states=True`: embeddings of the kept tokens, and the output of every block.
        attentions: with `output_attentions=True`: (B, heads, k, k) per block.
        token_scores: (B, N) in single precision; None when all tokens were kept.
        kept_indices: (B, k), ascending places in the order (t, y, x).
        realised_keep_ratio: (B,), k / N.
    """

    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    token_scores: torch.FloatTensor | None = None
    kept_indices: torch.LongTensor | None = None
    realised_keep_ratio: torch.FloatTensor | None = None


@dataclass
class TokenSelectionClassifierOutput(ModelOutput):
    """Output of a Lite classifier.

    Args:
        loss: scalar, when `labels` were given.
        logits: (B, num_labels), before softmax.
        hidden_states, attentions, token_scores, kept_indices, realised_keep_ratio: see `TokenSelectionModelOutput`.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    token_scores: torch.FloatTensor | None = None
    kept_indices: torch.LongTensor | None = None
    realised_keep_ratio: torch.FloatTensor | None = None


# --- model ---


class TokenSelectionMixin(OpeningClassesMixin):
    """The choosing part of a Lite model. Comes before the stock class among the bases; `__init__` calls `_add_selector`.

    A host defines `_clip_patches(pixel_values) -> ClipPatches`. Its `forward` asks `_selection_plan` what to keep, computes the
    embeddings that the scorer needs, and asks `_select` for the places.
    """

    # the loss is a mean over the batch; Trainer must not take it for a sum over items
    accepts_loss_kwargs = False

    def _add_selector(self, config):
        """Adds `self.selector`. Its weights are frozen: no loss on logits reaches them; training the selector thaws them."""
        self.selector = TokenSelector(config.hidden_size, tuple(config.selector_hidden_sizes), config.selector_kind)
        self.selector.requires_grad_(False)

    def _init_weights(self, module):
        super()._init_weights(module)
        if getattr(module, "drawn_by_fan_in", False):
            init.normal_(module.weight, mean=0.0, std=module.weight[0].numel() ** -0.5)

    def _adjust_missing_and_unexpected_keys(self, loading_info):
        """A stock checkpoint has no selector: that is expected, and said when an untrained selector is used."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        for name in ("selector", "budget_probe"):
            # what was read from a file requires a gradient, whatever the constructor said
            if getattr(self, name, None) is not None:
                getattr(self, name).requires_grad_(False)
        if not self.config.selector_trained:
            loading_info.missing_keys = {key for key in loading_info.missing_keys if not key.startswith("selector.")}

    def save_pretrained(self, save_directory, *args, save_original_format=False, **kwargs):
        """Saves as transformers does, under the keys of the modules, and names every class that can open the folder.

        The original format of some hosts renames keys by `model_type`, which the stock class could not undo for a Lite checkpoint.
        """
        super().save_pretrained(save_directory, *args, save_original_format=save_original_format, **kwargs)

    def _classified(self, outputs, logits, labels):
        """Output of a Lite classifier, from that of its base model, the logits (B, K) and labels (or None)."""
        return TokenSelectionClassifierOutput(
            loss=self.loss_function(labels, logits, self.config) if labels is not None else None,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            token_scores=outputs.token_scores,
            kept_indices=outputs.kept_indices,
            realised_keep_ratio=outputs.realised_keep_ratio,
        )

    def embed_patches(self, pixel_values):
        """Patch embeddings (B, N, D) of clips (B, T, C, H, W), before positions, in the order (t, y, x)."""
        return self._clip_patches(pixel_values).embed()

    def token_scores(self, pixel_values, scorer=None, selection_extras=None):
        """Scores (B, N) of all tokens, without running a block. Those of `"lite"` are logits that a loss can go through.

        Args:
            pixel_values: (B, T, C, H, W).
            scorer: name; None takes the configuration's.
            selection_extras: see `_select`.
        """
        scorer = self.config.scorer if scorer is None else scorer
        patches = self._clip_patches(pixel_values)
        bare = placed = None
        if needs_embeddings(scorer):
            bare = patches.embed()
            placed = bare if patches.positions is None else bare + patches.positions
        tubelet_size, *patch_size = patches.patch
        return score_tokens(
            scorer,
            self._scorer_inputs(patches.grid, pixel_values, tubelet_size, patch_size, bare, placed, selection_extras),
        )

    def run_length_ratios(self, pixel_values, threshold=0.1):
        """Keep ratios, one per clip, that let `scorer="run_length"` keep what RLT would: all that changed by more than `threshold`.

        Args:
            pixel_values: (B, T, C, H, W).
            threshold: in units of `pixel_values`, see `run_length_kept`.

        Returns:
            A list for `keep_ratio`.
        """
        patches = self._clip_patches(pixel_values)
        tubelet_size, *patch_size = patches.patch
        inputs = self._scorer_inputs(patches.grid, pixel_values, tubelet_size, patch_size, None, None, None)
        num_tokens = patches.grid.num_tokens
        # half a token more, which the floor takes off again: k / N as a decimal may be just below the fraction
        return [min(1.0, (count + 0.5) / num_tokens) for count in run_length_kept(inputs, threshold).tolist()]

    def _selection_plan(self, num_tokens, keep_ratio=None, scorer=None):
        """What a call keeps: (k, scorer), with the configuration's values where None is given; k = N bypasses the choice."""
        keep_ratio = self.config.keep_ratio if keep_ratio is None else keep_ratio
        scorer = self.config.scorer if scorer is None else scorer
        k = num_kept_tokens(num_tokens, keep_ratio)
        needs_embeddings(scorer)  # says so when there is no such scorer
        untrained = scorer == "lite" and k < num_tokens and not self.config.selector_trained and not self.training
        if untrained and not torch.compiler.is_compiling():
            logger.warning_once(
                'scorer="lite" chooses with a selector that was not trained, that is, arbitrarily. Train it '
                '(`effvid select train`), or pass scorer="random" or another scorer without weights.'
            )
        return k, scorer

    def _select(
        self,
        k,
        scorer,
        grid,
        pixel_values,
        tubelet_size,
        patch_size,
        patch_embeddings=None,
        embeddings=None,
        selection_extras=None,
        always_kept=(),
    ):
        """Chooses k tokens per clip.

        Args:
            k, scorer: from `_selection_plan`.
            grid: `TokenGrid` of the tokens that can be chosen (a class token is not one of them).
            pixel_values, tubelet_size, patch_size, patch_embeddings, embeddings: see `ScorerInputs`.
            selection_extras: its `extras`; `seed` and `generator` in it set those fields for this call.
            always_kept: places that count as the best whatever their score.

        Returns:
            Kept places (B, k), ascending, and scores (B, N).
        """
        inputs = self._scorer_inputs(
            grid, pixel_values, tubelet_size, patch_size, patch_embeddings, embeddings, selection_extras
        )
        token_scores = ranked = score_tokens(scorer, inputs)
        if always_kept:
            places = torch.tensor(always_kept, device=token_scores.device)
            ranked = token_scores.detach().index_fill(1, places, torch.inf)
        return top_k_indices(ranked, k), token_scores

    def _scorer_inputs(
        self, grid, pixel_values, tubelet_size, patch_size, patch_embeddings, embeddings, selection_extras
    ):
        extras = dict(selection_extras or {})
        if self.config.position_prior is not None:
            extras.setdefault("position_prior", self.config.position_prior)
        return ScorerInputs(
            grid=TokenGrid(*grid),
            pixel_values=pixel_values,
            tubelet_size=tubelet_size,
            patch_size=tuple(patch_size),
            patch_embeddings=patch_embeddings,
            embeddings=embeddings,
            selector=self.selector,
            seed=extras.pop("seed", None if self.training else self.config.selection_seed),
            generator=extras.pop("generator", None),
            extras=extras,
        )


def keep_all(batch_size, num_tokens, device):
    """Places (B, N) of all tokens, for outputs of a call that chose nothing."""
    return torch.arange(num_tokens, device=device).expand(batch_size, -1)


def realised_ratio(kept_indices, num_tokens):
    """k / N of every clip (B,)."""
    batch_size, k = kept_indices.shape
    return torch.full((batch_size,), k / num_tokens, device=kept_indices.device)
