"""How much each token counts for a class: Grad-CAM on one tensor of the host, in closed form where the head allows it.

With activations A (N tokens x K features) and the score y of the class before the softmax (equations 1 and 2 of LITE):

    alpha_k = 1/N sum_i dy/dA_ik        S_i = ReLU(sum_k alpha_k A_ik)        s_i = (S_i - min S) / (max S - min S)

**Closed form.** A head that takes the mean m of the last block's tokens, a layer norm (gain gamma) and a linear layer (row w of the
class) has the same gradient g / N at every token, be it at the block's output or at its MLP's output, which is added to it:

    g = 1/sigma (v - mean(v) - m^ mean(v m^)),   v = gamma * w,   m^ = (m - mean(m)) / sigma

so that one forward pass suffices and S_i = ReLU(g . A_i) / N. At the hidden activation of that MLP, A_i is what the output layer makes of
it without its bias. In earlier blocks, and for other heads, the gradient comes from autograd.

Which tensor is read decides what the scores mean. The last MLP's output (the paper's words) says what the last MLP *added*; the block's
output (the default) what a token *holds*. Check either with `token_faithfulness` before trusting it.
"""

from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from .oracle_hosts import OracleError, OracleHost, ZeroGradientError, evaluation_mode, oracle_host


ORACLE_TENSORS = ("block_out", "mlp_out", "mlp_hidden")
LABEL_SOURCES = ("true", "predicted", "given")
METHODS = ("auto", "closed_form", "autograd")


@dataclass(frozen=True)
class OracleSettings:
    """What an oracle reads.

    Attributes:
        oracle_block: index of the block; -1 is the last.
        oracle_tensor: `"block_out"` the residual stream after the block, `"mlp_out"` what its MLP adds, `"mlp_hidden"` the MLP's
            activation (after the non-linearity).
        label_source: the class that is explained: the clip's `"true"` one, the one `"predicted"` by the host, or one `"given"`.
        method: `"closed_form"`, `"autograd"`, or `"auto"`: the former where it holds.
    """

    oracle_block: int = -1
    oracle_tensor: str = "block_out"
    label_source: str = "true"
    method: str = "auto"

    def __post_init__(self):
        allowed = {"oracle_tensor": ORACLE_TENSORS, "label_source": LABEL_SOURCES, "method": METHODS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise OracleError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}.")

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TokenImportance:
    """What an oracle says about a batch.

    Attributes:
        scores: (B, N) fp32 (fp64 for a host in fp64), at least 0, tokens in the order (t, y, x).
        labels: (B,) int64 the classes explained, or (B, K) weights of several.
        logits: (B, K) of the host with all tokens.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    logits: torch.Tensor

    @property
    def targets(self) -> torch.Tensor:
        """(B, N) scores stretched to [0, 1] in each clip; 0 everywhere for a clip that `is_flat`."""
        return stretched(self.scores)

    @property
    def is_flat(self) -> torch.Tensor:
        """(B,) bool: all tokens score the same, mostly 0, so that the clip says nothing about which to keep."""
        return self.scores.amax(1) == self.scores.amin(1)


def stretched(scores: torch.Tensor) -> torch.Tensor:
    """(B, N) -> (B, N): least 0, greatest 1 in each row; a row of equal scores becomes 0 instead of 0 / 0."""
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (scores - low) / torch.where(spread > 0, spread, 1), 0)


def oracle_importance(model, pixel_values, labels=None, settings: OracleSettings | None = None) -> TokenImportance:
    """Grad-CAM of every token; see the module's docstring for the equations.

    Args:
        model: a stock or Lite VideoMAE, ViViT, TimeSformer or V-JEPA 2 classifier. It is run on all tokens, in evaluation mode.
        pixel_values: (B, T, C, H, W).
        labels: (B,) classes, or (B, K) with 1 for each of a clip's classes (their scores are averaged); not read with
            `label_source="predicted"`.
        settings: what to read; None is the default oracle.

    Returns:
        A `TokenImportance`.

    Raises:
        OracleError: the host is not known, has no such block, or labels are missing; `method="closed_form"` where it does not hold.
        ZeroGradientError: the head reads one token only, so that the patch tokens of the last block have no gradient.
    """
    settings = settings or OracleSettings()
    host = oracle_host(model)
    block = host.block_index(settings.oracle_block)
    is_last = block == len(host.blocks) - 1
    if is_last and host.pooling in ("cls", "first"):
        raise ZeroGradientError(
            f"the head of {type(model).__name__} reads one token of the last block, so that the gradient at its patch tokens is "
            "exactly 0: set oracle_block to -2 or an earlier block."
        )
    closed = is_last and host.has_mean_head
    if settings.method == "closed_form" and not closed:
        raise OracleError(
            "the closed form holds at the last block of a host with a mean-pool head (VideoMAE with use_mean_pooling); got "
            f"{type(model).__name__}, block {block} of {len(host.blocks)}: use method='autograd'."
        )
    compute = _closed_form if closed and settings.method != "autograd" else _by_autograd
    with evaluation_mode(model):
        return compute(host, pixel_values, labels, settings.label_source, block, settings.oracle_tensor)


def class_weights(logits: torch.Tensor, labels, label_source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels that are explained, and the weight (B, K) that each class has in the score.

    Args:
        logits: (B, K).
        labels: (B,), (B, K) or None.
        label_source: one of `LABEL_SOURCES`.

    Raises:
        OracleError: labels are needed and missing, or of another shape.
    """
    if label_source == "predicted":
        labels = logits.argmax(-1)
    if labels is None:
        raise OracleError(f"label_source={label_source!r} needs labels; pass them, or use label_source='predicted'.")
    labels = labels.to(logits.device)
    if labels.ndim == 1 and len(labels) == len(logits) and not labels.is_floating_point():
        return labels, F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    if labels.shape != logits.shape:
        raise OracleError(
            f"labels must be (B,) whole numbers or (B, K) weights for logits of shape {tuple(logits.shape)}, got "
            f"{tuple(labels.shape)} {labels.dtype}."
        )
    weights = labels.to(logits.dtype)
    return labels, weights / weights.sum(-1, keepdim=True).clamp_min(1)


# ---- closed form -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _closed_form(
    host: OracleHost, pixel_values, labels, label_source: str, block: int, tensor: str
) -> TokenImportance:
    seen = {}
    handles = [
        host.blocks[block].register_forward_hook(lambda _, __, output: seen.update(block_out=_first(output))),
        host.mlp_out[block].register_forward_hook(
            lambda _, inputs, output: seen.update(mlp_hidden=inputs[0], mlp_out=output)
        ),
    ]
    try:
        logits = host.run(pixel_values)
    finally:
        for handle in handles:
            handle.remove()
    labels, weights = class_weights(logits, labels, label_source)
    tokens = _precise(seen["block_out"])
    gradient = mean_head_gradient(host.model.fc_norm, host.model.classifier, tokens.mean(1), weights)
    activations = _precise(seen[tensor])
    if tensor == "mlp_hidden":
        gradient = gradient @ _precise(host.mlp_out[block].weight)
    scores = torch.einsum("bnk,bk->bn", activations, gradient).clamp_min(0) / tokens.shape[1]
    return TokenImportance(scores, labels, logits)


def mean_head_gradient(norm, classifier, mean: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gradient of `weights . classifier(norm(mean))` to the mean of the tokens: g of the module's docstring.

    Args:
        norm: a `LayerNorm`, or None for a head without one.
        classifier: a `Linear`.
        mean: (B, D).
        weights: (B, K).

    Returns:
        (B, D).
    """
    direction = weights.to(mean.dtype) @ classifier.weight.to(mean.dtype)
    if norm is None:
        return direction
    direction = direction * norm.weight.to(mean.dtype)
    variance, centre = torch.var_mean(mean, -1, correction=0, keepdim=True)
    deviation = (variance + norm.eps).sqrt()
    normed = (mean - centre) / deviation
    tilt = (direction * normed).mean(-1, keepdim=True)
    return (direction - direction.mean(-1, keepdim=True) - normed * tilt) / deviation


# ---- autograd --------------------------------------------------------------------------------------------------------------


def _by_autograd(
    host: OracleHost, pixel_values, labels, label_source: str, block: int, tensor: str
) -> TokenImportance:
    leaf, gradient, labels, logits = token_gradient(host, pixel_values, labels, label_source, block, tensor)
    alpha = gradient.mean(1)
    return TokenImportance(torch.einsum("bnk,bk->bn", leaf, alpha).clamp_min(0), labels, logits)


def token_gradient(host: OracleHost, pixel_values, labels, label_source: str, block: int, tensor: str):
    """Activations and the gradient of the class score to them.

    Args:
        host: the host, in evaluation mode.
        pixel_values: (B, T, C, H, W).
        labels, label_source: see `oracle_importance`.
        block: index from 0.
        tensor: one of `ORACLE_TENSORS`, or `"block_in"`.

    Returns:
        `(activations (B, N, K), gradient (B, N, K), labels, logits)`, patch tokens in the order (t, y, x).

    Raises:
        ZeroGradientError: the gradient is exactly 0 at every patch token of the batch.
    """
    leaves = []

    def cut(value):
        # what lies below needs no graph, and the leaf is what the rest of the network sees
        leaves.append(value.detach().requires_grad_(True))
        return leaves[-1]

    if tensor in ("block_in", "mlp_hidden"):
        module = host.blocks[block] if tensor == "block_in" else host.mlp_out[block]
        handle = module.register_forward_pre_hook(lambda _, inputs: (cut(inputs[0]), *inputs[1:]))
    else:
        module = host.blocks[block] if tensor == "block_out" else host.mlp_out[block]
        handle = module.register_forward_hook(
            lambda _, __, output: (cut(output[0]), *output[1:]) if isinstance(output, tuple) else cut(output)
        )
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = host.run(pixel_values.clone() if pixel_values.is_inference() else pixel_values)
            labels, weights = class_weights(logits.detach(), labels, label_source)
            # clips do not see each other: one backward pass serves them all
            (gradient,) = torch.autograd.grad((logits * weights).sum(), leaves[0])
    finally:
        handle.remove()
    num_frames = pixel_values.shape[1]
    gradient = _precise(host.patch_tokens(gradient, num_frames))
    if not gradient.any():
        raise ZeroGradientError(
            f"the gradient at {tensor} of block {block} is exactly 0 at all {gradient.shape[1]} patch tokens: the class score does "
            "not depend on them there; use an earlier oracle_block."
        )
    return _precise(host.patch_tokens(leaves[0].detach(), num_frames)), gradient, labels, logits.detach()


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()
