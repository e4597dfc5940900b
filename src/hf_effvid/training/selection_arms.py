"""The arms of a study of token selection: every way to spend fewer tokens, behind one interface.

An arm gets a batch of clips once (`prepare`) and gives logits at any budget. Scores do not depend on the budget, so they are computed
once per clip; the host then keeps the highest of them, whoever made them.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ..compression import OracleSettings, oracle_importance
from ..evaluation.selection_report import FULL, LITE, ORACLE_PREDICTED, ORACLE_TRUE, ORACLE_WRONG, RANDOM
from ..host_processing import clip_shape
from ..models.kept_patches import ClipPatches
from ..models.merging_videomae import MERGING_METHODS, merge_tokens
from ..models.motion_vectors import MotionVectorsUnavailable, motion_vector_tokens
from ..models.token_merging_cost import r_for_macs
from ..models.token_selection import num_kept_tokens


REVERSED = "lite, lowest first"
FREE_SCORERS = (
    "stratified",
    "grid",
    "position_prior",
    "embedding_norm",
    "embedding_difference",
    "frame_difference",
    "run_length",
    "saliency",
)
"""Scorers that need no label, no training and no second reading of the file."""

MERGING_NAMES = dict(zip(MERGING_METHODS, ("ToMe", "STA", "vid-TLDR"), strict=True))


class ArmUnavailable(ValueError):
    """This arm cannot be had on this host or these videos; the message says why."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips as the arms see them.

    Attributes:
        pixel_values: (B, T, C, H, W), on the device of the host.
        labels: (B,) right classes.
        wrong_labels: (B,) other classes, one for each clip.
        videos: what each clip was read from.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor
    wrong_labels: torch.Tensor
    videos: list


@dataclass
class Arm:
    """One way to spend fewer tokens.

    Attributes:
        name: in tables.
        kind: one of `selection_report.KINDS`.
        draws: how often it is repeated with other random numbers.
        settings: what decides its numbers beside the host, for the log of the study.
    """

    name: str
    kind: str
    draws: int = 1
    settings: dict = field(default_factory=dict)

    def prepare(self, batch: ClipBatch, draw: int):
        """What does not depend on the budget."""
        return batch

    def logits(self, prepared, keep_ratio: float) -> torch.Tensor:
        """(B, K) at a budget, from what `prepare` gave."""
        raise NotImplementedError

    def reaches(self, keep_ratio: float) -> bool:
        """Whether the arm can be had at this budget."""
        return keep_ratio < 1.0

    def num_tokens(self, keep_ratio: float) -> int | None:
        """Tokens of a clip that reach the first block; None where clips differ."""
        return None

    def model_at(self, keep_ratio: float) -> nn.Module:
        """`pixel_values -> logits` as a user would run it, for counting and timing."""
        raise NotImplementedError

    def clip_at(self, pixel_values: torch.Tensor, keep_ratio: float) -> torch.Tensor:
        """What that model is given of clips (B, T, C, H, W)."""
        return pixel_values

    def known_gmacs(self, keep_ratio: float) -> float | None:
        """Mean multiply-accumulates of a clip where counting those of one clip says nothing; None to count."""
        return None

    @property
    def is_timed(self) -> bool:
        """Whether its milliseconds mean anything: not where the model leaves out what finds the tokens."""
        return True


class OneRun(nn.Module):
    """A model behind the signature that the counter of multiply-accumulates calls."""

    def __init__(self, model, **options):
        super().__init__()
        self.model, self.options = model, options

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values, **self.options).logits


# ---- selection -------------------------------------------------------------------------------------------------------------


class FullArm(Arm):
    """All tokens."""

    def __init__(self, host):
        super().__init__(FULL, "all")
        self.host = host

    def logits(self, prepared, keep_ratio):
        return self.model_at(keep_ratio)(prepared.pixel_values)

    def reaches(self, keep_ratio):
        return keep_ratio == 1.0

    def num_tokens(self, keep_ratio):
        return num_tokens_of(self.host)

    def model_at(self, keep_ratio):
        return OneRun(self.host, keep_ratio=1.0)


@dataclass
class ScoreArm(Arm):
    """Keeps the tokens with the highest scores.

    Attributes:
        host: the Lite model.
        score: (batch, draw) -> (B, N).
        scorer: name under which the host itself computes the score; None where it is given to it.
    """

    host: nn.Module = None
    score: Callable = None
    scorer: str | None = None

    def prepare(self, batch, draw):
        return batch, self.score(batch, draw)

    def logits(self, prepared, keep_ratio):
        batch, scores = prepared
        return self.host(
            pixel_values=batch.pixel_values,
            keep_ratio=keep_ratio,
            scorer="oracle",
            selection_extras={"oracle": scores},
        ).logits

    def num_tokens(self, keep_ratio):
        return num_kept_tokens(num_tokens_of(self.host), keep_ratio)

    def model_at(self, keep_ratio):
        # where the host does not compute the score, the kept tokens alone are counted
        return OneRun(self.host, keep_ratio=keep_ratio, scorer=self.scorer or "grid")

    @property
    def is_timed(self):
        return self.scorer is not None


def score_arms(host, draws: int, position_prior=None) -> list[Arm]:
    """Random tokens, and every score that is free.

    Args:
        host: the Lite model.
        draws: repetitions of `random`.
        position_prior: (N,) values of places; without them the arm of that name is left out.
    """

    def named(scorer, extras=None):
        return lambda batch, draw: host.token_scores(batch.pixel_values, scorer, {**(extras or {}), "seed": draw})

    arms = [ScoreArm(RANDOM, "score", draws, host=host, score=named("random"), scorer="random")]
    for scorer in FREE_SCORERS:
        if scorer == "position_prior":
            if position_prior is None:
                continue
            prior = named(scorer, {"position_prior": position_prior})
            # a table of places costs what the lattice costs: nothing
            arms.append(ScoreArm(scorer, "score", host=host, score=prior, settings={"prior": _digest(position_prior)}))
            continue
        arms.append(ScoreArm(scorer, "score", host=host, score=named(scorer), scorer=scorer))
    return arms


def selector_arms(host, selectors: dict[str, nn.Module]) -> list[Arm]:
    """One arm per trained selector, and the first of them upside down: what it likes least, first.

    Args:
        host: the Lite model.
        selectors: name -> trained `TokenSelector`; the first is LITE itself.
    """
    arms = []
    for name, selector in selectors.items():
        model = sharing_weights(host)
        model.selector = selector.requires_grad_(False)
        model.config.selector_trained = True
        settings = {"selector": _digest(*selector.state_dict().values())}

        def score(batch, draw, model=model):
            return model.token_scores(batch.pixel_values, "lite")

        arms.append(ScoreArm(name, "score", host=model, score=score, scorer="lite", settings=settings))
        if name == LITE:
            arms.append(
                ScoreArm(
                    REVERSED,
                    "score",
                    host=model,
                    score=lambda batch, draw, score=score: -score(batch, draw),
                    scorer="lite",
                    settings=settings,
                )
            )
    return arms


def oracle_arms(host, settings: OracleSettings) -> list[Arm]:
    """The oracle with the right label, with the host's own answer, and with a wrong label."""

    def score(source, labels_of):
        chosen = replace(settings, label_source=source)

        def scores(batch, draw):
            found = oracle_importance(host, batch.pixel_values, labels_of(batch), chosen).scores.float()
            return without_ties(found, host.token_scores(batch.pixel_values, "random", {"seed": 0}))

        return scores

    sources = {
        ORACLE_TRUE: ("given", lambda batch: batch.labels),
        ORACLE_PREDICTED: ("predicted", lambda batch: None),
        ORACLE_WRONG: ("given", lambda batch: batch.wrong_labels),
    }
    told = {"oracle": {key: value for key, value in settings.to_dict().items() if key != "label_source"}}
    return [
        ScoreArm(name, "analysis", host=host, score=score(*source), settings=told) for name, source in sources.items()
    ]


def without_ties(scores: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Oracle scores (B, N), at least 0, whose zeros are in an order of chance: in their own order the first frames would win.

    Args:
        scores: of the oracle; a ReLU makes about half of them 0.
        drawn: (B, N) in [0, 1).
    """
    return torch.where(scores > 0, scores, drawn - 1)


def attention_arm(host) -> Arm:
    """Attention received in the last block: the paper's baseline, which needs the whole pass that it is meant to save."""
    return ScoreArm(
        "attention", "analysis", host=host, score=lambda batch, draw: _attention_scores(host, batch.pixel_values)
    )


def _attention_scores(host, pixel_values):
    # a Lite model computes the map when it chooses by it; the map does not depend on how many are chosen
    tokens = num_tokens_of(host)
    return host(pixel_values=pixel_values, keep_ratio=(tokens - 0.5) / tokens, scorer="attention").token_scores


def motion_vector_arm(host, processor, first_video) -> Arm:
    """The codec's motion vectors, read from the files a second time.

    Args:
        host: the Lite model.
        processor: the processor of the study.
        first_video: one of the videos, which is tried.

    Raises:
        ArmUnavailable: the codec has no motion vectors, or the processor does not say which frames it takes.
    """
    tubelet, *patch = clip_patch(host).patch
    options = {"tubelet_size": tubelet, "patch_size": tuple(patch), "multi_view": False}
    try:
        motion_vector_tokens(first_video, processor, **options)
    except (MotionVectorsUnavailable, TypeError) as error:
        # without the path, which is nobody else's business
        raise ArmUnavailable(getattr(error, "found", str(error))) from error

    def score(batch, draw):
        # single videos of another codec get the difference of frames, and a warning says so
        found = [motion_vector_tokens(v, processor, fallback="frame_difference", **options) for v in batch.videos]
        return torch.cat(found).to(batch.pixel_values.device)

    return ScoreArm("motion_vectors", "score", host=host, score=score)


# ---- merging ---------------------------------------------------------------------------------------------------------------


@dataclass
class MergingArm(Arm):
    """Merges or drops tokens from block to block, as many as cost what the selection costs.

    Attributes:
        models: keep_ratio -> a model that merges.
    """

    models: dict[float, nn.Module] = field(default_factory=dict)

    def logits(self, prepared, keep_ratio):
        return self.models[keep_ratio](pixel_values=prepared.pixel_values, keep_ratio=1.0).logits

    def reaches(self, keep_ratio):
        return keep_ratio in self.models

    def model_at(self, keep_ratio):
        return OneRun(self.models[keep_ratio], keep_ratio=1.0)


def merging_arm(host, method: str, budgets: dict[float, float]) -> MergingArm:
    """ToMe, STA or vid-TLDR on a VideoMAE.

    Args:
        host: a Lite VideoMAE.
        method: one of `MERGING_METHODS`.
        budgets: keep_ratio -> multiply-accumulates of the selection, in units of 1e9.

    Returns:
        The arm, whose `settings` hold the r of each budget; budgets that the method does not reach are missing there.

    Raises:
        ArmUnavailable: another host, or no budget is within the method's reach.
    """
    models, chosen, why = {}, {}, ""
    for ratio, gmacs in budgets.items():
        try:
            r = r_for_macs(host.config, method, gmacs)
            models[ratio] = merge_tokens(sharing_weights(host), method, r)
            chosen[f"{ratio:g}"] = r
        except (ValueError, AttributeError) as error:  # a configuration without VideoMAE's names
            why = str(error)
    if not models:
        raise ArmUnavailable(why)
    return MergingArm(MERGING_NAMES[method], "merging", settings={"r": chosen}, models=models)


# ---- what the arms share ---------------------------------------------------------------------------------------------------


def sharing_weights(model: nn.Module) -> nn.Module:
    """A copy of a model that can be rebuilt and configured on its own, on the same parameters."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def clip_patch(host) -> ClipPatches:
    """What a Lite model makes of a clip of its own size: `.grid` of its tokens, `.patch` of one of them."""
    return host._clip_patches(torch.zeros(1, *clip_shape(host.config), device="meta"))


def num_tokens_of(host) -> int:
    """N of such a clip."""
    return clip_patch(host).grid.num_tokens


def _digest(*tensors) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(torch.as_tensor(tensor).detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()[:16]
