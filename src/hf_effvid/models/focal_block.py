# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""One block of Video-FocalNet on the processor without gradients: one new tensor of its size, everything else in pieces.

    y = x + s1 out(q(n) * m_space(n) * m_time(n)),  n = LN(x);    result = y + s2 MLP(LN(y))

(with layer norms after modulation and MLP instead, where a configuration asks for that).

Operation by operation, half a dozen tensors as large as x come and go. The C library gives blocks of that size back to the system and
gets them again as pages to be cleared, which in the first stage takes as long as the products. Here the modulation in space goes over
some frames at a time, that in time over some sites at a time, the MLP over some rows at a time, and each writes its part of the result
where it belongs. The numbers are those of the same operations one after the other.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import nn

from .fast_temporal_convolution import temporal_convolution_gelu
from .focal_branch import gated_sum, in_space, in_time
from .processor_libraries import in_one_type


# What is worked on at a time, for each thread, in bytes of one tensor: what a core's own caches hold, more or less. It is also what
# the C library hands out again and again.
PIECE_BYTES = 2 << 20
MLP_PIECE_BYTES = 2 << 20
# ... but several times the size of the weights, which every piece rearranges anew
WEIGHT_MULTIPLE = 4


class FocalBlockParts(NamedTuple):
    """Modules of a block, each of them nothing but its published computation.

    Args:
        norm1, norm2: Layer norms before modulation and MLP, or after them with `postln`.
        projection_in: (2 C + L + 1, C): query, context and gates.
        projection_in_temporal: (C + L + 1, C): context and gates of the branch in time; None without one.
        spatial_kernels, temporal_kernels: L kernels (C, 1, k, k) and (C, C, k).
        projection_context, projection_context_temporal: (C, C), from gathered contexts to modulators.
        norm: Of the modulated query; may be the identity.
        projection_out: (C, C).
        fc1, fc2: Of the MLP.
        scale1, scale2: (C,) or None, of the two residual branches.
        normalize: Divide gathered contexts by L + 1.
        postln: See above.
    """

    norm1: nn.Module
    projection_in: nn.Linear
    projection_in_temporal: nn.Linear | None
    spatial_kernels: list[nn.Parameter]
    temporal_kernels: list[nn.Parameter]
    projection_context: nn.Linear
    projection_context_temporal: nn.Linear | None
    norm: nn.Module
    projection_out: nn.Linear
    norm2: nn.Module
    fc1: nn.Linear
    fc2: nn.Linear
    scale1: nn.Parameter | None
    scale2: nn.Parameter | None
    normalize: bool
    postln: bool


def focal_block(library, parts, hidden_states, grid):
    """The block's output for tokens (B, T * N, C) on a grid (T, H, W). `library`: one of `processor_libraries`."""
    hidden_states = hidden_states.contiguous()
    result = torch.empty_like(hidden_states, dtype=_result_type(parts, hidden_states))
    _modulate(library, parts, hidden_states, grid, result)
    _add_mlp(library, parts, result)
    return result


def num_mlp_pieces(rows, weight):
    """In how many pieces an MLP goes over so many rows. `weight`: (hidden, C), of its first layer."""
    return _num_pieces(rows * weight.shape[0] * weight.element_size(), MLP_PIECE_BYTES, weight.nbytes)


def _num_pieces(num_bytes, piece_bytes, weight_bytes):
    """Each piece rearranges the weights anew, so it has to be several times as large as they are."""
    return max(1, math.ceil(num_bytes / max(piece_bytes * torch.get_num_threads(), WEIGHT_MULTIPLE * weight_bytes)))


def _result_type(parts, hidden_states):
    """What sums of the tokens and the branches have: under autocast, branches and scales may be of other types than the tokens."""
    others = (*in_one_type(parts.projection_out.weight), parts.scale1, parts.scale2)
    return functools.reduce(
        torch.promote_types, [tensor.dtype for tensor in others if tensor is not None], hidden_states.dtype
    )


def _modulate(library, parts, hidden_states, grid, result):
    """Writes y into the result."""
    (steps, height, width), (batch, _, channels) = grid, hidden_states.shape
    kernels = parts.spatial_kernels if parts.projection_in_temporal is None else parts.temporal_kernels
    pieces = _num_pieces(hidden_states.nbytes, PIECE_BYTES, sum(kernel.nbytes for kernel in kernels))
    # one piece is normalised once for both branches; several are too much to keep
    before, _ = _norms(parts.norm1, parts.postln)
    normed = before(hidden_states) if pieces == 1 else None
    frames, tracks = (batch * steps, height, width, channels), (batch, steps, height * width, channels)
    divisor = len(kernels) + 1 if parts.normalize else 1

    finish = functools.partial(_finish, library, parts, _linear(parts.projection_out))
    space = in_space(list(in_one_type(*parts.spatial_kernels)), divisor)
    query, *contexts = _parts_of(parts.projection_in, channels, channels)
    project = _linear(parts.projection_context)
    for tokens, residual, target in _pieces((normed, hidden_states, result), frames, pieces, 0, before):
        modulator = _modulator(library, space, tokens, *contexts, project)
        modulated = library.linear(tokens, *query, False)
        if parts.projection_in_temporal is None:
            finish(modulated.mul_(modulator), residual, target)
        else:
            torch.mul(modulated, modulator, out=target)
    if parts.projection_in_temporal is None:
        return

    time = in_time(in_one_type(*parts.temporal_kernels), divisor)
    context, gates = _parts_of(parts.projection_in_temporal, channels)
    folded = None
    if time.kernels:
        folded = library.folded(*context, parts.temporal_kernels[0], steps, batch * height * width)
    if folded is not None:
        time, context = time._replace(first=functools.partial(_convolve, library, folded)), None
    project = _linear(parts.projection_context_temporal)
    for tokens, residual, target in _pieces((normed, hidden_states, result), tracks, pieces, 2, before):
        modulated = _modulator(library, time, tokens, context, gates, project).mul_(target)
        finish(modulated, residual, target)


def _modulator(library, branch, tokens, context, gates, project):
    """Projection of the gated sum for normalised tokens. `context`: weight and bias; None where the first convolution has them."""
    gates = library.linear(tokens, *gates, False)
    # nothing here keeps the projected context, which is as large as the piece: the sum lets go of it after its first level
    gathered = gated_sum(
        library, branch, tokens if context is None else library.linear(tokens, *context, False), gates, False
    )
    return library.linear(gathered, *project, False)


def _finish(library, parts, project, modulated, residual, target):
    """Writes x + s1 out(...) where it belongs."""
    _, after = _norms(parts.norm1, parts.postln)
    branch = after(library.linear(*in_one_type(parts.norm(modulated)), *project, False))
    torch.add(residual, branch if parts.scale1 is None else branch * parts.scale1, out=target)


def _add_mlp(library, parts, result):
    """Adds the MLP's output to y, in place."""
    before, after = _norms(parts.norm2, parts.postln)
    expand, contract = _linear(parts.fc1), _linear(parts.fc2)
    rows = result.view(-1, result.shape[-1])
    for piece in rows.chunk(num_mlp_pieces(len(rows), expand[0])):
        hidden = library.linear_gelu(*in_one_type(before(piece)), *expand, False)
        branch = after(library.linear(hidden, *contract, False))
        piece.add_(branch if parts.scale2 is None else branch * parts.scale2)


def _norms(norm, postln):
    """What is done before and after a branch."""
    return (_as_it_is, norm) if postln else (norm, _as_it_is)


def _as_it_is(tokens):
    return tokens


def _convolve(library, folded, tokens):
    return temporal_convolution_gelu(tokens, folded.kernel, library, folded.tap_biases)


def _linear(module):
    return in_one_type(module.weight, module.bias)


def _parts_of(module, *sizes):
    """Weights and biases of the parts of a linear layer, the last of which is what the sizes leave."""
    weight, bias = _linear(module)
    sizes = [*sizes, len(weight) - sum(sizes)]
    biases = [None] * len(sizes) if bias is None else bias.split(sizes)
    return list(zip(weight.split(sizes), biases, strict=True))


def _pieces(tensors, shape, pieces, dim, norm):
    """(normalised tokens, residual, target) of each piece; tokens that have not been normalised are None and are here."""
    normed, *others = tensors
    views = [tensor.view(shape) for tensor in others]
    if normed is not None:
        yield (*in_one_type(normed.view(shape)), *views)
        return
    for residual, target in zip(*(view.chunk(pieces, dim) for view in views), strict=True):
        yield (*in_one_type(norm(residual).contiguous()), residual, target)
