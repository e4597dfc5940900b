"""What a host answers when tokens are missing: kept subsets, leave-one-out, deletion and insertion curves.

Deleting one token and watching the label's log-probability fall is the plainest oracle there is, at N forward passes per clip; the cheap
oracles are judged by it. The gradient oracles of this file look at the embedding, before the first block.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ..models.token_selection import top_k_indices
from .oracle_hosts import OracleError, OracleHost, UncheckableOracleError, evaluation_mode, oracle_host
from .token_importance import OracleSettings, TokenImportance, class_weights, token_gradient


def logits_of_top(model, pixel_values, scores: torch.Tensor, num_kept: int) -> torch.Tensor:
    """Logits of a host that sees the highest scored tokens of each clip only.

    Args:
        model: a stock VideoMAE, or any Lite model (`select_tokens` makes one of the other hosts).
        pixel_values: (B, T, C, H, W).
        scores: (B, N) in the order (t, y, x); lower places win ties.
        num_kept: tokens kept, from 1 to N.

    Returns:
        (B, K).

    Raises:
        OracleError: the host cannot leave tokens out, or `num_kept` is out of range.
        UncheckableOracleError: it leaves out whole tubes of them only.
    """
    num_tokens = scores.shape[1]
    if not 1 <= num_kept <= num_tokens:
        raise OracleError(f"a host needs from 1 to {num_tokens} of its {num_tokens} tokens, got {num_kept}.")
    model_type = model.config.model_type
    if model_type == "videomae":
        if not model.config.use_mean_pooling:
            raise OracleError(
                "this VideoMAE reads its first token: open it as a Lite model, which never drops that one."
            )
        hidden = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        hidden.scatter_(1, top_k_indices(scores, num_kept), False)
        return model(pixel_values=pixel_values, bool_masked_pos=hidden).logits
    if not model_type.startswith("lite_"):
        raise OracleError(f"a {model_type} host keeps all of its tokens: wrap it with select_tokens(model) first.")
    if getattr(model.config, "attention_type", None) == "divided_space_time":
        raise UncheckableOracleError(
            "divided attention drops whole tubes, so that single tokens cannot be deleted: use a host with joint attention, or train "
            "without the check (gate=False)."
        )
    # half a token above: floor((k + .5) / N * N) is k whatever the rounding
    ratio = 1.0 if num_kept == num_tokens else (num_kept + 0.5) / num_tokens
    inputs = {model.main_input_name: pixel_values}
    return model(**inputs, keep_ratio=ratio, scorer="oracle", selection_extras={"oracle": scores}).logits


def label_log_probability(model, logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B,) log-probability of the classes with weight; the weighted mean of several.

    Args:
        model: its configuration says whether classes exclude each other.
        logits: (B, K).
        weights: (B, K) from `class_weights`.
    """
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    logits = logits.float()
    return ((F.logsigmoid(logits) if several else logits.log_softmax(-1)) * weights.float()).sum(-1)


@torch.no_grad()
def leave_one_out(model, pixel_values, weights: torch.Tensor, tokens: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """How much the label's log-probability falls when one token is deleted.

    Args:
        model, pixel_values: see `logits_of_top`.
        weights: (B, K) from `class_weights`.
        tokens: (B, M) indices of the tokens that are deleted, one after the other.
        num_tokens: N.

    Returns:
        (B, M), positive where the token speaks for the label.
    """
    with evaluation_mode(model):
        everything = torch.zeros(len(tokens), num_tokens, device=tokens.device)
        full = label_log_probability(model, logits_of_top(model, pixel_values, everything, num_tokens), weights)
        drops = []
        for column in tokens.T:
            scores = everything.scatter(1, column[:, None], -1.0)
            logits = logits_of_top(model, pixel_values, scores, num_tokens - 1)
            drops.append(full - label_log_probability(model, logits, weights))
    return torch.stack(drops, dim=1)


@torch.no_grad()
def deletion_and_insertion(model, pixel_values, scores, weights, shares: Sequence[float]) -> torch.Tensor:
    """Probability of the label while tokens are taken away, and while they are given, the highest scored first.

    Args:
        model, pixel_values: see `logits_of_top`.
        scores: (B, N); make them distinct (`with_ties_broken`), or low places are taken for important.
        weights: (B, K) from `class_weights`.
        shares: shares of the tokens that are deleted or shown, each between 0 and 1.

    Returns:
        (B, 2, len(shares)): deletion, insertion.
    """
    num_tokens = scores.shape[1]
    curves = []
    with evaluation_mode(model):
        for share in shares:
            count = min(max(round(share * num_tokens), 1), num_tokens - 1)
            kept = ((-scores, num_tokens - count), (scores, count))
            logits = [logits_of_top(model, pixel_values, order, k) for order, k in kept]
            curves.append(torch.stack([label_log_probability(model, one, weights).exp() for one in logits], dim=1))
    return torch.stack(curves, dim=2)


def with_ties_broken(scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """(B, N) ranks from 0, the highest for the highest score; equal scores, such as the zeros of a ReLU, in an order of chance.

    Args:
        scores: (B, N).
        generator: where that chance comes from, on the CPU.
    """
    shuffled = torch.rand(scores.shape, generator=generator).argsort(1).to(scores.device)
    order = shuffled.gather(1, scores.gather(1, shuffled).argsort(dim=1, stable=True))
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).float()


def rank_correlation(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation of each row, equal values sharing the mean of their ranks; 0 where a side is constant.

    Args:
        left, right: (B, M).

    Returns:
        (B,) fp64.
    """
    ranks = []
    for values in (left.double(), right.double()):
        below = (values[:, :, None] > values[:, None, :]).sum(-1)
        equal = (values[:, :, None] == values[:, None, :]).sum(-1)
        rank = below + (equal - 1) / 2.0
        ranks.append(rank.double() - rank.double().mean(1, keepdim=True))
    first, second = ranks
    spread = first.norm(dim=1) * second.norm(dim=1)
    return torch.where(spread > 0, (first * second).sum(1) / torch.where(spread > 0, spread, 1), 0)


# ---- oracles that need no block -----------------------------------------------------------------------------------------------


def deletion_importance(model, pixel_values, labels=None, label_source: str = "true") -> TokenImportance:
    """Leave-one-out as an oracle: the fall of the log-probability, at least 0. N + 1 forward passes.

    Args:
        model, pixel_values: see `logits_of_top`.
        labels, label_source: see `oracle_importance`.
    """
    host, logits = _run(model, pixel_values)
    labels, weights = class_weights(logits, labels, label_source)
    num_tokens = _num_tokens(host, pixel_values)
    tokens = torch.arange(num_tokens, device=logits.device).expand(len(logits), -1)
    drops = leave_one_out(model, pixel_values, weights, tokens, num_tokens)
    return TokenImportance(drops.clamp_min(0), labels, logits)


def gradient_times_input(model, pixel_values, labels=None, label_source: str = "true") -> TokenImportance:
    """ReLU(sum_k dy/dz_ik z_ik) at the embedding z: the first-order estimate of what zeroing a token costs.

    Args:
        model, pixel_values, labels, label_source: see `oracle_importance`.
    """
    embedding, gradient, labels, logits = _at_embedding(model, pixel_values, labels, label_source)
    return TokenImportance((embedding * gradient).sum(-1).clamp_min(0), labels, logits)


def gradient_norm(model, pixel_values, labels=None, label_source: str = "true") -> TokenImportance:
    """||dy/dz_i|| at the embedding z: how sensitive the class score is to a token, whichever way.

    Args:
        model, pixel_values, labels, label_source: see `oracle_importance`.
    """
    _, gradient, labels, logits = _at_embedding(model, pixel_values, labels, label_source)
    return TokenImportance(gradient.norm(dim=-1), labels, logits)


def _at_embedding(model, pixel_values, labels, label_source: str):
    settings = OracleSettings(label_source=label_source)
    with evaluation_mode(model):
        return token_gradient(oracle_host(model), pixel_values, labels, settings.label_source, 0, "block_in")


@torch.no_grad()
def _run(model, pixel_values) -> tuple[OracleHost, torch.Tensor]:
    host = oracle_host(model)
    with evaluation_mode(model):
        return host, host.run(pixel_values)


def _num_tokens(host: OracleHost, pixel_values) -> int:
    """Tokens of a clip, seen where they enter the first block."""
    seen = []
    handle = host.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    try:
        with torch.no_grad(), evaluation_mode(host.model):
            host.run(pixel_values[:1])
    finally:
        handle.remove()
    return seen[0] - host.num_prefix_tokens
