# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Which tokens of a clip to keep: one score per token, and the top k of them. Pure tensors, no weights.

LITE (https://huggingface.co/papers/2411.13626) learns the score; the others here are what it must beat. Every scorer is one
function of a `ScorerInputs`, registered under a name. None of them needs a label, except `oracle`, which is given its scores.

Shapes: B clips, T frames of C x H x W pixels, a grid of t x h x w tokens, N = t * h * w of them in the order (t, y, x), D channels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


class TokenSelectionError(ValueError):
    """The tokens cannot be chosen as asked; the message says what is missing."""


class TokenGrid(NamedTuple):
    """Number of tokens along time, height and width."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self):
        """N, all of them."""
        return self.frames * self.height * self.width


@dataclass
class ScorerInputs:
    """What a scorer may look at.

    Attributes:
        grid: the tokens of a clip.
        pixel_values: (B, T, C, H, W), as the model gets them.
        tubelet_size: frames per token.
        patch_size: (height, width) in pixels per token.
        patch_embeddings: (B, N, D) before positions are added; None for a scorer registered without `needs_embeddings`.
        embeddings: (B, N, D) with positions, what the first block would read; None likewise.
        selector: the module that scores for `lite`.
        seed: of the scorers that draw. What is drawn is a function of the seed and of the clip's pixels, so that a clip keeps the
            same tokens in every batch, on every device and in every run. None draws from torch's global generator, as dropout does.
        generator: draws from here instead, in the order of the calls.
        extras: what some scorers have to be given: `saliency` (B, T, H, W) or (B, N); `motion_vectors`, `attention`, `oracle`
            (B, N); `position_prior` (N,).
    """

    grid: TokenGrid
    pixel_values: torch.Tensor
    tubelet_size: int
    patch_size: tuple[int, int]
    patch_embeddings: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    selector: torch.nn.Module | None = None
    seed: int | None = 0
    generator: torch.Generator | None = None
    extras: dict[str, Any] = field(default_factory=dict)


SCORERS: dict[str, Callable[[ScorerInputs], torch.Tensor]] = {}
_NEED_EMBEDDINGS: set[str] = set()


def register_scorer(name, needs_embeddings=False):
    """Decorator: makes a function of `ScorerInputs` that returns scores (B, N) known as `scorer=name`.

    Args:
        name: what configurations call it.
        needs_embeddings: it reads `patch_embeddings`, `embeddings` or `selector`. Without, only the kept patches are embedded.
    """

    def add(function):
        SCORERS[name] = function
        if needs_embeddings:
            _NEED_EMBEDDINGS.add(name)
        else:
            _NEED_EMBEDDINGS.discard(name)
        return function

    return add


def needs_embeddings(name):
    """Whether a scorer can only run after all patches are embedded."""
    _check_name(name)
    return name in _NEED_EMBEDDINGS


def score_tokens(name, inputs):
    """Scores (B, N) of a registered scorer, in single precision; higher is kept first.

    Raises:
        TokenSelectionError: no such scorer, something it needs was not given, or it returned another shape.
    """
    _check_name(name)
    scores = SCORERS[name](inputs).float()
    expected = (inputs.pixel_values.shape[0], inputs.grid.num_tokens)
    if tuple(scores.shape) != expected:
        raise TokenSelectionError(
            f"Scorer {name!r} should give one score per clip and token, {expected}, got {tuple(scores.shape)}."
        )
    return scores


def _check_name(name):
    if name not in SCORERS:
        raise TokenSelectionError(f"scorer should be one of {', '.join(sorted(SCORERS))}, got {name!r}.")


# --- choosing ---

# torch 2.6 has no is_exporting, and says is_compiling there
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def num_kept_tokens(num_tokens, keep_ratio):
    """k = floor(P N), at least 1. Exact for ratios as people write them: 0.7 of 10 is 7, though 0.7 * 10 in floats is 6.99...

    Args:
        num_tokens: N.
        keep_ratio: P in (0, 1].

    Raises:
        TokenSelectionError: P is not in (0, 1].
    """
    if not 0.0 < keep_ratio <= 1.0:
        raise TokenSelectionError(f"keep_ratio should be above 0 and at most 1, got {keep_ratio}.")
    # whole numbers of 1e-12: the decimal that was meant, without a type that torch.compile cannot follow
    return max(1, round(keep_ratio * 10**12) * num_tokens // 10**12)


def top_k_indices(scores, k):
    """Indices (B, k) of the k highest scores (B, N) of every clip, in ascending order.

    Among equal scores the lower index wins, so that a choice can be repeated; NaN counts as the lowest. The order of tokens does
    not matter to attention; ascending indices keep reads of memory local.
    """
    if not 1 <= k <= scores.shape[-1]:
        raise TokenSelectionError(f"k should be from 1 to {scores.shape[-1]} tokens, got {k}.")
    scores = torch.nan_to_num(scores.detach().float(), nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    if _exporting():
        # ONNX has no stable sort; its TopK, which a plain one becomes there, lets the lower index win all the same
        ranking = torch.sort(scores, dim=-1, descending=True).indices
    else:
        ranking = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return ranking[:, :k].sort(dim=-1).values


def gather_tokens(tokens, indices):
    """Tokens (B, k, D) at `indices` (B, k) of `tokens` (B, N, D)."""
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def pool_to_tokens(maps, inputs):
    """Mean (B, N) of maps (B, T, H, W) over the pixels of every token; pixels beyond the last whole token do not count."""
    tubelet, (patch_height, patch_width), grid = inputs.tubelet_size, inputs.patch_size, inputs.grid
    maps = maps[:, : grid.frames * tubelet, : grid.height * patch_height, : grid.width * patch_width]
    cells = maps.reshape(-1, grid.frames, tubelet, grid.height, patch_height, grid.width, patch_width)
    return cells.mean(dim=(2, 4, 6)).flatten(1)


# --- scores that know nothing of the clip ---


def _scramble(values):
    """One round of integer mixing on whole numbers of 32 bits (held in 64, where the product cannot overflow)."""
    for _ in range(2):
        values = ((values ^ (values >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return values ^ (values >> 16)


def _clip_keys(pixel_values):
    """A number (B,) of 32 bits from the pixels of each clip; about 4096 of them are read."""
    flat = pixel_values.detach().flatten(1)
    sample = torch.nan_to_num(flat[:, :: max(1, flat.shape[1] // 4096)].float()).clamp(-(2.0**15), 2.0**15)
    bits = (sample * 2.0**16).long() & 0xFFFFFFFF
    places = torch.arange(bits.shape[1], device=bits.device)
    return _scramble(_scramble(bits ^ _scramble(places + 1)).sum(dim=1) & 0xFFFFFFFF)


def draw_uniform(inputs):
    """Numbers (B, N) uniform in [0, 1): see `seed` and `generator` of `ScorerInputs`."""
    clips, tokens, device = inputs.pixel_values.shape[0], inputs.grid.num_tokens, inputs.pixel_values.device
    if inputs.generator is not None:
        return torch.rand(clips, tokens, generator=inputs.generator, device=inputs.generator.device).to(device)
    if inputs.seed is None:
        return torch.rand(clips, tokens, device=device)
    places = _scramble(torch.arange(tokens, device=device) + 1)
    keys = _scramble((_clip_keys(inputs.pixel_values) + _scramble(int(inputs.seed) % 2**32)) & 0xFFFFFFFF)
    drawn = _scramble(keys[:, None] ^ places)
    return (drawn >> 8).float() / 2**24


@register_scorer("random")
def random_scores(inputs):
    """Every subset of k tokens is equally likely. The paper's Principle 1: few cues beat it."""
    return draw_uniform(inputs)


@register_scorer("stratified")
def stratified_scores(inputs):
    """Random within each step of time: every step keeps the same number of tokens, give or take one."""
    frames = inputs.grid.frames
    drawn = draw_uniform(inputs).reshape(-1, frames, inputs.grid.num_tokens // frames)
    rank = drawn.argsort(dim=-1).argsort(dim=-1)
    # the draw of the first token of a step says which steps get the one that is left over
    return (drawn[..., :1] - rank).flatten(1)


@register_scorer("grid")
def grid_scores(inputs):
    """A regular lattice, the same for every clip: a checkerboard at half the tokens, shifted by one token from step to step.

    The order of a Bayer matrix: for any k the kept places are as even as a fixed order allows.
    """
    frames, height, width = inputs.grid
    device = inputs.pixel_values.device
    t = torch.arange(frames, device=device)[:, None, None]
    y = torch.arange(height, device=device)[None, :, None]
    x = torch.arange(width, device=device)[None, None, :] + t
    order = torch.zeros(frames, height, width, dtype=torch.long, device=device)
    # bits of x ^ y and y, the lowest ones deciding first
    for bit in range(max(height, width + frames).bit_length()):
        order = order * 4 + (((x ^ y) >> bit) & 1) * 2 + ((y >> bit) & 1)
    turn = torch.zeros_like(t)
    for bit in range(frames.bit_length()):
        turn = turn * 2 + ((t >> bit) & 1)
    order = (order * 2 ** frames.bit_length() + turn).flatten()
    scores = -order.argsort().argsort().float()
    return scores.expand(inputs.pixel_values.shape[0], -1)


@register_scorer("position_prior")
def position_prior_scores(inputs):
    """One map (N,) for every clip, such as the mean oracle map of the training set: what is left of LITE without the content."""
    prior = _required(inputs, "position_prior", "a score per place (N,): config.position_prior, or selection_extras")
    prior = torch.as_tensor(prior, dtype=torch.float32, device=inputs.pixel_values.device)
    return prior.expand(inputs.pixel_values.shape[0], -1)


# --- scores from the embedding ---


@register_scorer("embedding_norm", needs_embeddings=True)
def embedding_norm_scores(inputs):
    """||E x||, of the patch embedding without position."""
    return inputs.patch_embeddings.float().norm(dim=-1)


@register_scorer("embedding_difference", needs_embeddings=True)
def embedding_difference_scores(inputs):
    """||E x(t) - E x(t-1)|| at the same place (EVEREST, https://huggingface.co/papers/2211.10636); the first step takes that of the second."""
    tokens = inputs.patch_embeddings.float().unflatten(1, (inputs.grid.frames, -1))
    return _since_previous(tokens, lambda now, before: (now - before).norm(dim=-1)).flatten(1)


@register_scorer("lite", needs_embeddings=True)
def lite_scores(inputs):
    """The learned selector on embeddings with positions. Logits: the paper's sigmoid changes no order."""
    if inputs.selector is None:
        raise TokenSelectionError('scorer="lite" needs a selector; the Lite models of this package carry one.')
    return inputs.selector(inputs.embeddings, inputs.grid)


# --- scores from the pixels ---


@register_scorer("frame_difference")
def frame_difference_scores(inputs):
    """Mean |x(f) - x(f-1)| over the pixels and frames of a token: motion where no codec's motion vectors are at hand."""
    frames = inputs.pixel_values.float()
    change = _since_previous(frames, lambda now, before: (now - before).abs().mean(dim=2))
    return pool_to_tokens(change, inputs)


@register_scorer("run_length")
def run_length_scores(inputs):
    """Run-length tokenisation (RLT, https://huggingface.co/papers/2411.05222): what did not change since the previous step goes first.

    A token's value is the mean of |last frame of its step - first frame of the step before|. The first step is kept before all
    others, as in RLT, and within itself by what changes next. With top-k this keeps a fixed number, where RLT keeps every token
    above a threshold: `run_length_kept` counts those.
    """
    change = run_length_changes(inputs).unflatten(1, (inputs.grid.frames, -1))
    if inputs.grid.frames == 1:
        return change.flatten(1)
    first = change[:, 1:2] + change.amax(dim=(1, 2), keepdim=True) + 1.0
    return torch.cat([first, change[:, 1:]], dim=1).flatten(1)


def run_length_changes(inputs):
    """Mean change (B, N) that RLT compares with its threshold; 0 in the first step, which has nothing before it."""
    tubelet, grid = inputs.tubelet_size, inputs.grid
    steps = inputs.pixel_values.float()[:, : grid.frames * tubelet].unflatten(1, (grid.frames, tubelet))
    change = (steps[:, 1:, -1] - steps[:, :-1, 0]).abs().mean(dim=2)
    change = torch.cat([torch.zeros_like(steps[:, :1, 0].mean(dim=2)), change], dim=1)
    return pool_to_tokens(change.repeat_interleave(tubelet, dim=1), inputs)


def run_length_kept(inputs, threshold=0.1):
    """Number of tokens (B,) that RLT keeps: the first step, and whatever changed by more than `threshold`.

    The threshold is in units of `pixel_values`; the published 0.1 is meant for ImageNet's mean and deviation.
    """
    moved = run_length_changes(inputs).unflatten(1, (inputs.grid.frames, -1)) > threshold
    return inputs.grid.num_tokens // inputs.grid.frames + moved[:, 1:].sum(dim=(1, 2))


@register_scorer("saliency")
def saliency_scores(inputs):
    """A saliency map per frame, averaged over each token: the one given as `saliency`, else the spectral residual."""
    saliency = inputs.extras.get("saliency")
    if saliency is None:
        saliency = spectral_residual(inputs.pixel_values)
    elif saliency.ndim == 2:
        return _required(inputs, "saliency", "(B, N)")
    saliency = saliency.to(device=inputs.pixel_values.device, dtype=torch.float32)
    if saliency.shape != inputs.pixel_values[:, :, 0].shape:
        raise TokenSelectionError(
            f"selection_extras['saliency'] should be (B, N) or (B, T, H, W) = {tuple(inputs.pixel_values[:, :, 0].shape)}, "
            f"got {tuple(saliency.shape)}."
        )
    return pool_to_tokens(saliency, inputs)


def spectral_residual(pixel_values, size=64):
    """Training-free saliency (B, T, H, W) of single frames: the spectral residual (Hou and Zhang, CVPR 2007).

    On the mean of the channels at `size` x `size` pixels: S = G * |F^-1(exp(log A - box(log A) + i phase))|^2, with A and phase of the
    Fourier transform, a 3 x 3 box and a Gaussian G of 2.5 pixels.
    """
    height, width = pixel_values.shape[-2:]
    grey = pixel_values.float().mean(dim=2).flatten(0, 1).unsqueeze(1)
    grey = torch.nn.functional.interpolate(grey, size=(size, size), mode="bilinear", antialias=True)
    spectrum = torch.fft.fft2(grey)
    amplitude = spectrum.abs()
    logs = torch.log(amplitude + 1e-6)
    around = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(logs, (1, 1, 1, 1), mode="circular"), 3, stride=1)
    residual = torch.exp(logs - around)
    map_ = torch.fft.ifft2(residual * spectrum / (amplitude + 1e-6)).abs().square()
    taps = torch.exp(-0.5 * (torch.arange(-7, 8, device=grey.device) / 2.5).square())
    taps = taps / taps.sum()
    map_ = torch.nn.functional.conv2d(map_, taps[None, None, :, None], padding=(7, 0))
    map_ = torch.nn.functional.conv2d(map_, taps[None, None, None, :], padding=(0, 7))
    map_ = torch.nn.functional.interpolate(map_, size=(height, width), mode="bilinear")
    return map_.squeeze(1).unflatten(0, pixel_values.shape[:2])


# --- scores that come from elsewhere ---


@register_scorer("motion_vectors")
def motion_vector_scores(inputs):
    """Mean length of the codec's motion vectors over each token."""
    return _required(inputs, "motion_vectors", "read from the file's codec")


@register_scorer("attention")
def attention_scores(inputs):
    """Attention that a token receives in a full pass, mean over heads and queries. To analyse, not to save: it costs that pass."""
    return _required(inputs, "attention", "from a full pass")


@register_scorer("oracle")
def oracle_scores(inputs):
    """Given scores, such as the Grad-CAM values that the selector learns from."""
    return _required(inputs, "oracle", "from an oracle of token importance")


def _required(inputs, name, what):
    given = inputs.extras.get(name)
    if given is None:
        raise TokenSelectionError(f"This scorer needs selection_extras[{name!r}], {what}; none was given.")
    expected = (inputs.pixel_values.shape[0], inputs.grid.num_tokens)
    shape = tuple(getattr(given, "shape", None) or (len(given),))
    if shape != (expected if name != "position_prior" else expected[1:]):
        wanted = expected if name != "position_prior" else expected[1:]
        raise TokenSelectionError(
            f"selection_extras[{name!r}] should be {wanted} for the grid {tuple(inputs.grid)}, got {shape}."
        )
    return given.to(inputs.pixel_values.device) if isinstance(given, torch.Tensor) else given


def _since_previous(steps, distance):
    """`distance(step, step before)` along dimension 1; the first takes the value of the second, a single one gets zeros."""
    if steps.shape[1] == 1:
        return torch.zeros_like(distance(steps, steps))
    change = distance(steps[:, 1:], steps[:, :-1])
    return torch.cat([change[:, :1], change], dim=1)
